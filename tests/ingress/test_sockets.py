"""The ingress behind its real server: real sockets, official SDKs, and clients that do not behave."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anthropic
import openai
import orjson
import pytest
import uvicorn

from tests.ingress.support import (
    CHAT,
    OPENAI_BODY,
    PROMPT,
    Gateway,
    Worker,
    begin_to_stream,
    stay_silent,
)
from tollgate.events import RequestAccepted
from tollgate.ingress import server as server_module
from tollgate.ingress.server import Connection, server_config

ANSWER = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "sandbox",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
}
MESSAGE = {
    "id": "m1",
    "type": "message",
    "role": "assistant",
    "model": "sandbox",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 1, "output_tokens": 1},
}


@pytest.fixture
async def port(gateway: Gateway) -> AsyncIterator[int]:
    """The gateway's port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(gateway.app, host="127.0.0.1", port=0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await serving


@pytest.fixture
def token(gateway: Gateway) -> str:
    return gateway.tokens["acme"]


def head(token: str, length: int, *more: str) -> bytes:
    lines = [
        f"POST {CHAT} HTTP/1.1",
        "Host: gateway.test",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *more,
        "\r\n",
    ]
    return "\r\n".join(lines).encode()


def chat(token: str, **fields: Any) -> bytes:
    body = orjson.dumps(OPENAI_BODY | fields)
    return head(token, len(body)) + body


