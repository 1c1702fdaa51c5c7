"""A record of the log becomes rows: pure, complete, exact."""

import datetime
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sinks import row_by_row
from tests.sinks.journals import NOON_MS, attempt, audit, ended, line
from tests.sinks.row_by_row import Placed
from tollgate.events import Adjusted, Attempt, CostLine, Ended, Request, Usage, encode
from tollgate.sinks import arrays, rows
from tollgate.sinks.schemas import KEYS, SCHEMAS

NOON = datetime.datetime(2025, 11, 20, 12, tzinfo=datetime.UTC)


def made(event: Ended | Adjusted, partition: int = 0, offset: int = 0, timestamp_ms: int = NOON_MS) -> Any:
    """The rows of one event, by table."""
    tables = tables_of([Placed(event, partition, offset, timestamp_ms)])
    return {table: found.to_pylist() for table, found in tables.items()}


def tables_of(placed: Sequence[Placed]) -> dict[str, Any]:
    """The tables of events as they are written; adjustments come last."""
    ends = [rows.PlacedEnd(encode(event), event.epoch, *place) for event, *place in placed if isinstance(event, Ended)]
    adjusted = [rows.adjustment(event, *place) for event, *place in placed if isinstance(event, Adjusted)]
    tables = rows.end_tables(ends)
    return tables | {"costs": pa.concat_tables([tables["costs"], rows.adjustment_tables(adjusted)["costs"]])}


def usage_row(event: Ended, *place: int) -> dict[str, Any]:
    [row] = made(event, *place)["usage"]
    assert isinstance(row, dict)
    return row


def test_a_completed_request_is_one_row_of_usage() -> None:
    event = ended(
        "r1",
        attempts=(
            attempt(1, "error", http_status=429, error_class="rate_limit"),
            attempt(
                2,
                "ok",
                provider="other",
                usage=Usage(
                    input_tokens=7,
                    cache_read_tokens=1,
                    cache_write_5m_tokens=2,
                    cache_write_1h_tokens=3,
                    cache_write_tokens=4,
                    output_tokens=5,
                    reasoning_tokens=6,
                ),
                usage_source="provider",
                lines=[line(quantity=7, price=2_500_000), line("output_tokens", 5, 10_000_000)],
            ),
        ),
        request={"team_id": "t", "user_id": "u", "stream": True, "tags": {"a": "b"}, "accepted_ms": NOON_MS - 9},
        hold_pusd=10**12,
        latency_ms=9,
        ttft_ms=4,
        overhead_us=1250,
        price_version="2025-11-20",
    )
    assert usage_row(event, 3, 41) == {
        "request_id": "r1",
        "ts": NOON,
        "org_id": "acme",
        "team_id": "t",
        "key_id": "key_1",
        "user_id": "u",
        "endpoint": "/v1/chat/completions",
        "dialect": "openai",
        "model_requested": "sandbox",
        "provider": "other",
        "account": "main",
        "model": "sandbox-large",
        "status": "completed",
        "http_status": 200,
        "error": None,
        "reason": None,
        "stream": True,
        "input_tokens": 7,
        "cache_read_tokens": 1,
        "cache_write_tokens": 9,
        "output_tokens": 5,
        "reasoning_tokens": 6,
        "usage_source": "provider",
        "cost_usd": Decimal("0.000067500000"),
        "bill_usd": Decimal("0.000067500000"),
        "hold_usd": Decimal("1.000000000000"),
        "cost_source": "computed",
        "period": "2025-11",
        "latency_ms": 9,
        "ttft_ms": 4,
        "overhead_ms": 1.25,
        "cache": None,
        "attempts": 2,
        "tags": [("a", "b")],
        "price_version": "2025-11-20",
        "accepted_at": NOON - datetime.timedelta(milliseconds=9),
        "log_partition": 3,
        "log_offset": 41,
    }


def test_every_attempt_has_a_row_with_its_own_cost() -> None:
    failed = attempt(
        1,
        "error",
        error_class="server_error",
        http_status=500,
        reason="broken",
        started_ms=NOON_MS,
        latency_ms=3,
        usage_raw='{"n":1}',
        upstream_request_id="up-1",
        finish_reason="stop",
        served_model="sandbox-large-2025",
        lines=[line(quantity=1, price=5, bill_pusd=0)],
    )
    event = ended("r1", attempts=(failed, attempt(2)))
    assert made(event, 0, 9, NOON_MS + 5)["attempts"][0] == {
        "request_id": "r1",
        "attempt": 1,
        "ts": NOON + datetime.timedelta(milliseconds=5),
        "org_id": "acme",
        "provider": "sandbox",
        "account": "main",
        "model": "sandbox-large",
        "served_model": "sandbox-large-2025",
        "outcome": "error",
        "error_class": "server_error",
        "http_status": 500,
        "reason": "broken",
        "started_at": NOON,
        "latency_ms": 3,
        "ttft_ms": None,
        "finish_reason": "stop",
        "upstream_request_id": "up-1",
        "cost_usd": Decimal("0.000000000005"),
        "bill_usd": Decimal("0E-12"),
        "cost_source": "computed",
        "usage_source": "missing",
        "usage_raw": '{"n":1}',
        "log_partition": 0,
        "log_offset": 9,
    }


