"""One thread that runs what the event loop hands it, in order, and answers on the loop."""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

Result = TypeVar("Result")
Job = tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]


class Worker:
    """A thread with a queue. Each call runs alone; its answer comes back on the loop, one wake-up per call.

    Not a `ThreadPoolExecutor`: its futures take several locks per call, and each is a chance to lose the
    interpreter lock to a busy loop for a whole switch interval.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def post(self, call: Callable[[], Result], done: Callable[[Result, Exception | None], None]) -> None:
        """Run `call` in the thread, then `done(result, error)` on the loop; `result` is None on an error."""
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
            self._loop.call_soon_threadsafe(done, result, error)
            del job, call, done, result, error
