"""The processes on Kafka: workers that share a group, ingresses that hold the clients. One partition is enough."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation.front import Front
from tests.simulation.life import Life
from tests.simulation.processing import Processing
from tollgate.control import catch_up, follow_control
from tollgate.reply_topic import ReplyReader, TopicMailbox

if TYPE_CHECKING:
    from tests.simulation.group import Group
    from tests.simulation.world import Simulation


class Ingress(Life):
    """One life of an ingress."""

    def __init__(self, simulation: "Simulation", name: str, number: int) -> None:
        super().__init__(simulation, f"{name}.{number}", address=f"0/{name}/{number}", one_order=False)
        self.slot = name
        self.front: Front | None = None
        self.log.others_keep_its_time = True

    def start(self) -> None:
        self.work(self._run)

    async def _run(self) -> None:
        await catch_up(self.log, self.control)
        self.work(partial(follow_control, self.log, self.control))
        reader = ReplyReader(self.log, self.sealer, self.replies)
        start = await reader.start()
        self.work(partial(reader.run, start))
        self.work(reader.beat)
        self.front = Front(self)


class Worker(Life):
    """One life of a worker. The group tells it what it has."""

    def __init__(self, simulation: "Simulation", name: str, number: int, group: "Group") -> None:
        super().__init__(simulation, f"{name}.{number}", address=f"0/{name}/{number}", one_order=False)
        self.slot = name
        self.cut_off = False  # the group hears nothing of it
        self.stopped = False  # in order
        self.processing = Processing(self, TopicMailbox(self.log, self.sealer, self.replies), shared=True)
        self._group = group
        self._owning: asyncio.Task[None] | None = None
        self._losing = asyncio.Lock()
        self._checkpoints: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.work(self._run)

    async def _run(self) -> None:
        await catch_up(self.log, self.control)
        self.work(partial(follow_control, self.log, self.control))
        self._checkpoints = self.work(self.processing.checkpoint_often)
        self._group.join(self)

    def take(self) -> None:
        """The partition is its own, says the group."""
        if self.alive and self._owning is None:
            self._owning = self.work(self.processing.own)

    @property
    def was_told(self) -> bool:
        """Does it know that the partition is its own?"""
        return self._owning is not None

    def lose(self) -> "asyncio.Task[None]":
        """The partition is to be given to somebody else, or has been."""
        return self.work(self._lose)

    async def _lose(self) -> None:
        async with self._losing:  # a stop waits for a hand-over that is under way
            owning, self._owning = self._owning, None
            if owning is not None:
                owning.cancel()
                await asyncio.wait((owning,))
                await self.processing.give_up()

    async def stop(self, *, drain_s: float, says_goodbye: bool) -> None:
        """What SIGTERM does: the last checkpoint, hand-over, and the end when no call runs here any more.

        A member with a name of its own does not say goodbye to the group, which waits for its restart.
        """
        if await self.until_dead_or(self.work(partial(self._stop, drain_s=drain_s, says_goodbye=says_goodbye))):
            self.simulation.says(self.name, "has stopped in order")
            self.stopped = True
        self.kill("stopped")

    async def _stop(self, *, drain_s: float, says_goodbye: bool) -> None:
        if self._checkpoints is not None:
            self._checkpoints.cancel()
            await asyncio.wait((self._checkpoints,))
        await self.processing.partitions.checkpoint()
        await self._lose()
        self._group.leave(self, says_goodbye=says_goodbye)
        await self.processing.partitions.drained(drain_s)
        while self.log.flying:  # its log is closed when it is empty
            await asyncio.sleep(0.01)
