"""Many small files into few: those of a closed day into the one that stays, those of an open day now and then.

A compaction is first put into the manifest as a plan, then written under its final name, then committed. Whoever
finds a plan that is not done completes it, with the same rows under the same name, so `dt=*/*.parquet` holds every
row of a closed day exactly once, at any moment and after any crash. What it holds is never written again.
"""

import os
from collections import defaultdict
from collections.abc import Mapping
from hashlib import sha256

from tollgate.failpoints import reached
from tollgate.sinks import disk, parquet
from tollgate.sinks.manifest import LIVE, TEMPORARY, Change, Compaction, Cursor, DataFile, Manifest, State
from tollgate.sinks.rows import day_of
from tollgate.sinks.writer import Failpoint

CLOSE_GRACE_MS = 600_000  # how far the clocks of the log may be apart, and a day's last records behind midnight
MERGE_FILES = 64  # as many small files of an open day are joined
SMALL_ROWS = 50_000  # what has more is not worth joining before the day closes


def first_open_day(
    cursors: Mapping[str, Cursor], ends: Mapping[str, int], now_ms: int, *, grace_ms: int = CLOSE_GRACE_MS
) -> str:
    """The first day of which rows may still come; both mappings are by `topic/partition`.

    A partition is as far as its last record's time; one that has been read to its end, as far as the clock.
    """
    times_ms = []
    for key, end in ends.items():
        cursor = cursors.get(key, Cursor())
        times_ms.append(max(cursor.time_ms, now_ms) if cursor.offset >= end else cursor.time_ms)
    return day_of(max(0, min(times_ms, default=0) - grace_ms))


def due(state: State, open_day: str) -> list[Compaction]:
    """What is to be compacted, given the first day that is still open: at most one plan for a table and day. Pure.

    Plans left by a crash come first; what else there is of their day waits until they are done.
    """
    plans = list(state.planned.values())
    busy = {(plan.output.table, plan.output.day) for plan in plans}
    live = defaultdict(list)
    for file in state.files.values():
        if file.live:
            live[file.table, file.day].append(file)
    for (table, day), files in sorted(live.items()):
        if (table, day) in busy:
            continue
        small = [file for file in files if file.rows < SMALL_ROWS]
        if day < open_day:
            plans.append(_plan(f"{table}/dt={day}/part-{{}}.parquet", files))
        elif len(small) >= MERGE_FILES:
            plans.append(_plan(f"{table}/{LIVE}/{day}-{{}}.parquet", small))
    return plans


def compact(manifest: Manifest, plan: Compaction, now_ms: int, failpoint: Failpoint = reached) -> None:
    """Carry out one compaction. Blocking; returns when it is committed.

    Raises `Fenced` when another writer has done it. The inputs stay for those who read them now, until swept.
    """
    if plan.output.path not in manifest.state.planned:
        manifest.commit(Change(plan=plan))
        failpoint("compact.after_plan")
    inputs = [manifest.data / path for path in plan.inputs]
    temporary = manifest.temporary()
    closing = not plan.output.live
    rows = parquet.join(plan.output.table, inputs, temporary, in_order=closing, spill=manifest.data / TEMPORARY)
    if rows != plan.output.rows:
        raise OSError(f"{plan.output.path}: its inputs hold {rows} rows, the manifest says {plan.output.rows}")
    failpoint("compact.before_rename")
    disk.publish(temporary, manifest.data / plan.output.path)
    failpoint("compact.before_commit")
    for path in inputs:
        os.utime(path, ns=(now_ms * 1_000_000, now_ms * 1_000_000))  # the sweep's hour begins now
    manifest.commit(Change(add=(plan.output,), remove=plan.inputs))
    failpoint("compact.after_commit")


def _plan(path: str, files: list[DataFile]) -> Compaction:
    """The compaction of these files; its name follows from theirs."""
    inputs = tuple(sorted(file.path for file in files))
    name = sha256("\n".join(inputs).encode()).hexdigest()[:16]
    first = files[0]
    output = DataFile(path.format(name), first.table, first.day, sum(file.rows for file in files))
    return Compaction(output, inputs)
