"""What a record of the log becomes: rows of `usage`, `attempts`, `costs` and `audit`.

A row is a pure function of one record and its place in the log; its last two columns name that place. Nothing in a
row is ever changed: what is learned later is a further row of `costs`, with a revision and a time of its own.
Unknown is null, never 0. Some hundred records are made into columns at once, with no rows between; those of ends are
taken from Arrow's own columns, and no value of theirs becomes an object. Pure: no clock, no I/O.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate, chain, compress, pairwise, repeat
from typing import Any, NamedTuple, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from tollgate.events import Adjusted, Attempt, AuditRecorded, CostLine, Ended, Request
from tollgate.journal import NO_EPOCH
from tollgate.sinks.arrays import (
    DOUBLE,
    FLAG,
    INT,
    LONG,
    MONEY,
    PICO,
    TEXT,
    TIME,
    indices,
    integer,
    long,
    maps,
    pico,
    text,
    time,
    usd,
)
from tollgate.sinks.ends import fields, read_ends
from tollgate.sinks.schemas import SCHEMAS

DAY_MS = 86_400_000

Columns: TypeAlias = dict[str, Any]
"""Arrow's columns by the name of a field."""

_FIRST_REVISION = pa.scalar(0, INT)
# From the most certain to the least: a sum is as certain as its least certain part.
_CERTAINTY = ("provider_reported", "computed", "estimated", "unpriced")
_ONLY_UNPRICED = {"unpriced"}
_CACHE_WRITES = ("cache_write_5m_tokens", "cache_write_1h_tokens", "cache_write_tokens")


class PlacedEnd(NamedTuple):
    """An end as it stands on the log, with the epoch in force there, its place, and the time that the log gave it.

    `value` is as `read_ends` takes it.
    """

    value: bytes
    epoch: int
    partition: int
    offset: int
    timestamp_ms: int


class PlacedAudit(NamedTuple):
    """An audit record likewise; `hash` chains it to all records before it in its partition."""

    event: AuditRecorded
    partition: int
    offset: int
    timestamp_ms: int
    hash: str


class Booking(NamedTuple):
    """The cost lines of one attempt, as they were booked apart from an end, and what their rows share."""

    lines: Sequence[CostLine]
    request_id: str
    org_id: str
    attempt: int
    revision: int
    period: str
    partition: int
    offset: int
    timestamp_ms: int


def end_tables(placed: Sequence[PlacedEnd]) -> dict[str, Any]:
    """The rows of ends as one `pyarrow.Table` a table: one a request, one an attempt, one a cost line.

    An end with another epoch than the one in force makes none (`tollgate.journal.valid`). Raises
    `pyarrow.ArrowInvalid` or `OverflowError` when one cannot be read, or has a number that no column holds.
    """
    values, epochs, *places = zip(*placed, strict=True) if placed else [()] * len(PlacedEnd._fields)
    batch = read_ends(values)
    valid = valid_epochs(batch.column("epoch"), long(epochs))
    if not valid.false_count:
        return _end_tables(batch, *places)
    kept = valid.to_pylist()
    return _end_tables(batch.filter(valid), *(list(compress(column, kept)) for column in places))


def valid_epochs(said: Any, in_force: Any) -> Any:
    """What `tollgate.journal.valid` says, of a column of records: which count."""
    return pc.and_(pc.equal(said, in_force), pc.not_equal(in_force, NO_EPOCH))


def _end_tables(
    batch: Any, partitions: Sequence[int], offsets: Sequence[int], times_ms: Sequence[int]
) -> dict[str, Any]:
    ends = fields(Ended, batch.columns)
    requests = fields(Request, ends["request"].flatten())
    attempts = fields(Attempt, ends["attempts"].flatten().flatten())
    lines = fields(CostLine, attempts["lines"].flatten().flatten())
    attempts_of_end = ends["attempts"].offsets.to_pylist()
    lines_of_attempt = attempts["lines"].offsets.to_pylist()
    lines_of_end = [lines_of_attempt[attempt] for attempt in attempts_of_end]
    sources = lines["cost_source"].to_pylist()

    # What all rows of a request share; then what those of an attempt do.
    shared = {
        "request_id": requests["request_id"],
        "ts": time(times_ms),
        "org_id": requests["org_id"],
        "log_partition": integer(partitions),
        "log_offset": long(offsets),
    }
    end_of_attempt = pc.list_parent_indices(ends["attempts"])
    shared_by_attempt = _taken(shared, end_of_attempt)

    cost_of_end = _cost(ends["cost_pusd"], ends["bill_pusd"], sources, lines_of_end)
    usage = _usage(ends, requests, attempts, attempts_of_end, shared | cost_of_end)
    cost_pusd, bill_pusd = (_sums(lines[name], lines_of_attempt) for name in ("cost_pusd", "bill_pusd"))
    cost_of_attempt = _cost(cost_pusd, bill_pusd, sources, lines_of_attempt)
    calls = _attempts(attempts, shared_by_attempt | cost_of_attempt)
    costs = _costs(
        lines,
        lines_of_attempt,
        shared_by_attempt
        | {
            "attempt": attempts["attempt"],
            "revision": pa.repeat(_FIRST_REVISION, len(end_of_attempt)),
            "period": ends["period"].take(end_of_attempt),
        },
    )
    return {"usage": usage, "attempts": calls, "costs": costs}


