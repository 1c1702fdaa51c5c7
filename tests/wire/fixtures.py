"""Answers of all protocols, written by hand after the providers' documentation, and how the tests run them."""

from typing import Any

import orjson

from tests.wire import fixtures_responses
from tests.wire.fixtures_gemini import GEMINI_ONLY_STREAMS, GEMINI_STREAMS, GEMINI_UNARY
from tests.wire.fixtures_ollama import OLLAMA_ONLY_STREAMS, OLLAMA_STREAMS, OLLAMA_UNARY
from tollgate.errors import ProviderError
from tollgate.events import Dialect
from tollgate.wire import Exchange, Extras, neutral, ollama
from tollgate.wire.exchange import exchange_for
from tollgate.wire.sse import Event, Splitter

REQUEST_ID = "0198b4f0-1234-7000-8000-000000000001"
EXTRAS = Extras(
    request_id=REQUEST_ID,
    provider="local",
    model="mock-gpt",
    cost_usd="0.000012345678901234",
    attempts=2,
    reason="cheapest",
    price_version="2026-11-01",
)
ADDED = {
    "provider": "local",
    "tollgate": {
        "request_id": REQUEST_ID,
        "cost": 0.000012345678901234,
        "attempts": 2,
        "routing": {"model": "mock-gpt", "reason": "cheapest"},
        "cache": "off",
        "price_version": "2026-11-01",
    },
}

DIALECTS: tuple[Dialect, ...] = ("openai", "anthropic", "responses", "gemini", "ollama")


# OpenAI -------------------------------------------------------------------------------------------------------------


