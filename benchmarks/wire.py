"""What translation costs: microseconds per unary answer and per chunk of a stream, for each pair of dialects.

    python benchmarks/wire.py [--seconds 1.0]

Unary is everything of one attempt: request, answer, final body. A chunk is one content event of the provider's,
fed as it would come from the network; the cost of a stream's beginning and end is printed beside it.
"""

import argparse
import time
from collections.abc import Callable

import orjson

from tollgate.events import Dialect
from tollgate.wire import Body, Exchange, Extras
from tollgate.wire.exchange import WIRES, exchange_for

REQUEST_ID = "0198b4f0-0000-7000-8000-000000000000"
EXTRAS = Extras(
    request_id=REQUEST_ID,
    provider="local",
    model="mock",
    cost_usd="0.000123456",
    attempts=1,
    reason="only candidate",
    price_version="2026-11-01",
)
TEXT = "The quick brown fox jumps over the lazy dog. " * 12
CHUNKS = 1000

DIALECTS: tuple[Dialect, ...] = ("openai", "anthropic", "gemini", "responses")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each figure is measured")
    seconds = parser.parse_args().seconds
    for dialect in DIALECTS:
        body = request(dialect, stream=False)
        print(f"ask {dialect:9}  {microseconds(lambda d=dialect, b=body: WIRES[d].ask(b), seconds):6.1f} µs")
    print(f"\n{'client':9}  {'provider':9}  {'unary':>9}  {'chunk':>9}  {'ends of a stream':>16}")
    for dialect in DIALECTS:
        for protocol in DIALECTS:
            unary = microseconds(lambda d=dialect, p=protocol: run_unary(d, p), seconds)
            ends = microseconds(lambda d=dialect, p=protocol: run_stream(d, p, chunks=1), seconds)
            many = microseconds(lambda d=dialect, p=protocol: run_stream(d, p, chunks=CHUNKS), seconds)
            chunk = (many - ends) / (CHUNKS - 1)
            print(f"{dialect:9}  {protocol:9}  {unary:6.1f} µs  {chunk:6.1f} µs  {ends:13.1f} µs")


def microseconds(run: Callable[[], object], seconds: float) -> float:
    """The best of several rounds, which is the one that was disturbed least."""
    best = float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return best * 1e6


def request(dialect: Dialect, *, stream: bool) -> Body:
    if dialect == "gemini":
        contents = [{"role": "user", "parts": [{"text": TEXT}]}]
        return {"model": "m", "stream": stream, "contents": contents, "generationConfig": {"maxOutputTokens": 256}}
    if dialect == "responses":
        return {"model": "m", "max_output_tokens": 256, "stream": stream, "input": [{"role": "user", "content": TEXT}]}
    return {"model": "m", "max_tokens": 256, "stream": stream, "messages": [{"role": "user", "content": TEXT}]}


def start(dialect: Dialect, protocol: Dialect, *, stream: bool) -> Exchange:
    return exchange_for(
        dialect,
        protocol,
        request(dialect, stream=stream),
        request_id=REQUEST_ID,
        model="mock",
        max_output_tokens=256,
        headers={},
    )


def run_unary(dialect: Dialect, protocol: Dialect) -> bytes:
    exchange = start(dialect, protocol, stream=False)
    exchange.answer(UNARY[protocol])
    return exchange.final(EXTRAS)


def run_stream(dialect: Dialect, protocol: Dialect, *, chunks: int) -> bytes:
    exchange = start(dialect, protocol, stream=True)
    before, content, after = STREAM[protocol]
    exchange.feed(before)
    for _ in range(chunks):
        exchange.feed(content)
    exchange.feed(after)
    exchange.finish()
    return exchange.final(EXTRAS)


# What providers send ------------------------------------------------------------------------------------------------


def _openai_chunk(delta: Body, finish: str | None = None) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(
        {
            "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
            "object": "chat.completion.chunk",
            "created": 1741570283,
            "model": "gpt-4o-2024-08-06",
            "service_tier": "default",
            "system_fingerprint": "fp_fc9f1d7035",
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}],
            "usage": None,
            "obfuscation": "kT2sQ0x9",
        }
    )


