"""Parquet rebuilt from the log is Parquet as the sink wrote it."""

import asyncio
from pathlib import Path

import pytest

from tests.sinks.journals import DAY_MS, NOON_MS, MemoryLog, audit, ended, kept, told, took
from tollgate.errors import OutOfRange, UsageError
from tollgate.journal import JOURNAL
from tollgate.log import Record
from tollgate.sinks.manifest import load
from tollgate.sinks.replay import replay
from tollgate.sinks.sink import Sink

TOMORROW_MS = NOON_MS + 2 * DAY_MS


def two_days() -> MemoryLog:
    log = MemoryLog(now_ms=NOON_MS)
    for day in range(2):
        for partition in range(2):
            epoch = log.put(took(), partition)
            for number in range(15):
                log.put(ended(f"r{day}-{partition}-{number}", epoch=epoch), partition)
                log.put(ended(f"zombie{number}", epoch=epoch - 1), partition)
                log.put(audit(f"{number}"), partition, "audit")
        log.now_ms += DAY_MS
    return log


def cut(log: MemoryLog, topic: str, partition: int, first: int) -> None:
    """What retention does."""
    log.first[topic, partition] = first
    kept_records: list[Record] = [each for each in log.records[topic, partition] if each.offset >= first]
    log.records[topic, partition] = kept_records


async def live(log: MemoryLog, data: Path) -> None:
    sink = Sink(log, data, flush_rows=40, clock_ms=lambda: NOON_MS + DAY_MS)
    running = asyncio.create_task(sink.run())
    await sink.drain(10)
    await running
    await sink.tidy()


async def test_a_replay_writes_what_the_sink_wrote(tmp_path: Path) -> None:
    log = two_days()
    await live(log, tmp_path / "live")
    done = await replay(log, tmp_path / "again", clock_ms=lambda: NOON_MS + DAY_MS)
    assert kept(tmp_path / "again") == kept(tmp_path / "live") == told(log)
    assert kept(tmp_path / "again", closed=True) == kept(tmp_path / "live", closed=True)
    assert (done.rows, done.records, done.skipped) == (240, 184, ())


async def test_replaying_twice_changes_nothing(tmp_path: Path) -> None:
    log = two_days()
    await replay(log, tmp_path, clock_ms=lambda: TOMORROW_MS)
    before = load(tmp_path)
    done = await replay(log, tmp_path, clock_ms=lambda: TOMORROW_MS)
    assert (load(tmp_path), done.rows) == (before, 0)


async def test_days_that_are_over_are_closed(tmp_path: Path) -> None:
    log = two_days()
    await replay(log, tmp_path, clock_ms=lambda: TOMORROW_MS)
    assert kept(tmp_path, closed=True) == told(log)
    assert sorted(path.name for path in (tmp_path / "usage").glob("dt=*")) == ["dt=2025-11-20", "dt=2025-11-21"]


class Crash(Exception):
    """The process dies here."""


@pytest.mark.parametrize("time", range(1, 20, 3))
async def test_interrupted_it_goes_on_where_it_was(tmp_path: Path, time: int) -> None:
    log = two_days()
    reached = 0

    def crash(name: str) -> None:
        nonlocal reached
        reached += 1
        if reached == time:
            raise Crash

    with pytest.raises(Crash):
        await replay(log, tmp_path, flush_rows=40, clock_ms=lambda: TOMORROW_MS, failpoint=crash)
    before = load(tmp_path).cursors
    done = await replay(log, tmp_path, flush_rows=40, clock_ms=lambda: TOMORROW_MS)
    assert kept(tmp_path) == kept(tmp_path, closed=True) == told(log)
    assert done.records == 184 - sum(cursor.offset for cursor in before.values())


async def test_progress_grows_to_the_whole(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    await replay(two_days(), tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 184) and seen[-1] == (184, 184)
    assert seen == sorted(seen)


async def test_a_log_that_retention_has_cut_is_refused_with_what_is_left(tmp_path: Path) -> None:
    log = two_days()
    cut(log, JOURNAL, 1, 40)
    with pytest.raises(OutOfRange, match=r"completions/1 at 40.*--from-start-of-log"):
        await replay(log, tmp_path)


async def test_on_demand_history_begins_where_the_log_does(tmp_path: Path) -> None:
    """The take-over whose epoch is in force there may be gone; its records still count, and zombies' do not."""
    log = two_days()
    whole = told(log)
    cut(log, JOURNAL, 1, 5)
    await replay(log, tmp_path, from_start_of_log=True)
    left = [row for row in whole["usage"] if (row["log_partition"], row["log_offset"]) >= (1, 5)]
    assert kept(tmp_path)["usage"] == [row for row in whole["usage"] if row["log_partition"] == 0] + left


@pytest.mark.parametrize("name", ["log", "notes.txt"])
async def test_a_folder_with_something_else_in_it_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=name):
        await replay(two_days(), tmp_path)


async def test_what_makes_no_row_is_told(tmp_path: Path) -> None:
    log = two_days()
    offset = log.put(b"{")
    done = await replay(log, tmp_path)
    assert [skipped[:3] for skipped in done.skipped] == [(JOURNAL, 0, offset)]
    assert log.records["dead-letters", 0] == []
