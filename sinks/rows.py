"""What a record of the log becomes: rows of `usage`, `attempts`, `costs` and `audit`, and the types of their columns.

A row is a pure function of one record and its place in the log; its last two columns name that place. Nothing in a
row is ever changed: what is learned later is a further row of `costs`, with a revision and a time of its own.
Unknown is null, never 0. Pure: no clock, no I/O.
"""

import sys
from array import array
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from tollgate.events import Adjusted, Attempt, AuditRecorded, CostLine, Ended, Usage

Row = tuple[Any, ...]

DAY_MS = 86_400_000

_text, _flag, _int, _long = pa.string(), pa.bool_(), pa.int32(), pa.int64()
_time = pa.timestamp("us", "UTC")
_money = pa.decimal128(38, 12)
_tags = pa.map_(_text, _text)
_PLACE = [("log_partition", _int), ("log_offset", _long)]

# In rows, money is an integer of pico-dollars, a time an integer of Unix milliseconds, a map a list of pairs.
SCHEMAS: dict[str, Any] = {
    "usage": pa.schema(
        [
            ("request_id", _text),
            ("ts", _time),
            ("org_id", _text),
            ("team_id", _text),
            ("key_id", _text),
            ("user_id", _text),
            ("endpoint", _text),
            ("dialect", _text),
            ("model_requested", _text),
            ("provider", _text),
            ("account", _text),
            ("model", _text),
            ("status", _text),
            ("http_status", _int),
            ("error", _text),
            ("reason", _text),
            ("stream", _flag),
            ("input_tokens", _long),
            ("cache_read_tokens", _long),
            ("cache_write_tokens", _long),
            ("output_tokens", _long),
            ("reasoning_tokens", _long),
            ("usage_source", _text),
            ("cost_usd", _money),
            ("bill_usd", _money),
            ("hold_usd", _money),
            ("cost_source", _text),
            ("period", _text),
            ("latency_ms", _long),
            ("ttft_ms", _long),
            ("overhead_ms", pa.float64()),
            ("cache", _text),
            ("attempts", _int),
            ("tags", _tags),
            ("price_version", _text),
            ("accepted_at", _time),
            *_PLACE,
        ]
    ),
    "attempts": pa.schema(
        [
            ("request_id", _text),
            ("attempt", _int),
            ("ts", _time),
            ("org_id", _text),
            ("provider", _text),
            ("account", _text),
            ("model", _text),
            ("served_model", _text),
            ("outcome", _text),
            ("error_class", _text),
            ("http_status", _int),
            ("reason", _text),
            ("started_at", _time),
            ("latency_ms", _long),
            ("ttft_ms", _long),
            ("finish_reason", _text),
            ("upstream_request_id", _text),
            ("cost_usd", _money),
            ("bill_usd", _money),
            ("cost_source", _text),
            ("usage_source", _text),
            ("usage_raw", _text),
            *_PLACE,
        ]
    ),
    "costs": pa.schema(
        [
            ("request_id", _text),
            ("attempt", _int),
            ("revision", _int),
            ("line", _int),
            ("ts", _time),
            ("org_id", _text),
            ("period", _text),
            ("meter", _text),
            ("quantity", _long),
            ("unit_price_usd", _money),
            ("cost_usd", _money),
            ("bill_usd", _money),
            ("price_version", _text),
            ("cost_source", _text),
            *_PLACE,
        ]
    ),
    "audit": pa.schema(
        [
            ("ts", _time),
            ("org_id", _text),
            ("key_id", _text),
            ("user_id", _text),
            ("actor", _text),
            ("action", _text),
            ("target", _text),
            ("method", _text),
            ("route", _text),
            ("status", _int),
            ("provider", _text),
            ("cost_usd", _money),
            ("before", _text),
            ("after", _text),
            ("request_id", _text),
            ("ip", _text),
            ("hash", _text),
            *_PLACE,
        ]
    ),
}

# What tells one row of a table from every other, and the order within a closed day after organisation and time.
KEYS: dict[str, tuple[str, ...]] = {
    "usage": ("log_partition", "log_offset"),
    "attempts": ("log_partition", "log_offset", "attempt"),
    "costs": ("log_partition", "log_offset", "attempt", "line"),
    "audit": ("log_partition", "log_offset"),
}

_NO_USAGE = Usage()
# From the most certain to the least: a sum is as certain as its least certain part.
_CERTAINTY = ("provider_reported", "computed", "estimated", "unpriced")


