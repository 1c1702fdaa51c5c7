"""One HTTP request as the ingress sees it, and the answer to it."""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import orjson
from starlette.types import Receive, Scope, Send

from tollgate.errors import TollgateError
from tollgate.events import Dialect
from tollgate.ids import new_request_id
from tollgate.ingress.auth import Headers, Identity

JSON = "application/json"
UNMATCHED = "unmatched"  # the route of a request that no route takes
CONNECTION = "tollgate.connection"  # the server's extension of ASGI: a `Connection`


class ClientGone(TollgateError):
    """The client hung up; there is nobody to answer."""


class Connection(Protocol):
    """What the server knows of a client's connection at once, where ASGI can only be waited for."""

    @property
    def is_behind(self) -> bool:
        """Would sending wait for the client to read?"""
        ...

    def whole_body(self, scope: Scope) -> bytes | None:
        """The body of the request, if all of it has come. Instead of the first `receive`; what is taken is gone."""
        ...

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        """Have it called when the connection ends, or now if it has; with None no longer. One request at a time may."""
        ...

    def abort(self) -> None:
        """Drop the connection, whatever still waits to be sent."""
        ...


class Answer(NamedTuple):
    """A whole answer: status, body, and headers beyond the request id and the length."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("content-type", JSON),)


def json_answer(status: int, content: Any) -> Answer:
    return Answer(status, orjson.dumps(content))


class Incoming:
    """A request on its way through the ingress: what came, what is known of it so far, and how to answer.

    `request_id` is ours, made here. `held_bytes` of its body are in memory. `status` is None until the answer begins.
    """

    __slots__ = (
        "_receive",
        "_send",
        "body_ended",
        "client_request_id",
        "connection",
        "dialect",
        "headers",
        "held_bytes",
        "identity",
        "method",
        "path",
        "path_params",
        "request_id",
        "route",
        "scope",
        "started",
        "status",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.connection: Connection = scope["extensions"][CONNECTION]
        self.started = time.perf_counter()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.path_params: Mapping[str, str] = {}
        self.request_id = new_request_id()
        self.client_request_id: bytes | None = None
        self.dialect: Dialect = "openai"
        self.route = UNMATCHED
        self.headers: Headers = {}
        self.identity: Identity | None = None  # once its key is known to be genuine
        self.held_bytes = 0
        self.body_ended = False
        self.status: int | None = None

    @property
    def ip(self) -> str | None:
        """The other end of the connection, which may be a proxy."""
        client = self.scope.get("client")
        return client[0] if client else None

    def header(self, name: bytes) -> str | None:
        """A header's text; `name` in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    def whole_body(self) -> bytes | None:
        """The body, if all of it is here already, as that of a short request is."""
        body = self.connection.whole_body(self.scope)
        self.body_ended = body is not None
        return body

    async def receive(self) -> Any:
        """The next ASGI message. Raises `ClientGone` when there is no client any more."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client hung up")
        self.body_ended = not message.get("more_body", False)
        return message

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send the head of the answer, with the ids added."""
        self.status = status
        request_id = self.request_id.encode()
        headers.append((b"x-request-id", request_id))
        if self.dialect == "anthropic":
            headers.append((b"request-id", request_id))
        if self.client_request_id is not None:
            headers.append((b"x-client-request-id", self.client_request_id))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body. Waits while the client is behind; a client that has gone goes unnoticed here."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def respond(self, answer: Answer) -> None:
        """Send a whole answer."""
        headers = encoded(answer.headers)
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await self.start(answer.status, headers)
        await self.send(answer.body, more=False)


def encoded(headers: tuple[tuple[str, str], ...]) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them; what HTTP cannot carry becomes `?`."""
    return [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers]
