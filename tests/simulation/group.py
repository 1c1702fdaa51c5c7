"""The consumer group of the workers, as its coordinator sees it: who has the partition, and who is taken for dead.

joins ──▶ member ──is told──▶ holder ──in order──▶ member
            │                    └──silent for a session──▶ stranger: works on, until it hears of it
            └── a new life under the same name takes the place of the former one at once
"""

import asyncio
from typing import TYPE_CHECKING

from tests.simulation.cluster import Worker

if TYPE_CHECKING:
    from tests.simulation.world import Simulation

LOOK_EVERY_S = 0.25
REBALANCE_S = 20.0  # then who has not given up in order is a stranger
HEARS_WITHIN_S = 2.0  # a stranger that can hear at all
TOLD_WITHIN_S = 0.5


class Group:
    """Members of one partition's group."""

    def __init__(self, simulation: "Simulation", session_s: float) -> None:
        self.holder: Worker | None = None
        self.evictions = 0
        self._simulation = simulation
        self._loop = simulation.loop
        self._session_s = session_s
        self._chance = simulation.chance("group")
        self._members: dict[str, Worker] = {}
        self._heard_s: dict[str, float] = {}
        self._strangers: dict[Worker, float] = {}  # when they will hear of it
        self._moving = False

    def join(self, worker: Worker) -> None:
        former = self._members.get(worker.slot)
        self._members[worker.slot] = worker
        self._heard_s[worker.slot] = self._loop.time()
        if former is not None and self.holder is former:
            self.holder = worker
            self._loop.outside_later(self._chance.random() * TOLD_WITHIN_S, self._tell, worker)

    def leave(self, worker: Worker, *, says_goodbye: bool) -> None:
        """It has given up what it had, and is gone; without a goodbye the group waits for its return."""
        if says_goodbye and self._members.get(worker.slot) is worker:
            del self._members[worker.slot]
            if self.holder is worker:
                self.holder = None

    async def run(self) -> None:
        """Watch over the members; for ever."""
        while True:
            now_s = self._loop.time()
            for slot, worker in list(self._members.items()):
                if worker.running and not worker.cut_off:
                    self._heard_s[slot] = now_s
                elif now_s - self._heard_s[slot] > self._session_s:
                    self._evict(worker)
            for worker, hears_s in list(self._strangers.items()):
                if worker.running and not worker.cut_off and now_s >= hears_s:
                    del self._strangers[worker]
                    self._simulation.says(worker.name, "hears that it is out of the group")
                    self._loop.outside_task(self._return(worker))
            if self.holder is None and not self._moving:
                self._assign()
            await asyncio.sleep(LOOK_EVERY_S)

    async def rebalance(self) -> None:
        """Take the partition from its holder, in order, and give it to somebody, perhaps the same."""
        holder = self.holder
        if holder is None or self._moving or not (holder.running and holder.was_told):
            return
        self._moving = True
        self._simulation.says("group", f"takes the partition from {holder.name}")
        given_up = holder.lose()
        until_s = self._loop.time() + REBALANCE_S
        while not given_up.done() and self.holder is holder and holder.alive and self._loop.time() < until_s:
            await asyncio.sleep(LOOK_EVERY_S / 5)
        if self.holder is holder and holder.alive and not given_up.done():
            self._evict(holder)
        if self.holder is holder and holder.alive:
            self.holder = None
        self._moving = False

    def _assign(self) -> None:
        """Of those who are heard, somebody gets the partition."""
        heard = [worker for worker in self._members.values() if worker.running and not worker.cut_off]
        if heard:
            self.holder = self._chance.choice(heard)
            self._simulation.says("group", f"gives the partition to {self.holder.name}")
            self._loop.outside_later(self._chance.random() * TOLD_WITHIN_S, self._tell, self.holder)

    def _tell(self, worker: Worker) -> None:
        if self.holder is worker:
            worker.take()

    def _evict(self, worker: Worker) -> None:
        self._simulation.says("group", f"takes {worker.name} for dead")
        self.evictions += worker.alive
        worker.disturb()
        del self._members[worker.slot]
        self._strangers[worker] = self._loop.time() + self._chance.random() * HEARS_WITHIN_S
        if self.holder is worker:
            self.holder = None

    async def _return(self, worker: Worker) -> None:
        """A stranger gives up what it has not had for long, and joins again."""
        if await worker.until_dead_or(worker.lose()) and worker.slot not in self._members:
            self.join(worker)
