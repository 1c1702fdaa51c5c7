"""A provider that says again what real ones once said: each model's name is the id of a recorded exchange.

It serves every protocol at its own paths. A stream leaves event by event, as it came. A model that is not recorded is
not found.
"""

import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import unquote

import orjson
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.wire import recordings
from tests.wire.frames import frames


class Exchange(NamedTuple):
    """What is served under a recording's id. `pieces` are the events of a stream, or the whole body."""

    id: str
    is_stream: bool
    content_type: str
    pieces: tuple[bytes, ...]
    edge: frozenset[str]


def exchanges(name: str) -> Iterator[Exchange]:
    """The successful ones of a file, `openai.chat` for example."""
    for line in (recordings.FOLDER / f"{name}.jsonl").read_bytes().splitlines():
        row = orjson.loads(line)
        if row["status"] >= 300:
            continue
        text, is_stream = row["response_body"], "stream" in row["features"]
        content_type = (row["response_headers"] or {}).get("content-type") or "application/json"
        if row["fidelity"] == "response-only-chunks":
            pieces = [frames(orjson.loads(member)) for member in text.splitlines()]
            content_type = "application/vnd.amazon.eventstream"
        elif row["response_encoding"] == "base64":
            pieces = list(_frames(base64.b64decode(text)))
        elif is_stream and text.lstrip().startswith("{"):
            pieces = [line.encode() for line in text.splitlines(keepends=True)]
        elif is_stream:
            ends = "\r\n\r\n" if "\r\n\r\n" in text else "\n\n"
            pieces = [(event + ends).encode() for event in text.split(ends) if event.strip()]
            content_type = "text/event-stream"
        else:
            pieces = [text.encode()]
        yield Exchange(row["id"], is_stream, content_type, tuple(pieces), frozenset(row.get("edge") or ()))


def _frames(data: bytes) -> Iterator[bytes]:
    while data:
        length = int.from_bytes(data[:4])
        yield data[:length]
        data = data[length:]


def replayer(served: dict[str, Exchange]) -> web.Application:
    async def answer(request: web.Request) -> web.StreamResponse:
        body = orjson.loads(await request.read())
        found = next((part for part in unquote(request.path).replace(":", "/").split("/") if part in served), None)
        exchange = served.get(found or body.get("model", ""))
        if exchange is None:
            return web.json_response({"error": {"message": "not recorded", "code": "model_not_found"}}, status=404)
        response = web.StreamResponse(headers={"content-type": exchange.content_type})
        await response.prepare(request)
        for piece in exchange.pieces:
            await response.write(piece)
        await response.write_eof()
        return response

    app = web.Application(client_max_size=64 << 20)
    app.router.add_post("/{rest:.*}", answer)
    return app


@asynccontextmanager
async def replaying(served: dict[str, Exchange]) -> AsyncIterator[str]:
    """The address of a server of these exchanges."""
    async with TestServer(replayer(served)) as server:
        yield str(server.make_url("")).rstrip("/")
