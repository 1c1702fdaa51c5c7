"""The check of the books finds what is wrong, and nothing else."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sinks.journals import NOON_MS, MemoryLog, attempt, audit, ended, line, took
from tests.sinks.test_replay import cut
from tollgate.events import Admitted, CostLine, CostsBooked, Ended
from tollgate.journal import JOURNAL
from tollgate.sinks.compact import compact, due
from tollgate.sinks.manifest import Manifest, load
from tollgate.sinks.reconcile import Report, reconcile
from tollgate.sinks.sink import Sink
from tollgate.sinks.starts import Range

MINUTE_MS = 60_000
EPOCH = 1


def over(request_id: str, *, epoch: int = EPOCH, **more: Any) -> Ended:
    return ended(request_id, epoch=epoch, **more)


def admit(log: MemoryLog, event: Ended, *, hold_pusd: int | None = None, partition: int = 0) -> None:
    hold = event.hold_pusd if hold_pusd is None else hold_pusd
    log.put(
        Admitted(
            epoch=event.epoch,
            src=0,
            request=event.request,
            subjects=(),
            period=event.period,
            plan=(),
            price_version="",
            hold_pusd=hold,
        ),
        partition,
    )


def copy(log: MemoryLog, event: Ended, offset: int, partition: int = 0, lines: Any = None) -> None:
    for call in event.attempts:
        log.put(
            CostsBooked(
                request_id=event.request.request_id,
                org_id=event.request.org_id,
                attempt=call.attempt,
                revision=0,
                provider=call.provider,
                account=call.account,
                model=call.model,
                journal_offset=offset,
                lines=call.lines if lines is None else lines,
            ),
            partition,
            "costs",
        )


def complete(log: MemoryLog, event: Ended, partition: int = 0) -> None:
    """A request as the owner of the partition writes it."""
    admit(log, event, partition=partition)
    copy(log, event, log.put(event, partition), partition)


def balanced() -> MemoryLog:
    log = MemoryLog()
    for partition in range(2):
        log.put(took(), partition)  # fenced by the next
        log.put(took(), partition)
        for number in range(10):
            call = attempt(lines=[line(), line("output_tokens", 5, 7)])
            event = over(f"r{partition}-{number}", attempts=(call,), hold_pusd=1000, request={"tags": {"a": "b"}})
            complete(log, event, partition)
            log.put(audit(str(number)), partition, "audit")
        log.put(over(f"no{partition}", attempts=(), status="rejected", http_status=429, src=7), partition)
    log.put(over("zombie", epoch=0))
    log.now_ms += MINUTE_MS
    return log


async def sunk(log: MemoryLog, data: Path) -> None:
    sink = Sink(log, data, clock_ms=lambda: NOON_MS)
    running = asyncio.create_task(sink.run())
    await sink.drain(10)
    await running


async def found(log: MemoryLog, data: Path) -> list[str]:
    return [str(difference) for difference in (await reconcile(log, data)).differences]


async def test_books_that_balance_have_no_difference(tmp_path: Path) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    assert await reconcile(log, tmp_path) == Report(
        differences=[], rows=22 + 20 + 40 + 20, pending_rows=0, open_requests=0, pending_copies=0, before_log=0
    )


async def test_closed_days_balance_as_well(tmp_path: Path) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    manifest = Manifest(tmp_path)
    for plan in due(manifest.state, "2025-11-21"):
        compact(manifest, plan, NOON_MS)
    assert await found(log, tmp_path) == []


async def test_an_empty_log_and_an_empty_folder_balance(tmp_path: Path) -> None:
    report = await reconcile(MemoryLog(), tmp_path / "none")
    assert (report.differences, report.rows) == ([], 0)


async def test_what_is_still_to_come_is_pending(tmp_path: Path) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    epoch = log.put(took(), 1)
    event = over("fresh", epoch=epoch)
    admit(log, event, partition=1)
    log.put(event, 1)
    admit(log, over("open", epoch=epoch), partition=1)
    report = await reconcile(log, tmp_path)
    assert report.differences == []
    assert (report.pending_rows, report.open_requests, report.pending_copies) == (3, 1, 1)


def rewrite(data: Path, table: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Falsify the rows of a table, and the manifest with them."""
    [file] = load(data).of(table)
    path = data / file.path
    whole = pq.ParquetFile(path).read()
    rows = whole.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, whole.schema), path)
    [record] = [path for path in (data / "_log").iterdir() if file.path.encode() in path.read_bytes()]
    said, now = (f'"table":"{table}","day":"2025-11-20","rows":{count}' for count in (file.rows, len(rows)))
    record.write_text(record.read_text().replace(said, now))


