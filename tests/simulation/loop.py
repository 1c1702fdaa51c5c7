"""An event loop in virtual time, and processes on it that can be killed or halted between any two of their steps.

Nothing waits: when nothing is ready, the clock jumps to the next timer. There are no sockets and no threads, so that a
run is a function of the program and its seed.

Every task and callback carries, in its context, the process that it belongs to. What belongs to a dead process is
never run again, and what belongs to a halted one is kept until it goes on: that is what SIGKILL, SIGSTOP and SIGCONT
do, without their operating system.
"""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any

from tollgate.errors import LogError

MAX_STEPS = 500_000  # of one run, which has some thousands

_process: ContextVar["Process | None"] = ContextVar("process", default=None)


class Killed(BaseException):
    """Raised where a process dies by its own step, so that the step goes no further."""


class Stalled(Exception):
    """Nothing is ready and no timer is set, or something goes round and round: the end will never come."""


class Process:
    """What dies together. Its tasks are started with `spawn`; their tasks and callbacks inherit it."""

    def __init__(self, name: str, loop: "VirtualLoop") -> None:
        self.name = name
        self.alive = True
        self.halted = False
        self.kept: list[Handle] = []  # what would have run while it is halted
        self.context = copy_context()
        self.context.run(_process.set, self)
        self.tasks: list[asyncio.Task[Any]] = []
        self._loop = loop
        self._at_death: list[Callable[[], object]] = []

    @staticmethod
    def current() -> "Process | None":
        """The process whose step is being run; None for the world around."""
        return _process.get()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self._loop.create_task(work, context=self.context)

    def at_death(self, callback: Callable[[], object]) -> None:
        """Have `callback` called, outside of the process, at the moment of its death."""
        self._at_death.append(callback)

    def kill(self) -> None:
        """No step of it runs any more. A step that is being run must raise `Killed` to end, too."""
        if not self.alive:
            return
        self.alive = False
        for task in self.tasks:
            if not task.done():
                _close(task, self.context)
        for callback in self._at_death:
            self._loop.outside.copy().run(callback)

    def halt(self) -> None:
        """No step of it runs until `go_on`."""
        self.halted = True

    def go_on(self, *, timers_first: bool) -> None:
        """Run what has become due meanwhile. An event loop may look at its clock first, or at its sockets."""
        self.halted = False
        self.kept.sort(key=lambda handle: handle.is_timer is not timers_first)
        self._loop.resume(self.kept)
        self.kept = []


class Handle:
    """What is to be called, and for which process: `asyncio.Handle` without what costs time and is not needed here."""

    __slots__ = ("args", "callback", "context", "is_timer", "process")

    def __init__(self, callback: Callable[..., object], args: Any, context: Context | None, *, is_timer: bool) -> None:
        self.callback: Callable[..., object] | None = callback  # None when it was cancelled
        self.args = args
        self.context = copy_context() if context is None else context
        self.is_timer = is_timer
        self.process: Process | None = self.context.get(_process)

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None


def _close(task: "asyncio.Task[Any]", context: Context) -> None:
    """End a task's coroutine now, and not when the garbage collector comes by, which would not be deterministic."""
    task._log_destroy_pending = False
    # It may be the one that is running, or await in a `finally`, where nothing answers any more.
    with suppress(ValueError, RuntimeError):
        context.copy().run(task.get_coro().close)


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without a selector. Its clock goes in steps of `tick_s`, so that more happens at one instant.

    What is ready, and which timers are set, is kept here and not in the base class, as lean as can be: most of a run's
    time is spent with them.
    """

    def __init__(self, tick_s: float) -> None:
        super().__init__()
        self._tick_s = tick_s
        self._now_s = 0.0
        self._steps = 0
        self._due: deque[Handle] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._order = count()  # of timers at one instant
        self.outside = copy_context()
        self.errors: list[str] = []
        """What callbacks and tasks died of without anybody noticing."""
        self.set_exception_handler(_note_error)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self._now_s

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> Handle:
        handle = Handle(callback, args, context, is_timer=False)
        if handle.process is None or handle.process.alive:
            self._due.append(handle)
        else:
            handle.cancel()
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> Handle:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> Handle:
        handle = Handle(callback, args, context, is_timer=True)
        heapq.heappush(self._timers, (math.ceil(when / self._tick_s) * self._tick_s, next(self._order), handle))
        return handle

    def outside_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> Handle:
        """`call_later` for the world around, whichever process is being run."""
        return self.call_at(self._now_s + delay_s, callback, *args, context=self.outside)

    def outside_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """`create_task` for the world around, whichever process is being run."""
        return self.create_task(work, context=self.outside)

    def resume(self, handles: Iterable[Handle]) -> None:
        """Let run what was kept while its process was halted."""
        self._due.extend(handles)

    def close(self) -> None:
        """End what still waits, without running it."""
        for task in asyncio.all_tasks(self):
            _close(task, self.outside)
        self._due.clear()
        self._timers.clear()
        super().close()

    def _run_once(self) -> None:
        due, timers = self._due, self._timers
        while not self._stopping:
            if not due:
                self._jump()
            while timers and timers[0][0] <= self._now_s:
                due.append(heapq.heappop(timers)[2])
            self._steps += len(due)
            if self._steps > MAX_STEPS:
                raise Stalled(f"more than {MAX_STEPS} steps")
            for _ in range(len(due)):
                handle = due.popleft()
                process = handle.process
                if handle.callback is None or (process is not None and not process.alive):
                    continue
                if process is not None and process.halted:
                    process.kept.append(handle)
                    continue
                try:
                    handle.context.run(handle.callback, *handle.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    self.call_exception_handler({"message": "a callback failed", "exception": error})

    def _jump(self) -> None:
        """To the next timer that anybody still waits for."""
        timers = self._timers
        while timers and (timers[0][2].callback is None or not _alive(timers[0][2].process)):
            heapq.heappop(timers)
        if not timers:
            raise Stalled("nothing is ready and no timer is set")
        self._now_s = max(self._now_s, timers[0][0])

    def _write_to_self(self) -> None:
        """No thread waits for this loop to wake up."""


def _alive(process: Process | None) -> bool:
    return process is None or process.alive


def _make_task(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], context: Context | None = None
) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, context=context)
    process = _process.get() if context is None else context.get(_process)
    if process is not None:
        process.tasks.append(task)
    return task


def _note_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    error = context.get("exception")
    process = _process.get()
    unheard = isinstance(error, Killed | LogError) or (process is not None and not process.alive)
    if error is not None and not unheard:
        assert isinstance(loop, VirtualLoop)
        loop.errors.append(f"{context['message']}: {type(error).__name__}: {error}")
