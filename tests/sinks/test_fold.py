"""Records come in, rows come out: each valid record once, whatever is delivered how often."""

from hashlib import sha256

from tests.sinks.journals import DAY_MS, NOON_MS, MemoryLog, attempt, audit, ended, line, took
from tollgate.events import Admitted, AttemptStarted, DeadLetter, OwnerReleased, Usage
from tollgate.journal import JOURNAL, NO_EPOCH
from tollgate.sinks.fold import AUDIT, SEAL_EVENTS, Batch, Fold
from tollgate.sinks.manifest import Cursor


def requests(batch: Batch) -> list[str]:
    return [row["request_id"] for part in batch.parts if part.table == "usage" for row in part.rows.to_pylist()]


def test_only_what_the_owner_says_becomes_rows() -> None:
    log = MemoryLog()
    log.put(ended("before any owner", epoch=0))
    log.put(ended("nobody's", epoch=NO_EPOCH))
    first = log.put(took())
    log.put(ended("first owner's", epoch=first))
    second = log.put(took())
    log.put(ended("zombie's", epoch=first))
    log.put(ended("second owner's", epoch=second))
    fold = Fold({})
    fold.take(log.records[JOURNAL, 0])
    assert requests(fold.cut()) == ["first owner's", "second owner's"]
    assert fold.fenced == 3


def test_the_epoch_is_carried_from_one_batch_to_the_next() -> None:
    log = MemoryLog()
    log.put(took())
    log.put(ended("r1", epoch=0))
    log.put(ended("zombie's", epoch=9))
    first = Fold({})
    first.take(log.records[JOURNAL, 0][:1])
    second = Fold(first.cut().cursors)
    second.take(log.records[JOURNAL, 0][1:])
    assert requests(second.cut()) == ["r1"]


def test_a_record_delivered_twice_counts_once() -> None:
    log = MemoryLog()
    log.put(took())
    log.put(ended("r1"))
    fold = Fold({})
    fold.take(log.records[JOURNAL, 0])
    fold.take(log.records[JOURNAL, 0])
    assert requests(fold.cut()) == ["r1"]
    fold.take(log.records[JOURNAL, 0])
    assert not fold.cut().cursors


def test_rows_go_to_the_day_of_the_log_s_time() -> None:
    log = MemoryLog(now_ms=NOON_MS)
    log.put(took())
    log.put(ended("today"))
    log.now_ms += DAY_MS
    log.put(ended("tomorrow"))
    fold = Fold({})
    fold.take(log.records[JOURNAL, 0])
    parts = fold.cut().parts
    assert [part.day for part in parts if part.table == "usage"] == ["2025-11-20", "2025-11-21"]


def test_the_cursor_says_what_the_next_reader_must_know() -> None:
    log = MemoryLog()
    log.put(took(), skip=4)
    log.put(ended("r1", epoch=4), skip=3)
    fold = Fold({})
    fold.take(log.records[JOURNAL, 0])
    assert fold.cut().cursors == {"completions/0": Cursor(offset=9, epoch=4, time_ms=NOON_MS)}


def test_records_that_make_no_row_are_passed_over() -> None:
    log = MemoryLog()
    log.put(took())
    request = ended("r1").request
    log.put(Admitted(epoch=0, src=0, request=request, subjects=(), period="2025-11", plan=(), price_version=""))
    log.put(AttemptStarted(epoch=0, request_id="r1", org_id="acme", attempt=2))
    log.put(OwnerReleased(epoch=0))
    fold = Fold({})
    fold.take(log.records[JOURNAL, 0])
    batch = fold.cut()
    assert (batch.parts, batch.skipped, batch.cursors["completions/0"].offset) == ([], [], 4)


def test_what_cannot_be_read_is_named_and_stops_nothing() -> None:
    log = MemoryLog()
    log.put(took())
    log.put(b'{"type":"ended.99"}')
    log.put(b"\xff")
    log.put(ended("r1"))
    log.put(DeadLetter(topic="x", partition=0, offset=0, reason="", value=b""), topic=AUDIT)
    fold = Fold({})
    fold.take(log.records[JOURNAL, 0])
    fold.take(log.records[AUDIT, 0])
    batch = fold.cut()
    assert requests(batch) == ["r1"]
    assert [skipped[:3] for skipped in batch.skipped] == [(JOURNAL, 0, 1), (JOURNAL, 0, 2), (AUDIT, 0, 0)]
    assert "ended.99" in batch.skipped[0].reason


def test_rows_become_columns_many_at_a_time_without_loss() -> None:
    log = MemoryLog()
    log.put(took())
    for number in range(SEAL_EVENTS):
        log.put(ended(f"r{number}"))
    fold = Fold({})
    fold.take(log.records[JOURNAL, 0])
    assert fold.size == 3 * SEAL_EVENTS
    batch = fold.cut()
    assert requests(batch) == [f"r{number}" for number in range(SEAL_EVENTS)]
    assert (fold.size, fold.cut().parts) == (0, [])


def test_a_number_that_no_column_holds_costs_its_record_all_rows_and_no_other_any() -> None:
    log = MemoryLog()
    log.put(took())
    log.put(ended("r1"))
    log.put(ended("absurd", attempts=(attempt(lines=[line()]), attempt(2, usage=Usage(input_tokens=2**70)))))
    log.put(ended("r2"))
    fold = Fold({})
    fold.take(log.records[JOURNAL, 0])
    batch = fold.cut()
    assert {part.table: sorted(set(part.rows["request_id"].to_pylist())) for part in batch.parts} == {
        "usage": ["r1", "r2"],
        "attempts": ["r1", "r2"],
        "costs": ["r1", "r2"],
    }
    assert [skipped[:3] for skipped in batch.skipped] == [(JOURNAL, 0, 2)]


def test_the_audit_chain_runs_over_batches_and_over_what_cannot_be_read() -> None:
    log = MemoryLog()
    for value in (audit("a"), b"unreadable", audit("b")):
        log.put(value, topic=AUDIT)
    records = log.records[AUDIT, 0]
    expected, links = b"", []
    for record in records:
        expected = sha256(expected + (record.value or b"")).digest()
        links.append(expected.hex())
    fold = Fold({})
    hashes = []
    for record in records:
        fold.take([record])
        hashes += [row["hash"] for part in fold.cut().parts for row in part.rows.to_pylist()]
    assert hashes == [links[0], links[2]]
