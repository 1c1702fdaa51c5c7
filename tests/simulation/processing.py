"""The processors of a process: the real owners and calls, fed from `requests` without Faust."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from random import Random
from typing import TYPE_CHECKING

from tests.simulation.log import PARTITION, STATE, ProcessLog
from tollgate.processors.owner import Owner
from tollgate.processors.partitions import Partitions
from tollgate.processors.setup import setup_of
from tollgate.processors.world import World
from tollgate.replies import Mailbox

if TYPE_CHECKING:
    from tests.simulation.life import Life


class Processing:
    """What a worker does with the partition while it has it."""

    def __init__(self, life: "Life", mailbox: Mailbox, *, shared: bool) -> None:
        self.position = 0  # the next offset of `requests` that is read
        self.owner: Owner | None = None
        self.checkpointing = False
        self._has_owner = asyncio.Event()
        self._life = life
        self._simulation = simulation = life.simulation
        self._chance: Random = simulation.chance(f"processing/{life.name}")
        setup = setup_of(simulation.config, simulation.book, simulation.providers)
        self.partitions = Partitions(
            World(
                log=life.log,
                replies=mailbox,
                control=life.control,
                sealer=life.sealer,
                setup=lambda: setup,
                instance="sim",
                address=life.address,
                fatal=life.fatal,
                draw=self._chance.random,
                shared=shared,
                now_ms=simulation.wall_ms,
                clock_s=simulation.loop.time,
            )
        )
        rows = simulation.log.rows

        async def read_rows(_: int) -> dict[str, bytes]:
            return _shuffled(rows(), self._chance)

        self.partitions.keep_checkpoints(read_rows, write_rows_to(life.log))

    @property
    def idle(self) -> bool:
        """Everything that was asked has been decided and ended, durably. It may have been replaced without knowing."""
        owner = self.owner
        if owner is None or self.position < len(self._simulation.log.records("requests")):
            return False
        return not (self._simulation.books.open or owner._flying or owner.calls or owner.ledger.open)

    @property
    def runs_on(self) -> bool:
        """Is a call under way here that was handed over?"""
        return any(owner.calls for owner in self.partitions._leaving)

    async def own(self) -> None:
        """Take the partition over, and handle its events, for ever."""
        self.position = await self.partitions.take_over(PARTITION)
        self.owner = next(iter(self.partitions.owners))
        self._has_owner.set()
        self._simulation.taken_over(self._life, self.owner, self.position)
        await self._consume()

    async def _consume(self) -> None:
        requests = self._simulation.log.records("requests")
        while True:
            if self.position >= len(requests):
                await self._simulation.log.news("requests")
                continue
            await asyncio.sleep(self._simulation.knobs.latency.draw(self._chance))
            for record in requests[self.position : self.position + self._chance.randint(1, 10)]:
                self.position = record.offset + 1
                waiting = self.partitions.receive(
                    PARTITION, record.offset, record.timestamp_ms, record.value or b"", _ignore
                )
                if waiting is not None:
                    await waiting
                if self.position != record.offset + 1:
                    break  # sent back meanwhile

    async def give_up(self) -> None:
        """The partition is somebody else's from now on."""
        self.owner = None
        self._has_owner.clear()
        await self.partitions.give_up({PARTITION})

    def send_back(self, position: int) -> None:
        """Deliver the events of `requests` from there again."""
        self.position = position
        self._simulation.log.wake("requests")

    async def checkpoint_often(self) -> None:
        """For ever, as `Partitions.checkpoint_often` does at one pace."""
        while True:
            await asyncio.sleep((0.5 + self._chance.random()) * self._simulation.knobs.checkpoint_s)
            if self.owner is None:
                await self._has_owner.wait()
            self.checkpointing = True
            for owner in self.partitions.owners:
                owner.cancel_for_the_silent()
            await self.partitions.checkpoint()
            self.checkpointing = False


def write_rows_to(log: ProcessLog) -> Callable[[int, Mapping[str, bytes | None]], Awaitable[None]]:
    """How a checkpoint writes its rows: in order, to the end. Sorted, because the order of a set is no function of the
    seed."""

    async def write_rows(partition: int, rows: Mapping[str, bytes | None]) -> None:
        await asyncio.gather(*(log.append(STATE, name.encode(), row) for name, row in sorted(rows.items())))

    return write_rows


def _shuffled(rows: dict[str, bytes], chance: Random) -> dict[str, bytes]:
    """A table has no order."""
    items = list(rows.items())
    chance.shuffle(items)
    return dict(items)


def _ignore() -> None:
    """Acknowledgements tell where to go on from; here, as in the gateway, the journal says that."""