def test_every_line_of_every_attempt_is_a_row_of_costs() -> None:
    event = ended(
        "r1", attempts=(attempt(1, "cut", [line(price=1)]), attempt(2, "ok", [line(), line("request", 1, 9)]))
    )
    table = made(event, 1, 2)["costs"]
    assert [(row["attempt"], row["line"], row["meter"], row["revision"]) for row in table] == [
        (1, 0, "input_tokens", 0),
        (2, 0, "input_tokens", 0),
        (2, 1, "request", 0),
    ]
    assert table[2] == {
        "request_id": "r1",
        "attempt": 2,
        "revision": 0,
        "line": 1,
        "ts": NOON,
        "org_id": "acme",
        "period": "2025-11",
        "meter": "request",
        "quantity": 1,
        "unit_price_usd": Decimal("9E-12"),
        "cost_usd": Decimal("9E-12"),
        "bill_usd": Decimal("9E-12"),
        "price_version": "2025-11-20",
        "cost_source": "computed",
        "log_partition": 1,
        "log_offset": 2,
    }


def test_an_adjustment_is_rows_of_costs_in_the_period_of_its_own_time() -> None:
    event = Adjusted(
        epoch=0,
        request_id="r1",
        org_id="acme",
        attempt=1,
        revision=1,
        reason="invoice",
        lines=(line("estimate", -1, 50, cost_pusd=-50), line(quantity=4)),
    )
    found = made(event, 0, 7, NOON_MS + 20 * rows.DAY_MS)["costs"]
    assert [(row["revision"], row["period"], row["cost_usd"]) for row in found] == [
        (1, "2025-12", Decimal("-50E-12")),
        (1, "2025-12", Decimal("12E-12")),
    ]


def test_an_audit_record_is_one_row_with_its_link_of_the_chain() -> None:
    [row] = rows.audit_tables([rows.PlacedAudit(audit(), 0, 1, NOON_MS, "ab")])["audit"].to_pylist()
    known = {name: value for name, value in row.items() if value is not None}
    assert known == {
        "ts": NOON,
        "org_id": "acme",
        "actor": "admin",
        "action": "key.created",
        "hash": "ab",
        "log_partition": 0,
        "log_offset": 1,
    }


def test_a_rejected_request_used_and_cost_nothing() -> None:
    row = usage_row(ended(attempts=(), status="rejected", http_status=429, src=4))
    assert (row["input_tokens"], row["output_tokens"], row["cost_usd"], row["bill_usd"]) == (0, 0, 0, 0)
    assert (row["provider"], row["model"], row["usage_source"], row["attempts"]) == (None, None, None, 0)


def test_usage_that_no_provider_told_is_unknown_and_not_zero() -> None:
    row = usage_row(ended(attempts=(attempt(1, "abandoned"),)))
    assert (row["input_tokens"], row["output_tokens"], row["usage_source"]) == (None, None, "missing")


def test_usage_without_any_price_has_an_unknown_cost() -> None:
    unknown = line(price=0, cost_source="unpriced")
    event = ended(attempts=(attempt(usage=Usage(input_tokens=10), lines=[unknown]),))
    row = usage_row(event)
    assert (row["input_tokens"], row["cost_usd"], row["bill_usd"], row["cost_source"]) == (10, None, 0, "unpriced")
    assert made(event)["attempts"][0]["cost_usd"] is None
    [cost] = made(event)["costs"]
    assert (cost["quantity"], cost["unit_price_usd"], cost["cost_usd"]) == (10, None, None)


def test_usage_of_which_a_part_has_a_price_keeps_the_known_part_and_says_so() -> None:
    event = ended(attempts=(attempt(lines=[line(), line("web_searches", 1, 0, cost_source="unpriced")]),))
    row = usage_row(event)
    assert (row["cost_usd"], row["cost_source"]) == (Decimal("30E-12"), "unpriced")


def test_no_records_are_empty_tables_with_every_type() -> None:
    tables = {**rows.end_tables([]), **rows.audit_tables([])}
    assert tables.keys() == SCHEMAS.keys()
    for table, empty in tables.items():
        assert (empty.num_rows, empty.schema) == (0, SCHEMAS[table])
        assert set(KEYS[table]) <= set(empty.schema.names)


# All at once is one by one --------------------------------------------------------------------------------------------

