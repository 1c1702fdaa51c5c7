"""A call over HTTP: authorised by its account's credential, and what the answer says of the account is kept."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from msgspec.structs import replace

from tests.processors.support import always
from tollgate.config import Account, Provider
from tollgate.errors import ProviderError
from tollgate.processors.metrics import WorkerMetrics
from tollgate.processors.upstream import Answer
from tollgate.processors.upstream.credentials.keys import StaticKey
from tollgate.processors.upstream.http import HttpTransport, new_session
from tollgate.wire import UpstreamRequest
from tollgate.wire.rate_limits import Window

OWN_KEY = "in-a-form-that-nobody-knows"


class Credential:
    def __init__(self) -> None:
        self.number = 1

    async def headers(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self.number}"}

    def rejected(self) -> None:
        self.number += 1

    async def keep_fresh(self) -> None: ...


class Upstream:
    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.seen: list[web.Request] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.seen.append(request)
        return web.json_response({"heard": dict(request.headers)}, status=self.status, headers=self.headers)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    app = web.Application()
    app.router.add_post("/{rest:.*}", upstream.answer)
    async with TestServer(app) as server:
        upstream.url = str(server.make_url("/base"))
        yield upstream


def a_provider(base_url: str, *, timeout_seconds: float = 5) -> Provider:
    return Provider(
        name="p",
        protocol="openai",
        base_url=base_url,
        accounts=(Account(name="main"),),
        models=("m",),
        priority=1,
        timeout_seconds=timeout_seconds,
        connect_timeout_seconds=5,
        max_retries=0,
        price_provider="p",
    )


@pytest.fixture
async def transport(upstream: Upstream) -> AsyncIterator[HttpTransport]:
    async with new_session() as session:
        yield HttpTransport(session, a_provider(upstream.url), Credential())


async def slow_head(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(60)
    raise AssertionError


async def slow_end(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"{")
    await asyncio.sleep(60)
    return response


A_CALL = UpstreamRequest(
    method="POST", path="/chat", headers={"content-type": "application/json"}, body=b"{}", stream=False
)


async def call(transport: HttpTransport, path: str = "/chat") -> int:
    async with transport.send(replace(A_CALL, path=path), request_id="r.1") as answer:
        await answer.read()
        return answer.status


async def test_a_call_carries_its_credential_its_id_and_nothing_of_the_environment(upstream, transport, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert await call(transport) == 200
    (request,) = upstream.seen
    assert request.headers["authorization"] == "Bearer 1"
    assert request.headers["x-request-id"] == "r.1"
    assert {name.lower() for name in request.headers} == {
        "host",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "user-agent",
        "authorization",
        "x-request-id",
    }


async def test_a_credential_that_was_refused_is_not_used_again(upstream, transport):
    upstream.status = 401
    await call(transport)
    await call(transport)
    assert [request.headers["authorization"] for request in upstream.seen] == ["Bearer 1", "Bearer 2"]


@pytest.mark.parametrize(("late", "status"), [(slow_head, None), (slow_end, 200)])
async def test_a_call_that_takes_longer_than_its_provider_may_ends_as_a_timeout(late, status):
    app = web.Application()
    app.router.add_post("/chat", late)
    async with TestServer(app, shutdown_timeout=0) as server, new_session() as session:
        transport = HttpTransport(session, a_provider(str(server.make_url("")), timeout_seconds=0.2), Credential())
        with pytest.raises(ProviderError) as raised:
            await call(transport)
    assert (raised.value.error_class, raised.value.status) == ("timeout", status)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


class Wire:
    """A provider of which a test says every byte: one entry of `says` for each request; None ends the connection."""

    def __init__(self, *says: bytes | None) -> None:
        self.says = list(says)
        self.connections = 0
        self.gone = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while self.says and await reader.read(1 << 16):
            said = self.says.pop(0)
            if said is None:
                break
            writer.write(said)
        if not self.says:
            await reader.read()
            self.gone.set()
        writer.close()


@asynccontextmanager
async def reached(wire: Wire) -> AsyncIterator[HttpTransport]:
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    async with server, new_session() as session:
        port = server.sockets[0].getsockname()[1]
        yield HttpTransport(session, a_provider(f"http://127.0.0.1:{port}"), Credential())


async def test_a_connection_is_used_again_when_its_answer_is_over():
    wire = Wire(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK, b"HTTP/1.1 204 No Content\r\n\r\n", OK)
    async with reached(wire) as transport:
        assert [await call(transport) for _ in range(3)] == [200, 204, 200]
    assert wire.connections == 1


async def test_a_call_that_is_left_before_its_end_closes_its_connection_at_once():
    wire = Wire(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    async with reached(wire) as transport, asyncio.timeout(10):
        async with transport.send(A_CALL, request_id="r.1") as answer:
            assert [piece async for piece in one_of(answer)] == [b"{"]
        await wire.gone.wait()


async def one_of(answer: Answer) -> AsyncIterator[bytes]:
    async for piece in answer.pieces():
        yield piece
        return


@pytest.mark.parametrize(
    ("says", "status"),
    [
        ((None,), None),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", None), 200),
        ((b"nothing of HTTP\r\n\r\n",), None),
    ],
)
async def test_a_connection_that_ends_before_its_answer_is_said_to_be_cut(says, status):
    class Ends(Wire):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1 << 16)
            writer.writelines(said for said in says if said)
            await writer.drain()
            writer.close()

    async with reached(Ends()) as transport:
        with pytest.raises(ProviderError) as raised:
            await call(transport)
    assert (raised.value.error_class, raised.value.status) == ("cut", status)


async def test_an_answer_counts_that_comes_before_the_whole_request_was_taken():
    class Refuses(Wire):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n")
            await self.gone.wait()
            writer.close()

    wire = Refuses()
    async with reached(wire) as transport, asyncio.timeout(10):
        async with transport.send(replace(A_CALL, body=b"x" * (32 << 20)), request_id="r.1") as answer:
            assert (answer.status, await answer.read()) == (413, b"")
        wire.gone.set()


async def test_where_nobody_listens_there_is_no_connection():
    async with new_session() as session:
        transport = HttpTransport(session, a_provider("http://127.0.0.1:1"), Credential())
        with pytest.raises(ProviderError, match="no connection to") as raised:
            await call(transport)
    assert raised.value.error_class == "connection"


async def test_a_header_cannot_smuggle_another_in(upstream, transport):
    request = replace(A_CALL, headers={"content-type": "a\r\nx-smuggled: b"})
    with pytest.raises(ValueError, match="header"):
        async with transport.send(request, request_id="r.1"):
            pass
    assert upstream.seen == []


async def test_a_path_goes_out_as_it_was_written(upstream, transport):
    await call(transport, "/model/a.b-v1%3A0/converse")
    assert upstream.seen[0].raw_path == "/base/model/a.b-v1%3A0/converse"


async def test_the_newest_limits_are_kept_until_an_answer_tells_of_others(upstream, transport):
    upstream.headers = {"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "25"}
    await call(transport)
    upstream.headers = {}
    await call(transport)
    assert transport.limits == (Window("requests", 25, 100),)


async def test_limits_are_shown_by_account_and_only_those_with_a_known_name(transport):
    transport.limits = (Window("requests", 25, 100), Window("a_name_of_the_providers", 1, 2), Window("tokens", 7))
    family = WorkerMetrics(None, None, None, always(transports={("p", "main"): transport}))._accounts()
    assert [(sample.labels, sample.value) for sample in family.samples] == [
        ({"provider": "p", "account": "main", "counts": "requests"}, 0.25)
    ]


@pytest.mark.parametrize(("status", "is_repeated"), [(200, True), (400, False), (500, False)])
async def test_a_failure_does_not_repeat_the_credential(upstream, transport, status, is_repeated):
    upstream.status = status
    transport.credential = StaticKey({"authorization": f"Own {OWN_KEY}"})
    request = UpstreamRequest(method="POST", path="/chat", headers={}, body=b"{}", stream=False)
    async with transport.send(request, request_id="r") as answer:
        body = await answer.read()
    assert (OWN_KEY.encode() in body) == is_repeated
    assert b"x-request-id" in body.lower()  # all else is told
