"""How old the fold of the control topic may be: whoever cannot know what was revoked lets nobody in.

Where other processes write the topic, a fold is behind without noticing it: its process was halted, or its connection
is. So a reader asks where the topic ends, and waits for a record at or behind that place. Such a record was appended
after the question, by a broker that takes appends; when it is applied, all that was there at the time of the question
is. Only the reader's own monotonic clock counts, which goes on while the process is halted. So that there always is
such a record, workers append a beat where nobody has appended anything for `BEAT_S`.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress

from tollgate.control import TOPIC, Control
from tollgate.errors import LogUnavailable
from tollgate.events import ControlBeat, encode
from tollgate.log import Log

BEAT_S = 0.3
MAX_AGE_S = 1.0
PATIENCE_S = 1.0  # of a request, for a fold that is behind to catch up
ASK_AGAIN_S = 0.2  # after a question that nobody answered

_BEAT = b"beat"


class Freshness:
    """Until when everything is known. Nothing is, at first."""

    def __init__(
        self,
        *,
        clock_s: Callable[[], float] = time.monotonic,
        as_of_s: float = -math.inf,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.patience_s = patience_s
        self.everywhere_s = 0.0 if as_of_s == math.inf else MAX_AGE_S
        """So long after a change is durable, it is known to whoever still lets somebody in."""
        self._clock_s = clock_s
        self._as_of_s = as_of_s
        self._news = asyncio.Event()

    @classmethod
    def always(cls) -> "Freshness":
        """Of a fold whose topic only this process writes."""
        return cls(as_of_s=math.inf)

    @property
    def stale(self) -> bool:
        """Has something perhaps been changed for longer than `MAX_AGE_S` without being known here?"""
        return self._clock_s() - self._as_of_s > MAX_AGE_S

    async def regained(self) -> bool:
        """Wait until the fold is fresh; False when that took longer than `patience_s`."""
        try:
            async with asyncio.timeout(self.patience_s):
                while self.stale:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def keep(self, log: Log, control: Control) -> None:
        """Find out, over and over; for ever. `control` is followed by whoever made it."""
        while True:
            asked_s = self._clock_s()
            try:
                end = (await log.ends(TOPIC))[0]
            except LogUnavailable:  # then nothing becomes known, and that is what counts
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            while not await control.wait_for(end + 1, timeout_s=MAX_AGE_S):
                pass
            self._as_of_s = asked_s
            self._news.set()


async def beat(log: Log, control: Control, *, draw: Callable[[], float], now_ms: Callable[[], int]) -> None:
    """Append a beat whenever nothing new was read for a while; for ever. Any worker may, and one is enough."""
    while True:
        quiet_s = BEAT_S * (0.8 + 0.2 * draw())  # so that one is ahead of the others
        if not await control.wait_for(control.offset + 1, timeout_s=quiet_s):
            with suppress(LogUnavailable):  # more waits for the log than it takes: then this waits, too
                await log.append(TOPIC, _BEAT, encode(ControlBeat(at_ms=now_ms())))
