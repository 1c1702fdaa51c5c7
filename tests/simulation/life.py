"""One life of a process, whatever runs in it: its log, its clock, its watched tasks, and its end."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn

from tests.simulation.log import ProcessLog
from tests.simulation.loop import Killed, Process
from tollgate.control import Control
from tollgate.errors import Fenced, LogError
from tollgate.replies import LocalReplies
from tollgate.sealed import Sealer

if TYPE_CHECKING:
    from tests.simulation.world import Simulation


class Life:
    """What every process has. `address` is where replies to this life go: no two lives share one."""

    def __init__(self, simulation: "Simulation", name: str, *, address: str, one_order: bool) -> None:
        self.name = name
        self.address = address
        self.simulation = simulation
        self.chance: Random = simulation.chance(f"life/{name}")
        self.process = Process(name, simulation.loop)
        self.log = ProcessLog(
            simulation.log,
            self.process,
            simulation.loop,
            simulation.chance(f"log/{name}"),
            one_order=one_order,
            latency=simulation.knobs.latency,
            landed=self._has_landed,
        )
        self.replies = LocalReplies(address)
        self.control = Control()
        self.sealer = Sealer(simulation.secret, simulation.seals)
        self.crash_at: tuple[str, int] | None = None  # a failpoint, and how many times it is passed before
        self.halt_at: tuple[str, int] | None = None
        self.died_s = math.inf
        self.disturbed_s = math.inf
        """When it was first halted, cut off or deprived of its acknowledgements: others may think that it is dead."""

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def disturbed(self) -> bool:
        return self.disturbed_s < math.inf

    def disturb(self) -> None:
        """Something befalls it after which others may think that it is dead."""
        self.disturbed_s = min(self.disturbed_s, self.simulation.loop.time())

    @property
    def running(self) -> bool:
        """Alive, and not halted."""
        return self.process.alive and not self.process.halted

    def work(self, work: Callable[[], Coroutine[Any, Any, None]]) -> "asyncio.Task[None]":
        """Have it done in this process; that it fails is the end of the process."""
        return self.process.spawn(self._watched(work))

    async def until_dead_or(self, task: "asyncio.Task[None]") -> bool:
        """Wait for a task of this process, or for its death; True if it was done in order."""
        gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.process.at_death(partial(_set, gone))
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return task.done() and not task.cancelled() and task.exception() is None

    def kill(self, reason: str) -> None:
        if self.alive:
            self.simulation.says(self.name, f"killed: {reason}")
            self.died_s = self.simulation.loop.time()
            self.process.kill()

    def halt(self, seconds: float) -> None:
        """SIGSTOP, and after so long SIGCONT."""
        if not self.running:
            return
        self.disturb()
        self.simulation.says(self.name, f"halted for {seconds:.1f} s")
        self.process.halt()
        self.log.halt()
        self.simulation.loop.outside_later(seconds, self.go_on)

    def go_on(self) -> None:
        if self.alive and self.process.halted:
            self.simulation.says(self.name, "goes on")
            self.log.go_on()
            self.process.go_on(timers_first=self.chance.random() < 0.5)

    def fatal(self, reason: str) -> NoReturn:
        """As `World.fatal`: the restart reads the truth."""
        self.kill(f"fatal: {reason}")
        raise Killed(reason)

    def reached(self, failpoint: str) -> None:
        """Called for each failpoint that this process passes."""
        if self._is_due(failpoint):
            self.kill(f"at {failpoint}")
            raise Killed(failpoint)
        if self.halt_at is not None and self.halt_at[0] == failpoint:
            seconds, self.halt_at = self.halt_at[1], None
            self.halt(seconds)

    def _has_landed(self, topic: str) -> None:
        """A record of this process is durable; what it has appended after it is on its way."""
        if self._is_due(f"landed.{topic}"):
            self.kill(f"after a record of {topic}")

    def _is_due(self, place: str) -> bool:
        self.simulation.passed.add(place)
        if self.crash_at is None or self.crash_at[0] != place:
            return False
        self.crash_at = (place, self.crash_at[1] - 1)
        return self.crash_at[1] < 0

    async def _watched(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except (LogError, Fenced) as error:
            self.fatal(str(error))
        except Exception as error:
            self.simulation.violation("internal error", f"{self.name}: {type(error).__name__}: {error}")
            self.fatal("internal error")


def _set(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