def chunk(delta: Any = None, finish: str | None = None, *, index: int = 0, **more: Any) -> bytes:
    """A chunk as api.openai.com writes it."""
    choices = [] if delta is None else [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return data(
        {
            "id": "chatcmpl-abc123",
            "object": "chat.completion.chunk",
            "created": 1741570283,
            "model": "gpt-4o-2024-08-06",
            "service_tier": "default",
            "system_fingerprint": "fp_1",
            "choices": choices,
            **more,
        }
    )


def data(payload: Any) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


CLAUDE = "anthropic-claude-v1"

OPENAI_USAGE = {
    "prompt_tokens": 20,
    "completion_tokens": 12,
    "total_tokens": 32,
    "prompt_tokens_details": {"cached_tokens": 8, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 5,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
ROLE = chunk({"role": "assistant", "content": "", "refusal": None}, usage=None)
HELLO = chunk({"content": "Hello"}, usage=None)
WORLD = chunk({"content": " wörld 🌍"}, usage=None)
STOP = chunk({}, "stop", usage=None)
USAGE = chunk(usage=OPENAI_USAGE)
DONE = b"data: [DONE]\n\n"


def call(index: Any, arguments: str = "", **more: Any) -> bytes:
    """A fragment of a tool call; `id` and `name` come with the first one."""
    function = {"arguments": arguments} | ({"name": more.pop("name")} if "name" in more else {})
    fields = {} if index is None else {"index": index}
    return chunk({"tool_calls": [{**fields, **more, "function": function}]})


TOOL_DELTAS = (
    call(0, "", id="call_1", type="function", name="weather"),
    call(0, '{"city":'),
    call(0, '"Paris"}'),
)
SECOND_CALL = (call(1, "", id="call_2", type="function", name="weather"), call(1, '{"city":"Rome"}'))
CALLED = chunk({}, "tool_calls") + USAGE + DONE


OPENAI_STREAMS: dict[str, bytes] = {
    "plain": ROLE + HELLO + WORLD + STOP + USAGE + DONE,
    "without a blank line at the end": ROLE + HELLO + WORLD + STOP + USAGE + b"data: [DONE]",
    "without [DONE]": ROLE + HELLO + STOP + USAGE,
    "without usage": ROLE + HELLO + STOP + DONE,
    "CRLF": (ROLE + HELLO + WORLD + STOP + USAGE + DONE).replace(b"\n", b"\r\n"),
    "CR": (ROLE + HELLO + WORLD + STOP + USAGE + DONE).replace(b"\n", b"\r"),
    "comments": b": one moment\n\n" + ROLE + HELLO + b": still here\n\n" + WORLD + STOP + USAGE + DONE,
    "no space after the colon": (ROLE + HELLO + STOP + USAGE + DONE).replace(b"data: ", b"data:"),
    "first chunk without choices": chunk(prompt_filter_results=[{"prompt_index": 0}]) + ROLE + HELLO + STOP + DONE,
    "usage on the finish chunk": ROLE + HELLO + chunk({}, "stop", usage=OPENAI_USAGE) + DONE,
    "finish twice, then usage": ROLE + HELLO + STOP + chunk({"content": ""}, "stop", usage=OPENAI_USAGE) + DONE,
    "all in one chunk": chunk({"role": "assistant", "content": "Hello"}, "stop", usage=OPENAI_USAGE) + DONE,
    "empty answer": ROLE + STOP + USAGE + DONE,
    "tool call": ROLE + b"".join(TOOL_DELTAS) + CALLED,
    "text and two calls": ROLE + HELLO + b"".join(TOOL_DELTAS) + b"".join(SECOND_CALL) + CALLED,
    "calls mixed": ROLE + TOOL_DELTAS[0] + SECOND_CALL[0] + TOOL_DELTAS[1] + SECOND_CALL[1] + TOOL_DELTAS[2] + CALLED,
    "calls whole and without index": ROLE
    + call(None, '{"city":"Paris"}', id="call_1", name="weather")
    + call(None, '{"city":"Rome"}', id="call_2", name="weather")
    + CALLED,
    "calls that are all number 0": ROLE
    + call(0, '{"city":"Paris"}', id="call_1", name="weather")
    + call(0, '{"city":"Rome"}', id="call_2", name="weather")
    + CALLED,
    "call whose name comes last": ROLE
    + call(0, '{"city":')
    + call(0, '"Paris"}', id="call_1", name="weather")
    + CALLED,
    "call without id or arguments": ROLE + call(0, "", name="now") + chunk({}, "stop") + DONE,
    "call with a signature": ROLE
    + call(0, "{}", id="call_1", name="now", extra_content={"google": {"thought_signature": "Zm9v"}})
    + CALLED,
    "old function call": ROLE
    + chunk({"function_call": {"name": "weather", "arguments": ""}})
    + chunk({"function_call": {"arguments": '{"city":"Paris"}'}})
    + chunk({}, "function_call")
    + DONE,
    "thoughts": ROLE + chunk({"reasoning_content": "Hm"}) + chunk({"reasoning_content": "."}) + HELLO + STOP + DONE,
    "thoughts twice": ROLE
    + chunk({"reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "index": 0}]})
    + HELLO
    + STOP
    + DONE,
    "signed thoughts": ROLE
    + chunk({"reasoning_details": [{"type": "reasoning.text", "text": "Hm.", "format": CLAUDE, "index": 0}]})
    + chunk({"reasoning_details": [{"type": "reasoning.text", "signature": "c2ln", "format": CLAUDE, "index": 0}]})
    + chunk({"reasoning_details": [{"type": "reasoning.encrypted", "data": "ZW5j", "format": CLAUDE, "index": 1}]})
    + HELLO
    + STOP
    + DONE,
    "list of content": ROLE
    + chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]})
    + chunk({"content": [{"type": "text", "text": "Hello"}]})
    + STOP
    + DONE,
    "refusal": ROLE + chunk({"refusal": "I can't"}) + chunk({"refusal": "."}) + STOP + DONE,
    "citations": ROLE
    + HELLO
    + chunk({"annotations": [{"type": "url_citation", "url_citation": {"url": "https://example.com", "title": "X"}}]})
    + STOP
    + DONE,
    "usage where Groq has it": ROLE + HELLO + chunk({}, "stop", x_groq={"id": "r", "usage": OPENAI_USAGE}) + DONE,
}
# What servers send although the SDK's types do not know it; passed on, it stays so
INVALID_STREAMS = frozenset({"calls whole and without index", "list of content", "numbers for words"})
OPENAI_ONLY_STREAMS: dict[str, bytes] = {  # what the middle does not hold
    "an unknown field": chunk({"role": "assistant"}) + chunk({"x_new": {"deep": [1, 2.50]}}) + STOP + USAGE + DONE,
}

HALVES_OF_AN_EMOJI = (
    chunk({"content": "HERE"}).replace(b"HERE", rb"\ud83d"),
    chunk({"content": "HERE"}).replace(b"HERE", rb"\ude00"),
)

OPENAI_UNARY: dict[str, Any] = {
    "id": "chatcmpl-abc123",
    "object": "chat.completion",
    "created": 1741570283,
    "model": "gpt-4o-2024-08-06",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello wörld 🌍", "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": OPENAI_USAGE,
    "service_tier": "default",
    "system_fingerprint": "fp_1",
}


# Anthropic ----------------------------------------------------------------------------------------------------------


def event(payload: Any) -> bytes:
    return b"event: " + payload["type"].encode() + b"\n" + data(payload)


def message_start(**usage: Any) -> bytes:
    return event(
        {
            "type": "message_start",
            "message": {
                "id": "msg_01abc",
                "type": "message",
                "role": "assistant",
                "model": "claude-sonnet-4-5-20250929",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": usage,
            },
        }
    )


def text_delta(text: str) -> bytes:
    return event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}})


