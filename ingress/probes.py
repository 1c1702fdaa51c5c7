"""What machines ask before they trust a gateway. Open to anybody, and saying nothing that only some may know."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.types import ASGIApp, Receive, Scope, Send

from tollgate.ingress.http import Answer, Incoming, json_answer


class Readiness(NamedTuple):
    """`waiting_for` is empty when requests may come; `doing` says what the process is, as JSON shows it."""

    waiting_for: Sequence[str]
    doing: Mapping[str, object] = {}


AskReadiness = Callable[[], Awaitable[Readiness]]


class Probes:
    """Health, readiness and metrics. `readiness` may look at the log, within a second or two."""

    def __init__(self, registry: CollectorRegistry, readiness: AskReadiness) -> None:
        self._registry = registry
        self._readiness = readiness

    async def root(self, incoming: Incoming) -> Answer:
        """`GET /`, `HEAD /`: clients look here first whether there is anything at all."""
        base = {"openai": "/v1", "anthropic": "/", "google": "/", "ollama": "/"}
        return json_answer(200, {"service": "tollgate", **base, "health": "/healthz"})

    async def health(self, incoming: Incoming) -> Answer:
        """`GET /healthz`, `GET /health`: the process is alive."""
        return json_answer(200, {"status": "ok"})

    async def ready(self, incoming: Incoming) -> Answer:
        """`GET /readyz`: 503 with what is still waited for, until requests can be answered."""
        waiting_for, doing = await self._readiness()
        if waiting_for:
            return json_answer(503, {"status": "not ready", "waiting_for": list(waiting_for), **doing})
        return json_answer(200, {"status": "ready", **doing})

    async def metrics(self, incoming: Incoming) -> Answer:
        """`GET /metrics`, as Prometheus reads it."""
        await self._readiness()  # what it has learnt of the log is what lag is measured against
        return Answer(200, generate_latest(self._registry), (("content-type", CONTENT_TYPE_LATEST),))


def create_probe_app(registry: CollectorRegistry, readiness: AskReadiness) -> ASGIApp:
    """The probes alone, for a process that serves no requests; anything else is a 404 that says so."""
    probes = Probes(registry, readiness)
    handlers: Mapping[str, Callable[[Incoming], Awaitable[Answer]]] = {
        "/": probes.root,
        "/healthz": probes.health,
        "/health": probes.health,
        "/readyz": probes.ready,
        "/metrics": probes.metrics,
    }

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        incoming = Incoming(scope, receive, send)
        handler = handlers.get(incoming.path)
        if handler is None:
            problem = "this process serves no requests, only /healthz, /readyz and /metrics; ask an ingress"
            await incoming.respond(json_answer(404, {"error": {"message": problem, "code": "wrong_role"}}))
        else:
            await incoming.respond(await handler(incoming))

    return application
