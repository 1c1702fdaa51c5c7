"""Where the partitions of some topics end, as of a moment ago: what probes and metrics measure lag against."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from tollgate.errors import LogError

from . import Log

ASK_EVERY_S = 1.0  # however often it is looked at
PATIENCE_S = 1.0  # with a log that does not answer; what it said last stays


class Ends:
    """The ends that the log told last. Looking costs nothing; `refresh` asks the log."""

    def __init__(self, log: Log, topics: Sequence[str]) -> None:
        self._log = log
        self._ends: dict[str, Mapping[int, int]] = {topic: {} for topic in topics}
        self._read_s = time.monotonic()
        self._asked_s = float("-inf")

    def of(self, topic: str) -> Mapping[int, int]:
        """{partition: end}; empty before the first refresh."""
        return self._ends[topic]

    @property
    def age_s(self) -> float:
        """Since when they stand: long, when the log does not answer."""
        return time.monotonic() - self._read_s

    async def refresh(self) -> None:
        """Ask the log, unless it was asked a moment ago. Returns within `PATIENCE_S`, whether it answers or not."""
        now_s = time.monotonic()
        if now_s - self._asked_s < ASK_EVERY_S:
            return
        self._asked_s = now_s
        try:
            async with asyncio.timeout(PATIENCE_S):
                found = await asyncio.gather(*map(self._log.ends, self._ends))
        except (LogError, TimeoutError):
            return
        self._ends = dict(zip(self._ends, found, strict=True))
        self._read_s = time.monotonic()
