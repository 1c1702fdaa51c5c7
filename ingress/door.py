"""What the ingress is given to work with."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry

from tollgate.config import Config
from tollgate.control import Control
from tollgate.freshness import Freshness
from tollgate.ingress.probes import AskReadiness
from tollgate.log import Log
from tollgate.replies import Waiter
from tollgate.sealed import Sealer
from tollgate.secret import Secrets

REQUESTS = "requests"


class Replies(Protocol):
    """The ingress's side of the replies: wait for those of one request."""

    address: str

    def open(self, request_id: str, on_behind: Callable[[], None] | None = None) -> Waiter:
        """Begin to wait. To be called before the request is appended."""
        ...

    def close(self, request_id: str) -> None:
        """Wait no longer; what comes later is dropped."""
        ...


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True)
class Door:
    """The ingress's dependencies. `not_ready` names what a new request would wait for; nothing when it may come.

    `control` is followed by whoever made it; it has caught up when the first request comes, and `freshness` says
    whether it still has.
    """

    config: Config
    log: Log
    replies: Replies
    control: Control
    sealer: Sealer
    secrets: Secrets
    registry: CollectorRegistry
    freshness: Freshness = field(default_factory=Freshness.always)
    not_ready: Callable[[], Sequence[str]] = tuple
    readiness: AskReadiness | None = None  # what `/readyz` says; without it, what `not_ready` does
    now_ms: Callable[[], int] = wall_clock_ms
