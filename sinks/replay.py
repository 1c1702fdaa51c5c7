"""Rebuilds all Parquet from the log, in a folder of its own, by the same rules and the same protocol as the sink.

Interrupted, it goes on where it was: the folder's manifest knows. The log is only read.
"""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from tollgate.errors import OutOfRange, UsageError
from tollgate.failpoints import reached
from tollgate.journal import JOURNAL, NO_EPOCH
from tollgate.log import Log
from tollgate.sinks.compact import compact, due, first_open_day
from tollgate.sinks.fold import TOPICS, Fold, Skipped, cursor_key
from tollgate.sinks.manifest import LOG, TEMPORARY, Manifest
from tollgate.sinks.retention import epoch_at
from tollgate.sinks.rows import SCHEMAS
from tollgate.sinks.sink import FLUSH_ROWS, now_ms
from tollgate.sinks.writer import Failpoint, write

Progress = Callable[[int, int], None]
"""Called with the records done and the records in all."""


class Replayed(NamedTuple):
    """What a replay did. `skipped` are records of which no row can be made."""

    rows: int
    records: int
    skipped: tuple[Skipped, ...]


async def replay(
    log: Log,
    to: Path,
    *,
    progress: Progress = lambda done, total: None,
    from_start_of_log: bool = False,
    flush_rows: int = FLUSH_ROWS,
    clock_ms: Callable[[], int] = now_ms,
    failpoint: Failpoint = reached,
) -> Replayed:
    """Fold the log, up to its end as of now, into Parquet in the folder `to`, which is empty or a replay's.

    Every row is the one that the sink writes. Raises `UsageError` for a folder with something else in it. Raises
    `OutOfRange` with the first position that can still be read when retention has cut the log, unless
    `from_start_of_log` says that history may begin there; the audit chain then begins there as well.
    """
    _check_folder(to)
    manifest = Manifest(to)
    fold = Fold(manifest.state.cursors)
    ends = {(topic, number): end for topic in TOPICS for number, end in sorted((await log.ends(topic)).items())}
    await _begin(log, fold, from_start_of_log=from_start_of_log)
    total = sum(end - fold.offset(*partition) for partition, end in ends.items())
    done = rows = 0
    skipped: list[Skipped] = []

    async def flush() -> None:
        nonlocal rows
        batch = fold.cut()
        if batch.cursors:
            await asyncio.to_thread(write, manifest, batch, failpoint)
            rows += sum(part.rows.num_rows for part in batch.parts)
            skipped.extend(batch.skipped)

    progress(0, total)
    for (topic, number), end in ends.items():
        before = fold.offset(topic, number)
        async for records in log.scan(topic, number, before, end):
            fold.take(records)
            progress(done + fold.offset(topic, number) - before, total)
            if fold.size >= flush_rows:
                await flush()
        done += end - before
    await flush()
    await _compact(manifest, ends, clock_ms(), failpoint)
    progress(total, total)
    return Replayed(rows, total, tuple(skipped))


def _check_folder(to: Path) -> None:
    """Refuse a folder with anything but a replay in it: not least the gateway's own, whose sink would be fenced."""
    ours = {LOG, TEMPORARY, *SCHEMAS}
    if to.exists() and (others := sorted(path.name for path in to.iterdir() if path.name not in ours)):
        raise UsageError(f"{to} holds {others[0]}, so it is neither empty nor the folder of a replay: name another one")


async def _begin(log: Log, fold: Fold, *, from_start_of_log: bool) -> None:
    """See to it that each partition can be read from where the fold is, or move the fold to where it can."""
    cut = []
    for topic in TOPICS:
        for number, start in (await log.starts(topic)).items():
            if start <= fold.offset(topic, number):
                continue
            cut.append(f"{cursor_key(topic, number)} at {start}")
            epoch = NO_EPOCH
            if topic == JOURNAL and from_start_of_log:
                epoch = await epoch_at(log, number, start)
            fold.skip_to(topic, number, start, epoch=epoch)
    if cut and not from_start_of_log:
        raise OutOfRange(
            f"retention has cut the log; what is left begins with {', '.join(cut)}. "
            "Parquet made of it would lack what came before: say --from-start-of-log if that is meant"
        )


async def _compact(manifest: Manifest, ends: Mapping[tuple[str, int], int], time_ms: int, failpoint: Failpoint) -> None:
    """Close every day that is over."""
    by_key = {cursor_key(*partition): end for partition, end in ends.items()}
    open_day = first_open_day(manifest.state.cursors, by_key, time_ms)
    while plans := due(manifest.state, open_day):  # each round leaves fewer live files
        for plan in plans:
            await asyncio.to_thread(compact, manifest, plan, time_ms, failpoint)
