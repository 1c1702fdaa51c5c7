"""The sandbox as its tests meet it: as an ASGI app called directly, and behind a real server."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest
import uvicorn

from tollgate.sandbox import Ledger, create_app

HEADERS = {"authorization": "Bearer any", "anthropic-version": "2023-06-01"}


@dataclass
class Answer:
    """What an ASGI app sent: `pieces` are the bodies in the order in which they were handed to the server."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def events(self) -> list[tuple[str | None, Any]]:
        """The server-sent events: name and parsed data (`[DONE]` as text)."""
        events = []
        for block in self.body.decode().removesuffix("\n\n").split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.split("\n"))
            data = fields["data"]
            events.append((fields.get("event"), data if data == "[DONE]" else orjson.loads(data)))
        return events


class Provider:
    """Calls the app as a server would. What was sent until an exception is kept in `last`."""

    def __init__(self, app: Callable[..., Awaitable[None]]) -> None:
        self._app = app
        self.last = Answer()

    async def request(
        self,
        method: str,
        path: str,
        document: Any = None,
        *,
        headers: dict[str, str | None] | None = None,
        raw: Sequence[bytes] | None = None,
        query: str = "",
    ) -> Answer:
        """`headers` are added to `HEADERS`, or take one away where they say None."""
        answer = self.last = Answer()
        parts = list(raw if raw is not None else [orjson.dumps(document)])

        async def receive() -> dict[str, Any]:
            if not parts:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
                answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                answer.pieces.append(message["body"])

        sent = HEADERS | (headers or {})
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in sent.items() if value is not None],
        }
        await self._app(scope, receive, send)
        return answer

    async def chat(self, model: str | None, *, headers: dict[str, str | None] | None = None, **fields: Any) -> Answer:
        document = {"model": model, "messages": [{"role": "user", "content": "one two three"}], **fields}
        return await self.request("POST", "/v1/chat/completions", document, headers=headers)

    async def message(self, model: str, *, headers: dict[str, str | None] | None = None, **fields: Any) -> Answer:
        document = {
            "model": model,
            "max_tokens": 1000,
            "messages": [{"role": "user", "content": "one two three"}],
            **fields,
        }
        return await self.request("POST", "/v1/messages", document, headers=headers)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def provider_over() -> Callable[[Ledger], Provider]:
    return lambda ledger: Provider(create_app(ledger))


@pytest.fixture
def provider(provider_over: Callable[[Ledger], Provider], ledger: Ledger) -> Provider:
    return provider_over(ledger)


@pytest.fixture
async def url(ledger: Ledger) -> AsyncIterator[str]:
    """The same provider behind uvicorn on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(create_app(ledger), http="httptools", lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving
