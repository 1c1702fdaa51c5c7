"""`gateway.yaml` and `pricing.yaml`, read again while the process runs.

    a file changes, or SIGHUP ──▶ read (in a thread) ──▶ wrong: everything stays, and is told where
                                                    └──▶ right: requests to come go by it

What needs a restart stays as it is, and is named. Nothing on the log depends on the files: what a decision followed
from is in its record.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tollgate.config import Config
from tollgate.errors import ConfigError
from tollgate.prices.book import PriceBook
from tollgate.times import iso

LOOK_EVERY_S = 1.0

log = logging.getLogger(__name__)

_PLACE = re.compile(r"([^\s:]+):(\d+): ")


class Reading(NamedTuple):
    """What the files say together."""

    config: Config
    book: PriceBook


Seen: TypeAlias = tuple[tuple[str, int, int, int] | str | None, ...]
"""The files as they were seen: path, inode, time of change and size of each; None where there is none."""


class Source:
    """The files of a process. `paths` may change their answer when a file comes; `read` raises `ConfigError`."""

    def __init__(self, paths: Callable[[], Sequence[Path | None]], read: Callable[[], Reading]) -> None:
        self._paths = paths
        self._read = read

    def seen(self) -> Seen:
        """To tell whether a file has changed: a look at small local files."""
        try:
            return tuple(_seen(path) for path in self._paths())
        except ConfigError as error:
            return (str(error),)

    def read(self, before: Seen) -> Reading:
        """What the files say. Raises `ConfigError`, also when one is gone that was there `before`.

        A file that is being replaced is gone for a moment; and nobody takes all providers away by removing a file.
        """
        for was, now in zip(before, self.seen(), strict=False):
            if now is None and isinstance(was, tuple):
                raise ConfigError(f"{was[0]} is gone: what it said stays in force; put it back, or start again")
        return self._read()


def _seen(path: Path | None) -> tuple[str, int, int, int] | None:
    try:
        if path is None:
            return None
        status = path.stat()  # of what a link leads to: Kubernetes replaces a mounted file by another link
        return str(path), status.st_ino, status.st_mtime_ns, status.st_size
    except OSError:
        return None


class Reloading:
    """Keeps what is in force like the files. `apply` puts a reading in force, and names the keys that need a restart.

    It raises `ConfigError`, and has changed nothing then. `seen` is how the files were when the process read them.
    """

    def __init__(self, source: Source, seen: Seen, apply: Callable[[Reading], Sequence[str]]) -> None:
        self._source = source
        self._apply = apply
        self._good = self._read = seen  # when a reading was put in force, and when the files were read at all
        self._wanted = asyncio.Event()
        self.in_force_s = time.time()
        """Since when what is in force is, in Unix seconds."""
        self.wrong: str | None = None
        """What is wrong with the files as they are now; None while they are what is in force."""
        self.restart: Sequence[str] = ()
        """The keys that were changed and have no effect before a restart."""
        self.counts = {"applied": 0, "refused": 0}

    def now(self) -> None:
        """Read the files, whether they look changed or not."""
        self._wanted.set()

    async def run(self) -> None:
        """For ever."""
        before = self._read
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wanted.wait()
            asked = self._wanted.is_set()
            self._wanted.clear()
            seen = self._source.seen()
            if asked or (seen != self._read and seen == before):  # nobody has written to it for the time between
                await self._reread(seen)
            before = seen

    async def _reread(self, seen: Seen) -> None:
        self._read = seen
        try:
            reading = await asyncio.to_thread(self._source.read, self._good)
            self.restart = self._apply(reading)
        except ConfigError as error:
            self._refuse(str(error))
        except Exception as error:  # whatever a file can hold: it must not end a process that works
            self._refuse(f"the configuration cannot be read: {type(error).__name__}")
        else:
            self._good = seen
            self.wrong = None
            self.in_force_s = time.time()
            self.counts["applied"] += 1
            log.warning("the configuration was read again and is in force; prices %s", reading.book.version)
            if self.restart:
                log.warning("changed, but only in force after a restart: %s", ", ".join(self.restart))

    def _refuse(self, why: str) -> None:
        self.wrong = why
        self.counts["refused"] += 1
        log.error("the configuration stays as it was: %s", why)

    def shown(self) -> Mapping[str, object]:
        """For `/readyz`, which anybody may read: where the files are wrong, but not what they say."""
        shown: dict[str, object] = {"in_force_since": iso(int(self.in_force_s * 1000))}
        if self.wrong is not None:
            place = _PLACE.match(self.wrong)
            where = f"{Path(place[1]).name}:{place[2]}" if place else "the configuration"
            shown["refused"] = f"{where} is wrong; the log of the process says how"
        if self.restart:
            shown["needs_restart"] = list(self.restart)
        return shown


class ReloadMetrics(Collector):
    """To be registered with the process's registry."""

    def __init__(self, reloading: Reloading) -> None:
        self._reloading = reloading

    def collect(self) -> Iterator[Metric]:
        reloading = self._reloading
        yield GaugeMetricFamily(
            "tollgate_config_last_reload_successful", "0 while the files are wrong.", int(reloading.wrong is None)
        )
        yield GaugeMetricFamily(
            "tollgate_config_in_force_timestamp_seconds", "Since when they are in force.", reloading.in_force_s
        )
        yield GaugeMetricFamily(
            "tollgate_config_restart_needed", "Changed keys that wait for a restart.", len(reloading.restart)
        )
        reloads = CounterMetricFamily("tollgate_config_reloads", "Readings of the files.", labels=("outcome",))
        for outcome, number in reloading.counts.items():
            reloads.add_metric((outcome,), number)
        yield reloads
