"""The sink of a running gateway: read, batch, write, commit, for as long as the process lives.

It goes on from the manifest's positions and knows no consumer group. A crash at any point neither loses nor doubles a
row; a second sink on the same folder is fenced at its next commit. Memory is bounded by two batches.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from tollgate.errors import Fenced
from tollgate.events import DeadLetter, encode
from tollgate.failpoints import reached
from tollgate.log import Log
from tollgate.sinks.compact import compact, due, first_open_day
from tollgate.sinks.fold import TOPICS, Fold, Skipped, cursor_key
from tollgate.sinks.manifest import Manifest
from tollgate.sinks.writer import Failpoint, write

FLUSH_S = 5.0
FLUSH_ROWS = 50_000
TIDY_S = 60.0  # how often closed days, small files and left-overs are looked for
SLICE_RECORDS = 200  # taken at a stretch, so that requests are not kept waiting
READ_PAUSE_S = 0.05  # between short reads: many records at a time cost less than one by one

DEAD_LETTERS = "dead-letters"

_log = logging.getLogger(__name__)


def now_ms() -> int:
    """The wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


class Sink:
    """Folds the log into the Parquet of one data folder.

    `rows_written` and `records_skipped` count since the start; `committed_ms` is the time of the last commit.
    """

    def __init__(
        self,
        log: Log,
        data: Path,
        *,
        flush_s: float = FLUSH_S,
        flush_rows: int = FLUSH_ROWS,
        tidy_s: float = TIDY_S,
        clock_ms: Callable[[], int] = now_ms,
        failpoint: Failpoint = reached,
    ) -> None:
        """Read the manifest; nothing else happens before `run`."""
        self.manifest = Manifest(data)
        self.rows_written = 0
        self.records_skipped = 0
        self.committed_ms: int | None = None
        self._source = log
        self._flush_s = flush_s
        self._flush_rows = flush_rows
        self._tidy_s = tidy_s
        self._clock_ms = clock_ms
        self._failpoint = failpoint
        self._fold = Fold(self.manifest.state.cursors)
        self._flushing = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._taken = asyncio.Event()  # something was read

    @property
    def rows_waiting(self) -> int:
        """Rows that were read and are not yet written; of some hundred records, the last ones, only their number."""
        return self._fold.size

    @property
    def records_fenced(self) -> int:
        """Ends in the journal that were skipped because their writer had been replaced."""
        return self._fold.fenced

    async def run(self) -> None:
        """Work until `drain` is done; raise what makes going on impossible.

        `Fenced`: another sink has taken over. `OutOfRange`: the log no longer has what comes next, or never had.
        `OSError`: the disk refuses. Nothing is lost by starting again.
        """
        steps = [
            *(self._read(topic) for topic in TOPICS),
            self._flush_often(),
            self._tidy_often(),
            self._until_stopped(),
        ]
        tasks = [asyncio.create_task(step) for step in steps]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopped.set()
            self._taken.set()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def drain(self, timeout_s: float) -> None:
        """Write what the log holds by now, or as much of it as can be read in time, and let `run` return."""
        try:
            async with asyncio.timeout(timeout_s):
                ends = await self._ends()
                while not self._stopped.is_set() and self._fold.behind(ends):
                    self._taken.clear()
                    await self._taken.wait()
        except TimeoutError:
            _log.warning("the sink stops before the end of the log; it goes on from there at the next start")
        if not self._stopped.is_set():
            try:
                await self.flush()
            finally:
                self._stopped.set()

    async def lag(self) -> int:
        """Records of the log that are not yet in Parquet."""
        cursors = self.manifest.state.cursors
        ends = await self._ends()
        return sum(end - (cursors[key].offset if key in cursors else 0) for key, end in ends.items())

    async def flush(self) -> None:
        """Return when every row taken so far is durable and committed. One flush at a time."""
        async with self._flushing:
            batch = self._fold.cut()
            if not batch.cursors:
                return
            for skipped in batch.skipped:
                await self._bury(skipped)
            await asyncio.to_thread(write, self.manifest, batch, self._failpoint)
            self.rows_written += sum(part.rows.num_rows for part in batch.parts)
            self.records_skipped += len(batch.skipped)
            self.committed_ms = self._clock_ms()

    async def tidy(self) -> None:
        """Compact what is due and remove what nobody needs. What fails is logged and tried again next time."""
        open_day = first_open_day(self.manifest.state.cursors, await self._ends(), self._clock_ms())
        try:
            for plan in due(self.manifest.state, open_day):
                await asyncio.to_thread(compact, self.manifest, plan, self._clock_ms(), self._failpoint)
            await asyncio.to_thread(self.manifest.sweep, self._clock_ms())
        except Fenced as error:
            _log.info("left to another sink: %s", error)
        except OSError:
            _log.exception("a compaction failed; its rows are where they were")

    async def _read(self, topic: str) -> None:
        offsets = {number: self._fold.offset(topic, number) for number in range(self._source.partitions(topic))}
        async for records in self._source.follow(topic, offsets):
            for start in range(0, len(records), SLICE_RECORDS):
                self._fold.take(records[start : start + SLICE_RECORDS])
                await asyncio.sleep(0)
            self._taken.set()
            if self._fold.size >= self._flush_rows:
                await self.flush()
            if len(records) < SLICE_RECORDS:
                await asyncio.sleep(READ_PAUSE_S)

    async def _until_stopped(self) -> None:
        await self._stopped.wait()

    async def _flush_often(self) -> None:
        while True:
            await asyncio.sleep(self._flush_s)
            await self.flush()

    async def _tidy_often(self) -> None:
        while True:
            await asyncio.sleep(self._tidy_s)
            await self.tidy()

    async def _bury(self, skipped: Skipped) -> None:
        """Keep a record that makes no row where people look for it. After a crash it may lie there twice."""
        topic, partition, offset, reason = skipped
        _log.error("%s/%d: the record at %d makes no row: %s", topic, partition, offset, reason)
        async for records in self._source.scan(topic, partition, offset, offset + 1):
            for record in records:
                letter = DeadLetter(
                    topic=topic, partition=partition, offset=offset, reason=reason, value=record.value or b""
                )
                key = cursor_key(topic, partition).encode()
                await self._source.append(DEAD_LETTERS, key, encode(letter))

    async def _ends(self) -> dict[str, int]:
        """The ends of all partitions read here, by `topic/partition`."""
        return {
            cursor_key(topic, number): end
            for topic in TOPICS
            for number, end in (await self._source.ends(topic)).items()
        }
