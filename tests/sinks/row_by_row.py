"""The rows of an event, written down one by one: what `tollgate.sinks.rows` says many at a time."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from tollgate.events import Adjusted, Attempt, CostLine, Ended, Usage

Row = dict[str, Any]
CERTAINTY = ("provider_reported", "computed", "estimated", "unpriced")


class Placed(NamedTuple):
    """An event that makes rows, with the place and the time that the log gave it."""

    event: Ended | Adjusted
    partition: int
    offset: int
    timestamp_ms: int


def rows_of(placed: Placed) -> dict[str, list[Row]]:
    """By table, as Arrow's `to_pylist` gives them."""
    event = placed.event
    place = {
        "ts": time(placed.timestamp_ms),
        "log_partition": placed.partition,
        "log_offset": placed.offset,
    }
    if isinstance(event, Adjusted):
        shared = {
            **place,
            "request_id": event.request_id,
            "org_id": event.org_id,
            "attempt": event.attempt,
            "revision": event.revision,
            "period": f"{time(placed.timestamp_ms):%Y-%m}",
        }
        return {"costs": cost_rows(event.lines, shared)}
    place |= {"request_id": event.request.request_id, "org_id": event.request.org_id}
    costs = []
    for attempt in event.attempts:
        costs += cost_rows(attempt.lines, {**place, "attempt": attempt.attempt, "revision": 0, "period": event.period})
    return {
        "usage": [usage_row(event, place)],
        "attempts": [attempt_row(attempt, place) for attempt in event.attempts],
        "costs": costs,
    }


def usage_row(event: Ended, place: Row) -> Row:
    request = event.request
    answer = next((attempt for attempt in reversed(event.attempts) if attempt.outcome == "ok"), None)
    if answer is None and event.attempts:
        answer = event.attempts[-1]
    lines = [line for attempt in event.attempts for line in attempt.lines]
    usage = Usage() if answer is None else answer.usage
    return {
        **place,
        "team_id": request.team_id,
        "key_id": request.key_id,
        "user_id": request.user_id,
        "endpoint": request.endpoint,
        "dialect": request.dialect,
        "model_requested": request.model,
        "provider": answer.provider if answer else None,
        "account": answer.account if answer else None,
        "model": answer.model if answer else None,
        "status": event.status,
        "http_status": event.http_status,
        "error": event.error,
        "reason": event.reason,
        "stream": request.stream,
        "input_tokens": usage.input_tokens if usage else None,
        "cache_read_tokens": usage.cache_read_tokens if usage else None,
        "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens + usage.cache_write_tokens
        if usage
        else None,
        "output_tokens": usage.output_tokens if usage else None,
        "reasoning_tokens": usage.reasoning_tokens if usage else None,
        "usage_source": answer.usage_source if answer else None,
        "cost_usd": None if nothing_priced(lines) else usd(event.cost_pusd),
        "bill_usd": usd(event.bill_pusd),
        "hold_usd": None if event.hold_pusd is None else usd(event.hold_pusd),
        "cost_source": least_certain(lines),
        "period": event.period,
        "latency_ms": event.latency_ms,
        "ttft_ms": event.ttft_ms,
        "overhead_ms": event.overhead_us / 1000,
        "cache": event.cache,
        "attempts": len(event.attempts),
        "tags": list(request.tags.items()),
        "price_version": event.price_version,
        "accepted_at": time(request.accepted_ms) if request.accepted_ms else None,
    }


def attempt_row(attempt: Attempt, place: Row) -> Row:
    return {
        **place,
        "attempt": attempt.attempt,
        "provider": attempt.provider,
        "account": attempt.account,
        "model": attempt.model,
        "served_model": attempt.served_model,
        "outcome": attempt.outcome,
        "error_class": attempt.error_class,
        "http_status": attempt.http_status,
        "reason": attempt.reason,
        "started_at": time(attempt.started_ms) if attempt.started_ms else None,
        "latency_ms": attempt.latency_ms,
        "ttft_ms": attempt.ttft_ms,
        "finish_reason": attempt.finish_reason,
        "upstream_request_id": attempt.upstream_request_id,
        "cost_usd": None if nothing_priced(attempt.lines) else usd(sum(line.cost_pusd for line in attempt.lines)),
        "bill_usd": usd(sum(line.bill_pusd for line in attempt.lines)),
        "cost_source": least_certain(attempt.lines),
        "usage_source": attempt.usage_source,
        "usage_raw": attempt.usage_raw,
    }


def cost_rows(lines: Sequence[CostLine], shared: Row) -> list[Row]:
    return [
        {
            **shared,
            "line": index,
            "meter": line.meter,
            "quantity": line.quantity,
            "unit_price_usd": None if nothing_priced([line]) else usd(line.unit_price_pusd),
            "cost_usd": None if nothing_priced([line]) else usd(line.cost_pusd),
            "bill_usd": usd(line.bill_pusd),
            "price_version": line.price_version,
            "cost_source": line.cost_source,
        }
        for index, line in enumerate(lines)
    ]


def nothing_priced(lines: Sequence[CostLine]) -> bool:
    """Are there lines, and has none of them a price?"""
    return bool(lines) and all(line.cost_source == "unpriced" for line in lines)


def least_certain(lines: Sequence[CostLine]) -> str | None:
    return max((line.cost_source for line in lines), key=CERTAINTY.index, default=None)


def usd(amount_pusd: int) -> Decimal:
    return Decimal(f"{amount_pusd}E-12")


def time(at_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
