"""Delays, failures, cuts and hang-ups, and what the ledger says of them."""

import asyncio
import time
from typing import Any

import aiohttp
import pytest

from tollgate.sandbox import Cut, Ledger, create_app
from tollgate.sandbox.delivery import BURST_PIECES

HELLO = [{"role": "user", "content": "Say hello to me"}]


@pytest.mark.parametrize("call", ["chat", "message"])
async def test_a_stream_is_cut_after_so_many_pieces(provider, ledger, call):
    with pytest.raises(Cut):
        await getattr(provider, call)("sandbox-tok5-cut3", stream=True)
    (row,) = ledger.rows()
    assert provider.last.status == 200
    assert len(provider.last.pieces) == 1 + 3
    assert (row.outcome, row.finished, row.output_tokens, row.input_tokens) == ("cut", True, 3, 6)


async def test_a_piece_counts_with_all_its_tokens(provider, ledger):
    with pytest.raises(Cut):
        await provider.chat("sandbox-tok10-chunks4-cut2", stream=True, n=2)
    assert ledger.rows()[0].output_tokens == 2 * 2


async def test_a_cut_beyond_the_answer_comes_before_its_end(provider, ledger):
    with pytest.raises(Cut):
        await provider.chat("sandbox-tok5-cut9", stream=True)
    assert b"[DONE]" not in provider.last.body
    assert ledger.rows()[0].output_tokens == 5


async def test_a_unary_answer_is_cut_inside_its_body_and_counts_whole(provider, ledger):
    with pytest.raises(Cut):
        await provider.chat("sandbox-tok5-cut0")
    assert 0 < len(provider.last.body) < int(provider.last.headers["content-length"])
    assert [(row.outcome, row.output_tokens) for row in ledger.rows()] == [("cut", 5)]


@pytest.mark.parametrize("after", [0, 2])
async def test_an_error_event_ends_a_stream(provider, ledger, after):
    chat = await provider.chat(f"sandbox-tok5-eband{after}", stream=True)
    message = await provider.message(f"sandbox-tok5-eband{after}", stream=True)
    assert chat.events[-1][1]["error"]["type"] == "server_error"
    assert len(chat.events) == 1 + after + 1
    assert message.events[-1][0] == "error"
    assert message.events[-1][1]["error"]["type"] == "overloaded_error"
    assert [(row.status, row.outcome, row.output_tokens) for row in ledger.rows()] == [(200, "error", after)] * 2


async def test_a_unary_answer_can_be_an_error_under_status_200(provider, ledger):
    answer = await provider.chat("sandbox-eband0")
    assert (answer.status, set(answer.json)) == (200, {"error"})
    assert [(row.outcome, row.input_tokens, row.output_tokens) for row in ledger.rows()] == [("error", 0, 0)]


async def test_usage_can_be_left_out(provider, ledger):
    unary = [await provider.chat("sandbox-nousage"), await provider.message("sandbox-nousage")]
    streams = [
        await provider.chat("sandbox-nousage", stream=True, stream_options={"include_usage": True}),
        await provider.message("sandbox-nousage", stream=True),
    ]
    assert not any("usage" in answer.json for answer in unary)
    for stream in streams:
        for _, data in stream.events:
            assert data == "[DONE]" or not data.get("usage")
            assert data == "[DONE]" or "usage" not in data.get("message", {})
    assert all(row.input_tokens and row.output_tokens for row in ledger.rows())


async def test_a_provider_can_break_the_callers_limit(provider, ledger):
    answer = await provider.chat("sandbox-over7", max_tokens=10)
    assert answer.json["usage"]["completion_tokens"] == 17
    assert [(row.max_tokens, row.output_tokens) for row in ledger.rows()] == [(10, 17)]


