"""The partitions that this process owns: which writer is whose, their checkpoints, and how they come and go."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial

from tollgate.errors import TollgateError
from tollgate.processors.owner import Ack, Owner
from tollgate.processors.world import World

log = logging.getLogger(__name__)

CHECKPOINT_S = 1.0
STOPPED = "the gateway stopped"

ReadRows = Callable[[int], Awaitable[Mapping[str, bytes]]]
WriteRows = Callable[[int, Mapping[str, bytes | None]], Awaitable[None]]


class Partitions:
    """The owners of this process. Nothing is received for a partition before it is taken over."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._owners: dict[int, Owner] = {}
        self._leaving: list[Owner] = []  # given up, and perhaps with calls that run on
        self._read_rows: ReadRows | None = None
        self._write_rows: WriteRows | None = None

    def keep_checkpoints(self, read_rows: ReadRows, write_rows: WriteRows) -> None:
        """Where rows come from at a take-over, and where they go. To be called once, before anything is taken."""
        self._read_rows = read_rows
        self._write_rows = write_rows

    async def take_over(self, partition: int) -> int:
        """Become the writer of the partition; return the offset of `requests` to go on from."""
        owner = Owner(partition, self._world)
        offset = await owner.take_over(await self._read_rows(partition) if self._read_rows is not None else {})
        self._owners[partition] = owner  # from here on it can be given up
        await owner.settled()
        return offset

    async def give_up(self, partitions: set[int]) -> None:
        """Decide nothing more there. Calls under way are handed over where somebody else can book them, or ended."""
        owners = [self._owners[partition] for partition in partitions if partition in self._owners]
        if self._world.shared:
            await asyncio.gather(*(owner.release() for owner in owners))
            self._leaving += owners
        else:
            await asyncio.gather(*(owner.close(STOPPED) for owner in owners))
        for partition in partitions:
            self._owners.pop(partition, None)

    def interrupt(self) -> None:
        """End the calls under way; their clients are told that the gateway stops."""
        for owner in self._owners.values():
            owner.interrupt(STOPPED)

    async def drained(self, patience_s: float) -> None:
        """Return when no call that was handed over runs here any more; what takes too long is cancelled."""
        await asyncio.gather(*(owner.drained(patience_s, STOPPED) for owner in self._leaving))

    def receive(self, partition: int, offset: int, timestamp_ms: int, value: bytes, ack: Ack) -> Awaitable[None] | None:
        """Hand an event to its owner; what is returned must be awaited before the next. Never raises."""
        owner = self._owners.get(partition)
        if owner is None:  # given up in the meantime: whoever has it now gets the event from the log
            return None
        waiting = owner.receive(offset, timestamp_ms, value, ack)
        return None if waiting is None else self._wait(waiting)

    async def _wait(self, waiting: Awaitable[None]) -> None:
        try:
            await waiting
        except TollgateError as error:
            self._world.fatal(f"an event could not be handled: {error}")

    @property
    def calls(self) -> int:
        """Requests under way."""
        return sum(owner.calls for owner in self._owners.values())

    @property
    def calls_released(self) -> int:
        """Calls that still run here although their partition was handed over."""
        return sum(owner.calls for owner in self._leaving)

    @property
    def count(self) -> int:
        """How many partitions this process owns."""
        return len(self._owners)

    @property
    def owners(self) -> Iterable[Owner]:
        return self._owners.values()

    async def checkpoint(self) -> None:
        """Write a checkpoint of every partition in which something has changed."""
        assert self._write_rows is not None
        for partition, owner in list(self._owners.items()):
            await owner.checkpoint(partial(self._write_rows, partition))

    async def checkpoint_often(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(CHECKPOINT_S)
            self._leaving = [owner for owner in self._leaving if owner.calls]
            for owner in self._owners.values():
                owner.cancel_for_the_silent()
            try:
                await self.checkpoint()
            except TollgateError as error:
                self._world.fatal(f"the checkpoint could not be written: {error}")
