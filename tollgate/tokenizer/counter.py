"""Counts tokens beside the event loop, in a process that is started when the first count is wanted.

Loading the tokenizer would hold the interpreter for most of a second, and a hostile text can end its process: neither
is to touch the streams that are under way.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Sequence

import orjson

from tollgate.tokenizer import rough

log = logging.getLogger(__name__)

CountTokens = Callable[[Sequence[str]], Awaitable[int]]

PATIENCE_S = 20.0  # for one count, with the start of the process
MAX_LINE_BYTES = 64 << 20
MAX_WAITING = 64  # counts; beyond it the figure is rough


async def count_roughly(texts: Sequence[str]) -> int:
    """By length, for surroundings without processes."""
    return rough(texts)


class Counter:
    """Counts one request after the other. Never fails: what cannot be counted is estimated by its length."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def count(self, texts: Sequence[str]) -> int:
        """The tokens of all texts together."""
        if not texts:
            return 0
        if self._waiting >= MAX_WAITING:
            return rough(texts)
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE_S), self._turn:
                return await self._ask(orjson.dumps(texts) + b"\n")
        except (TimeoutError, OSError, TypeError, ValueError) as error:
            # half a letter is no JSON, and what a process that died has said is no number
            log.warning("tokens are estimated by length: %s", type(error).__name__)
            return rough(texts)
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, line: bytes) -> int:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tollgate.tokenizer",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=MAX_LINE_BYTES,
            )
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line)
            await process.stdin.drain()
            return int(await process.stdout.readline())
        except BaseException:  # the next answer would be taken for that of another request
            self._process = None
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            raise
