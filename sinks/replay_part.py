"""Folds stretches of the log into the folder of a replay: the work of one of its processes.

A partition's days come one after the other, so a day that fits into memory is sorted and put into its place at once,
as a file that is never touched again. A larger one is written in pieces, as the sink does, and joined in the end.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from tollgate.failpoints import reached
from tollgate.log import Log, Record
from tollgate.sinks.fold import Fold, Skipped
from tollgate.sinks.manifest import Manifest
from tollgate.sinks.rows import DAY_MS, day_of
from tollgate.sinks.starts import Stretch
from tollgate.sinks.writer import Failpoint, write

MAX_ROWS = 250_000  # that wait in a process until they are written: 150 MB while they are sorted
SEAL_EVENTS = 4_000  # a third cheaper than as many as the sink makes into columns at a time: nobody waits here
NEVER = "9999-99-99"  # a day after all days

Read = Callable[[int], None]
"""Called with the number of records read since the last call."""


async def fold_stretches(
    log: Log,
    manifest: Manifest,
    stretches: Sequence[Stretch],
    *,
    open_day: str,
    read: Read,
    max_rows: int = MAX_ROWS,
    failpoint: Failpoint = reached,
) -> tuple[int, list[Skipped]]:
    """Return the number of rows written, and the records that make none, once all are in the manifest.

    Days before `open_day` are closed: of them no more can come, however far the log is read.
    """
    rows = 0
    skipped: list[Skipped] = []
    for stretch in stretches:
        part = _Part(manifest, stretch, open_day, failpoint)
        at, day = stretch.start.offset, ""
        async for records in log.scan(stretch.topic, stretch.partition, at, stretch.end):
            for of_day in by_day(records):
                before, day = day, day_of(of_day[0].timestamp_ms)
                if day > before and part.fold.size >= max_rows // 2:
                    await part.flush(complete_before=day)
                part.fold.take(of_day)
                if part.fold.size >= max_rows:
                    await part.flush(complete_before=day)
                    part.day_in_pieces = day
            following = records[-1].offset + 1
            read(following - at)
            at = following
        await part.flush(complete_before=NEVER)
        read(stretch.end - at)
        rows += part.rows
        skipped += part.skipped
    return rows, skipped


class _Part:
    """One stretch on its way into the manifest."""

    def __init__(self, manifest: Manifest, stretch: Stretch, open_day: str, failpoint: Failpoint) -> None:
        self.fold = Fold(manifest.state.cursors, seal_events=SEAL_EVENTS)
        self.rows = 0
        self.skipped: list[Skipped] = []
        self.day_in_pieces = ""  # of which some rows were written before others had been read
        self._manifest = manifest
        self._open_day = open_day
        self._failpoint = failpoint
        if stretch.key not in manifest.state.cursors:
            start = stretch.start
            self.fold.skip_to(stretch.topic, stretch.partition, start.offset, epoch=start.epoch, hash=start.hash)

    async def flush(self, *, complete_before: str) -> None:
        """Return when the rows taken so far are durable and counted; days before this one are all there."""
        batch = self.fold.cut()
        if batch.cursors:
            end = min(complete_before, self._open_day)
            closed = {part.day for part in batch.parts if part.day < end} - {self.day_in_pieces}
            await asyncio.to_thread(write, self._manifest, batch, self._failpoint, closed=closed)
            self.rows += sum(part.rows.num_rows for part in batch.parts)
            self.skipped += batch.skipped


def by_day(records: Sequence[Record]) -> Iterator[Sequence[Record]]:
    """The records in stretches of one day each, judged by the first and the last of them. Pure."""
    days = [record.timestamp_ms // DAY_MS for record in (records[0], records[-1])]
    if days[0] == days[1]:
        yield records
        return
    for _, of_day in groupby(records, key=lambda record: record.timestamp_ms // DAY_MS):
        yield list(of_day)
