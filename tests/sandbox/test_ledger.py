"""The provider's own books."""

import orjson
import pytest

from tollgate.sandbox import Call, Ledger, LedgerFull


def start(ledger: Ledger, call_id: str | None = "r.1") -> Call:
    return ledger.start(call_id=call_id, dialect="openai", model="sandbox", stream=True, status=200, max_tokens=None)


def test_a_call_is_in_the_books_from_its_start():
    ledger = Ledger()
    call = start(ledger)
    assert ledger.rows() == [call]
    assert (call.finished, call.outcome) == (False, None)
    ledger.end(call, "cut")
    assert [(row.finished, row.outcome) for row in ledger.rows()] == [(True, "cut")]


def test_rows_come_in_the_order_of_their_start_after_a_position():
    ledger = Ledger()
    first, second, third = start(ledger), start(ledger), start(ledger)
    ledger.end(third, "ok")
    ledger.end(first, "ok")
    assert [row.seq for row in ledger.rows()] == [first.seq, second.seq, third.seq]
    assert [row.seq for row in ledger.rows(after=first.seq)] == [second.seq, third.seq]


def test_in_memory_the_row_that_finished_first_makes_room():
    ledger = Ledger(max_rows=2)
    first, second = start(ledger), start(ledger)
    ledger.end(second, "ok")
    third = start(ledger)
    assert ledger.rows() == [first, third]


def test_calls_under_way_are_never_dropped():
    ledger = Ledger(max_rows=1)
    start(ledger)
    with pytest.raises(LedgerFull):
        start(ledger)


def test_on_a_file_nothing_is_ever_dropped(tmp_path):
    ledger = Ledger(tmp_path / "ledger", max_rows=1)
    ledger.end(start(ledger), "ok")
    with pytest.raises(LedgerFull):
        start(ledger)
    ledger.close()


def test_the_file_has_a_line_at_the_start_and_one_at_the_end(tmp_path):
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    call = start(ledger)
    assert [row["finished"] for row in map(orjson.loads, path.read_bytes().splitlines())] == [False]
    call.output_tokens = 7
    ledger.end(call, "ok")
    lines = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    assert [(row["finished"], row["output_tokens"]) for row in lines] == [(False, 0), (True, 7)]
    ledger.close()


def test_a_file_is_read_back_and_continued(tmp_path):
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    done, lost = start(ledger), start(ledger)
    ledger.end(done, "ok")
    ledger.close()
    again = Ledger(path)
    assert again.rows() == [done, lost]
    assert start(again).seq == lost.seq + 1
    again.close()


@pytest.mark.parametrize("line", [b"{}\n", b"torn", b'{"seq": 1, "of": "another kind"}\n', b"[]\n"])
def test_a_file_of_another_kind_is_refused_with_its_line(tmp_path, line):
    path = tmp_path / "ledger"
    path.write_bytes(line)
    with pytest.raises(ValueError, match="line 1 is not a row of a ledger"):
        Ledger(path)


def test_clearing_forgets_everything_but_the_count(tmp_path):
    path = tmp_path / "ledger"
    ledger = Ledger(path)
    call = start(ledger)
    ledger.clear()
    ledger.end(call, "ok")
    assert ledger.rows() == []
    assert path.read_bytes() == b""
    assert start(ledger).seq == call.seq + 1
    ledger.close()
