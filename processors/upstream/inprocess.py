"""A provider inside the process: an ASGI application is called as if over HTTP, without a socket.

For the built-in sandbox, so that the first run needs no account and no second process.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from tollgate.errors import ProviderError
from tollgate.processors.upstream import Answer
from tollgate.wire import UpstreamRequest, upstream_url
from tollgate.wire.rate_limits import Window

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

MAX_UNREAD_PIECES = 64  # then the application waits, as a socket's buffer would make it


class InProcessTransport:
    """One ASGI application as a provider."""

    def __init__(self, application: Application, *, base_url: str) -> None:
        self._application = application
        self._base_url = base_url
        self.limits: tuple[Window, ...] = ()

    @asynccontextmanager
    async def send(self, request: UpstreamRequest, *, request_id: str) -> AsyncIterator[Answer]:
        exchange = _Exchange(request.body)
        path = urlsplit(upstream_url(self._base_url, request.path)).path
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": request.method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [
                *((name.encode(), value.encode()) for name, value in request.headers.items()),
                (b"x-request-id", request_id.encode()),
                (b"content-length", str(len(request.body)).encode()),
            ],
            "client": ("127.0.0.1", 0),
            "server": ("sandbox", 80),
        }
        task = asyncio.ensure_future(exchange.run(self._application, scope))
        try:
            await exchange.head()
            yield exchange
        finally:
            exchange.hang_up()
            if not task.done():
                task.cancel()

    async def close(self) -> None:
        """Nothing is held open."""


class _Exchange:
    """Both ends of one call: the application's `receive` and `send`, and the `Answer`."""

    def __init__(self, body: bytes) -> None:
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._pieces: deque[bytes] = deque()
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._gone = asyncio.Event()
        self._complete = False
        self._failed = False
        self.status = 0
        self.headers: Mapping[str, str] = {}

    async def run(self, application: Application, scope: Scope) -> None:
        try:
            await application(scope, self._receive, self._send)
        except Exception:  # whatever the application dies of, its client sees a broken connection
            self._failed = True
        else:
            self._failed = not self._complete
        self._changed.set()

    def hang_up(self) -> None:
        self._gone.set()
        self._room.set()

    async def head(self) -> None:
        while not self.status:
            if self._failed:
                raise ProviderError("cut", "the built-in provider closed the connection before its answer")
            await self._news()

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        while True:
            while self._pieces:
                yield self._pieces.popleft()
                self._room.set()
            if self._complete:
                return
            if self._failed:
                raise ProviderError(
                    "cut", "the built-in provider ended the connection in its answer", status=self.status
                )
            await self._news()

    async def _news(self) -> None:
        await self._changed.wait()
        self._changed.clear()

    async def _receive(self) -> Message:
        message, self._request = self._request, None
        if message is None:
            await self._gone.wait()
            message = {"type": "http.disconnect"}
        return message

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            if message.get("body"):
                self._pieces.append(message["body"])
            self._complete = not message.get("more_body", False)
        self._changed.set()
        if len(self._pieces) >= MAX_UNREAD_PIECES:
            self._room.clear()
            await self._room.wait()
