"""Rebuilds all Parquet from the log, or that of a range of time, in a folder of its own, by the rules of the sink.

    plan ──▶ starts ──▶ stretches ──▶ processes, each with some partitions ──▶ one manifest ──▶ days joined

Interrupted at any moment, it goes on where it was: the folder's manifest knows. The log is only read. Memory is
bounded by `replay_part.MAX_ROWS` rows a process.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tollgate.failpoints import reached
from tollgate.log import Log
from tollgate.sinks.compact import CLOSE_GRACE_MS, compact, due
from tollgate.sinks.fold import Skipped
from tollgate.sinks.manifest import Cursor, Manifest
from tollgate.sinks.replay_folder import Plan, check_folder, load_plan, only_replay, save_plan
from tollgate.sinks.replay_part import MAX_ROWS, NEVER, fold_stretches
from tollgate.sinks.replay_processes import Open, fold_in_processes
from tollgate.sinks.rows import day_of
from tollgate.sinks.sink import now_ms
from tollgate.sinks.starts import WHOLE, Range, Stretch, find_ends, find_starts, stretches
from tollgate.sinks.writer import Failpoint

PROCESS_RECORDS = 50_000  # fewer are read in this process: it is done before another would have started

Progress = Callable[[int, int], None]
"""Called with the records done and the records in all."""


class Replayed(NamedTuple):
    """What a replay did. `skipped` are records of which no row can be made.

    `rows` and `records` are what this run has added; `rows_in_folder` counts those of earlier runs, too.
    `starts` are the cursors with which the folder's history begins: offset, epoch of the journal, and the last link
    of the audit chain. `stretches` are what this run has read.
    """

    rows: int
    rows_in_folder: int
    records: int
    skipped: tuple[Skipped, ...]
    seconds: float
    starts: Mapping[str, Cursor]
    stretches: tuple[Stretch, ...]


async def replay(
    log: Log,
    to: Path,
    *,
    range: Range = WHOLE,
    open_log: Open | None = None,
    processes: int = 1,
    progress: Progress = lambda done, total: None,
    from_start_of_log: bool = False,
    max_rows: int = MAX_ROWS,
    clock_ms: Callable[[], int] = now_ms,
    failpoint: Failpoint = reached,
) -> Replayed:
    """Fold the range of the log, up to its end as of now, into Parquet in the folder `to`, empty or a replay's.

    Every row is the one that the sink writes. With `open_log`, which is to be picklable, the partitions are shared
    among so many processes. Raises `UsageError` for a folder with something else in it, and `OutOfRange` as
    `find_starts` does.
    """
    begun = time.monotonic()
    check_folder(to)
    with only_replay(to):
        manifest = Manifest(to)
        plan = load_plan(to, range)
        if plan is None:
            starts = await find_starts(log, range, from_start_of_log=from_start_of_log)
            plan = Plan(range, starts)
            save_plan(manifest, plan)
        ends = await find_ends(log, range)
        parts = stretches(plan.starts, manifest.state.cursors, ends)
        total = sum(stretch.records for stretch in parts)
        done = 0

        def read(records: int) -> None:
            nonlocal done
            done += records
            progress(done, total)

        read(0)
        open_day = _open_day(range, clock_ms())
        if open_log is not None and processes > 1 and total >= PROCESS_RECORDS:
            rows, skipped = await fold_in_processes(
                open_log, to, parts, open_day=open_day, read=read, processes=processes, max_rows=max_rows
            )
        else:
            rows, skipped = await fold_stretches(
                log, manifest, parts, open_day=open_day, read=read, max_rows=max_rows, failpoint=failpoint
            )
        await _compact(manifest, open_day, clock_ms(), failpoint)
        held = sum(file.rows for file in manifest.state.files.values())
    return Replayed(rows, held, total, tuple(skipped), time.monotonic() - begun, plan.starts, tuple(parts))


def _open_day(range: Range, time_ms: int) -> str:
    """The first day of which rows may still come: none, once the range is over."""
    closed_until_ms = time_ms - CLOSE_GRACE_MS
    if range.until_ms is not None and range.until_ms <= closed_until_ms:
        return NEVER
    return day_of(max(0, closed_until_ms))


async def _compact(manifest: Manifest, open_day: str, time_ms: int, failpoint: Failpoint) -> None:
    """Join what is left of every day that is over."""
    manifest.refresh()
    while plans := due(manifest.state, open_day):  # each round leaves fewer live files
        for plan in plans:
            await asyncio.to_thread(compact, manifest, plan, time_ms, failpoint)