words = st.sampled_from(["a", "b", "ü", ""])
counts = st.integers(0, 10**6)
amounts_pusd = st.one_of(st.integers(-(10**12), 10**12), st.integers(-(10**30), 10**30))
sources = st.sampled_from(["provider_reported", "computed", "estimated", "unpriced"])
maybe_words, maybe_counts = st.none() | words, st.none() | counts
times_ms = st.integers(0, 4_000_000_000_000)

cost_lines = st.builds(
    CostLine,
    meter=words,
    quantity=counts,
    unit_price_pusd=amounts_pusd,
    cost_pusd=amounts_pusd,
    bill_pusd=amounts_pusd,
    cost_source=sources,
)
some_lines = st.lists(cost_lines, max_size=3).map(tuple)
attempts = st.builds(
    Attempt,
    attempt=st.integers(1, 9),
    provider=words,
    account=words,
    model=words,
    outcome=st.sampled_from(["ok", "error", "abandoned"]),
    served_model=maybe_words,
    error_class=maybe_words,
    http_status=st.none() | st.integers(100, 599),
    started_ms=times_ms,
    latency_ms=counts,
    ttft_ms=maybe_counts,
    usage=st.none() | st.builds(Usage, input_tokens=counts, cache_write_5m_tokens=counts, cache_write_tokens=counts),
    usage_raw=maybe_words,
    lines=some_lines,
)
requests = st.builds(
    Request,
    request_id=words,
    org_id=words,
    key_id=words,
    endpoint=words,
    dialect=st.just("openai"),
    model=words,
    team_id=maybe_words,
    stream=st.booleans(),
    tags=st.dictionaries(words, words, max_size=2),
    accepted_ms=times_ms,
)
ends = st.builds(
    Ended,
    epoch=st.just(0),
    request=requests,
    status=st.just("completed"),
    http_status=st.integers(100, 599),
    period=words,
    error=maybe_words,
    attempts=st.lists(attempts, max_size=3).map(tuple),
    hold_pusd=st.none() | amounts_pusd,
    cost_pusd=amounts_pusd,
    bill_pusd=amounts_pusd,
    ttft_ms=maybe_counts,
    overhead_us=counts,
    cache=maybe_words,
)
adjustments = st.builds(
    Adjusted,
    epoch=st.just(0),
    request_id=words,
    org_id=words,
    attempt=st.integers(1, 9),
    revision=st.integers(1, 9),
    reason=words,
    lines=some_lines,
)
records = st.builds(
    Placed, st.one_of(ends, ends, adjustments), st.integers(0, 5), st.integers(0, 2**40), st.integers(0, 10**13)
)


@given(st.lists(records, max_size=5))
def test_many_records_make_the_rows_that_each_of_them_makes(placed: list[Placed]) -> None:
    expected: dict[str, list[row_by_row.Row]] = {"usage": [], "attempts": [], "costs": []}
    in_order = sorted(placed, key=lambda each: type(each.event) is Adjusted)  # their cost lines come last
    for each in in_order:
        for table, found in row_by_row.rows_of(each).items():
            expected[table] += found
    assert {table: found.to_pylist() for table, found in tables_of(placed).items()} == expected


# Columns --------------------------------------------------------------------------------------------------------------


def amounts(bound: int) -> st.SearchStrategy[int]:
    return st.integers(-bound, bound)


@given(st.lists(st.one_of(st.none(), amounts(10**6), amounts(2**63 - 1), amounts(10**37)), min_size=1))
def test_money_is_exact_at_any_size(values: list[int | None]) -> None:
    found = arrays.usd(arrays.pico(values)).to_pylist()
    assert [None if value is None else Decimal(f"{value}E-12") for value in values] == found


def converted_time(values: list[Any]) -> Any:
    return pa.array(values, pa.timestamp("ms", "UTC")).cast(arrays.TIME)


columns = st.sampled_from(
    [
        (arrays.integer, lambda values: pa.array(values, arrays.INT), st.integers(-(2**31), 2**31 - 1)),
        (arrays.long, lambda values: pa.array(values, arrays.LONG), st.integers(-(2**63), 2**63 - 1)),
        (arrays.time, converted_time, st.integers(-(10**12), 10**13)),
    ]
)


@given(columns.flatmap(lambda column: st.tuples(st.just(column), st.lists(column[2] | st.none()))))
def test_a_column_is_the_same_whichever_way_it_is_laid_out(drawn: tuple[Any, list[int | None]]) -> None:
    (laid_out, converted, _), values = drawn
    assert laid_out(values).equals(converted(values))
    known = [value for value in values if value is not None]  # without nulls it is laid out directly
    assert laid_out(known).equals(converted(known))


@pytest.mark.parametrize(("column", "value"), [(arrays.integer, 2**31), (arrays.long, 2**63), (arrays.time, 2**62)])
def test_a_number_that_a_column_does_not_hold_is_refused_with_and_without_nulls(column: Any, value: int) -> None:
    for values in ([value], [value, None]):
        with pytest.raises((pa.ArrowInvalid, OverflowError)):
            column(values)