def usage_row(event: Ended, partition: int, offset: int, timestamp_ms: int) -> Row:
    """The one row of a request. Provider, model and tokens are those of the attempt that answered, or else the last.

    Tokens are null when a call was made but its usage is unknown, 0 when none was made. The cost is that of all
    attempts; null when there is usage but no price for any of it, and the known part when there is for some.
    """
    request = event.request
    answer = _answer(event.attempts)
    lines = [line for attempt in event.attempts for line in attempt.lines]
    source = _least_certain(lines)
    return (
        request.request_id,
        timestamp_ms,
        request.org_id,
        request.team_id,
        request.key_id,
        request.user_id,
        request.endpoint,
        request.dialect,
        request.model,
        answer and answer.provider,
        answer and answer.account,
        answer and answer.model,
        event.status,
        event.http_status,
        event.error,
        event.reason,
        request.stream,
        *_tokens(answer),
        answer and answer.usage_source,
        event.cost_pusd if source != "unpriced" or _some_price(lines) else None,
        event.bill_pusd,
        event.hold_pusd,
        source,
        event.period,
        event.latency_ms,
        event.ttft_ms,
        event.overhead_us / 1000,
        event.cache,
        len(event.attempts),
        list(request.tags.items()),
        event.price_version,
        request.accepted_ms or None,
        partition,
        offset,
    )


def attempt_row(event: Ended, attempt: Attempt, partition: int, offset: int, timestamp_ms: int) -> Row:
    """The row of one provider call; its cost as it was known when the request ended."""
    lines = attempt.lines
    source = _least_certain(lines)
    return (
        event.request.request_id,
        attempt.attempt,
        timestamp_ms,
        event.request.org_id,
        attempt.provider,
        attempt.account,
        attempt.model,
        attempt.served_model,
        attempt.outcome,
        attempt.error_class,
        attempt.http_status,
        attempt.reason,
        attempt.started_ms or None,
        attempt.latency_ms,
        attempt.ttft_ms,
        attempt.finish_reason,
        attempt.upstream_request_id,
        sum(line.cost_pusd for line in lines) if source != "unpriced" or _some_price(lines) else None,
        sum(line.bill_pusd for line in lines),
        source,
        attempt.usage_source,
        attempt.usage_raw,
        partition,
        offset,
    )


def cost_row(
    line: CostLine,
    index: int,
    partition: int,
    offset: int,
    timestamp_ms: int,
    *,
    request_id: str,
    org_id: str,
    attempt: int,
    revision: int,
    period: str,
) -> Row:
    """The row of line `index` of an attempt. Price and cost of what has no price are null; its bill is 0."""
    priced = line.cost_source != "unpriced"
    return (
        request_id,
        attempt,
        revision,
        index,
        timestamp_ms,
        org_id,
        period,
        line.meter,
        line.quantity,
        line.unit_price_pusd if priced else None,
        line.cost_pusd if priced else None,
        line.bill_pusd,
        line.price_version,
        line.cost_source,
        partition,
        offset,
    )


def ended_cost_rows(event: Ended, partition: int, offset: int, timestamp_ms: int) -> list[Row]:
    """The lines of all attempts of a request: revision 0, in the period in which the request was admitted."""
    return [
        cost_row(
            line,
            index,
            partition,
            offset,
            timestamp_ms,
            request_id=event.request.request_id,
            org_id=event.request.org_id,
            attempt=attempt.attempt,
            revision=0,
            period=event.period,
        )
        for attempt in event.attempts
        for index, line in enumerate(attempt.lines)
    ]


def adjusted_cost_rows(event: Adjusted, partition: int, offset: int, timestamp_ms: int) -> list[Row]:
    """The lines of an adjustment, in the period of its own time: what was invoiced stays as it was."""
    period = period_of(timestamp_ms)
    return [
        cost_row(
            line,
            index,
            partition,
            offset,
            timestamp_ms,
            request_id=event.request_id,
            org_id=event.org_id,
            attempt=event.attempt,
            revision=event.revision,
            period=period,
        )
        for index, line in enumerate(event.lines)
    ]