@pytest.mark.parametrize("status", [400, 401, 402, 403, 408, 418, 429, 500, 503, 529, 599])
async def test_errors_are_answered_as_asked(provider, ledger, status):
    chat = await provider.chat(f"sandbox-err{status}", stream=True)
    message = await provider.message(f"sandbox-err{status}")
    assert chat.status == message.status == status
    assert set(chat.json["error"]) == {"message", "type", "param", "code"}
    assert message.json["type"] == "error"
    assert ("retry-after" in chat.headers) == ("retry-after" in message.headers) == (status == 429)
    assert [(row.status, row.outcome) for row in ledger.rows()] == [(status, "error")] * 2


async def test_only_the_first_calls_of_a_chain_fail(provider):
    async def statuses(request: str, attempts: int, model: str = "sandbox-err503x2") -> list[int]:
        ids = [f"{request}.{attempt}" for attempt in range(1, attempts + 1)]
        return [(await provider.chat(model, headers={"x-request-id": id})).status for id in ids]

    assert await statuses("a", 4) == [503, 503, 200, 200]
    assert await statuses("b", 3) == [503, 503, 200]
    assert await statuses("a", 2, "sandbox-err429x1") == [429, 200]
    assert await statuses("a", 1) == [200]


async def test_calls_without_an_id_are_one_chain_until_the_books_are_cleared(provider):
    assert [(await provider.chat("sandbox-err500x1")).status for _ in range(2)] == [500, 200]
    await provider.request("DELETE", "/ledger")
    assert (await provider.chat("sandbox-err500x1")).status == 500


async def test_a_full_ledger_refuses_calls(tmp_path, provider_over):
    ledger = Ledger(tmp_path / "ledger", max_rows=1)
    provider = provider_over(ledger)
    assert [(await provider.chat("sandbox")).status for _ in range(2)] == [200, 503]
    ledger.close()


async def test_the_call_is_in_the_books_before_the_head_leaves(ledger: Ledger):
    seen: list[tuple[str, int, bool]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"model":"sandbox-tok3","stream":true,"messages":[{"role":"user"}]}'}

    async def send(message: dict[str, Any]) -> None:
        (row,) = ledger.rows()
        seen.append((message["type"], row.output_tokens, row.finished))

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    await create_app(ledger)(scope, receive, send)
    body = "http.response.body"
    tokens_before = [("http.response.start", 0), (body, 0), (body, 0), (body, 1), (body, 2), (body, 3)]
    assert seen == [(kind, tokens, False) for kind, tokens in tokens_before]


async def test_a_cancelled_task_and_a_failing_send_are_hang_ups_too(ledger: Ledger):
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"model":"sandbox-tok3","stream":true,"messages":[{"role":"user"}]}'}

    sent = 0

    async def failing_send(message: dict[str, Any]) -> None:
        nonlocal sent
        sent += 1
        if sent == 4:
            raise OSError("the peer is gone")

    async def blocking_send(message: dict[str, Any]) -> None:
        await asyncio.Event().wait()

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}
    app = create_app(ledger)
    with pytest.raises(OSError, match="the peer is gone"):
        await app(scope, receive, failing_send)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await app(scope, receive, blocking_send)
    assert [(row.outcome, row.output_tokens) for row in ledger.rows()] == [("disconnected", 1), ("disconnected", 0)]


# Over HTTP -----------------------------------------------------------------------------------------------------------


async def finished(ledger: Ledger) -> Any:
    """The one row, once its call is over."""
    async with asyncio.timeout(5):
        while not ledger.rows() or not ledger.rows()[0].finished:
            await asyncio.sleep(0.001)
    (row,) = ledger.rows()
    return row


def post(session: aiohttp.ClientSession, url: str, model: str, **fields: Any) -> Any:
    return session.post(f"{url}/v1/chat/completions", json={"model": model, "messages": HELLO, **fields})


@pytest.mark.parametrize("stream", [True, False])
async def test_a_cut_breaks_the_connection(url: str, ledger: Ledger, stream: bool):
    async with aiohttp.ClientSession() as session, post(session, url, "sandbox-cut2", stream=stream) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()
    assert (await finished(ledger)).outcome == "cut"