async def exchange(port: int, data: bytes, *, timeout_s: float = 5) -> bytes:
    """All that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), timeout_s)
    finally:
        writer.close()


# Clients that go or do not read --------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [stay_silent, begin_to_stream])
async def test_a_closed_connection_is_a_cancellation_within_100_ms(
    gateway: Gateway, port: int, token: str, script: Any
):
    gateway.worker.script = script
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat(token, stream=True))
    await gateway.worker.request_came.wait()
    closed = time.perf_counter()
    writer.close()
    await asyncio.wait_for(gateway.worker.cancel_came.wait(), 5)
    assert time.perf_counter() - closed < 0.1


async def test_a_client_is_seen_to_go_though_much_of_it_was_not_read_yet(gateway: Gateway, port: int, token: str):
    """The server stops reading after a long body, and after the head of the next request; both come at once here."""
    gateway.worker.script = stay_silent
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat(token, messages=[{"role": "user", "content": "x" * 200_000}]) + chat(token))
    await gateway.worker.request_came.wait()
    writer.close()
    await asyncio.wait_for(gateway.worker.cancel_came.wait(), 5)


async def test_who_has_gone_before_the_request_was_taken_in_has_it_cancelled(
    gateway: Gateway, port: int, token: str, monkeypatch: pytest.MonkeyPatch
):
    gone = asyncio.Event()

    async def prepare_late(*args: Any) -> None:
        writer.close()
        await gone.wait()

    lost = Connection.connection_lost

    def connection_lost(self: Connection, exc: Exception | None) -> None:
        lost(self, exc)
        gone.set()

    monkeypatch.setattr(gateway.door.sealer, "prepare", prepare_late)
    monkeypatch.setattr(Connection, "connection_lost", connection_lost)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat(token))
    await asyncio.wait_for(gateway.worker.cancel_came.wait(), 5)
    assert gateway.worker.cancelled[0].reason == "client disconnected"


async def test_a_client_that_never_reads_is_dropped_and_the_memory_stays_bounded(
    gateway: Gateway, port: int, token: str
):
    gateway.worker.script = begin_to_stream
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    writer.write(chat(token, stream=True))
    await gateway.worker.request_came.wait()
    (event,) = gateway.worker.accepted
    sent = 0
    async with asyncio.timeout(10):
        while not gateway.worker.cancel_came.is_set():
            sent += 1
            gateway.worker.reply(event, b"data: " + b"x" * 65_536, seq=sent, last=False)
            await asyncio.sleep(0)
    assert gateway.worker.cancelled[0].reason == "client reads too slowly"
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(1 << 30), 10)  # dropped, although much was still to be sent
    writer.close()


async def test_pieces_of_a_stream_are_not_held_back(gateway: Gateway, port: int, token: str):
    gateway.worker.script = begin_to_stream
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat(token, stream=True))
    await reader.readuntil(b"data: one\n\n")
    (event,) = gateway.worker.accepted
    delays = []
    for seq in range(1, 20):
        began = time.perf_counter()
        gateway.worker.reply(event, b"data: %d\n\n" % seq, seq=seq, last=False)
        await reader.readuntil(b"data: %d\n\n" % seq)
        delays.append(time.perf_counter() - began)
    assert sorted(delays)[len(delays) // 2] < 0.02  # with Nagle's algorithm it would be 40 ms
    writer.close()


async def test_one_connection_serves_many_requests(gateway: Gateway, port: int, token: str):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(3):
        writer.write(chat(token))
        assert b"200 OK" in await reader.readuntil(b'{"answer": 1}')
    writer.close()


async def test_half_a_head_holds_a_connection_only_for_so_long(
    gateway: Gateway, port: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(server_module, "HEAD_DEADLINE_S", 0.05)
    assert await exchange(port, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow") == b""
    assert await exchange(port, b"") == b""


async def test_a_long_answer_is_no_slow_head(gateway: Gateway, port: int, token: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(server_module, "HEAD_DEADLINE_S", 0.02)

    async def answer_later(worker: Worker, event: RequestAccepted) -> None:
        asyncio.get_running_loop().call_later(0.1, worker.reply, event, b'{"answer": 1}')

    gateway.worker.script = answer_later
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(chat(token))
    assert b"200 OK" in await reader.readuntil(b'{"answer": 1}')
    writer.close()


# Malformed HTTP ------------------------------------------------------------------------------------------------------

GET = b"GET /v1/models HTTP/1.1\r\n"
MALFORMED = {
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n": 400,
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff1\r\n": 400,
    b"GET / HTTP/1.1\nHost: a\n\n": 400,
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n": 400,
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n": 400,
    b"nonsense\r\n\r\n": 400,
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03": 400,  # TLS
    GET + b"\r\n": 400,
    GET + b"Host: a\r\nHost: b\r\n\r\n": 400,
    GET + b"Host: a\r\n" + b"X: %s\r\n\r\n" % (b"x" * 40_000): 431,
    GET + b"Host: a\r\n" + b"".join(b"X%d: 1\r\n" % n for n in range(500)) + b"\r\n": 431,
    b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"x" * 9_000): 414,
    b"GET /v1/..%2fmodels HTTP/1.1\r\nHost: a\r\n\r\n": 404,
    b"GET //v1/models HTTP/1.1\r\nHost: a\r\n\r\n": 404,
    b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n": 405,
    b"POST /v1/models HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}": 405,
}


async def test_what_may_be_smuggling_is_refused_with_a_body_that_clients_show(gateway: Gateway, port: int):
    refused = {}
    for data in MALFORMED:
        status_line, _, rest = (await exchange_one(port, data)).partition(b"\r\n")
        refused[data] = int(status_line.split()[1])
        assert orjson.loads(rest.partition(b"\r\n\r\n")[2])["error"]["message"]
    assert refused == MALFORMED


async def exchange_one(port: int, data: bytes) -> bytes:
    """The first answer: its head and as much body as that says."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    async with asyncio.timeout(5):
        answered = await reader.readuntil(b"\r\n\r\n")
        length = int(answered.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        body = await reader.readexactly(length)
    writer.close()
    return answered + body


async def test_a_head_without_an_end_is_refused_before_it_fills_the_memory(gateway: Gateway, port: int):
    answer = await exchange(port, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * (server_module.MAX_FRAMING_BYTES + 1))
    assert answer.startswith(b"HTTP/1.1 431 ") and b"headers_too_large" in answer


@pytest.mark.parametrize("endless", [b"0\r\nX: ", b"1;"])
async def test_trailers_and_extensions_of_a_chunk_have_an_end_too(
    gateway: Gateway, port: int, token: str, endless: bytes
):
    sent = head(token, 0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    gateway.worker.script = stay_silent
    too_much = endless + b"x" * (4 * server_module.MAX_FRAMING_BYTES)  # what comes with the body does not count
    with suppress(ConnectionResetError):  # it was closed while more was on its way
        assert await exchange(port, sent + b"2\r\n{}\r\n" + too_much) == b""


async def test_a_body_of_many_small_chunks_is_no_endless_head(gateway: Gateway, port: int, token: str):
    sent = head(token, 0, "Connection: close").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    body = orjson.dumps(OPENAI_BODY | {"padding": "x" * 60_000})
    chunks = b"".join(b"1;name=value\r\n%c\r\n" % byte for byte in body)
    assert len(chunks) > 5 * server_module.MAX_FRAMING_BYTES
    assert (await exchange(port, sent + chunks + b"0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_a_trailer_is_not_taken_for_a_header(gateway: Gateway, port: int):
    sent = head("x", 0, "Connection: close").replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    sent = sent.replace(b"Authorization: Bearer x\r\n", b"")
    trailer = f"0\r\nAuthorization: Bearer {gateway.tokens['acme']}\r\n\r\n".encode()
    answer = await exchange(port, sent + b"2\r\n{}\r\n" + trailer)
    assert answer.startswith(b"HTTP/1.1 401 ")


async def test_another_protocol_that_is_offered_is_left_at_that(gateway: Gateway, port: int, caplog: Any):
    offer = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n"
    assert (await exchange_one(port, b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + offer)).startswith(b"HTTP/1.1 200 ")
    assert not caplog.records


async def test_a_body_too_large_is_refused_so_that_the_sender_can_read_it(gateway: Gateway, port: int, token: str):
    size = gateway.door.config.server.max_body_mb << 20
    answer = await exchange(port, head(token, size + 1) + b"x" * (size + 1), timeout_s=10)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer


async def test_a_head_that_waits_for_leave_to_send_its_body_gets_it(gateway: Gateway, port: int, token: str):
    body = orjson.dumps(OPENAI_BODY)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head(token, len(body), "Expect: 100-continue"))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    assert b"200 OK" in await reader.readuntil(b'{"answer": 1}')
    writer.close()


# Official SDKs -------------------------------------------------------------------------------------------------------


@pytest.fixture
async def openai_client(port: int, token: str) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=token) as client:
        yield client


@pytest.fixture
async def anthropic_client(port: int, token: str) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(base_url=f"http://127.0.0.1:{port}", api_key=token) as client:
        yield client


def script_of(body: Any) -> Any:
    async def answer(worker: Worker, event: RequestAccepted) -> None:
        worker.reply(event, orjson.dumps(body))

    return answer


async def ask_openai(client: openai.AsyncOpenAI, **fields: Any) -> Any:
    return await client.chat.completions.create(
        **{"model": "sandbox", "messages": [{"role": "user", "content": PROMPT}]} | fields
    )


async def ask_anthropic(client: anthropic.AsyncAnthropic, **fields: Any) -> Any:
    usual = {"model": "sandbox", "max_tokens": 10, "messages": [{"role": "user", "content": PROMPT}]}
    return await client.messages.create(**usual | fields)


async def test_the_openai_sdk_gets_its_answer(gateway: Gateway, openai_client: openai.AsyncOpenAI):
    gateway.worker.script = script_of(ANSWER)
    answer = await ask_openai(openai_client)
    assert answer.choices[0].message.content == "hello"
    assert answer._request_id == gateway.worker.accepted[0].request.request_id


async def test_the_anthropic_sdk_gets_its_answer(gateway: Gateway, anthropic_client: anthropic.AsyncAnthropic):
    gateway.worker.script = script_of(MESSAGE)
    answer = await ask_anthropic(anthropic_client)
    assert answer.content[0].text == "hello"
    assert answer._request_id == gateway.worker.accepted[0].request.request_id
    assert "anthropic-version" in gateway.worker.accepted[0].headers


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"model": "sandbix"}, 404, "Did you mean 'sandbox'?"),
        ({"messages": "hello"}, 400, "'messages'"),
    ],
)
async def test_both_sdks_show_what_was_wrong(
    openai_client: openai.AsyncOpenAI,
    anthropic_client: anthropic.AsyncAnthropic,
    fields: dict[str, Any],
    status: int,
    said: str,
):
    with pytest.raises(openai.APIStatusError) as from_openai:
        await ask_openai(openai_client, **fields)
    with pytest.raises(anthropic.APIStatusError) as from_anthropic:
        await ask_anthropic(anthropic_client, **fields)
    for error in (from_openai.value, from_anthropic.value):
        assert error.status_code == status
        assert said in str(error)
        assert error.request_id


