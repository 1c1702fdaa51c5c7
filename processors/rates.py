"""Requests per minute: a bucket of `limit` requests that refills evenly over the minute, by the generic cell rate
algorithm (ITU-T I.371), and how a client is told.

The state of a limit is one number, the theoretical arrival time of its next request in Unix microseconds. Pure.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

from tollgate.errors import Refusal

MINUTE_US = 60_000_000

Headers = tuple[tuple[str, str], ...]


class RateLimit(NamedTuple):
    """A limit as it is enforced: `name` is its state's, `label` is what clients and `limit_name` call it."""

    name: str
    per_minute: int
    label: str
    whose: str  # is limited, as the subject of a sentence


class Room(NamedTuple):
    """What is left after a request: its state then, how many more fit, when the bucket is full again."""

    tat_us: int
    left: int
    reset_ms: int


def check(limit: RateLimit, tat_us: int, now_ms: int) -> Room:
    """Count a request now. Raises `Refusal` (429) when the bucket is empty."""
    now_us = now_ms * 1000
    interval_us = MINUTE_US // max(1, limit.per_minute)
    arrival_us = max(now_us, tat_us)
    ahead_us = arrival_us - now_us
    left = limit.per_minute - -(-ahead_us // interval_us)  # whole requests that still fit
    if left < 1:
        wait_ms = -(-(ahead_us - (limit.per_minute - 1) * interval_us) // 1000)
        raise exceeded(limit, wait_ms=wait_ms, reset_ms=ahead_us // 1000, now_ms=now_ms)
    after_us = arrival_us + interval_us
    return Room(after_us, left - 1, (after_us - now_us) // 1000)


def check_all(
    limits: tuple[RateLimit, ...], tat_us: Callable[[str], int], now_ms: int
) -> tuple[dict[str, int], Headers]:
    """Count a request under all of these limits, or under none. Returns their states, and headers for the tightest."""
    if not limits:
        return {}, ()
    rooms = {limit: check(limit, tat_us(limit.name), now_ms) for limit in limits}
    tightest = min(limits, key=lambda limit: rooms[limit].left)
    room = rooms[tightest]
    headers = rate_headers(tightest.per_minute, left=room.left, reset_ms=room.reset_ms)
    return {limit.name: room.tat_us for limit, room in rooms.items()}, headers


def exceeded(limit: RateLimit, *, wait_ms: int, reset_ms: int, now_ms: int) -> Refusal:
    """What a client is told whose request did not fit: it may try again in `wait_ms`."""
    reset_at = datetime.fromtimestamp((now_ms + wait_ms) / 1000, UTC)
    return Refusal(
        429,
        "QUOTA_EXCEEDED",
        f"{limit.whose} may make {limit.per_minute} requests a minute. Try again in {wait_ms / 1000:.3f} s.",
        type="rate_limit_error",
        headers={
            "retry-after": str(-(-wait_ms // 1000)),
            "retry-after-ms": str(wait_ms),
            **dict(rate_headers(limit.per_minute, left=0, reset_ms=reset_ms)),
        },
        details={
            "limit_name": limit.label,
            "used": limit.per_minute,
            "limit": limit.per_minute,
            "reset_at": f"{reset_at:%Y-%m-%dT%H:%M:%SZ}",
        },
    )


def rate_headers(per_minute: int, *, left: int, reset_ms: int) -> Headers:
    """As OpenAI writes them; `reset` is when the bucket is full again."""
    return (
        ("x-ratelimit-limit-requests", str(per_minute)),
        ("x-ratelimit-remaining-requests", str(left)),
        ("x-ratelimit-reset-requests", f"{reset_ms}ms"),
    )