def _usage(ends: Columns, requests: Columns, attempts: Columns, bounds: Sequence[int], shared: Columns) -> Any:
    """One row a request. Provider, model and tokens are those of the attempt that answered, or else the last.

    Tokens are null when a call was made but its usage is unknown, 0 when none was made.
    """
    answer = pa.array(_answers(attempts["outcome"], bounds), INT)
    return _table(
        "usage",
        {
            **shared,
            "team_id": requests["team_id"],
            "key_id": requests["key_id"],
            "user_id": requests["user_id"],
            "endpoint": requests["endpoint"],
            "dialect": requests["dialect"],
            "model_requested": requests["model"],
            **_taken({name: attempts[name] for name in ("provider", "account", "model", "usage_source")}, answer),
            "status": ends["status"],
            "http_status": ends["http_status"],
            "error": ends["error"],
            "reason": ends["reason"],
            "stream": requests["stream"],
            **_tokens(attempts["usage"], answer),
            "hold_usd": usd(ends["hold_pusd"]),
            "period": ends["period"],
            "latency_ms": ends["latency_ms"],
            "ttft_ms": ends["ttft_ms"],
            "overhead_ms": pc.divide(ends["overhead_us"].cast(DOUBLE), 1000.0),
            "cache": ends["cache"],
            "attempts": integer(_counts(bounds)),
            "tags": maps(requests["tags"]),
            "price_version": ends["price_version"],
            "accepted_at": requests["accepted_ms"].cast(TIME),
        },
    )


def _attempts(attempts: Columns, shared: Columns) -> Any:
    """One row a provider call; its cost as it was known when the request ended."""
    same = (
        *("attempt", "provider", "account", "model", "served_model", "outcome", "error_class", "http_status", "reason"),
        *("latency_ms", "ttft_ms", "finish_reason", "upstream_request_id", "usage_source", "usage_raw"),
    )
    started = {"started_at": attempts["started_ms"].cast(TIME)}
    return _table("attempts", shared | {name: attempts[name] for name in same} | started)


def costs_table(bookings: Sequence[Booking]) -> Any:
    """The rows of lines that were booked apart from an end. Raises as `end_tables`."""
    groups, request_ids, org_ids, attempts, revisions, periods, partitions, offsets, times_ms = (
        zip(*bookings, strict=True) if bookings else [()] * len(Booking._fields)
    )
    shared = {
        "request_id": text(request_ids),
        "org_id": text(org_ids),
        "attempt": integer(attempts),
        "revision": integer(revisions),
        "period": text(periods),
        "log_partition": integer(partitions),
        "log_offset": long(offsets),
        "ts": time(times_ms),
    }
    lines = [msgspec.structs.astuple(line) for line in chain.from_iterable(groups)]
    columns = zip(*lines, strict=True) if lines else [()] * len(_LINE)
    bounds = list(accumulate(map(len, groups), initial=0))
    return _costs({name: made(column) for (name, made), column in zip(_LINE, columns, strict=True)}, bounds, shared)


_LINE = list(zip(CostLine.__struct_fields__, (text, long, pico, pico, pico, text, text), strict=True))


def adjustment_tables(bookings: Sequence[Booking]) -> dict[str, Any]:
    """The rows of adjustments, in the one table `costs`. Raises as `end_tables`."""
    return {"costs": costs_table(bookings)}


def adjustment(event: Adjusted, partition: int, offset: int, timestamp_ms: int) -> Booking:
    """It counts in the period of its own time: what was invoiced stays as it was."""
    return Booking(
        event.lines,
        event.request_id,
        event.org_id,
        event.attempt,
        event.revision,
        period_of(timestamp_ms),
        partition,
        offset,
        timestamp_ms,
    )


def _costs(lines: Columns, bounds: Sequence[int], shared: Columns) -> Any:
    """One row a cost line, in groups that share columns. Price and cost of what has no price are null; its bill is
    0."""
    unit_prices, costs = usd(lines["unit_price_pusd"]), usd(lines["cost_pusd"])
    unpriced = pc.equal(lines["cost_source"], "unpriced")
    if unpriced.true_count:
        unit_prices, costs = (pc.if_else(unpriced, None, amounts) for amounts in (unit_prices, costs))
    counts = _counts(bounds)
    group = indices(chain.from_iterable(map(repeat, range(len(counts)), counts)))
    return _table(
        "costs",
        {
            **_taken(shared, group),
            "line": indices(chain.from_iterable(map(range, counts))),
            "meter": lines["meter"],
            "quantity": lines["quantity"],
            "unit_price_usd": unit_prices,
            "cost_usd": costs,
            "bill_usd": usd(lines["bill_pusd"]),
            "price_version": lines["price_version"],
            "cost_source": lines["cost_source"],
        },
    )


