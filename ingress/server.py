"""How uvicorn serves the ingress: with a deadline for the head of a request, and a way to drop a connection.

uvicorn has neither (0.54): a client that sends half a head and waits holds its connection for ever, and a connection
whose client does not read is closed only once everything was sent, which is never. Nor does it say that a client has
gone, or that its body is here, but to somebody who waits for it, which takes a task or a timer. Nor does it bound what
is neither a whole head nor a body: a header without an end, the trailers of a chunked body. What is not HTTP at all
gets an error in the shape that clients show.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tollgate.errors import Refusal
from tollgate.ingress.http import CONNECTION
from tollgate.wire.exchange import WIRES

HEAD_DEADLINE_S = 30.0
KEEP_ALIVE_S = 75.0
BACKLOG = 2048
MAX_FRAMING_BYTES = 128 << 10  # that come one after the other and are no body; a head that is refused for its size fits


class Connection(HttpToolsProtocol):
    """One connection of a client. Satisfies `tollgate.ingress.http.Connection`."""

    _head_since: float | None = None
    _head_check: asyncio.TimerHandle | None = None
    _framing_bytes = 0  # since the last piece of a body, or the last end of a head or of a message
    _lost = False
    _on_gone: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.transport = _HeadWithBody(transport, self.loop)  # type: ignore[assignment]
        self._head_since = self.loop.time()
        self._head_check = self.loop.call_later(HEAD_DEADLINE_S, self._check_head)
        self._extensions: dict[str, Any] = {CONNECTION: self}

    def connection_lost(self, exc: Exception | None) -> None:
        if self._head_check is not None:
            self._head_check.cancel()
        super().connection_lost(exc)
        self._lost = True
        if self._on_gone is not None:
            self._on_gone()

    @property
    def is_behind(self) -> bool:
        return self.flow.write_paused

    def whole_body(self, scope: Scope) -> bytes | None:
        cycle = self.cycle
        if cycle.scope is not scope or cycle.more_body or cycle.disconnected:  # the cycle may be the next request's
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        return body

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        self._on_gone = on_gone
        if on_gone is None:
            return
        self.flow.resume_reading()  # whose end is how it is noticed; a long body, or another request, paused it
        if self._lost:
            on_gone()

    def abort(self) -> None:
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._framing_bytes += len(data)
        super().data_received(data)
        if self._framing_bytes > MAX_FRAMING_BYTES and not self.transport.is_closing():
            if self._head_since is None:  # within a body, and perhaps within its answer
                self.transport.close()
                return
            message = f"The headers have more than {MAX_FRAMING_BYTES} bytes, and no end."
            self._refuse("431 Request Header Fields Too Large", Refusal(431, "headers_too_large", message))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_since = self.loop.time()
        self.scope["extensions"] = self._extensions

    def on_headers_complete(self) -> None:
        self._head_since = None
        self._framing_bytes = 0
        super().on_headers_complete()
        self.headers = []  # for trailers, which must not pass for headers

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._framing_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what could not be parsed, and close."""
        self._refuse("400 Bad Request", Refusal(400, "invalid_http", "This is not a well-formed HTTP/1.1 request."))

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing is amiss: a client offers another protocol, and is answered in this one."""

    def _refuse(self, status: str, refusal: Refusal) -> None:
        body = WIRES["openai"].error_body(refusal, "")
        self.transport.write(
            b"HTTP/1.1 %s\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
            % (status.encode(), len(body), body)
        )
        self.transport.close()

    def _check_head(self) -> None:
        """Close the connection if the head of a request is overdue; look again when it could be.

        One timer per connection, not per request: cancelling one for every request would cost more than this.
        """
        now = self.loop.time()
        due = HEAD_DEADLINE_S + (now if self._head_since is None else self._head_since)
        if due <= now:
            self.transport.close()
        else:
            self._head_check = self.loop.call_later(due - now, self._check_head)


class _HeadWithBody:
    """A transport that keeps the head of an answer back for the first piece of its body, which follows at once.

    uvicorn writes them one after the other, and uvloop sends at every write: two packets and two system calls, which
    for a short answer are a fiftieth of all that it costs. Nothing is kept longer than one turn of the loop.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1 "):
            self._flush()
            self._head = data
            self._loop.call_soon(self._flush)
        elif self._head:
            head, self._head = self._head, b""
            self._transport.write(head + data)
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def server_config(app: ASGIApp, *, host: str = "127.0.0.1", port: int = 0) -> uvicorn.Config:
    """uvicorn's settings, each stated: uvloop and httptools, no access log, no header that names the server.

    Host and port are of no use to a server that is given its sockets.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Connection,
        loop="uvloop",
        ws="none",
        lifespan="off",
        interface="asgi3",
        access_log=False,
        log_config=None,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=int(KEEP_ALIVE_S),
        backlog=BACKLOG,
    )
