"""The journal's one writer: a record is appended in order, and nothing follows from it before it is known to count.

An append that fails is an unknown outcome: the process ends, and its restart reads the truth from the log. One that
lands where it should not was preceded by another writer: what that one wrote says who of the two is the owner.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from tollgate.errors import Unreadable
from tollgate.events import Admitted, AttemptStarted, CostsBooked, Ended, Event, OwnerTook, decode, encode
from tollgate.failpoints import reached
from tollgate.log import Position
from tollgate.processors.ledger import Ledger, evolve, put_back, shift, take_checkpoint
from tollgate.processors.world import World

MARK_EVERY_EVENTS = 1_000  # of `requests` from which nothing followed: a take-over reads them again

WriteRows = Callable[[Mapping[str, bytes | None]], Awaitable[None]]


class Writer:
    """The writing side of one partition: its ledger, its records on their way, its checkpoint."""

    def __init__(self, partition: int, world: World) -> None:
        self.partition = partition
        self.ledger = Ledger(partition)
        self._world = world
        self._flying: deque[_Flight] = deque()  # appends whose place is not yet certain
        self._last: asyncio.Future[Position] | None = None  # the newest of them
        self._certain_s = 0.0  # when the newest record was sent that landed where it should
        self._gap: asyncio.Task[None] | None = None
        self._shifts = 0
        self._copies: set[asyncio.Future[Position]] = set()  # cost lines on their way to `costs`
        self._passed = -1  # the event of `requests` up to which it says that none need be given again
        self._marked = -1  # the journal offset that the newest mark names
        self._marked_s = world.clock_s()  # when that was written
        self._closed = False

    def _append(self, event: Event) -> asyncio.Future[Position]:
        """Write to the journal, and evolve at once: a sole writer knows where its record will land.

        The future is done when the record is durable and known to be valid; nothing may follow from it before.
        """
        landed: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        flight = _Flight(self.ledger.next_offset, event, landed, self._world.clock_s())
        evolve(self.ledger, flight.expected, event)
        self._flying.append(flight)
        self._last = flight.landed
        future = asyncio.ensure_future(
            self._world.log.append("completions", _key(event), encode(event), partition=self.partition)
        )
        future.add_done_callback(partial(self._landed, flight))
        return flight.landed

    def _landed(self, flight: "_Flight", future: asyncio.Future[Position]) -> None:
        if not succeeded(future):
            self._world.fatal(f"an append to the journal of partition {self.partition} has an unknown outcome")
            return
        flight.position = future.result()
        if self._gap is None:
            self._settle()

    def _settle(self) -> None:
        """Let follow what follows from records that landed where they were expected, in order."""
        while self._flying and (position := self._flying[0].position) is not None:
            flight = self._flying[0]
            if position.offset != flight.expected:
                self._gap = asyncio.get_running_loop().create_task(self._explain(flight.expected, position.offset))
                self._gap.add_done_callback(self._explained)
                return
            self._flying.popleft()
            self._certain_s = flight.sent_s
            self._copy_costs(flight.event, position.offset)
            self._world.counts.durable(flight.event)
            if not flight.landed.done():
                flight.landed.set_result(position)

    async def _explain(self, expected: int, actual: int) -> None:
        """Somebody else has written in between. A new owner: then this one is none, and its records are not valid.

        A former owner that does not know it yet: then its records are not valid, and only offsets have shifted.
        """
        async for records in self._world.log.scan("completions", self.partition, expected, actual):
            for record in records:
                with contextlib.suppress(Unreadable):
                    if isinstance(decode(record.value or b""), OwnerTook):
                        self._world.fatal(f"partition {self.partition} has another owner since {record.offset}")
        self._world.counts.gaps += 1
        shift(self.ledger, expected, actual - expected)
        for flight in self._flying:
            flight.expected += actual - expected
        self._shifts += 1

    def _explained(self, task: asyncio.Task[None]) -> None:
        self._gap = None
        if not task.cancelled() and (error := task.exception()) is not None:
            self._world.fatal(f"a gap in the journal of partition {self.partition} cannot be read: {error}")
        else:
            self._settle()

    async def _landed_so_far(self) -> None:
        """Return when what was appended to the journal is durable, and what follows from it at once has begun."""
        if self._last is not None:
            await asyncio.shield(self._last)
            await asyncio.sleep(0)  # a future that is done has its callbacks (`_landed`, `_admitted`) still before it

    def _copy_costs(self, event: Event, offset: int) -> None:
        """Copy the cost lines of a durable journal record to `costs`; a copy of a copy changes nothing."""
        if not isinstance(event, Ended):
            return
        request = event.request
        for attempt in event.attempts:
            if attempt.lines:
                booked = CostsBooked(
                    request_id=request.request_id,
                    org_id=request.org_id,
                    attempt=attempt.attempt,
                    revision=0,
                    provider=attempt.provider,
                    account=attempt.account,
                    model=attempt.served_model or attempt.model,
                    journal_offset=offset,
                    lines=attempt.lines,
                )
                copy = asyncio.ensure_future(
                    self._world.log.append(
                        "costs", request.org_id.encode(), encode(booked), partition=self.partition, linger=True
                    )
                )
                self._copies.add(copy)
                copy.add_done_callback(self._copied)

    def _copied(self, future: asyncio.Future[Position]) -> None:
        self._copies.discard(future)
        if not succeeded(future):
            self._world.fatal("a cost line could not be copied; the restart copies it from the journal")
        reached("costs.copied")

    async def checkpoint(self, write_rows: WriteRows) -> None:
        """Write what has changed since the last time: all rows, and when they are durable, the mark.

        The rows are taken at one instant and written only when every journal record that they include is durable,
        and every cost line of those records is copied. If it fails or is cancelled, the next one writes them.
        """
        passed = self.ledger.handled - self._passed
        if self._closed or (self.ledger.next_offset == self._marked and passed < MARK_EVERY_EVENTS):
            return
        self._passed = self.ledger.handled
        checkpoint = take_checkpoint(self.ledger)
        marked, self._marked = self._marked, self.ledger.next_offset
        shifts = self._shifts
        try:
            await self._landed_so_far()
            if shifts != self._shifts:  # the rows name offsets at which nothing landed: the next checkpoint writes them
                self._marked = marked
                put_back(self.ledger, checkpoint)
                return
            if self._copies:
                await asyncio.gather(*map(asyncio.shield, self._copies))
            reached("checkpoint.before")
            await write_rows(checkpoint.rows)
            reached("checkpoint.rows")
            await write_rows(checkpoint.mark)
            self._marked_s = self._world.clock_s()
            reached("checkpoint.marked")
            if checkpoint.obsolete:
                await write_rows(checkpoint.obsolete)
        except BaseException:
            self._marked = marked
            put_back(self.ledger, checkpoint)
            raise

    @property
    def checkpoint_age_s(self) -> float:
        """How old the newest checkpoint is; 0 when nothing has changed since."""
        return 0.0 if self.ledger.next_offset == self._marked else self._world.clock_s() - self._marked_s

    async def _send(self, topic: str, key: bytes | None, event: Event) -> Position:
        return await self._world.log.append(topic, key, encode(event), partition=self.partition)


class _Flight:
    """A record on its way to the journal: where it should land, and what waits for it."""

    __slots__ = ("event", "expected", "landed", "position", "sent_s")

    def __init__(self, expected: int, event: Event, landed: asyncio.Future[Position], sent_s: float) -> None:
        self.expected = expected
        self.event = event
        self.landed = landed
        self.sent_s = sent_s
        self.position: Position | None = None


def succeeded(future: asyncio.Future[Position]) -> bool:
    return not future.cancelled() and future.exception() is None


def _key(event: Event) -> bytes:
    match event:
        case Admitted() | Ended():
            return event.request.org_id.encode()
        case AttemptStarted():
            return event.org_id.encode()
        case _:
            return b""