def audit_tables(placed: Sequence[PlacedAudit]) -> dict[str, Any]:
    """One row an audit record, in the one table `audit`. Raises as `end_tables`.

    Accesses that reach a provider have their cost in `usage`; `provider` and `cost_usd` are null here.
    """
    events = [each.event for each in placed]
    audit = _table(
        "audit",
        {
            "ts": time([each.timestamp_ms for each in placed]),
            "org_id": text([event.org_id for event in events]),
            "key_id": text([event.key_id for event in events]),
            "user_id": text([event.user_id for event in events]),
            "actor": text([event.actor for event in events]),
            "action": text([event.action for event in events]),
            "target": text([event.target for event in events]),
            "method": text([event.method for event in events]),
            "route": text([event.route for event in events]),
            "status": integer([event.status for event in events]),
            "provider": pa.nulls(len(events), TEXT),
            "cost_usd": pa.nulls(len(events), MONEY),
            "before": text([event.before for event in events]),
            "after": text([event.after for event in events]),
            "request_id": text([event.request_id for event in events]),
            "ip": text([event.ip for event in events]),
            "hash": text([each.hash for each in placed]),
            "log_partition": integer([each.partition for each in placed]),
            "log_offset": long([each.offset for each in placed]),
        },
    )
    return {"audit": audit}


def period_of(timestamp_ms: int) -> str:
    """The billing period of a time: its month, UTC."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m")


def day_of(timestamp_ms: int) -> str:
    """The day of a time, UTC, as folders are named."""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%Y-%m-%d")


def _table(name: str, columns: dict[str, Any]) -> Any:
    schema = SCHEMAS[name]
    return pa.Table.from_arrays([columns[column] for column in schema.names], schema=schema)


def _answers(outcomes: Any, bounds: Sequence[int]) -> list[int | None]:
    """Which attempt of each end answered, or else was the last: its position among all attempts; None without any."""
    ok = pc.equal(outcomes, "ok").to_pylist()
    found: list[int | None] = []
    for begin, end in pairwise(bounds):
        answer = end - 1
        if end - begin > 1:
            answer = next((attempt for attempt in range(answer, begin - 1, -1) if ok[attempt]), answer)
        found.append(answer if end > begin else None)
    return found


def _tokens(usages: Any, answer: Any) -> Columns:
    """The columns of tokens of the attempts that answered, null where their usage is."""
    names = ("input_tokens", "cache_read_tokens", "output_tokens", "reasoning_tokens", *_CACHE_WRITES)
    found = _taken({"known": usages.is_valid(), **{name: usages.field(name) for name in names}}, answer)
    known = found.pop("known").fill_null(True)
    # A count that is left out is 0, and so is that of no attempt.
    tokens = {name: counts.fill_null(0) for name, counts in found.items()}
    five_minutes, an_hour, unstated = (tokens.pop(name) for name in _CACHE_WRITES)
    tokens["cache_write_tokens"] = pc.add_checked(pc.add_checked(five_minutes, an_hour), unstated)
    if known.false_count:
        return {name: pc.if_else(known, counts, None) for name, counts in tokens.items()}
    return tokens


def _taken(columns: Columns, positions: Any) -> Columns:
    """What the columns have at these positions. All of them at once: asked for one by one, asking costs most."""
    found = pa.RecordBatch.from_arrays(list(columns.values()), list(columns)).take(positions)
    return dict(zip(columns, found.columns, strict=True))


# Groups of attempts or lines: `bounds` are where each begins, and where the last ends.


def _counts(bounds: Sequence[int]) -> list[int]:
    return [end - begin for begin, end in pairwise(bounds)]


def _sums(amounts_pusd: Any, bounds: Sequence[int]) -> Any:
    try:
        before = pa.concat_arrays([_ZERO, pc.cumulative_sum_checked(amounts_pusd.cast(LONG))]).take(indices(bounds))
        return pc.subtract_checked(before[1:], before[:-1]).cast(PICO)
    except pa.ArrowInvalid:  # amounts beyond 9.2 million USD: slower, as exact
        amounts = [int(amount) for amount in amounts_pusd.to_pylist()]
        return pa.array([sum(amounts[begin:end]) for begin, end in pairwise(bounds)], PICO)


def _cost(costs_pusd: Any, bills_pusd: Any, sources: Sequence[str], bounds: Sequence[int]) -> Columns:
    """What groups of lines cost: null when none of them has a price, the known part when some have; and the least
    certain of their sources, null without any."""
    costs = usd(costs_pusd)
    if "unpriced" in sources:
        unknown = [set(sources[begin:end]) == _ONLY_UNPRICED for begin, end in pairwise(bounds)]
        costs = pc.if_else(pa.array(unknown, FLAG), None, costs)
    if len(set(sources)) == 1:
        certainty = [sources[0] if end > begin else None for begin, end in pairwise(bounds)]
    else:
        certainty = [max(sources[begin:end], key=_CERTAINTY.index, default=None) for begin, end in pairwise(bounds)]
    return {"cost_usd": costs, "bill_usd": usd(bills_pusd), "cost_source": text(certainty)}


_ZERO = pa.array([0], LONG)