async def test_both_sdks_ask_once_with_a_wrong_key_and_show_why(gateway: Gateway, port: int):
    url = f"http://127.0.0.1:{port}"
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="not known here"):
            await ask_openai(client)
    async with anthropic.AsyncAnthropic(base_url=url, api_key="wrong") as other:
        with pytest.raises(anthropic.AuthenticationError, match="not known here"):
            await ask_anthropic(other)
    assert len(await gateway.records("audit")) == 2


async def test_the_openai_sdk_raises_an_error_sent_in_the_middle_of_a_stream(
    gateway: Gateway, openai_client: openai.AsyncOpenAI
):
    async def fail(worker: Worker, event: RequestAccepted) -> None:
        chunk = ANSWER | {"object": "chat.completion.chunk", "choices": []}
        headers = (("content-type", "text/event-stream"),)
        worker.reply(event, b"data: " + orjson.dumps(chunk) + b"\n\n", last=False, headers=headers)
        worker.reply(event, b'data: {"error": {"message": "cut in the middle"}}\n\n', seq=1)

    gateway.worker.script = fail
    with pytest.raises(openai.APIError, match="cut in the middle"):
        async for _ in await ask_openai(openai_client, stream=True):
            pass


async def test_a_stream_that_the_sdk_closes_is_cancelled(gateway: Gateway, openai_client: openai.AsyncOpenAI):
    async def endless(worker: Worker, event: RequestAccepted) -> None:
        chunk = ANSWER | {"object": "chat.completion.chunk", "choices": []}
        headers = (("content-type", "text/event-stream"),)
        worker.reply(event, b"data: " + orjson.dumps(chunk) + b"\n\n", last=False, headers=headers)

    gateway.worker.script = endless
    stream = await ask_openai(openai_client, stream=True)
    await anext(stream)
    await stream.close()
    await asyncio.wait_for(gateway.worker.cancel_came.wait(), 5)


async def test_the_sdks_list_the_models(openai_client: openai.AsyncOpenAI, anthropic_client: anthropic.AsyncAnthropic):
    assert [model.id async for model in openai_client.models.list()] == ["sandbox"]
    assert [model.id async for model in anthropic_client.models.list()] == ["sandbox"]
    assert (await openai_client.models.retrieve("sandbox")).owned_by == "sandbox"
    assert (await anthropic_client.models.retrieve("sandbox")).id == "sandbox"
