"""The gateway as one process on the embedded log: ingress and processors beside each other."""

import asyncio
from typing import TYPE_CHECKING

from tests.simulation.front import Front
from tests.simulation.life import Life
from tests.simulation.processing import Processing
from tollgate.control import catch_up, follow_control

if TYPE_CHECKING:
    from tests.simulation.world import Simulation


class Gateway(Life):
    """One life of it. Its name is its address."""

    def __init__(self, simulation: "Simulation", name: str) -> None:
        super().__init__(simulation, name, address=name, one_order=simulation.knobs.one_order)
        self.front = Front(self)
        self.processing = Processing(self, self.replies, shared=False)
        self._checkpoints: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.work(self._run)

    async def _run(self) -> None:
        await catch_up(self.log, self.control)
        self.work(lambda: follow_control(self.log, self.control))
        self.work(self._checkpoint)
        await self.processing.own()

    async def _checkpoint(self) -> None:
        self._checkpoints = asyncio.current_task()
        await self.processing.checkpoint_often()

    async def stop(self) -> None:
        """What SIGTERM does: the last checkpoint, then every call is ended. The process is gone afterwards."""
        for _ in range(20):  # best in the middle of a checkpoint
            if self.processing.checkpointing:
                break
            await asyncio.sleep(0.01)
        if not self.alive:
            return
        owner = self.processing.owner
        if await self.until_dead_or(self.process.spawn(self._stop())):
            self.simulation.stopped_in_order(self, owner)
        self.kill("stopped")

    async def _stop(self) -> None:
        if self._checkpoints is not None:
            self._checkpoints.cancel()
            await asyncio.wait((self._checkpoints,))
            await self.processing.partitions.checkpoint()
        await self.processing.give_up()
