"""What the ingress counts. Labels have few values by construction: no key, no organisation, no path of a client's."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)
GONE = 499  # counted as the status of a request whose client hung up before it was answered


class Metrics:
    """The ingress's own metrics, in the process's registry."""

    def __init__(self, registry: CollectorRegistry, *, in_flight: Callable[[], int]) -> None:
        self._requests = Counter(
            "tollgate_http_requests", "HTTP requests answered.", ("route", "status"), registry=registry
        )
        self._seconds = Histogram(
            "tollgate_http_request_seconds",
            "Seconds from the head of a request to the last byte of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self._cancelled = Counter(
            "tollgate_http_cancelled", "Requests cancelled by the ingress.", ("reason",), registry=registry
        )
        self.audits_dropped = Counter(
            "tollgate_audits_dropped", "Refusals that were not audited, for want of room.", registry=registry
        )
        gauge = Gauge("tollgate_http_in_flight", "HTTP requests under way.", registry=registry)
        gauge.set_function(in_flight)
        # Children by label: looking one up costs twice what counting does.
        self._counters: dict[tuple[str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}

    def answered(self, route: str, status: int, seconds: float) -> None:
        """A request is over."""
        counter = self._counters.get((route, status))
        if counter is None:
            counter = self._counters[route, status] = self._requests.labels(route, str(status))
        counter.inc()
        histogram = self._histograms.get(route)
        if histogram is None:
            histogram = self._histograms[route] = self._seconds.labels(route)
        histogram.observe(seconds)

    def cancelled(self, reason: str) -> None:
        """The ingress gave a request up; `reason` is one of the few in `client`."""
        self._cancelled.labels(reason).inc()
