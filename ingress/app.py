"""The ASGI application: routes, and the one edge where every error becomes a body that the client's dialect shows.

ASGI throughout, with an extension of our server's (`tollgate.ingress.http.Connection`). The paths on which a model is
asked are a table of their own (`tollgate.ingress.routes`), the rest is found by Starlette's router.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from traceback import format_tb
from typing import Literal, TypeAlias

from starlette.routing import Route as Mount
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from tollgate.config import Config
from tollgate.control import OFFSET_HEADER
from tollgate.errors import Refusal
from tollgate.events import Dialect
from tollgate.ingress.admin import Admin
from tollgate.ingress.audit import Audit
from tollgate.ingress.auth import Authenticator, Headers, require_admin
from tollgate.ingress.catalogue import Catalogue
from tollgate.ingress.chat import Chat
from tollgate.ingress.commands import Commands
from tollgate.ingress.credentials import Credentials
from tollgate.ingress.door import Door
from tollgate.ingress.guard import (
    MAX_BODY_BYTES_HELD,
    RETRY_AFTER,
    Load,
    announces_body,
    check_head,
    check_no_key_in_url,
    client_request_id,
    control_offset,
    linger,
    unknown_path,
)
from tollgate.ingress.http import Answer, ClientGone, Incoming, encoded
from tollgate.ingress.metrics import GONE, Metrics
from tollgate.ingress.models import Models
from tollgate.ingress.probes import Probes, Readiness
from tollgate.ingress.routes import ROUTES, Routes, check_google_method
from tollgate.ingress.story import Stories
from tollgate.wire.exchange import WIRES

log = logging.getLogger(__name__)

# Who may use a route: anybody, whoever holds a key, or whoever holds the admin key. Every route says so.
Access: TypeAlias = Literal["open", "key", "admin"]
Handler: TypeAlias = Callable[[Incoming], Awaitable[Answer | None]]

CONTROL_OFFSET = OFFSET_HEADER.encode()

SHOWN_CHARS = 200  # of a path, in an error

_INCOMING = "tollgate.incoming"  # where the router's scope carries what the edge made of the request


def create_ingress(door: Door) -> "Ingress":
    """The ingress as an ASGI application. It has neither start nor end: what it does ends with the client it is for."""
    return Ingress(door)


class Endpoint:
    """One path: its methods, and who may use them. A handler without an answer has answered by itself."""

    def __init__(self, route: str, access: Access, /, **handlers: Handler) -> None:
        self.route = route
        self.access = access
        self.counted = access != "open"  # probes are answered however much is under way
        self._handlers = dict(handlers)
        if "GET" in handlers:
            self._handlers["HEAD"] = handlers["GET"]

    @property
    def methods(self) -> frozenset[str]:
        return frozenset(self._handlers)

    def handler(self, method: str, path: str) -> Handler:
        """Raises `Refusal` (405) that names the methods there are, or (404) for an unknown one of Google's."""
        try:
            return self._handlers[method]
        except KeyError:
            if method == "POST":
                check_google_method(path)
            allowed = ", ".join(sorted(self._handlers))
            raise Refusal(
                405,
                "method_not_allowed",
                f"{path[:SHOWN_CHARS]!a} takes {allowed} only.",
                headers={"allow": allowed},
            ) from None


