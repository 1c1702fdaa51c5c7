"""Parquet rebuilt from the log is Parquet as the sink wrote it."""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sinks.journals import DAY_MS, NOON_MS, MemoryLog, audit, ended, kept, told, took
from tollgate.errors import OutOfRange, UsageError
from tollgate.journal import JOURNAL
from tollgate.log import Record
from tollgate.sinks import writer
from tollgate.sinks.manifest import load
from tollgate.sinks.replay import replay
from tollgate.sinks.replay_part import by_day
from tollgate.sinks.sink import Sink
from tollgate.sinks.starts import Range, epoch_before

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
    assert (done.rows, done.rows_in_folder, done.records, done.skipped) == (240, 240, 184, ())


async def test_replaying_twice_changes_nothing(tmp_path: Path) -> None:
    log = two_days()
    await replay(log, tmp_path, clock_ms=lambda: TOMORROW_MS)
    before = load(tmp_path)
    done = await replay(log, tmp_path, clock_ms=lambda: TOMORROW_MS)
    assert (load(tmp_path), done.rows, done.rows_in_folder) == (before, 0, 240)


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
        await replay(log, tmp_path, max_rows=40, clock_ms=lambda: TOMORROW_MS, failpoint=crash)
    before = load(tmp_path).cursors
    done = await replay(log, tmp_path, max_rows=40, clock_ms=lambda: TOMORROW_MS)
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


# A range of time ------------------------------------------------------------------------------------------------------


def within(log: MemoryLog, range: Range) -> dict[str, list[dict[str, Any]]]:
    """Of the rows of a whole replay, those whose record's time lies in the range."""
    begin = 0 if range.from_ms is None else range.from_ms
    end = 10**15 if range.until_ms is None else range.until_ms
    times = {(t, n, r.offset): r.timestamp_ms for (t, n), of in log.records.items() for r in of}
    return {
        table: [
            row
            for row in rows
            if begin <= times["audit" if table == "audit" else JOURNAL, row["log_partition"], row["log_offset"]] < end
        ]
        for table, rows in told(log).items()
    }


@pytest.mark.parametrize(
    "range",
    [
        Range(from_ms=NOON_MS + DAY_MS),
        Range(until_ms=NOON_MS + DAY_MS),
        Range(from_ms=NOON_MS, until_ms=NOON_MS + 1),
        Range(from_ms=NOON_MS + 1, until_ms=NOON_MS + 2),
        Range(from_ms=NOON_MS + 9 * DAY_MS),
    ],
)
async def test_a_range_is_the_rows_of_the_whole_whose_time_lies_in_it(tmp_path: Path, range: Range) -> None:
    log = two_days()
    await replay(log, tmp_path, range=range, clock_ms=lambda: TOMORROW_MS)
    assert kept(tmp_path) == kept(tmp_path, closed=True) == within(log, range)


@dataclass(frozen=True)
class Step:
    what: str
    partition: int
    later_ms: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["valid", "valid", "valid", "took", "zombie", "garbage", "audit", "gap"]),
        st.integers(0, 1),
        st.sampled_from([0, 1, DAY_MS // 3]),
    ),
    min_size=10,
    max_size=40,
)


def carried_out(steps: list[Step]) -> MemoryLog:
    """A log of two partitions, each taken over at first, in which these steps have been taken."""
    log = MemoryLog()
    epochs, before = [log.put(took(), 0), log.put(took(), 1)], [-1, -1]
    for number, (what, partition) in enumerate((step.what, step.partition) for step in steps):
        log.now_ms += steps[number].later_ms
        if what == "took":
            before[partition], epochs[partition] = epochs[partition], log.put(took(), partition)
        elif what == "zombie":
            log.put(ended(f"z{number}", epoch=before[partition]), partition)
        elif what == "audit":
            log.put(audit(f"{number}"), partition, "audit")
        elif what == "garbage":
            log.put(b"{", partition)
        else:
            log.put(ended(f"r{number}", epoch=epochs[partition]), partition, skip=3 * (what == "gap"))
    return log


