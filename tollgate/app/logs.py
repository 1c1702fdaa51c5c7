"""What goes to stderr while the process runs: warnings, and of what a client library repeats only some."""

import logging
import time
from collections.abc import Callable

REPEATED_EVERY_S = 10.0
# aiokafka tells each failed attempt to connect: thousands of lines in an outage of a minute; uvicorn tells each request
# that is no HTTP, as many as somebody likes to send.
REPETITIVE = ("aiokafka", "uvicorn")


def log_to_stderr() -> None:
    """To be called once, at the start."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for handler in logging.getLogger().handlers:
        handler.addFilter(Seldom())


class Seldom(logging.Filter):
    """Lets through one line of each kind in `REPEATED_EVERY_S`, of the libraries that repeat themselves.

    A kind is a logger and its message before values are put in: there are as many as the library has calls.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock_s = clock_s
        self._last: dict[tuple[str, str], float] = {}
        self._withheld: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith(REPETITIVE):
            return True
        kind, now_s = (record.name, str(record.msg)), self._clock_s()
        last_s = self._last.get(kind)
        if last_s is not None and now_s - last_s < REPEATED_EVERY_S:
            self._withheld[kind] = self._withheld.get(kind, 0) + 1
            return False
        self._last[kind] = now_s
        if withheld := self._withheld.pop(kind, 0):
            record.msg = f"{record.msg} (and {withheld} more like it)"
        return True