class Ingress:
    """The application."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._load = Load(max_requests=door.config.server.max_in_flight, max_body_bytes=MAX_BODY_BYTES_HELD)
        self._metrics = Metrics(door.registry, in_flight=lambda: self._load.requests)
        self._audit = Audit(door.log, self._metrics.audits_dropped)
        self._authenticator = Authenticator(door.control, door.secrets)
        catalogue = self._catalogue = Catalogue(door.config)
        chat = Chat(door, catalogue=catalogue, load=self._load, metrics=self._metrics)
        self._routes = Routes()
        self._asked = {route.path: Endpoint(route.path, "key", POST=partial(chat.serve, route)) for route in ROUTES}
        commands = Commands(door, load=self._load)
        self._others = _endpoints(
            Admin(door, commands),
            Credentials(door, commands, catalogue),
            Models(catalogue, self._load, created_s=door.now_ms() // 1000),
            Probes(door.registry, door.readiness or self._readiness),
            Stories(door),
        )
        self._router = _router(self._others, self._serve)

    def use(self, config: Config) -> None:
        """Serve the models of this configuration from now on."""
        self._catalogue.use(config)

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """Everything that can be asked here."""
        return (*self._asked.values(), *self._others)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Every error ends here."""
        if scope["type"] != "http":
            raise NotImplementedError(f"the ingress speaks HTTP, not {scope['type']}")
        incoming = Incoming(scope, receive, send)
        try:
            incoming.headers = dict(scope["headers"])
            found = self._routes.find(incoming.path)
            incoming.dialect = dialect_of(incoming.path, incoming.headers) if found is None else found[0].dialect
            incoming.client_request_id = client_request_id(incoming.headers)
            check_head(scope, incoming.headers)
            if incoming.dialect == "gemini":
                check_no_key_in_url(scope)
            if found is not None:
                route, incoming.path_params = found
                await self._serve(self._asked[route.path], incoming)
            else:
                scope[_INCOMING] = incoming
                await self._router(scope, receive, send)
        except Refusal as refusal:
            await self._refuse(incoming, refusal)
        except ClientGone:
            incoming.status = GONE
        except Exception as error:
            _report(incoming, error)
            await self._refuse(
                incoming, Refusal(500, "internal_error", "The gateway failed; its log says where.", type="api_error")
            )
        finally:
            self._load.release_body(incoming)
            seconds = time.perf_counter() - incoming.started
            self._metrics.answered(incoming.route, incoming.status or GONE, seconds)

    async def _serve(self, endpoint: Endpoint, incoming: Incoming) -> None:
        incoming.route = endpoint.route
        handler = endpoint.handler(incoming.method, incoming.path)
        if endpoint.access != "open":
            self._check_ready()
            if self._door.freshness.stale or CONTROL_OFFSET in incoming.headers:
                await self._catch_up(incoming)
            identity = incoming.identity = self._authenticator.authenticate(incoming.headers, self._door.now_ms())
            if endpoint.access == "admin":
                require_admin(identity)
        if endpoint.counted:
            self._load.enter()
        try:
            answer = await handler(incoming)
            if answer is not None:
                await incoming.respond(answer)
        finally:
            if endpoint.counted:
                self._load.leave()

    async def _readiness(self) -> Readiness:
        return Readiness(self._door.not_ready())

    def _check_ready(self) -> None:
        """Raise `Refusal` (503) before the keys are known, while the process stops, and while the log does not answer.

        Nothing has been read of the request by then but its head.
        """
        if self._door.not_ready():
            raise Refusal(
                503,
                "not_ready",
                "The gateway takes no requests at the moment; GET /readyz says what it waits for. Try again.",
                type="api_error",
                headers=RETRY_AFTER,
            )

    async def _catch_up(self, incoming: Incoming) -> None:
        """Return when it is known what has been revoked, and what the client has seen of the control state already.

        Raises `Refusal` (503) when that takes too long.
        """
        seen = control_offset(incoming.headers)
        freshness, control = self._door.freshness, self._door.control
        self._load.enter()
        try:
            known = await freshness.regained() and await control.wait_for(seen, timeout_s=freshness.patience_s)
        finally:
            self._load.leave()
        if not known or freshness.stale:
            raise Refusal(
                503,
                "control_state_unknown",
                "The gateway cannot tell at the moment which keys have been changed or revoked. Try again.",
                type="api_error",
                headers=RETRY_AFTER,
            )

    async def _refuse(self, incoming: Incoming, refusal: Refusal) -> None:
        if 400 <= refusal.status < 500:
            self._audit.refused(incoming, refusal, now_ms=self._door.now_ms())
        if incoming.status is not None:
            return  # something was sent already; the server closes what is left unfinished
        headers = encoded((("content-type", "application/json"), *refusal.headers.items()))
        body = WIRES[incoming.dialect].error_body(refusal, incoming.request_id)
        headers.append((b"content-length", str(len(body)).encode()))
        if incoming.body_ended or not announces_body(incoming.headers):
            await incoming.start(refusal.status, headers)
            await incoming.send(body, more=False)
        else:
            headers.append((b"connection", b"close"))
            await incoming.start(refusal.status, headers)
            await incoming.send(body, more=True)
            await linger(incoming)
            await incoming.send(b"", more=False)


def dialect_of(path: str, headers: Headers) -> Dialect:
    """Whose shapes a client reads where no model is asked: by the path, else by the header that only one sends."""
    if path.startswith("/v1/messages") or b"anthropic-version" in headers:
        return "anthropic"
    if path.startswith("/api/"):
        return "ollama"
    return "gemini" if path.startswith("/v1beta/") or b"x-goog-api-key" in headers else "openai"


def _endpoints(
    admin: Admin, credentials: Credentials, models: Models, probes: Probes, stories: Stories
) -> tuple[Endpoint, ...]:
    return (
        Endpoint("/", "open", GET=probes.root),
        Endpoint("/healthz", "open", GET=probes.health),
        Endpoint("/health", "open", GET=probes.health),
        Endpoint("/readyz", "open", GET=probes.ready),
        Endpoint("/metrics", "open", GET=probes.metrics),
        Endpoint("/v1/models", "key", GET=models.list),
        Endpoint("/v1/models/{model:path}", "key", GET=models.one),
        Endpoint("/v1beta/models", "key", GET=models.list),
        Endpoint("/v1beta/models/{model:path}", "key", GET=models.one),
        Endpoint("/api/tags", "key", GET=models.list),
        Endpoint("/api/show", "key", POST=models.show),
        Endpoint("/api/version", "open", GET=models.version),
        Endpoint("/v1/keys", "admin", GET=admin.list, POST=admin.create),
        Endpoint("/v1/keys/{id}", "admin", GET=admin.one, PATCH=admin.change, DELETE=admin.revoke),
        Endpoint("/v1/credentials", "admin", GET=credentials.list),
        Endpoint(
            "/v1/credentials/{provider}/{account}",
            "admin",
            GET=credentials.one,
            PUT=credentials.set,
            DELETE=credentials.delete,
        ),
        Endpoint("/v1/requests/{id}", "key", GET=stories.one),
    )


def _router(endpoints: Sequence[Endpoint], serve: Callable[[Endpoint, Incoming], Awaitable[None]]) -> Router:
    routes = [Mount(endpoint.route, _Mounted(endpoint, serve)) for endpoint in endpoints]
    return Router(routes, redirect_slashes=False, default=_nothing_here)


class _Mounted:
    """An endpoint as the router calls it."""

    def __init__(self, endpoint: Endpoint, serve: Callable[[Endpoint, Incoming], Awaitable[None]]) -> None:
        self._endpoint = endpoint
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        incoming: Incoming = scope[_INCOMING]
        incoming.path_params = scope["path_params"]
        await self._serve(self._endpoint, incoming)


async def _nothing_here(scope: Scope, receive: Receive, send: Send) -> None:
    raise unknown_path()


def _report(incoming: Incoming, error: Exception) -> None:
    """Say where it failed, but not with which values: the error's text may hold what a client has sent."""
    where = "".join(format_tb(error.__traceback__))
    log.error("request %s failed: %s\n%s", incoming.request_id, type(error).__name__, where)