def message_delta(stop_reason: str, **usage: Any) -> bytes:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return event({"type": "message_delta", "delta": delta, "usage": usage})


ANTHROPIC_USAGE = {
    "input_tokens": 12,
    "cache_creation_input_tokens": 100,
    "cache_read_input_tokens": 8,
    "cache_creation": {"ephemeral_5m_input_tokens": 30, "ephemeral_1h_input_tokens": 70},
    "output_tokens": 12,
    "service_tier": "standard",
}
MESSAGE_START = message_start(**{**ANTHROPIC_USAGE, "output_tokens": 1})
TEXT_START = event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
PING = event({"type": "ping"})
BLOCK_STOP = event({"type": "content_block_stop", "index": 0})
END_TURN = message_delta(
    "end_turn",
    input_tokens=14,
    cache_creation_input_tokens=100,
    cache_read_input_tokens=8,
    output_tokens=12,
    output_tokens_details={"thinking_tokens": 5},
)
MESSAGE_STOP = event({"type": "message_stop"})
TEXT = text_delta("Hello") + text_delta(" wörld 🌍")


def block(index: int, start: Any, *deltas: Any) -> bytes:
    """A content block from its start to its stop."""
    return (
        event({"type": "content_block_start", "index": index, "content_block": start})
        + b"".join(event({"type": "content_block_delta", "index": index, "delta": delta}) for delta in deltas)
        + event({"type": "content_block_stop", "index": index})
    )


def renumbered(events: bytes, index: int) -> bytes:
    return events.replace(b'"index":0', b'"index":%d' % index)


