"""A closed day is one sorted file, exact for anyone who globs it, at any moment and after any crash."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.sinks.journals import DAY_MS, NOON_MS, MemoryLog, audit, ended, kept, line, told, took
from tollgate.errors import Fenced
from tollgate.sinks import parquet
from tollgate.sinks.compact import CLOSE_GRACE_MS, MERGE_FILES, SMALL_ROWS, compact, due, first_open_day
from tollgate.sinks.fold import TOPICS, Fold
from tollgate.sinks.manifest import KEEP_MS, Change, Compaction, Cursor, DataFile, Manifest, State, load
from tollgate.sinks.schemas import SCHEMAS
from tollgate.sinks.writer import write

MIDNIGHT_MS = NOON_MS + DAY_MS // 2
LATER_MS = MIDNIGHT_MS + CLOSE_GRACE_MS


def live(name: str, *, day: str = "2025-11-20", rows: int = 1) -> DataFile:
    return DataFile(f"usage/_live/{name}.parquet", "usage", day, rows)


def flush(data: Path, log: MemoryLog) -> None:
    """One flush of all that the log has."""
    manifest = Manifest(data)
    fold = Fold(manifest.state.cursors)
    for (topic, _), records in log.records.items():
        if topic in TOPICS:
            fold.take(records)
    batch = fold.cut()
    write(manifest, batch)


def close(data: Path, open_day: str = "2025-11-21", **more: Any) -> None:
    manifest = Manifest(data)
    for plan in due(manifest.state, open_day):
        compact(manifest, plan, LATER_MS, **more)


@pytest.fixture
def log() -> MemoryLog:
    """Two flushes' worth is put by `two_flushes`; this is the log they come from."""
    log = MemoryLog()
    log.put(took())
    return log


def two_flushes(data: Path, log: MemoryLog) -> None:
    for number, org in enumerate(["zeta", "acme", "zeta", "acme"]):
        log.put(ended(f"r{number}", org=org, request={"tags": {"n": str(number)}}))
        if number == 1:
            flush(data, log)
    log.put(audit(), topic="audit")
    flush(data, log)


def test_a_day_is_open_until_every_partition_is_past_it() -> None:
    cursors = {"completions/0": Cursor(5, time_ms=LATER_MS), "completions/1": Cursor(5, time_ms=NOON_MS)}
    behind = {"completions/0": 9, "completions/1": 9}
    assert first_open_day(cursors, behind, LATER_MS) == "2025-11-20"
    assert first_open_day({**cursors, "completions/1": Cursor(5, time_ms=LATER_MS)}, behind, NOON_MS) == "2025-11-21"


def test_a_partition_that_was_read_to_its_end_is_as_far_as_the_clock() -> None:
    cursors = {"completions/0": Cursor(5, time_ms=NOON_MS)}
    ends = {"completions/0": 5, "completions/1": 0}
    assert first_open_day(cursors, ends, LATER_MS - 1) == "2025-11-20"
    assert first_open_day(cursors, ends, LATER_MS) == "2025-11-21"


def test_a_partition_that_was_never_read_keeps_every_day_open() -> None:
    assert first_open_day({}, {"completions/0": 1}, LATER_MS) == "1970-01-01"


def test_a_closed_day_is_due_whole_and_an_open_one_when_its_small_files_are_many() -> None:
    files = [live(f"y{n}", day="2025-11-19", rows=SMALL_ROWS) for n in range(2)]
    files += [live(f"t{n}") for n in range(MERGE_FILES)] + [live("large", rows=SMALL_ROWS)]
    closing, merging = due(State().after(Change(add=tuple(files))), "2025-11-20")
    assert (closing.output.path.rpartition("/")[0], closing.output.rows) == ("usage/dt=2025-11-19", 2 * SMALL_ROWS)
    assert (merging.output.live, len(merging.inputs)) == (True, MERGE_FILES)
    assert live("large").path not in merging.inputs
    assert len(due(State().after(Change(add=tuple(files[:-2]))), "2025-11-20")) == 1


def test_a_plan_that_a_crash_left_comes_first_and_alone_for_its_day() -> None:
    plan = Compaction(DataFile("usage/dt=2025-11-20/part-a.parquet", "usage", "2025-11-20", 1), (live("a").path,))
    state = State().after(Change(add=(live("a"), live("late")), plan=plan))
    assert due(state, "2025-11-21") == [plan]


def test_a_compaction_s_name_follows_from_its_inputs() -> None:
    state = State().after(Change(add=(live("a"), live("b"))))
    other = State().after(Change(add=(live("b"), live("a"))))
    more = State().after(Change(add=(live("a"), live("b"), live("c"))))
    names = [due(each, "2025-11-21")[0].output.path for each in (state, other, more)]
    assert names[0] == names[1] != names[2]


def test_a_closed_day_is_one_file_per_table_sorted_by_organisation_and_time(tmp_path: Path, log: MemoryLog) -> None:
    two_flushes(tmp_path, log)
    close(tmp_path)
    for table in SCHEMAS:
        [path] = (tmp_path / table / "dt=2025-11-20").iterdir()
        assert [file.path for file in load(tmp_path).of(table)] == [path.relative_to(tmp_path).as_posix()]
    [path] = (tmp_path / "usage/dt=2025-11-20").iterdir()
    assert pq.ParquetFile(path).read(["request_id"]).to_pydict() == {"request_id": ["r1", "r3", "r0", "r2"]}
    assert kept(tmp_path) == kept(tmp_path, closed=True) == told(log)


