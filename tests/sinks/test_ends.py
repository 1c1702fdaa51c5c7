"""Ends are read into columns at once: as `decode` reads them, or not at all."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.sinks.journals import NOON_MS, MemoryLog, attempt, ended, line, took
from tollgate.errors import Unreadable
from tollgate.events import Usage, decode, encode
from tollgate.journal import JOURNAL
from tollgate.sinks.ends import FIRST_BYTES, READ_AT_ONCE, read_ends
from tollgate.sinks.fold import Batch, Fold

GOLDEN = Path(__file__).parents[1] / "golden" / "events" / "ended.1.json"

WHOLE = encode(
    ended(
        "r2",
        attempts=(attempt(usage=Usage(input_tokens=10), usage_source="provider", lines=[line()]),),
        request={"tags": {"a": "b"}, "stream": True},
        reason="word",
    )
)

UNREADABLE = {
    "cut short": WHOLE[:-5],
    "two events": WHOLE + WHOLE,
    "more than an event": WHOLE + b"}",
    "a list": FIRST_BYTES[:-1] + b"}[]",
    "not UTF-8": WHOLE.replace(b'"word"', b'"\xff"'),
    "half a character": WHOLE.replace(b'"word"', rb'"\ud800"'),
    "a number for a text": WHOLE.replace(b'"word"', b"5"),
    "a text for a number": WHOLE.replace(b'"http_status":200', b'"http_status":"two hundred"'),
    "true for a number": WHOLE.replace(b'"http_status":200', b'"http_status":true'),
    "a number for a truth": WHOLE.replace(b'"stream":true', b'"stream":1'),
    "a text for a list": WHOLE.replace(b'"lines":[', b'"lines":"","more":['),
    "null for an attempt": WHOLE.replace(b'"attempts":[', b'"attempts":[null,'),
    "null for a line": WHOLE.replace(b'"lines":[', b'"lines":[null,'),
    "a number for a tag": WHOLE.replace(b'"a":"b"', b'"a":1'),
    "null for a cost": WHOLE.replace(b'"unit_price_pusd":3', b'"unit_price_pusd":null'),
    "no status": WHOLE.replace(b'"status":"completed",', b""),
    "no organisation": WHOLE.replace(b'"org_id":"acme",', b""),
    "an unknown status": WHOLE.replace(b'"status":"completed"', b'"status":"done"'),
    "an unknown outcome": WHOLE.replace(b'"outcome":"ok"', b'"outcome":"well"'),
    "an unknown source": WHOLE.replace(b'"usage_source":"provider"', b'"usage_source":"me"'),
}


def test_the_values_below_are_what_they_say() -> None:
    assert WHOLE not in UNREADABLE.values()
    assert all(value.startswith(FIRST_BYTES[:-1]) for value in UNREADABLE.values())
    assert read_ends([WHOLE]).num_rows == 1


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_decode_refuses_is_skipped_with_its_reason_and_its_neighbours_are_not(value: bytes) -> None:
    with pytest.raises(Unreadable) as refusal:
        decode(value)
    batch = folded(encode(ended("r1")), value, encode(ended("r3")))
    assert request_ids(batch) == ["r1", "r3"]
    assert [(skipped.offset, skipped.reason) for skipped in batch.skipped] == [(2, str(refusal.value))]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"http_status":200', b'"http_status":"200"'),
        (b'"http_status":200', b'"http_status":200.9'),
        (b'"bill_pusd":30', b'"bill_pusd":30.9'),
        (b'"price_version":"2025-11-20"', b'"price_version":null'),
    ],
)
def test_what_encode_never_writes_may_be_read_where_decode_refuses(before: bytes, after: bytes) -> None:
    value = WHOLE.replace(before, after)
    assert value != WHOLE
    with pytest.raises(Unreadable):
        decode(value)
    assert not folded(value).skipped


def test_an_end_may_be_laid_out_in_any_way() -> None:
    written = GOLDEN.read_bytes()
    compact = encode(msgspec.structs.replace(decode(written), epoch=0))
    spread = msgspec.json.format(compact, indent=4)
    assert not spread.startswith(FIRST_BYTES)
    assert tables(folded(spread)) == tables(folded(compact))


def test_more_ends_than_are_read_at_once_keep_their_order() -> None:
    ids = [f"r{number}" for number in range(2 * READ_AT_ONCE + 1)]
    assert request_ids(folded(*(encode(ended(each)) for each in ids))) == ids


def test_an_end_of_two_values_does_not_move_the_next_to_another_place() -> None:
    batch = folded(WHOLE + WHOLE, encode(ended("r3")))
    assert [(row["request_id"], row["log_offset"]) for row in tables(batch)["usage"]] == [("r3", 2)]


def folded(*values: bytes) -> Batch:
    """What becomes of these records of a journal that has been taken at offset 0."""
    log = MemoryLog(now_ms=NOON_MS)
    log.put(took())
    for value in values:
        log.put(value)
    fold = Fold({}, seal_events=10_000)
    fold.take(log.records[JOURNAL, 0])
    return fold.cut()


def tables(batch: Batch) -> dict[str, list[dict[str, Any]]]:
    return {part.table: part.rows.to_pylist() for part in batch.parts}


def request_ids(batch: Batch) -> list[str]:
    return [row["request_id"] for row in tables(batch)["usage"]]
