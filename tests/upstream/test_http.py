"""A call over HTTP: authorised by its account's credential, and what the answer says of the account is kept."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.processors.support import always
from tollgate.config import Account, Provider
from tollgate.errors import ProviderError
from tollgate.processors.metrics import WorkerMetrics
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


async def call(transport: HttpTransport, path: str = "/chat") -> int:
    request = UpstreamRequest(
        method="POST", path=path, headers={"content-type": "application/json"}, body=b"{}", stream=False
    )
    async with transport.send(request, request_id="r.1") as answer:
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