def test_a_day_too_large_to_be_sorted_at_once_is_sorted_all_the_same(
    tmp_path: Path, log: MemoryLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "SLICE_ROWS", 5)
    log.now_ms = NOON_MS - DAY_MS // 2
    for number in range(40):
        log.now_ms += 20 * 60_000
        log.put(ended(f"r{number}", org=f"org{number * 7 % 5}"))
        if number % 10 == 0:
            flush(tmp_path, log)
    flush(tmp_path, log)
    close(tmp_path)
    [path] = (tmp_path / "usage/dt=2025-11-20").iterdir()
    order = [(row["org_id"], row["ts"]) for row in pq.ParquetFile(path).read().to_pylist()]
    assert order == sorted(order)
    assert kept(tmp_path, closed=True) == told(log)


def test_columns_keep_their_types(tmp_path: Path, log: MemoryLog) -> None:
    two_flushes(tmp_path, log)
    close(tmp_path)
    for table, schema in SCHEMAS.items():
        [path] = (tmp_path / table / "dt=2025-11-20").iterdir()
        found = pq.read_schema(path)
        assert found.names == schema.names
        assert [field.type for field in found] == [field.type for field in schema]


def test_an_open_day_is_not_seen_by_those_who_glob(tmp_path: Path, log: MemoryLog) -> None:
    two_flushes(tmp_path, log)
    close(tmp_path, open_day="2025-11-20")
    assert kept(tmp_path, closed=True)["usage"] == []
    assert kept(tmp_path) == told(log)


def test_late_rows_go_to_a_second_file_and_the_first_stays_as_it_is(tmp_path: Path, log: MemoryLog) -> None:
    two_flushes(tmp_path, log)
    close(tmp_path)
    [first] = (tmp_path / "usage/dt=2025-11-20").iterdir()
    before = (first.read_bytes(), first.stat().st_mtime_ns)
    log.put(ended("late"))
    flush(tmp_path, log)
    close(tmp_path)
    assert (first.read_bytes(), first.stat().st_mtime_ns) == before
    assert len(list((tmp_path / "usage/dt=2025-11-20").iterdir())) == 2
    assert kept(tmp_path, closed=True) == told(log)


def test_small_files_of_an_open_day_become_one(tmp_path: Path, log: MemoryLog) -> None:
    for number in range(MERGE_FILES):
        log.put(ended(f"r{number}"))
        flush(tmp_path, log)
    close(tmp_path, open_day="2025-11-20")
    assert [file.rows for file in load(tmp_path).of("usage")] == [MERGE_FILES]
    assert kept(tmp_path) == told(log)


def test_inputs_stay_an_hour_for_those_who_are_reading_them(tmp_path: Path, log: MemoryLog) -> None:
    two_flushes(tmp_path, log)
    inputs = set(tmp_path.glob("*/_live/*"))
    close(tmp_path)
    manifest = Manifest(tmp_path)
    assert manifest.sweep(LATER_MS + KEEP_MS) == []
    assert set(manifest.sweep(LATER_MS + KEEP_MS + 1)) == inputs


STEPS = ["compact.after_plan", "compact.before_rename", "compact.before_commit", "compact.after_commit"]


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("step", STEPS)
def test_a_crash_at_any_step_leaves_every_row_once_for_everyone(tmp_path: Path, log: MemoryLog, step: str) -> None:
    two_flushes(tmp_path, log)

    def crash(name: str) -> None:
        if name == step:
            raise Crash

    with pytest.raises(Crash):
        close(tmp_path, failpoint=crash)
    assert kept(tmp_path) == told(log)
    log.put(ended("late"))
    flush(tmp_path, log)  # the rest of the day is not what it was when the plan was made
    for _ in range(2):
        close(tmp_path)
        assert_each_once(tmp_path)
    assert kept(tmp_path) == kept(tmp_path, closed=True) == told(log)
    assert load(tmp_path).planned == {}


def assert_each_once(data: Path) -> None:
    for rows in kept(data, closed=True).values():
        assert len({str(row) for row in rows}) == len(rows)


def test_two_who_compact_the_same_day_write_it_once(tmp_path: Path, log: MemoryLog) -> None:
    two_flushes(tmp_path, log)
    slow, fast = Manifest(tmp_path), Manifest(tmp_path)
    [plan] = [plan for plan in due(slow.state, "2025-11-21") if plan.output.table == "usage"]

    def overtaken(name: str) -> None:
        if name == "compact.before_commit":
            fast.refresh()
            compact(fast, plan, LATER_MS)

    with pytest.raises(Fenced):
        compact(slow, plan, LATER_MS, overtaken)
    assert kept(tmp_path)["usage"] == kept(tmp_path, closed=True)["usage"] == told(log)["usage"]


def test_inputs_with_other_rows_than_the_manifest_says_are_not_compacted(tmp_path: Path, log: MemoryLog) -> None:
    two_flushes(tmp_path, log)
    victim, donor = [tmp_path / file.path for file in load(tmp_path).of("costs")]
    table = pq.ParquetFile(donor).read()
    pq.write_table(table.slice(0, 1), victim)
    with pytest.raises(OSError, match="the manifest says"):
        close(tmp_path)
    assert not (tmp_path / "costs/dt=2025-11-20").exists()


def test_any_reader_of_parquet_sums_money_exactly(tmp_path: Path, log: MemoryLog) -> None:
    two_flushes(tmp_path, log)
    close(tmp_path)
    query = f"SELECT sum(bill_usd) FROM '{tmp_path}/costs/dt=*/*.parquet'"
    [(total,)] = duckdb.sql(query).fetchall()
    assert total * 10**12 == 4 * line().bill_pusd
