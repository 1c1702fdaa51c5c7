"""The dialect of OpenAI's chat completions, as its API reference documents it. Pure: no clock, no I/O.

Same names in the same order as `anthropic`: what one dialect must say, the other says too.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import orjson

from tollgate.sandbox.answer import Answer, Finish
from tollgate.sandbox.answer import compose as compose
from tollgate.sandbox.knobs import MODELS
from tollgate.sandbox.request import (
    Ask,
    Document,
    Refused,
    measure,
    read_bool,
    read_int,
    read_messages,
    read_model,
    read_stop,
)
from tollgate.sandbox.request import read_document as read_json

NAME = "openai"
REQUEST_ID_HEADER = b"x-request-id"
CONTENT_TYPE = b"application/json"
IN_BAND_ERROR = Refused(500, "The server had an error while processing your request.")

_MAX_CHOICES = 128
CREATED_S = 1_767_225_600  # one moment for all answers, so that equal requests get equal answers
_FINISH: dict[Finish, str] = {"done": "stop", "limit": "length", "stop_sequence": "stop"}
# HTTP status → `type` and `code` of the error object
_ERRORS: dict[int, tuple[str, str | None]] = {
    401: ("invalid_request_error", "invalid_api_key"),
    402: ("insufficient_quota", "insufficient_quota"),
    403: ("permission_error", None),
    404: ("invalid_request_error", "model_not_found"),
    408: ("timeout", None),
    429: ("requests", "rate_limit_exceeded"),
}
_MARK = "@"  # stands for the content while the frame of a chunk is made


def read_document(body: bytes, headers: Mapping[bytes, bytes]) -> Document:
    return read_json(body)


def read_ask(document: Document, headers: Mapping[bytes, bytes]) -> Ask:
    """Raises `Refused` (400) with the field at fault."""
    model = read_model(document)
    messages = read_messages(document)
    limit = read_int(document, "max_completion_tokens", least=1)
    if limit is None:
        limit = read_int(document, "max_tokens", least=1)
    options = document.get("stream_options") or {}
    if not isinstance(options, dict):
        raise Refused(400, "stream_options: an object is required", param="stream_options")
    tokens, fingerprint = measure((message.get("content") for message in messages), messages=len(messages))
    return Ask(
        model=model,
        stream=read_bool(document, "stream"),
        max_tokens=limit,
        stop=read_stop(document, "stop"),
        choices=read_int(document, "n", least=1, most=_MAX_CHOICES) or 1,
        include_usage=read_bool(options, "include_usage"),
        input_tokens=tokens,
        fingerprint=fingerprint,
    )


def request_id(seq: int) -> str:
    return f"req_{seq:032d}"


def error_body(refused: Refused, seq: int) -> bytes:
    other = "invalid_request_error" if refused.status < 500 else "server_error"
    kind, code = _ERRORS.get(refused.status, (other, None))
    error = {"message": refused.message, "type": kind, "param": refused.param, "code": refused.code or code}
    return orjson.dumps({"error": error})


def unary_body(ask: Ask, answer: Answer, seq: int) -> bytes:
    finish, text = _FINISH[answer.finish], answer.text
    body: dict[str, Any] = {
        "id": _completion_id(seq),
        "object": "chat.completion",
        "created": CREATED_S,
        "model": ask.model,
        "choices": [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, "refusal": None, "annotations": []},
                "logprobs": None,
                "finish_reason": finish,
            }
            for index in range(ask.choices)
        ],
    }
    if answer.usage_reported:
        body["usage"] = _usage(ask, answer)
    body["service_tier"] = "default"
    body["system_fingerprint"] = "fp_sandbox"
    return orjson.dumps(body)


def opening(ask: Ask, answer: Answer, seq: int) -> bytes:
    """What a stream says before the first content: the role of each choice."""
    delta = {"role": "assistant", "content": "", "refusal": None}
    return b"".join(_frame(_chunk(ask, seq, index, delta=delta)) for index in range(ask.choices))


def contents(ask: Ask, answer: Answer, seq: int) -> Iterator[tuple[bytes, int]]:
    """The frames of the content with the tokens of each, the choices in turn."""
    edges = []
    for index in range(ask.choices):
        before, _, after = _frame(_chunk(ask, seq, index, delta={"content": _MARK})).rpartition(_MARK.encode())
        edges.append((before, after))
    if len(edges) == 1:
        return _one_choice(answer, *edges[0])
    return (
        (before + piece + after, size)
        for piece, size in zip(answer.pieces, answer.sizes, strict=True)
        for before, after in edges
    )


def closing(ask: Ask, answer: Answer, seq: int) -> bytes:
    """What a stream says after the last content: why it ends, the usage if asked for, and `[DONE]`."""
    finish = _FINISH[answer.finish]
    frames = [_frame(_chunk(ask, seq, index, delta={}, finish=finish)) for index in range(ask.choices)]
    if ask.include_usage and answer.usage_reported:
        last = _chunk(ask, seq, 0, delta={})
        frames.append(_frame(last | {"choices": [], "usage": _usage(ask, answer)}))
    frames.append(b"data: [DONE]\n\n")
    return b"".join(frames)


def error_event(refused: Refused, seq: int) -> bytes:
    """An error inside a stream; it is the last event, and no `[DONE]` follows."""
    return b"data: " + error_body(refused, seq) + b"\n\n"


def models_body() -> bytes:
    models = [{"id": name, "object": "model", "created": CREATED_S, "owned_by": "tollgate"} for name in MODELS]
    return orjson.dumps({"object": "list", "data": models})


def _one_choice(answer: Answer, before: bytes, after: bytes) -> Iterator[tuple[bytes, int]]:
    frames: Iterable[bytes] = (before + piece + after for piece in answer.pieces)
    return zip(frames, answer.sizes, strict=True)


def _completion_id(seq: int) -> str:
    return f"chatcmpl-{seq:029d}"


def _chunk(ask: Ask, seq: int, index: int, *, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    # the choices come last, so that no model name can be taken for the mark in a content
    chunk: dict[str, Any] = {
        "id": _completion_id(seq),
        "object": "chat.completion.chunk",
        "created": CREATED_S,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_sandbox",
    }
    if ask.include_usage:
        chunk["usage"] = None
    chunk["choices"] = [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return chunk


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


def _usage(ask: Ask, answer: Answer) -> dict[str, Any]:
    """Totals are inclusive: prompt of the cached tokens, completion of the reasoning, over all choices."""
    prompt = answer.input_tokens + answer.cached_tokens
    reasoning = answer.reasoning_tokens * ask.choices
    completion = answer.output_tokens * ask.choices + reasoning
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": answer.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