PARIS = block(
    0,
    {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
    {"type": "input_json_delta", "partial_json": ""},
    {"type": "input_json_delta", "partial_json": '{"city":'},
    {"type": "input_json_delta", "partial_json": '"Paris"}'},
)
ROME = block(
    2,
    {"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}},
    {"type": "input_json_delta", "partial_json": '{"city":"Rome"}'},
)
TOOL_USE = message_delta("tool_use", output_tokens=12) + MESSAGE_STOP
CITATION = {
    "type": "web_search_result_location",
    "url": "https://example.com",
    "title": "X",
    "cited_text": "Hello",
    "encrypted_index": "aW5k",
}

ANTHROPIC_STREAMS: dict[str, bytes] = {
    "plain": MESSAGE_START + TEXT_START + PING + TEXT + BLOCK_STOP + END_TURN + MESSAGE_STOP,
    "CRLF": (MESSAGE_START + TEXT_START + TEXT + BLOCK_STOP + END_TURN + MESSAGE_STOP).replace(b"\n", b"\r\n"),
    "data only": (MESSAGE_START + TEXT_START + TEXT + BLOCK_STOP + END_TURN + MESSAGE_STOP).replace(
        b"event: ", b"ignored: "
    ),
    "old server": message_start(input_tokens=12, output_tokens=1)
    + TEXT_START
    + TEXT
    + BLOCK_STOP
    + message_delta("max_tokens", output_tokens=12)
    + MESSAGE_STOP,
    "without message_stop": MESSAGE_START + TEXT_START + TEXT + BLOCK_STOP + END_TURN,
    "[DONE] instead of message_stop": MESSAGE_START + TEXT_START + TEXT + BLOCK_STOP + END_TURN + DONE,
    "ping before the end": MESSAGE_START + TEXT_START + TEXT + PING + BLOCK_STOP + PING + END_TURN + MESSAGE_STOP,
    "empty answer": MESSAGE_START + END_TURN + MESSAGE_STOP,
    "thinking": MESSAGE_START
    + event(
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "thinking", "thinking": "", "signature": ""},
        }
    )
    + event({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Hm."}})
    + event({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "c2ln"}})
    + BLOCK_STOP
    + (TEXT_START + TEXT + BLOCK_STOP).replace(b'"index":0', b'"index":1')
    + END_TURN
    + MESSAGE_STOP,
    "redacted thinking": MESSAGE_START
    + block(0, {"type": "redacted_thinking", "data": "ZW5j"})
    + block(1, {"type": "text", "text": ""}, {"type": "text_delta", "text": "Hello"})
    + END_TURN
    + MESSAGE_STOP,
    "tool use": MESSAGE_START + PARIS + TOOL_USE,
    "text and two tool uses": MESSAGE_START + TEXT_START + TEXT + BLOCK_STOP + renumbered(PARIS, 1) + ROME + TOOL_USE,
    "tool use without input": MESSAGE_START
    + block(0, {"type": "tool_use", "id": "toolu_1", "name": "now", "input": {}})
    + TOOL_USE,
    "tool use with its input at once": MESSAGE_START
    + block(0, {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Paris"}})
    + TOOL_USE,
    "text in the beginning of its block": MESSAGE_START
    + block(0, {"type": "text", "text": "Hello"}, {"type": "text_delta", "text": " there"})
    + END_TURN
    + MESSAGE_STOP,
    "search and citations": MESSAGE_START
    + block(0, {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {}})
    + block(1, {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []})
    + block(
        2,
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "Hello"},
        {"type": "citations_delta", "citation": CITATION},
    )
    + END_TURN
    + MESSAGE_STOP,
}
ANTHROPIC_ONLY_STREAMS: dict[str, bytes] = {
    "an unknown event": MESSAGE_START
    + TEXT_START
    + TEXT
    + event({"type": "x_new", "deep": [1, 2.50]})
    + BLOCK_STOP
    + END_TURN
    + MESSAGE_STOP,
}

ANTHROPIC_UNARY: dict[str, Any] = {
    "id": "msg_01abc",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-4-5-20250929",
    "content": [{"type": "text", "text": "Hello wörld 🌍"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": ANTHROPIC_USAGE,
}


# All of them ----------------------------------------------------------------------------------------------------------

STREAMS: dict[Dialect, dict[str, bytes]] = {
    "openai": OPENAI_STREAMS | OPENAI_ONLY_STREAMS,
    "anthropic": ANTHROPIC_STREAMS | ANTHROPIC_ONLY_STREAMS,
    "responses": fixtures_responses.STREAMS | fixtures_responses.ONLY_STREAMS,
    "gemini": GEMINI_STREAMS | GEMINI_ONLY_STREAMS,
    "ollama": OLLAMA_STREAMS | OLLAMA_ONLY_STREAMS,
}
TOLD_STREAMS: dict[Dialect, dict[str, bytes]] = {
    "openai": OPENAI_STREAMS,
    "anthropic": ANTHROPIC_STREAMS,
    "responses": fixtures_responses.STREAMS,
    "gemini": GEMINI_STREAMS,
    "ollama": OLLAMA_STREAMS,
}
UNARY: dict[Dialect, dict[str, Any]] = {
    "openai": OPENAI_UNARY,
    "anthropic": ANTHROPIC_UNARY,
    "responses": fixtures_responses.UNARY,
    "gemini": GEMINI_UNARY,
    "ollama": OLLAMA_UNARY,
}
REQUESTS: dict[Dialect, dict[str, Any]] = {
    "openai": {"model": "mock", "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]},
    "anthropic": {"model": "mock", "max_tokens": 64, "messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"model": "mock", "max_output_tokens": 64, "input": "Hi"},
    "gemini": {
        "model": "mock",
        "contents": [{"role": "user", "parts": [{"text": "Hi"}]}],
        "generationConfig": {"maxOutputTokens": 64},
    },
    "ollama": {
        "model": "mock",
        "messages": [{"role": "user", "content": "Hi"}],
        "stream": False,
        "options": {"num_predict": 64},
    },
}


# Running ------------------------------------------------------------------------------------------------------------


def start(client: Dialect, provider: Dialect, **fields: Any) -> Exchange:
    return exchange_for(
        client,
        provider,
        {**REQUESTS[client], **fields},
        request_id=REQUEST_ID,
        model="mock-gpt",
        max_output_tokens=64,
        headers={},
    )


def stream(client: Dialect, provider: Dialect, pieces: list[bytes], **fields: Any) -> tuple[bytes, Exchange]:
    """All that the client gets, and the exchange."""
    exchange = start(client, provider, stream=True, **fields)
    out = b"".join(exchange.feed(piece) for piece in pieces)
    exchange.finish()
    return out + exchange.final(EXTRAS), exchange


def unary(client: Dialect, provider: Dialect, answer: Any, **fields: Any) -> tuple[Any, Exchange]:
    exchange = start(client, provider, **fields)
    exchange.answer(answer if isinstance(answer, bytes) else orjson.dumps(answer))
    return orjson.loads(exchange.final(EXTRAS)), exchange


def events(out: bytes) -> list[Event]:
    splitter = _splitter(out)
    found = splitter.feed(out)
    assert splitter.close() is None
    return found


def _splitter(out: bytes) -> neutral.Splitter:
    """Of lines, where there are no server-sent events."""
    return ollama.splitter() if out.lstrip().startswith(b"{") else Splitter()


def payloads(out: bytes) -> list[Any]:
    """What the events say, without comments and `[DONE]`."""
    return [orjson.loads(event.data) for event in events(out) if event.data not in (b"", b"[DONE]")]


def came(whole: bytes) -> list[Any]:
    """What a provider has said in a stream, of which the last line end may be missing, or which may be an array."""
    found = orjson.loads(whole) if whole.lstrip().startswith(b"[") else payloads(whole.rstrip(b"\r\n") + b"\n\n")
    assert isinstance(found, list)
    return found


def by_event(whole: bytes) -> list[bytes]:
    pieces = [event.raw for event in _splitter(whole).feed(whole)]
    return [*pieces, whole[sum(map(len, pieces)) :]]


def framed(provider: Dialect, payload: Any) -> bytes:
    """An event of a provider's stream."""
    return orjson.dumps(payload) + b"\n" if provider == "ollama" else data(payload)


def by_byte(whole: bytes) -> list[bytes]:
    return [whole[at : at + 1] for at in range(len(whole))]


def failure(client: Dialect, provider: Dialect, pieces: list[bytes], **fields: Any) -> tuple[bytes, ProviderError]:
    """What the client had got when the stream broke, and how it broke."""
    exchange = start(client, provider, stream=True, **fields)
    out = b""
    try:
        for piece in pieces:
            out += exchange.feed(piece)
        exchange.finish()
    except ProviderError as error:
        return out, error
    raise AssertionError("the stream did not break")


def every_stream(streams: dict[Dialect, dict[str, bytes]]) -> list[tuple[Dialect, str]]:
    return [(dialect, name) for dialect, found in streams.items() for name in found]
