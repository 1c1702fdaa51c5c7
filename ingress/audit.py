"""Refusals at the door, written to the audit: who was turned away, from where, and why.

No more than a bounded rate is written, so that nobody can fill the log by being refused; what is left out is counted.
Nobody waits for it.
"""

import asyncio
from typing import NamedTuple

from prometheus_client import Counter

from tollgate.errors import Refusal
from tollgate.events import AuditRecorded, encode
from tollgate.ingress.auth import DEFAULT_ORG, claimed_key_id
from tollgate.ingress.http import Incoming
from tollgate.log import Log, Position

RATE_PER_S = 20
BURST = 200
MAX_UNWRITTEN = 1_000  # appends under way; beyond it the log is too slow for what is not needed

_INTERVAL_MS = 1000 / RATE_PER_S
ANONYMOUS = "anonymous"


class Rate(NamedTuple):
    """The state of a rate limit: when the next event would be due if all came at the sustained rate."""

    due_ms: float = 0.0


def pass_rate(rate: Rate, now_ms: float) -> Rate | None:
    """The state after one more event, None where it does not conform (GCRA, ITU-T I.371: RATE_PER_S, BURST). Pure."""
    due_ms = max(rate.due_ms, now_ms) + _INTERVAL_MS
    return Rate(due_ms) if due_ms - now_ms <= BURST * _INTERVAL_MS else None


class Audit:
    """Writes refusals down."""

    def __init__(self, log: Log, dropped: Counter) -> None:
        self._log = log
        self._dropped = dropped
        self._rate = Rate()
        self._unwritten = 0

    def refused(self, incoming: Incoming, refusal: Refusal, *, now_ms: int) -> None:
        """Write one refusal down, if there is room. Never blocks, never fails."""
        rate = pass_rate(self._rate, now_ms)
        if rate is None or self._unwritten >= MAX_UNWRITTEN:
            self._dropped.inc()
            return
        self._rate = rate
        self._unwritten += 1
        recorded = refusal_recorded(incoming, refusal)
        appended = self._log.append("audit", recorded.org_id.encode(), encode(recorded), linger=True, worth="new")
        asyncio.ensure_future(appended).add_done_callback(self._written)

    def _written(self, appended: "asyncio.Future[Position]") -> None:
        self._unwritten -= 1
        if appended.cancelled() or appended.exception() is not None:
            self._dropped.inc()


def refusal_recorded(incoming: Incoming, refusal: Refusal) -> AuditRecorded:
    """The refusal as an event. The path is named by its route: what a client writes there may be a secret."""
    identity = incoming.identity
    return AuditRecorded(
        actor=identity.key_id if identity else ANONYMOUS,
        action="refused",
        org_id=identity.org_id if identity else DEFAULT_ORG,
        target=refusal.code,
        key_id=identity.key_id if identity else claimed_key_id(incoming.headers),
        method=incoming.method if incoming.method.isalpha() and len(incoming.method) <= 16 else None,
        route=incoming.route,
        status=refusal.status,
        request_id=incoming.request_id,
        ip=incoming.ip,
    )