def spoil(**values: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda rows: rows[3].update(values)


async def test_a_row_that_is_missing_is_found(tmp_path: Path) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    rewrite(tmp_path, "usage", lambda rows: rows.pop(3))
    assert await found(log, tmp_path) == ["usage: completions/0@9, request r0-3: missing in Parquet"]


async def test_a_row_that_is_there_twice_is_found(tmp_path: Path) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    rewrite(tmp_path, "costs", lambda rows: rows.append(rows[3]))
    expected = "costs: completions/0@5 attempt 1 line 1, request r0-1: 2 times in Parquet"
    assert await found(log, tmp_path) == [expected]


async def test_a_row_that_the_log_does_not_know_is_found(tmp_path: Path) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    rewrite(tmp_path, "attempts", lambda rows: rows.append({**rows[3], "attempt": 2}))
    expected = "attempts: completions/0@9 attempt 2, request r0-3: in Parquet, but the log does not say so"
    assert await found(log, tmp_path) == [expected]


@pytest.mark.parametrize(
    ("table", "change", "expected"),
    [
        (
            "usage",
            {"bill_usd": 0},
            "usage: completions/0@9, request r0-3: bill_usd is 0E-12 in Parquet, 6.5E-11 in the log",
        ),
        ("usage", {"team_id": "x"}, "usage: completions/0@9, request r0-3: team_id is x in Parquet, None in the log"),
        (
            "usage",
            {"tags": [("a", "c")]},
            "usage: completions/0@9, request r0-3: tags is {'a': 'c'} in Parquet, {'a': 'b'} in the log",
        ),
        (
            "costs",
            {"quantity": 6},
            "costs: completions/0@5 attempt 1 line 1, request r0-1: quantity is 6 in Parquet, 5 in the log",
        ),
        ("audit", {"action": "x"}, "audit: audit/0@3: action is x in Parquet, 3 in the log"),
    ],
)
async def test_a_value_that_was_changed_is_found(
    tmp_path: Path, table: str, change: dict[str, Any], expected: str
) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    rewrite(tmp_path, table, spoil(**change))
    assert await found(log, tmp_path) == [expected]


async def test_a_file_that_is_gone_rotten_or_not_named_is_found(tmp_path: Path) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    [gone] = tmp_path.glob("usage/_live/*")
    stray = tmp_path / "usage/dt=2025-11-20/part-x.parquet"
    stray.parent.mkdir()
    gone.rename(stray)
    differences = await found(log, tmp_path)
    assert differences[0].startswith(f"files: {gone.relative_to(tmp_path)}: cannot be read")
    assert differences[1] == (
        "files: usage/dt=2025-11-20/part-x.parquet: lies in a closed day, but the manifest does not name it"
    )
    assert sum("missing in Parquet" in each for each in differences) == 22


async def test_a_file_with_another_number_of_rows_than_the_manifest_says_is_found(tmp_path: Path) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    [path] = tmp_path.glob("audit/_live/*")
    pq.write_table(pq.ParquetFile(path).read().slice(1), path)
    differences = await found(log, tmp_path)
    assert differences == [
        f"files: {path.relative_to(tmp_path)}: holds 19 rows, the manifest says 20",
        "audit: audit/0@0: missing in Parquet",
    ]


# The journal against itself -------------------------------------------------------------------------------------------


def twice(log: MemoryLog) -> None:
    event = over("bad")
    complete(log, event)
    complete(log, event)


def overbilled(log: MemoryLog) -> None:
    complete(log, over("bad", bill_pusd=31, hold_pusd=1000))


def miscounted(log: MemoryLog) -> None:
    complete(log, over("bad", cost_pusd=31))


def overdrawn(log: MemoryLog) -> None:
    complete(log, over("bad", hold_pusd=29))


def refused_but_billed(log: MemoryLog) -> None:
    event = over("bad", status="rejected", src=3)
    copy(log, event, log.put(event))


def never_admitted(log: MemoryLog) -> None:
    event = over("bad")
    copy(log, event, log.put(event))


def other_hold(log: MemoryLog) -> None:
    event = over("bad", hold_pusd=40)
    admit(log, event, hold_pusd=50)
    copy(log, event, log.put(event))


def not_copied(log: MemoryLog) -> None:
    event = over("bad")
    admit(log, event)
    log.put(event)


def copied_wrongly(log: MemoryLog) -> None:
    event = over("bad")
    admit(log, event)
    copy(log, event, log.put(event), lines=(line(quantity=11),))


def copied_out_of_nothing(log: MemoryLog) -> None:
    copy(log, over("bad"), 3)


def unreadable(log: MemoryLog) -> None:
    log.put(b'{"type":"ended.7"}')


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (twice, "journal: request bad: ended 2 times"),
        (overbilled, "journal: request bad: is billed 0.000000000031 USD, its lines 0.000000000030"),
        (miscounted, "journal: request bad: cost 0.000000000031 USD, its lines 0.000000000030"),
        (overdrawn, "journal: request bad: is billed 0.000000000030 USD, of which only 0.000000000029 were held"),
        (
            refused_but_billed,
            "journal: request bad: was rejected, but cost 0.000000000030 and is billed 0.000000000030 USD",
        ),
        (never_admitted, "journal: completions/0@24, request bad: ended without having been admitted"),
        (other_hold, "journal: completions/0@25, request bad: held 50 pico-dollars, ended with a hold of 40"),
        (not_copied, "journal: request bad: attempt 1, revision 0, line 0: no copy in costs"),
        (
            copied_wrongly,
            "journal: request bad: attempt 1, revision 0, line 0: the copy in costs differs from the journal",
        ),
        (
            copied_out_of_nothing,
            "journal: request bad: attempt 1, revision 0, line 0: the copy in costs differs from the journal",
        ),
        (unreadable, "log: completions/0@24: makes no row: "),
    ],
)
async def test_a_journal_that_contradicts_itself_is_found(
    tmp_path: Path, fault: Callable[[MemoryLog], None], expected: str
) -> None:
    log = balanced()
    fault(log)
    log.now_ms += MINUTE_MS
    complete(log, over("the last"))
    await sunk(log, tmp_path)
    differences = await found(log, tmp_path)
    assert len(differences) == 1
    assert differences[0].startswith(expected)