async def test_a_hang_up_in_the_middle_of_a_stream_is_noticed_at_once(url: str, ledger: Ledger):
    async with aiohttp.ClientSession() as session, post(session, url, "sandbox-tok50-gap20", stream=True) as response:
        lines = 0
        async for line in response.content:
            lines += line.startswith(b"data")
            if lines == 3:
                break
        hung_up_ms = time.monotonic() * 1000
        response.close()
    row = await finished(ledger)
    assert (row.outcome, row.status) == ("disconnected", 200)
    assert 2 <= row.output_tokens < 50
    assert row.started_ms + row.disconnected_after_ms - hung_up_ms < 100


@pytest.mark.parametrize("model", ["sandbox-hang", "sandbox-lat5000", "sandbox-err500-lat5000"])
async def test_a_hang_up_before_the_head_is_noticed(url: str, ledger: Ledger, model: str):
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=0.05)) as session:
        with pytest.raises(TimeoutError):
            await post(session, url, model)
    row = await finished(ledger)
    assert (row.outcome, row.output_tokens, row.input_tokens) == ("disconnected", 0, 0)
    assert row.status == (None if model == "sandbox-hang" else 500 if "err" in model else 200)
    assert row.disconnected_after_ms < 1000


async def test_a_hang_up_is_noticed_in_a_long_stream_without_gaps(url: str, ledger: Ledger):
    async with aiohttp.ClientSession() as session, post(session, url, "sandbox-tok1000000", stream=True) as response:
        await response.content.readany()
        response.close()
    row = await finished(ledger)
    assert row.outcome == "disconnected"
    assert BURST_PIECES <= row.output_tokens < 1_000_000


async def test_latency_and_gaps_are_waited(url: str, ledger: Ledger):
    async with aiohttp.ClientSession() as session:
        began = time.monotonic()
        async with post(session, url, "sandbox-lat50-tok4-gap20", stream=True) as response:
            head_s = time.monotonic() - began
            await response.read()
        whole_s = time.monotonic() - began
    assert head_s >= 0.05
    assert whole_s - head_s >= 0.055
    assert (await finished(ledger)).outcome == "ok"


async def test_the_ledger_is_read_and_cleared_over_http(url: str, ledger: Ledger):
    async with aiohttp.ClientSession() as session:
        for attempt in (1, 2):
            headers = {"x-request-id": f"0198.{attempt}"}
            await session.post(
                f"{url}/v1/chat/completions",
                json={"model": "sandbox-tok3", "messages": HELLO, "max_tokens": 50},
                headers=headers,
            )
        rows = await (await session.get(f"{url}/ledger")).json()
        assert [row["call_id"] for row in rows] == ["0198.1", "0198.2"]
        started_ms = rows[0].pop("started_ms")
        assert 0 <= time.monotonic() * 1000 - started_ms < 60_000
        assert rows[0] == {
            "seq": 1,
            "call_id": "0198.1",
            "dialect": "openai",
            "model": "sandbox-tok3",
            "stream": False,
            "status": 200,
            "max_tokens": 50,
            "input_tokens": 7,
            "cached_tokens": 0,
            "output_tokens": 3,
            "reasoning_tokens": 0,
            "finished": True,
            "outcome": "ok",
            "disconnected_after_ms": None,
        }
        later = await (await session.get(f"{url}/ledger", params={"after": 1})).json()
        assert [row["seq"] for row in later] == [2]
        assert (await session.get(f"{url}/ledger", params={"after": "x"})).status == 400
        await session.delete(f"{url}/ledger")
        assert await (await session.get(f"{url}/ledger")).json() == []
        assert await (await session.get(f"{url}/healthz")).json() == {"status": "ok"}
        assert (await session.head(f"{url}/")).status == 200
