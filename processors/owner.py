"""The one writer of one partition: it takes events in order, decides, appends, and lets the calls run.

    requests ──▶ decide (pure) ──▶ journal ──ack──▶ call ──▶ journal ──ack──▶ last bytes
                     ▲ ledger: the fold of the journal, evolved before anything is awaited

Nothing has an effect before the record that allows it is durable. An append that fails, or lands where it should not,
is an unknown outcome: the process ends, and its restart reads the truth from the log.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from traceback import format_tb

import msgspec
import orjson

from tollgate.config import Config
from tollgate.control import Control, command_reply
from tollgate.control import decide as decide_command
from tollgate.errors import Refusal, TollgateError, Unreadable
from tollgate.events import (
    Admitted,
    Attempt,
    AttemptStarted,
    AuditRecorded,
    CancelRequested,
    CommandIssued,
    CostsBooked,
    DeadLetter,
    Ended,
    Event,
    Limits,
    OwnerTook,
    Request,
    RequestAccepted,
    decode,
    encode,
)
from tollgate.failpoints import reached
from tollgate.keys import ADMIN
from tollgate.log import Log, Position
from tollgate.prices.book import PriceBook
from tollgate.prices.rate import estimate_line
from tollgate.processors.admit import Policy, decide, period_of, reject
from tollgate.processors.call import Call, Ending, Job
from tollgate.processors.ledger import Ledger, OpenRequest, evolve, from_rows, put_back, take_checkpoint
from tollgate.processors.route.plan import Route, plan
from tollgate.processors.upstream import Transport
from tollgate.replies import Mailbox, Reply
from tollgate.sealed import Sealer
from tollgate.wire import Ask
from tollgate.wire.exchange import WIRES

log = logging.getLogger(__name__)

MAX_CALLS = 4_000  # of one owner; the events of further requests wait on the log
SEAL_PATIENCE_S = 2.0  # then the body cannot be opened, and the request fails
CONTROL_PATIENCE_S = 5.0  # then it is said that the control topic is behind

Ack = Callable[[], object]
WriteRows = Callable[[Mapping[str, bytes | None]], Awaitable[None]]


class World(msgspec.Struct, frozen=True, kw_only=True):
    """Everything outside that an owner touches, so that a test or a simulation can bring its own."""

    log: Log
    replies: Mailbox
    control: Control
    sealer: Sealer
    config: Config
    book: PriceBook
    transports: Mapping[tuple[str, str], Transport]
    instance: str
    address: str  # of the replies in this life of the process
    fatal: Callable[[str], None]  # ends the process; the restart reads the truth
    draw: Callable[[], float]
    now_ms: Callable[[], int]  # for durations and deadlines; decisions take the log's time


class Owner:
    """The writer of one partition, from take-over to hand-over."""

    def __init__(self, partition: int, world: World) -> None:
        self.partition = partition
        self.ledger = Ledger(partition)
        self._world = world
        self._policy = Policy(
            default_max_tokens=world.config.limits.default_max_tokens,
            reject_missing_max_tokens=world.config.limits.on_missing_max_tokens == "reject",
            unpriced_hold_pusd=(
                world.config.limits.unpriced_hold_pusd if world.config.limits.unpriced == "hold" else None
            ),
        )
        self._fallback_on = frozenset(world.config.routing.fallback_on)
        self._now_ms = 0  # the log's time: never lower than before
        self._calls: dict[str, Call] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._room.set()
        self._last: asyncio.Future[Position] | None = None  # the newest journal append
        self._copies: set[asyncio.Future[Position]] = set()  # cost lines on their way to `costs`
        self._marked = -1  # the journal offset that the newest mark names
        self._closed = False

    # Take-over -----------------------------------------------------------------------------------------------------

    async def take_over(self, rows: Iterable[tuple[str, bytes]]) -> int:
        """Become the writer; return the offset of `requests` to go on from.

        The state is the checkpoint and what the journal says after it. Requests that were open have lost their call
        with the process that ran it: they end as abandoned, at the most that they can have cost.
        """
        world = self._world
        ledger = self.ledger = from_rows(self.partition, rows)
        took = await self._send("completions", None, OwnerTook(instance=world.instance, address=world.address))
        reached("takeover.took")
        async for records in world.log.scan("completions", self.partition, ledger.next_offset, took.offset + 1):
            for record in records:
                self._now_ms = max(self._now_ms, record.timestamp_ms)
                try:
                    event = decode(record.value or b"")
                except Unreadable as error:
                    log.error("journal %d/%d is unreadable: %s", self.partition, record.offset, error)
                    ledger.next_offset = record.offset + 1
                    continue
                if evolve(ledger, record.offset, event):
                    self._copy_costs(event, record.offset)
        if ledger.epoch != took.offset:
            raise TollgateError(f"the journal of partition {self.partition} does not hold what was just appended to it")
        for request in list(ledger.open.values()):
            self._abandon(request)
        if self._last is not None:
            await self._last
        return ledger.decided + 1

    def _abandon(self, request: OpenRequest) -> None:
        admitted = request.admitted
        candidate = admitted.plan[request.attempt - 1]
        lost = Attempt(
            attempt=request.attempt,
            provider=candidate.provider,
            account=candidate.account,
            model=candidate.model,
            outcome="abandoned",
            reason="the process that made the call ended before its outcome was written",
            usage_source="missing",
            lines=(estimate_line(candidate.bound_pusd or 0, admitted.price_version),),
        )
        self._append_end(
            request,
            Ending(
                status="abandoned",
                http_status=502,
                attempts=(*request.previous, lost),
                error="abandoned",
                reason="the gateway was restarted in the middle of the request",
            ),
        )

    async def close(self, reason: str) -> None:
        """Decide nothing more, end what is under way, and return when its ends are durable."""
        self._closed = True
        with contextlib.suppress(TollgateError):
            await self._landed_so_far()  # what was admitted last is a call by now, which can be cancelled
        for call in list(self._calls.values()):
            call.cancel(reason)
        if self._tasks:
            await asyncio.wait(self._tasks)
        with contextlib.suppress(TollgateError):
            await self._landed_so_far()

    @property
    def calls(self) -> int:
        return len(self._calls)

    # Events of `requests`, in order -----------------------------------------------------------------------------------

    def receive(self, src: int, timestamp_ms: int, value: bytes, ack: Ack) -> Awaitable[None] | None:
        """Take the event at offset `src`. What is returned must be awaited before the next event is given.

        `ack` is called when the event need not be delivered again, which may be later. Never raises.
        """
        if self._closed:
            return None
        self._now_ms = max(self._now_ms, timestamp_ms)
        try:
            event = decode(value)
        except Unreadable as error:
            self._bury(src, value, str(error), ack)
            return None
        match event:
            case RequestAccepted():
                if src <= self.ledger.decided:  # decided in an earlier life
                    ack()
                elif not self._can_decide(event):
                    return self._decide_later(event, src, ack)
                else:
                    self._decide(event, src, ack)
            case CancelRequested():
                call = self._calls.get(event.request_id)
                if call is not None:
                    call.cancel(event.reason)
                ack()
            case CommandIssued():
                return self._command(event, src, ack)
            case _:
                self._bury(src, value, f"{type(event).__name__} does not belong on this topic", ack)
        return None

    def _can_decide(self, accepted: RequestAccepted) -> bool:
        """Is everything here that the decision needs: room, the control state of its ingress, the key to its body?"""
        world = self._world
        return (
            accepted.control_offset <= world.control.offset
            and self._room.is_set()
            and world.sealer.knows(accepted.seal)
        )

    async def _decide_later(self, accepted: RequestAccepted, src: int, ack: Ack) -> None:
        await self._room.wait()
        await self._applied(accepted.control_offset)
        await self._world.sealer.wait_for(accepted.seal, timeout_s=SEAL_PATIENCE_S)
        if not self._closed:
            self._decide(accepted, src, ack)

    def _decide(self, accepted: RequestAccepted, src: int, ack: Ack) -> None:
        """Decide and evolve without awaiting in between, so that nobody decides on stale state."""
        received = time.perf_counter()
        request = accepted.request
        waiting = self._world.replies.is_waiting(request.reply_to, request.request_id)
        if waiting is False:
            self._append(self._nobody_waits(request, src)).add_done_callback(partial(_when_durable, ack))
            return
        try:
            body = orjson.loads(
                self._world.sealer.open(accepted.seal, request.org_id, request.request_id, accepted.body)
            )
            ask = WIRES[request.dialect].ask(body)
            route = self._route(request, body)
            limits = self._limits(request.key_id)
            decision = decide(
                self.ledger,
                request,
                ask,
                route,
                limits=limits,
                policy=self._policy,
                src=src,
                now_ms=self._now_ms,
                price_version=self._world.book.version,
            )
        except Exception as error:  # one request that cannot be decided must not stop the partition
            self._refuse(accepted, _refusal_for(error), src, ack, headers=())
            return
        if decision.refusal is not None or isinstance(decision.record, Ended):
            refusal = decision.refusal or Refusal(500, "internal_error", "refused", type="server_error")
            self._refuse(accepted, refusal, src, ack, headers=decision.headers, record=decision.record)
            return
        appended = self._append(decision.record)
        reached("owner.decided")
        job = Job(
            request=self.ledger.open[request.request_id],
            body=body,
            ask=ask,
            headers=accepted.headers,
            seal=accepted.seal,
            reply_headers=decision.headers,
            reason=route.reason if isinstance(route, Route) else "",
            priced_ms=self._now_ms,
            received=received,
        )
        appended.add_done_callback(partial(self._admitted, job, ack))

    def _route(self, request: Request, body: dict[str, object]) -> Route | Refusal:
        return plan(
            request.model,
            body,
            dialect=request.dialect,
            config=self._world.config,
            book=self._world.book,
            at_ms=self._now_ms,
            draw=self._world.draw(),
        )

    def _limits(self, key_id: str) -> Limits:
        """The key's limits as of now. Raises `Refusal` when it was revoked after its request was accepted."""
        if key_id == ADMIN:
            return Limits()
        key = self._world.control.key(key_id)
        if key is None or key.revoked_ms is not None:
            raise Refusal(
                401,
                "invalid_api_key",
                "This key has been revoked.",
                type="authentication_error",
                headers={"x-should-retry": "false"},
            )
        return key.limits

    def _nobody_waits(self, request: Request, src: int) -> Ended:
        """The client left before anything was decided: with its connection, or with an earlier life of the ingress."""
        here = request.reply_to == self._world.address
        return Ended(
            epoch=self.ledger.epoch,
            src=src,
            request=request,
            status="cancelled" if here else "abandoned",
            http_status=499 if here else 502,
            period=period_of(self._now_ms),
            error="client_closed_request" if here else "abandoned",
            reason="nobody waited for the answer any more when its turn came",
            price_version=self._world.book.version,
        )

    def _refuse(
        self,
        accepted: RequestAccepted,
        refusal: Refusal,
        src: int,
        ack: Ack,
        *,
        headers: tuple[tuple[str, str], ...],
        record: Event | None = None,
    ) -> None:
        request = accepted.request
        ended = record or reject(
            self.ledger.epoch,
            request,
            refusal,
            src=src,
            period=period_of(self._now_ms),
            price_version=self._world.book.version,
        )
        reply = Reply(
            request_id=request.request_id,
            org_id=request.org_id,
            seal=accepted.seal,
            epoch=self.ledger.epoch,
            attempt=0,
            seq=0,
            status=refusal.status,
            headers=(("content-type", "application/json"), *(headers or tuple(refusal.headers.items()))),
            body=WIRES[request.dialect].error_body(refusal, request.request_id),
            last=True,
        )

        def refused(future: asyncio.Future[Position]) -> None:
            if _succeeded(future):
                ack()
                self._world.replies.send(request.reply_to, reply)

        self._append(ended).add_done_callback(refused)

    def _admitted(self, job: Job, ack: Ack, future: asyncio.Future[Position]) -> None:
        """The admission is durable: the intent of attempt 1 is on record, so it may be made."""
        if not _succeeded(future):
            return
        reached("owner.admitted")
        ack()
        request = job.request.admitted.request
        call = Call(
            job,
            books=self,
            book=self._world.book,
            providers=self._world.config.providers,
            transports=self._world.transports,
            replies=self._world.replies,
            fallback_on=self._fallback_on,
            now_ms=self._world.now_ms,
        )
        self._calls[request.request_id] = call
        if len(self._calls) >= MAX_CALLS:
            self._room.clear()
        task = call.start()
        self._tasks.add(task)
        task.add_done_callback(partial(self._finished, request.request_id))
        if self._world.replies.is_waiting(request.reply_to, request.request_id) is False:
            call.cancel("the client hung up")

    def _finished(self, request_id: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._calls.pop(request_id, None)
        self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            trace = "".join(format_tb(error.__traceback__))
            self._world.fatal(f"a call ended without its end: {type(error).__name__}\n{trace}")

    # The books: what calls ask for ------------------------------------------------------------------------------------

    async def start_attempt(self, request: OpenRequest, attempt: int, previous: Attempt) -> None:
        facts = request.admitted.request
        started = AttemptStarted(
            epoch=self.ledger.epoch,
            request_id=facts.request_id,
            org_id=facts.org_id,
            attempt=attempt,
            previous=previous,
        )
        await asyncio.shield(self._append(started))

    async def end(self, request: OpenRequest, ending: Ending) -> None:
        appended = self._append_end(request, ending)
        reached("end.appended")
        await appended
        reached("end.durable")

    def _append_end(self, request: OpenRequest, ending: Ending) -> asyncio.Future[Position]:
        admitted = request.admitted
        lines = [line for attempt in ending.attempts for line in attempt.lines]
        return self._append(
            Ended(
                epoch=self.ledger.epoch,
                request=admitted.request,
                status=ending.status,
                http_status=ending.http_status,
                period=admitted.period,
                subjects=admitted.subjects,
                error=ending.error,
                reason=ending.reason,
                attempts=ending.attempts,
                price_version=admitted.price_version,
                hold_pusd=admitted.hold_pusd,
                cost_pusd=sum(line.cost_pusd for line in lines),
                bill_pusd=sum(line.bill_pusd for line in lines),
                latency_ms=max(0, self._world.now_ms() - admitted.request.accepted_ms),
                ttft_ms=ending.ttft_ms,
                overhead_us=ending.overhead_us,
            )
        )

    def _append(self, event: Event) -> asyncio.Future[Position]:
        """Write to the journal, and evolve at once: a sole writer knows where its record will land."""
        offset = self.ledger.next_offset
        evolve(self.ledger, offset, event)
        future = asyncio.ensure_future(
            self._world.log.append("completions", _key(event), encode(event), partition=self.partition)
        )
        future.add_done_callback(partial(self._landed, offset, event))
        self._last = future
        return future

    def _landed(self, expected: int, event: Event, future: asyncio.Future[Position]) -> None:
        if not _succeeded(future):
            self._world.fatal(f"an append to the journal of partition {self.partition} has an unknown outcome")
        elif future.result().offset != expected:
            self._world.fatal(f"somebody else writes to the journal of partition {self.partition}")
        else:
            self._copy_costs(event, expected)

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
                    self._world.log.append("costs", request.org_id.encode(), encode(booked), partition=self.partition)
                )
                self._copies.add(copy)
                copy.add_done_callback(self._copied)

    def _copied(self, future: asyncio.Future[Position]) -> None:
        self._copies.discard(future)
        if not _succeeded(future):
            self._world.fatal("a cost line could not be copied; the restart copies it from the journal")
        reached("costs.copied")

    # Checkpoint -------------------------------------------------------------------------------------------------------

    async def checkpoint(self, write_rows: WriteRows) -> None:
        """Write what has changed since the last time: all rows, and when they are durable, the mark.

        The rows are taken at one instant and written only when every journal record that they include is durable,
        and every cost line of those records is copied. If it fails or is cancelled, the next one writes them.
        """
        if self._closed or self.ledger.next_offset == self._marked:
            return
        checkpoint = take_checkpoint(self.ledger)
        marked, self._marked = self._marked, self.ledger.next_offset
        try:
            await self._landed_so_far()
            if self._copies:
                await asyncio.gather(*map(asyncio.shield, self._copies))
            reached("checkpoint.before")
            await write_rows(checkpoint.rows)
            reached("checkpoint.rows")
            await write_rows(checkpoint.mark)
            reached("checkpoint.marked")
            if checkpoint.obsolete:
                await write_rows(checkpoint.obsolete)
        except BaseException:
            self._marked = marked
            put_back(self.ledger, checkpoint)
            raise

    async def _landed_so_far(self) -> None:
        """Return when what was appended to the journal is durable, and what follows from it at once has begun."""
        if self._last is not None:
            await asyncio.shield(self._last)
            await asyncio.sleep(0)  # a future that is done has its callbacks (`_landed`, `_admitted`) still before it

    # Commands and letters ---------------------------------------------------------------------------------------------

    async def _command(self, command: CommandIssued, src: int, ack: Ack) -> None:
        """Change the control state. The partition waits until the change is durable: then `src` counts as decided
        for whoever takes over, because later decisions of this partition lie behind it.
        """
        world = self._world
        decided = decide_command(world.control, command, src=src, now_ms=self._now_ms)
        if decided is None:  # applied in an earlier life, whose client is gone
            ack()
            return
        applied: int | None = None
        if not isinstance(decided, Refusal):
            applied = (await world.log.append("control", decided.key_id.encode(), encode(decided))).offset
            await self._applied(applied + 1)
        reply = command_reply(command, decided, epoch=self.ledger.epoch, control_offset=applied)
        await self._audit(command, reply.status or 0)
        ack()
        world.replies.send(command.reply_to, reply)

    async def _applied(self, control_offset: int) -> None:
        """Return when this process knows the control state up to the offset. It cannot decide before."""
        while not await self._world.control.wait_for(control_offset, timeout_s=CONTROL_PATIENCE_S):
            log.error("partition %d waits for the control topic to reach %d", self.partition, control_offset)

    async def _audit(self, command: CommandIssued, status: int) -> None:
        action = command.action
        recorded = AuditRecorded(
            actor=command.actor,
            action=type(action).__struct_config__.tag or "",  # type: ignore[arg-type]
            target=action.key_id,
            key_id=command.actor,
            status=status,
            request_id=command.command_id,
            after=msgspec.json.encode(getattr(action, "limits", None)).decode(),
        )
        await self._world.log.append("audit", recorded.org_id.encode(), encode(recorded))

    def _bury(self, src: int, value: bytes, reason: str, ack: Ack) -> None:
        """Keep what cannot be read where it can be looked at, and go on."""
        letter = DeadLetter(topic="requests", partition=self.partition, offset=src, reason=reason, value=value)
        log.error("requests %d/%d goes to dead-letters: %s", self.partition, src, reason)
        buried = asyncio.ensure_future(self._world.log.append("dead-letters", b"requests", encode(letter)))
        buried.add_done_callback(partial(_when_durable, ack))

    async def _send(self, topic: str, key: bytes | None, event: Event) -> Position:
        return await self._world.log.append(topic, key, encode(event), partition=self.partition)


def _key(event: Event) -> bytes:
    match event:
        case Admitted() | Ended():
            return event.request.org_id.encode()
        case AttemptStarted():
            return event.org_id.encode()
        case _:
            return b""


def _succeeded(future: asyncio.Future[Position]) -> bool:
    return not future.cancelled() and future.exception() is None


def _when_durable(ack: Ack, future: asyncio.Future[Position]) -> None:
    if _succeeded(future):
        ack()


def _refusal_for(error: Exception) -> Refusal:
    if isinstance(error, Refusal):
        return error
    log.error("a request could not be decided: %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
    return Refusal(500, "internal_error", "The request could not be decided.", type="server_error")


__all__ = ["Ask", "Owner", "World"]
