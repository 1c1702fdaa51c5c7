"""One thread that runs what the event loop hands it, in order, and answers on the loop."""

import asyncio
import threading
import time
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

# How often a loop with no pause lets the thread have the interpreter lock, and for how long.
GIVE_WAY_EVERY_S = 0.001
GIVE_WAY_S = 1e-6

Result = TypeVar("Result")
_Done = Callable[[Any, Exception | None], None]


class Worker:
    """A thread with a queue. Each call runs alone; its answer comes back on the loop, one wake-up per call.

    Not a `ThreadPoolExecutor`: its futures take several locks per call, each a chance to lose the interpreter lock.

    A busy loop starves a thread. It releases the interpreter lock at every turn, but takes it again before a waiting
    thread is awake, and by that keeps starting the thread's switch interval anew: with a loop busy in slices of
    100 µs, a commit of 0.3 ms was seen to take 60 ms, at times seconds. So while a call is under way the loop gives
    way once in a millisecond, by a sleep that ends as soon as the timer of the system allows (50 µs by default).
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[tuple[Callable[[], Any], _Done] | None] = SimpleQueue()
        self._under_way = 0
        self._gives_way: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, call: Callable[[], Result], done: Callable[[Result, Exception | None], None]) -> None:
        """Run `call` in the thread, then `done(result, error)` on the loop; `result` is None on an error."""
        self._under_way += 1
        if self._gives_way is None:
            self._gives_way = self._loop.call_later(GIVE_WAY_EVERY_S, self._give_way)
        self._jobs.put((call, done))

    async def run(self, call: Callable[[], Result]) -> Result:
        """Run `call` in the thread and return what it returns, or raise what it raises."""
        future: asyncio.Future[Result] = self._loop.create_future()

        def done(result: Result, error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self.post(call, done)
        return await future

    def stop(self) -> None:
        """Let the thread end once it has run what it was given before."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, done = job
            try:
                result, error = call(), None
            except Exception as failure:
                result, error = None, failure
            self._loop.call_soon_threadsafe(self._finish, done, result, error)
            del job, call, done, result, error

    def _finish(self, done: _Done, result: Any, error: Exception | None) -> None:
        self._under_way -= 1
        done(result, error)
        if not self._under_way and self._gives_way is not None:
            self._gives_way.cancel()
            self._gives_way = None

    def _give_way(self) -> None:
        time.sleep(GIVE_WAY_S)
        self._gives_way = self._loop.call_later(GIVE_WAY_EVERY_S, self._give_way)