def _anthropic_event(payload: Body) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (payload["type"].encode(), orjson.dumps(payload))


def _gemini_chunk(text: str, **more: str) -> bytes:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, **more, "index": 0}
    return b"data: %b\n\n" % orjson.dumps(_gemini_answer(candidate))


def _gemini_answer(candidate: Body) -> Body:
    return {
        "candidates": [candidate],
        "usageMetadata": {
            "promptTokenCount": 120,
            "candidatesTokenCount": 110,
            "totalTokenCount": 230,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 120}],
        },
        "modelVersion": "gemini-2.5-flash",
        "responseId": "mSEXaseKG-P51PIPwv66qQs",
    }


def _responses_event(name: str, **fields: object) -> bytes:
    payload = {"type": name, **fields, "sequence_number": 5}
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(payload))


def _responses_answer(status: str, *texts: str) -> Body:
    part = {"type": "output_text", "text": "".join(texts), "annotations": [], "logprobs": []}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": "resp_67ccd2bed1ec8190b14f964abc0542670bb6a6b452d3795b",
        "object": "response",
        "created_at": 1741476542,
        "status": status,
        "model": "gpt-4.1-2025-04-14",
        "output": [message] if texts else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 120, "output_tokens": 110, "total_tokens": 230} if texts else None,
    }


_PART = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
_OPENAI_USAGE = {"prompt_tokens": 120, "completion_tokens": 110, "total_tokens": 230}
_ANTHROPIC_USAGE = {"input_tokens": 120, "output_tokens": 110}

UNARY: dict[Dialect, bytes] = {
    "openai": orjson.dumps(
        {
            "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
            "object": "chat.completion",
            "created": 1741570283,
            "model": "gpt-4o-2024-08-06",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": _OPENAI_USAGE,
            "service_tier": "default",
        }
    ),
    "anthropic": orjson.dumps(
        {
            "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
            "type": "message",
            "role": "assistant",
            "model": "claude-sonnet-4-5-20250929",
            "content": [{"type": "text", "text": TEXT}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": _ANTHROPIC_USAGE,
        }
    ),
    "responses": orjson.dumps(_responses_answer("completed", TEXT)),
    "gemini": orjson.dumps(
        _gemini_answer(
            {"content": {"parts": [{"text": TEXT}], "role": "model"}, "finishReason": "STOP", "index": 0},
        )
    ),
}

STREAM: dict[Dialect, tuple[bytes, bytes, bytes]] = {
    "responses": (
        _responses_event("response.created", response=_responses_answer("in_progress")),
        _responses_event("response.output_text.delta", **_PART, delta=" jumps", logprobs=[]),
        _responses_event("response.completed", response=_responses_answer("completed", TEXT)),
    ),
    "openai": (
        _openai_chunk({"role": "assistant", "content": "", "refusal": None}),
        _openai_chunk({"content": " jumps"}),
        _openai_chunk({}, "stop")
        + b"data: %b\n\n" % orjson.dumps({"model": "gpt-4o-2024-08-06", "choices": [], "usage": _OPENAI_USAGE})
        + b"data: [DONE]\n\n",
    ),
    "anthropic": (
        _anthropic_event(
            {
                "type": "message_start",
                "message": {"model": "claude-sonnet-4-5-20250929", "usage": {"input_tokens": 120, "output_tokens": 1}},
            }
        )
        + _anthropic_event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        _anthropic_event(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " jumps"}}
        ),
        _anthropic_event({"type": "content_block_stop", "index": 0})
        + _anthropic_event(
            {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 110}}
        )
        + _anthropic_event({"type": "message_stop"}),
    ),
    "gemini": (b"", _gemini_chunk(" jumps"), _gemini_chunk("", finishReason="STOP")),
}


if __name__ == "__main__":
    main()
