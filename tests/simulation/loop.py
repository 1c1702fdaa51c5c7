"""An event loop in virtual time, and processes on it that can be killed between any two of their steps.

Nothing waits: when nothing is ready, the clock jumps to the next timer. There are no sockets and no threads, so that a
run is a function of the program and its seed.

Every task and callback carries, in its context, the process that it belongs to. What belongs to a dead process is
never run again: that is what SIGKILL does, without its operating system.
"""

import asyncio
import heapq
import math
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar, copy_context
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
        self.context = copy_context()
        self.context.run(_process.set, self)
        self.tasks: list[asyncio.Task[Any]] = []
        self._loop = loop
        self._at_death: list[Callable[[], None]] = []

    @staticmethod
    def current() -> "Process | None":
        """The process whose step is being run; None for the world around."""
        return _process.get()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return self._loop.create_task(work, context=self.context)

    def at_death(self, callback: Callable[[], None]) -> None:
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


def _close(task: "asyncio.Task[Any]", context: Context) -> None:
    """End a task's coroutine now, and not when the garbage collector comes by, which would not be deterministic."""
    task._log_destroy_pending = False
    # It may be the one that is running, or await in a `finally`, where nothing answers any more.
    with suppress(ValueError, RuntimeError):
        context.copy().run(task.get_coro().close)


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop without a selector. Its clock goes in steps of `tick_s`, so that more happens at one instant."""

    def __init__(self, tick_s: float) -> None:
        super().__init__()
        self._tick_s = tick_s
        self._now_s = 0.0
        self._steps = 0
        self.outside = copy_context()
        self.errors: list[str] = []
        """What callbacks and tasks died of without anybody noticing."""
        self.set_exception_handler(_note_error)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self._now_s

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = super().call_soon(callback, *args, context=context)
        if not _alive(handle):
            handle.cancel()
        return handle

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        return super().call_at(math.ceil(when / self._tick_s) * self._tick_s, callback, *args, context=context)

    def outside_later(self, delay_s: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """`call_later` for the world around, whichever process is being run."""
        return self.call_at(self._now_s + delay_s, callback, *args, context=self.outside)

    def outside_task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """`create_task` for the world around, whichever process is being run."""
        return self.create_task(work, context=self.outside)

    def close(self) -> None:
        """End what still waits, without running it."""
        for task in asyncio.all_tasks(self):
            _close(task, self.outside)
        super().close()

    def _run_once(self) -> None:
        if not self._ready:
            self._jump()
        while self._scheduled and self._scheduled[0].when() <= self._now_s:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)
        for _ in range(len(self._ready)):
            handle = self._ready.popleft()
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise Stalled(f"more than {MAX_STEPS} steps")
            if not handle.cancelled() and _alive(handle):
                handle._run()

    def _jump(self) -> None:
        while self._scheduled and (self._scheduled[0].cancelled() or not _alive(self._scheduled[0])):
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._scheduled:
            raise Stalled("nothing is ready and no timer is set")
        self._now_s = max(self._now_s, self._scheduled[0].when())

    def _write_to_self(self) -> None:
        """No thread waits for this loop to wake up."""


def _alive(handle: asyncio.Handle) -> bool:
    process = handle._context.get(_process)
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