@settings(max_examples=15)
@given(steps, st.data(), st.integers(2, 60))
async def test_any_range_of_any_journal_in_pieces_of_any_size(
    steps: list[Step], data: st.DataObject, max_rows: int
) -> None:
    log = carried_out(steps)
    times = sorted({record.timestamp_ms for records in log.records.values() for record in records})
    bounds = st.none() | st.sampled_from(times) | st.sampled_from(times).map(lambda time_ms: time_ms + 1)
    range = Range(from_ms=data.draw(bounds), until_ms=data.draw(bounds))
    with tempfile.TemporaryDirectory() as folder:
        await replay(log, Path(folder), range=range, max_rows=max_rows, clock_ms=lambda: NOON_MS + 99 * DAY_MS)
        assert kept(Path(folder)) == kept(Path(folder), closed=True) == within(log, range)


async def test_the_epoch_is_found_behind_many_records_of_fenced_writers() -> None:
    log = MemoryLog(partitions=1)
    first = log.put(took())
    for number in range(50):
        log.put(ended(f"r{number}", epoch=first))
    second = log.put(took())
    log.put(ended("the owner's", epoch=second))
    for number in range(30):
        log.put(ended(f"z{number}", epoch=first))
    end = (await log.ends(JOURNAL))[0]
    assert await epoch_before(log, 0, end, look_back=40) == second
    assert await epoch_before(log, 0, second) == first
    assert await epoch_before(log, 0, first) == -1


async def test_what_is_replayed_is_told_with_the_start_of_the_audit_chain(tmp_path: Path) -> None:
    log = two_days()
    done = await replay(log, tmp_path, range=Range(from_ms=NOON_MS + DAY_MS))
    last = [row for row in told(log)["audit"] if row["log_partition"] == 1][14]
    assert done.starts["audit/1"].hash == last["hash"]
    assert (done.starts["audit/1"].offset, done.starts["completions/1"].epoch) == (15, 0)


async def test_a_folder_keeps_to_its_range(tmp_path: Path) -> None:
    log = two_days()
    await replay(log, tmp_path, range=Range(from_ms=NOON_MS))
    with pytest.raises(UsageError, match="another range"):
        await replay(log, tmp_path)


async def test_a_range_that_retention_has_not_reached_is_not_refused(tmp_path: Path) -> None:
    log = two_days()
    whole = within(log, Range(from_ms=NOON_MS + DAY_MS))
    cut(log, JOURNAL, 1, 20)
    await replay(log, tmp_path, range=Range(from_ms=NOON_MS + DAY_MS))
    assert kept(tmp_path)["usage"] == whole["usage"]


def test_the_records_of_two_days_are_told_apart() -> None:
    log = two_days()
    records = log.records[JOURNAL, 0]
    assert [len(of_day) for of_day in by_day(records)] == [31, 31]
    assert list(by_day(records[:31])) == [records[:31]]


@pytest.mark.parametrize("time", range(1, 24, 2))
async def test_a_file_of_a_closed_day_that_a_killed_replay_has_not_counted_is_removed(
    tmp_path: Path, time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CLOSE_ROWS", 1)
    log = two_days()
    reached = 0

    def crash(name: str) -> None:
        nonlocal reached
        reached += 1
        if reached == time:
            raise Crash

    with pytest.raises(Crash):
        await replay(log, tmp_path, max_rows=70, clock_ms=lambda: TOMORROW_MS, failpoint=crash)
    await replay(log, tmp_path, max_rows=70, clock_ms=lambda: TOMORROW_MS)
    assert kept(tmp_path) == kept(tmp_path, closed=True) == told(log)


async def test_a_closed_day_that_fits_is_in_the_order_of_organisation_and_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CLOSE_ROWS", 1)
    log = MemoryLog(partitions=1)
    epoch = log.put(took())
    for number in range(20):
        log.put(ended(f"r{number}", epoch=epoch, org="ba"[number % 2]))
        log.now_ms += 1
    await replay(log, tmp_path, clock_ms=lambda: TOMORROW_MS)
    [file] = load(tmp_path).of("usage")
    rows = pq.ParquetFile(tmp_path / file.path).read().to_pylist()
    assert not file.live
    assert [(row["org_id"], row["ts"]) for row in rows] == sorted((row["org_id"], row["ts"]) for row in rows)
