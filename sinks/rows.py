"""What a record of the log becomes: rows of `usage`, `attempts`, `costs` and `audit`.

A row is a pure function of one record and its place in the log; its last two columns name that place. Nothing in a
row is ever changed: what is learned later is a further row of `costs`, with a revision and a time of its own.
Unknown is null, never 0. Some hundred records are made into columns at once, with no rows between. Pure: no clock, no
I/O.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import accumulate, chain, pairwise, repeat
from typing import Any, NamedTuple, TypeAlias

import msgspec
import pyarrow as pa

from tollgate.events import Adjusted, Attempt, AuditRecorded, CostLine, Ended, Request, Usage
from tollgate.sinks.arrays import INT, MONEY, TEXT, double, flag, indices, integer, long, money, tags, text, time
from tollgate.sinks.schemas import SCHEMAS

DAY_MS = 86_400_000

Fields: TypeAlias = dict[str, Sequence[Any]]
"""Values by the name of a field."""

_FIRST_REVISION = pa.scalar(0, INT)
_NO_USAGE = Usage()
# From the most certain to the least: a sum is as certain as its least certain part.
_CERTAINTY = ("provider_reported", "computed", "estimated", "unpriced")
_ONLY_UNPRICED = {"unpriced"}


class Placed(NamedTuple):
    """An event that makes rows, with the place and the time that the log gave it."""

    event: Ended | Adjusted
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


def journal_tables(placed: Sequence[Placed]) -> dict[str, Any]:
    """The rows of records of the journal as one `pyarrow.Table` a table; those of adjustments come last.

    Raises `pyarrow.ArrowInvalid` or `OverflowError` when a number is larger than its column holds.
    """
    ends = [each for each in placed if type(each.event) is Ended]
    tables = _end_tables(ends)
    if len(ends) < len(placed):
        adjusted = costs_table([_adjustment(each) for each in placed if type(each.event) is Adjusted])
        tables["costs"] = pa.concat_tables([tables["costs"], adjusted])
    return tables


def rows_of(event: Ended | Adjusted) -> int:
    """How many rows the event makes, in all tables."""
    if type(event) is Adjusted:
        return len(event.lines)
    assert type(event) is Ended
    return 1 + sum([1 + len(attempt.lines) for attempt in event.attempts])


def _end_tables(placed: Sequence[Placed]) -> dict[str, Any]:
    """The rows of ends: one a request, one an attempt, one a cost line."""
    events, partitions, offsets, times_ms = zip(*placed, strict=True) if placed else ((), (), (), ())
    ends = _fields(Ended, events)
    requests = _fields(Request, ends["request"])
    attempts_of_end = list(map(len, ends["attempts"]))
    every_attempt = list(chain.from_iterable(ends["attempts"]))
    attempts = _fields(Attempt, every_attempt)
    lines_of_attempt = list(map(len, attempts["lines"]))
    lines = _fields(CostLine, list(chain.from_iterable(attempts["lines"])))

    # What all rows of a request share; then what those of an attempt do.
    shared = {
        "request_id": text(requests["request_id"]),
        "ts": time(times_ms),
        "org_id": text(requests["org_id"]),
        "log_partition": integer(partitions),
        "log_offset": long(offsets),
    }
    end_of_attempt = _repeated(attempts_of_end)
    shared_by_attempt = {name: column.take(end_of_attempt) for name, column in shared.items()}
    called = {name: text(attempts[name]) for name in ("provider", "account", "model", "usage_source")}
    attempt_numbers = integer(attempts["attempt"])

    usage = _usage(ends, requests, attempts, lines, shared, called)
    calls = _attempts(attempts, lines, shared_by_attempt | called | {"attempt": attempt_numbers})
    costs = _costs(
        lines,
        lines_of_attempt,
        shared_by_attempt
        | {
            "attempt": attempt_numbers,
            "revision": pa.repeat(_FIRST_REVISION, len(every_attempt)),
            "period": text(ends["period"]).take(end_of_attempt),
        },
    )
    return {"usage": usage, "attempts": calls, "costs": costs}


def _usage(
    ends: Fields, requests: Fields, attempts: Fields, lines: Fields, shared: dict[str, Any], called: dict[str, Any]
) -> Any:
    """One row a request. Provider, model and tokens are those of the attempt that answered, or else the last.

    Tokens are null when a call was made but its usage is unknown, 0 when none was made. The cost is that of all
    attempts; null when there is usage but no price for any of it, and the known part when there is for some.
    """
    answers = _answers(ends["attempts"])
    of_answer = pa.array(answers, INT)
    usages = [_NO_USAGE if answer is None else attempts["usage"][answer] for answer in answers]
    first_line = list(accumulate(map(len, attempts["lines"]), initial=0))
    bounds = [first_line[attempt] for attempt in accumulate(map(len, ends["attempts"]), initial=0)]
    sources = _sources(lines["cost_source"], bounds)
    return _table(
        "usage",
        {
            **shared,
            "team_id": text(requests["team_id"]),
            "key_id": text(requests["key_id"]),
            "user_id": text(requests["user_id"]),
            "endpoint": text(requests["endpoint"]),
            "dialect": text(requests["dialect"]),
            "model_requested": text(requests["model"]),
            **{name: column.take(of_answer) for name, column in called.items()},
            "status": text(ends["status"]),
            "http_status": integer(ends["http_status"]),
            "error": text(ends["error"]),
            "reason": text(ends["reason"]),
            "stream": flag(requests["stream"]),
            **_tokens(usages),
            "cost_usd": money(_where_priced(ends["cost_pusd"], lines["cost_source"], bounds)),
            "bill_usd": money(ends["bill_pusd"]),
            "hold_usd": money(ends["hold_pusd"]),
            "cost_source": text(sources),
            "period": text(ends["period"]),
            "latency_ms": long(ends["latency_ms"]),
            "ttft_ms": long(ends["ttft_ms"]),
            "overhead_ms": double([overhead_us / 1000 for overhead_us in ends["overhead_us"]]),
            "cache": text(ends["cache"]),
            "attempts": integer(list(map(len, ends["attempts"]))),
            "tags": tags(requests["tags"]),
            "price_version": text(ends["price_version"]),
            "accepted_at": time([accepted_ms or None for accepted_ms in requests["accepted_ms"]]),
        },
    )


def _attempts(attempts: Fields, lines: Fields, shared: dict[str, Any]) -> Any:
    """One row a provider call; its cost as it was known when the request ended."""
    bounds = list(accumulate(map(len, attempts["lines"]), initial=0))
    costs_pusd = _sums(lines["cost_pusd"], bounds)
    return _table(
        "attempts",
        {
            **shared,
            "served_model": text(attempts["served_model"]),
            "outcome": text(attempts["outcome"]),
            "error_class": text(attempts["error_class"]),
            "http_status": integer(attempts["http_status"]),
            "reason": text(attempts["reason"]),
            "started_at": time([started_ms or None for started_ms in attempts["started_ms"]]),
            "latency_ms": long(attempts["latency_ms"]),
            "ttft_ms": long(attempts["ttft_ms"]),
            "finish_reason": text(attempts["finish_reason"]),
            "upstream_request_id": text(attempts["upstream_request_id"]),
            "cost_usd": money(_where_priced(costs_pusd, lines["cost_source"], bounds)),
            "bill_usd": money(_sums(lines["bill_pusd"], bounds)),
            "cost_source": text(_sources(lines["cost_source"], bounds)),
            "usage_raw": text(attempts["usage_raw"]),
        },
    )


def costs_table(bookings: Sequence[Booking]) -> Any:
    """The rows of lines that were booked apart from an end. Raises as `journal_tables`."""
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
    lines = _fields(CostLine, list(chain.from_iterable(groups)))
    return _costs(lines, list(map(len, groups)), shared)


def _adjustment(placed: Placed) -> Booking:
    """It counts in the period of its own time: what was invoiced stays as it was."""
    event, partition, offset, timestamp_ms = placed
    assert type(event) is Adjusted
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


def _costs(lines: Fields, counts: Sequence[int], shared: dict[str, Any]) -> Any:
    """One row a cost line, in groups of so many that share columns. Price and cost of what has no price are null; its
    bill is 0."""
    unit_prices_pusd, costs_pusd = lines["unit_price_pusd"], lines["cost_pusd"]
    if "unpriced" in lines["cost_source"]:
        priced = [source != "unpriced" for source in lines["cost_source"]]
        unit_prices_pusd, costs_pusd = (
            [amount if known else None for amount, known in zip(amounts, priced, strict=True)]
            for amounts in (unit_prices_pusd, costs_pusd)
        )
    group = _repeated(counts)
    return _table(
        "costs",
        {
            **{name: column.take(group) for name, column in shared.items()},
            "line": indices(chain.from_iterable(map(range, counts))),
            "meter": text(lines["meter"]),
            "quantity": long(lines["quantity"]),
            "unit_price_usd": money(unit_prices_pusd),
            "cost_usd": money(costs_pusd),
            "bill_usd": money(lines["bill_pusd"]),
            "price_version": text(lines["price_version"]),
            "cost_source": text(lines["cost_source"]),
        },
    )


def audit_tables(placed: Sequence[PlacedAudit]) -> dict[str, Any]:
    """One row an audit record, in the one table `audit`. Raises as `journal_tables`.

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