async def test_copies_may_be_repeated(tmp_path: Path) -> None:
    log = balanced()
    event = over("again")
    complete(log, event)
    copy(log, event, 99)
    await sunk(log, tmp_path)
    assert await found(log, tmp_path) == []


async def test_usage_without_a_price_balances(tmp_path: Path) -> None:
    log = balanced()
    unknown: CostLine = line(price=0, cost_source="unpriced")
    complete(log, over("unpriced", attempts=(attempt(lines=[unknown, line()]),)))
    complete(log, over("all unpriced", attempts=(attempt(lines=[unknown]),)))
    await sunk(log, tmp_path)
    assert await found(log, tmp_path) == []


async def test_rows_whose_records_retention_has_removed_cannot_be_compared_and_are_counted(tmp_path: Path) -> None:
    log = balanced()
    await sunk(log, tmp_path)
    cut(log, JOURNAL, 0, 10)
    cut(log, "costs", 0, 7)
    cut(log, "audit", 0, 6)
    report = await reconcile(log, tmp_path)
    assert report.differences == []
    assert report.before_log == 4 * (1 + 1 + 2) + 6


# A range of time ------------------------------------------------------------------------------------------------------


def three_minutes() -> MemoryLog:
    """Balanced books, and two minutes more of them, in which each partition has another owner."""
    log = balanced()
    for minute in range(1, 3):
        for partition in range(2):
            epoch = log.put(took(), partition)
            for number in range(3):
                complete(log, over(f"m{minute}-{partition}-{number}", epoch=epoch), partition)
                log.put(audit(str(number)), partition, "audit")
        log.now_ms += MINUTE_MS
    return log


async def test_ranges_that_adjoin_add_up_to_the_whole(tmp_path: Path) -> None:
    log = three_minutes()
    await sunk(log, tmp_path)
    whole = await reconcile(log, tmp_path)
    borders = [None, NOON_MS + MINUTE_MS, NOON_MS + 2 * MINUTE_MS, None]
    parts = [
        await reconcile(log, tmp_path, range=Range(from_ms, until_ms))
        for from_ms, until_ms in itertools.pairwise(borders)
    ]
    assert [part.differences for part in (whole, *parts)] == [[], [], [], []]
    assert [part.rows for part in parts] == [102, 24, 24]
    assert whole.rows == 150 and not any(part.before_log for part in parts)


async def test_what_is_wrong_is_found_in_its_range_and_in_no_other(tmp_path: Path) -> None:
    log = three_minutes()
    await sunk(log, tmp_path)
    rewrite(tmp_path, "usage", lambda rows: rows.pop(-1))
    found = {}
    for minute in range(3):
        range_ = Range(NOON_MS + minute * MINUTE_MS, NOON_MS + (minute + 1) * MINUTE_MS)
        found[minute] = [each.request_id for each in (await reconcile(log, tmp_path, range=range_)).differences]
    assert found == {0: [], 1: [], 2: ["m2-1-2"]}


async def test_a_range_whose_beginning_retention_has_removed_counts_what_it_cannot_compare(tmp_path: Path) -> None:
    log = three_minutes()
    await sunk(log, tmp_path)
    cut(log, JOURNAL, 0, 10)
    cut(log, "costs", 0, 7)
    cut(log, "audit", 0, 6)
    until_ms = NOON_MS + MINUTE_MS
    first = await reconcile(log, tmp_path, range=Range(None, until_ms))
    later = await reconcile(log, tmp_path, range=Range(until_ms, None))
    assert (first.differences, first.before_log) == ([], 4 * (1 + 1 + 2) + 6)
    assert (later.differences, later.before_log) == ([], 0)
