"""What providers send, for `benchmarks.wire`: an answer, and the beginning, one chunk and the end of a stream."""

import orjson

from tests.wire.frames import frames
from tollgate.events import Dialect
from tollgate.wire import Body

TEXT = "The quick brown fox jumps over the lazy dog. " * 12


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


def _mistral_chunk(delta: Body, finish_reason: str | None = None, **more: object) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    head = {"id": "cmpl-e5cc70bb", "object": "chat.completion.chunk", "created": 1741570283}
    return b"data: %b\n\n" % orjson.dumps({**head, "model": "mistral-large-latest", "choices": [choice], **more})


def _ollama_line(text: str, *, done: bool) -> Body:
    counts = {"done_reason": "stop", "total_duration": 900_000_000, "prompt_eval_count": 120, "eval_count": 110}
    message = {"role": "assistant", "content": text}
    head = {"model": "qwen3", "created_at": "2026-11-28T12:00:00.000000Z", "message": message, "done": done}
    return head | (counts if done else {})


def _line(text: str, *, done: bool = False) -> bytes:
    return orjson.dumps(_ollama_line(text, done=done)) + b"\n"


_BEDROCK_USAGE = {"inputTokens": 120, "outputTokens": 110, "totalTokens": 230}
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
    "bedrock": orjson.dumps(
        {
            "output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}},
            "stopReason": "end_turn",
            "usage": _BEDROCK_USAGE,
            "metrics": {"latencyMs": 900},
        }
    ),
    "mistral": orjson.dumps(
        {
            "id": "cmpl-e5cc70bb28c444948073e77776eb30ef",
            "object": "chat.completion",
            "created": 1741570283,
            "model": "mistral-large-latest",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": TEXT, "tool_calls": None},
                    "finish_reason": "stop",
                }
            ],
            "usage": _OPENAI_USAGE,
        }
    ),
    "ollama": orjson.dumps(_ollama_line(TEXT, done=True)),
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
    "bedrock": (
        frames({"messageStart": {"role": "assistant"}}),
        frames({"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": " jumps"}, "p": "abcdefgh"}}),
        frames(
            {"contentBlockStop": {"contentBlockIndex": 0}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": _BEDROCK_USAGE, "metrics": {"latencyMs": 900}}},
        ),
    ),
    "mistral": (
        _mistral_chunk({"role": "assistant", "content": ""}),
        _mistral_chunk({"content": " jumps"}),
        _mistral_chunk({"content": ""}, finish_reason="stop", usage=_OPENAI_USAGE) + b"data: [DONE]\n\n",
    ),
    "ollama": (b"", _line(" jumps"), _line("", done=True)),
}