def audit_row(event: AuditRecorded, partition: int, offset: int, timestamp_ms: int, *, hash: str) -> Row:
    """The row of an audit record; `hash` chains it to all records before it in its partition.

    Accesses that reach a provider have their cost in `usage`; `provider` and `cost_usd` are null here.
    """
    return (
        timestamp_ms,
        event.org_id,
        event.key_id,
        event.user_id,
        event.actor,
        event.action,
        event.target,
        event.method,
        event.route,
        event.status,
        None,
        None,
        event.before,
        event.after,
        event.request_id,
        event.ip,
        hash,
        partition,
        offset,
    )


def table_of(table: str, rows: Sequence[Row]) -> Any:
    """The rows as a `pyarrow.Table` of the table's schema. Raises `pyarrow.ArrowInvalid` or `OverflowError`
    when a number is larger than its column holds."""
    schema = SCHEMAS[table]
    columns: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(schema)
    return pa.Table.from_arrays(
        [_array(values, field.type) for values, field in zip(columns, schema, strict=True)], schema=schema
    )


def period_of(timestamp_ms: int) -> str:
    """The billing period of a time: its month, UTC."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m")


def day_of(timestamp_ms: int) -> str:
    """The day of a time, UTC, as folders are named."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%d")


def _answer(attempts: Sequence[Attempt]) -> Attempt | None:
    for attempt in reversed(attempts):
        if attempt.outcome == "ok":
            return attempt
    return attempts[-1] if attempts else None


def _tokens(answer: Attempt | None) -> tuple[int | None, ...]:
    if answer is not None and answer.usage is None:
        return (None,) * 5
    usage = answer.usage if answer is not None and answer.usage is not None else _NO_USAGE
    return (
        usage.input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_5m_tokens + usage.cache_write_1h_tokens + usage.cache_write_tokens,
        usage.output_tokens,
        usage.reasoning_tokens,
    )


def _least_certain(lines: Sequence[CostLine]) -> str | None:
    sources = {line.cost_source for line in lines}
    return max(sources, key=_CERTAINTY.index, default=None)


def _some_price(lines: Sequence[CostLine]) -> bool:
    return any(line.cost_source != "unpriced" for line in lines)


def _array(values: Sequence[Any], type: Any) -> Any:
    """A column of the values of rows. Raises as `table_of` does."""
    try:
        return _BULK[type](values) if type in _BULK else pa.array(values, type)
    except TypeError:  # nulls among them
        if type == _money:
            return _money_array(values)
        if type == _time:
            return pa.array(values, pa.timestamp("ms", "UTC")).cast(type)
        return pa.array(values, type)


# A column without nulls is laid out as Arrow keeps it, and taken over as it is: 10 ns a value instead of 40 and more,
# and nothing of what Arrow asks for each column it converts (20 us, with a cast 40).


def _bulk(type: Any, values: "array[int]", length: int) -> Any:
    return pa.Array.from_buffers(type, length, [None, pa.py_buffer(values)])


def _bulk_money(values_pusd: Sequence[int]) -> Any:
    """DECIMAL(38,12) of whole pico-dollars: the same 128-bit integers, here as two words each, the lower one first."""
    try:
        low = array("q", values_pusd)
    except OverflowError:
        return _money_array(values_pusd)
    words = array("q", bytes(16 * len(low)))
    words[::2] = low
    if low and min(low) < 0:
        words[1::2] = array("q", [-1 if value < 0 else 0 for value in low])
    return _bulk(_money, words, len(low))


_BULK: dict[Any, Callable[[Sequence[Any]], Any]] = {
    _int: lambda values: _bulk(_int, array("i", values), len(values)),
    _long: lambda values: _bulk(_long, array("q", values), len(values)),
    _time: lambda values_ms: _bulk(_time, array("q", [value * 1000 for value in values_ms]), len(values_ms)),
    _money: _bulk_money,
}
if sys.byteorder == "big":  # Arrow's words are then the other way round
    del _BULK[_money]


def _money_array(values_pusd: Sequence[int | None]) -> Any:
    """DECIMAL(38,12) made of whole pico-dollars, exactly: the same 128-bit integers, read with twelve decimals.

    Measured 22 ns a value; one `Decimal` each costs 295 ns.
    """
    whole = pa.decimal128(38, 0)
    try:
        amounts = pa.array(values_pusd, pa.int64()).cast(whole)
    except OverflowError:  # an amount beyond 9.2 million USD: slower, as exact
        amounts = pa.array(values_pusd, whole)
    return pa.Array.from_buffers(_money, len(amounts), amounts.buffers(), amounts.null_count)