def _fields(struct: type[msgspec.Struct], objects: Sequence[Any]) -> Fields:
    """The objects' values by field. Each object is looked at once: field after field, most of the time would go into
    fetching the same objects from memory again."""
    names = struct.__struct_fields__
    columns = zip(*map(msgspec.structs.astuple, objects), strict=True) if objects else [()] * len(names)
    return dict(zip(names, columns, strict=True))


def _repeated(counts: Sequence[int]) -> Any:
    """The position of each count, as often as it says."""
    return indices(chain.from_iterable(map(repeat, range(len(counts)), counts)))


def _answers(attempts_of_ends: Sequence[Sequence[Attempt]]) -> list[int | None]:
    """Which attempt answered, or else was the last: its position among all attempts of all ends; None without any."""
    found: list[int | None] = []
    first = 0
    for attempts in attempts_of_ends:
        answer = len(attempts) - 1
        for number in range(answer, -1, -1):
            if attempts[number].outcome == "ok":
                answer = number
                break
        found.append(first + answer if attempts else None)
        first += len(attempts)
    return found


def _tokens(usages: Sequence[Usage | None]) -> dict[str, Any]:
    """The columns of tokens, null where the usage is."""
    fields = _fields(Usage, [_NO_USAGE if usage is None else usage for usage in usages])
    cache_writes = (fields[f"cache_write{lifetime}_tokens"] for lifetime in ("_5m", "_1h", ""))
    fields["cache_write_tokens"] = list(map(sum, zip(*cache_writes, strict=True)))
    names = ("input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    if None not in usages:
        return {name: long(fields[name]) for name in names}
    known = [usage is not None for usage in usages]
    return {
        name: long([tokens if told else None for tokens, told in zip(fields[name], known, strict=True)])
        for name in names
    }


# Groups of cost lines: `bounds` are where each begins, and where the last ends.


def _sums(amounts: Sequence[int], bounds: Sequence[int]) -> list[int]:
    before = list(accumulate(amounts, initial=0))
    return [before[end] - before[begin] for begin, end in pairwise(bounds)]


def _sources(sources: Sequence[str], bounds: Sequence[int]) -> list[str | None]:
    """The least certain source of each group, None without any."""
    if len(set(sources)) == 1:
        return [sources[0] if end > begin else None for begin, end in pairwise(bounds)]
    return [max(sources[begin:end], key=_CERTAINTY.index, default=None) for begin, end in pairwise(bounds)]


def _where_priced(amounts: Sequence[int], sources: Sequence[str], bounds: Sequence[int]) -> Sequence[int | None]:
    """The amounts, None for a group of lines of which none has a price."""
    if "unpriced" not in sources:
        return amounts
    return [
        None if set(sources[begin:end]) == _ONLY_UNPRICED else amount
        for amount, (begin, end) in zip(amounts, pairwise(bounds), strict=True)
    ]
