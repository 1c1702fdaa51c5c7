"""The dialect of Anthropic's messages, as its API reference documents it. Pure: no clock, no I/O.

Same names in the same order as `openai`: what one dialect must say, the other says too.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
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

NAME = "anthropic"
REQUEST_ID_HEADER = b"request-id"
CONTENT_TYPE = b"application/json"
IN_BAND_ERROR = Refused(529, "Overloaded")

_CREATED_AT = "2026-01-01T00:00:00Z"
_FINISH: dict[Finish, str] = {"done": "end_turn", "limit": "max_tokens", "stop_sequence": "stop_sequence"}
_ERRORS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_BEFORE_PIECE = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"'
)
_AFTER_PIECE = b'"}}\n\n'


def read_document(body: bytes, headers: Mapping[bytes, bytes]) -> Document:
    return read_json(body)


def read_ask(document: Document, headers: Mapping[bytes, bytes]) -> Ask:
    """Raises `Refused` (400) with the field at fault; the limit and the version header are required."""
    if b"anthropic-version" not in headers:
        raise Refused(400, "anthropic-version: header is required")
    model = read_model(document)
    messages = read_messages(document)
    limit = read_int(document, "max_tokens", least=1)
    if limit is None:
        raise Refused(400, "max_tokens: Field required", param="max_tokens")
    texts = chain((document.get("system"),), (message.get("content") for message in messages))
    tokens, fingerprint = measure(texts, messages=len(messages))
    return Ask(
        model=model,
        stream=read_bool(document, "stream"),
        max_tokens=limit,
        stop=read_stop(document, "stop_sequences"),
        choices=1,
        include_usage=True,
        input_tokens=tokens,
        fingerprint=fingerprint,
    )


def request_id(seq: int) -> str:
    return f"req_{seq:024d}"


def error_body(refused: Refused, seq: int) -> bytes:
    kind = _ERRORS.get(refused.status, "invalid_request_error" if refused.status < 500 else "api_error")
    return orjson.dumps(
        {"type": "error", "error": {"type": kind, "message": refused.message}, "request_id": request_id(seq)}
    )


def unary_body(ask: Ask, answer: Answer, seq: int) -> bytes:
    body = _message(
        ask,
        seq,
        content=[{"type": "text", "text": answer.text}],
        stop_reason=_FINISH[answer.finish],
        stop_sequence=answer.stop_sequence,
    )
    if answer.usage_reported:
        body["usage"] = _first_usage(answer) | _output_usage(answer)
    return orjson.dumps(body)


def opening(ask: Ask, answer: Answer, seq: int) -> bytes:
    """What a stream says before the first content: the message with its input usage, the block, a ping."""
    message = _message(ask, seq, content=[], stop_reason=None, stop_sequence=None)
    if answer.usage_reported:
        message["usage"] = _first_usage(answer)
    return (
        _event("message_start", {"message": message})
        + _event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}})
        + _event("ping", {})
    )


def contents(ask: Ask, answer: Answer, seq: int) -> Iterator[tuple[bytes, int]]:
    """The frames of the content with the tokens of each."""
    frames: Iterable[bytes] = (_BEFORE_PIECE + piece + _AFTER_PIECE for piece in answer.pieces)
    return zip(frames, answer.sizes, strict=True)


def closing(ask: Ask, answer: Answer, seq: int) -> bytes:
    """What a stream says after the last content: why it ends, with the usage of the whole."""
    delta: dict[str, Any] = {"delta": {"stop_reason": _FINISH[answer.finish], "stop_sequence": answer.stop_sequence}}
    if answer.usage_reported:
        delta["usage"] = _input_usage(answer) | _output_usage(answer)
    return _event("content_block_stop", {"index": 0}) + _event("message_delta", delta) + _event("message_stop", {})


def error_event(refused: Refused, seq: int) -> bytes:
    """An error inside a stream; it is the last event."""
    return b"event: error\ndata: " + error_body(refused, seq) + b"\n\n"


def models_body() -> bytes:
    models = [
        {"type": "model", "id": name, "display_name": name, "created_at": _CREATED_AT, "lifecycle": "active"}
        for name in MODELS
    ]
    return orjson.dumps({"data": models, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})


def _message(
    ask: Ask, seq: int, *, content: list[dict[str, Any]], stop_reason: str | None, stop_sequence: str | None
) -> dict[str, Any]:
    return {
        "id": f"msg_{seq:024d}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
    }


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **fields}))


def _input_usage(answer: Answer) -> dict[str, Any]:
    return {
        "input_tokens": answer.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answer.cached_tokens,
    }


def _first_usage(answer: Answer) -> dict[str, Any]:
    return _input_usage(answer) | {
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": 0,
        "service_tier": "standard",
    }


def _output_usage(answer: Answer) -> dict[str, Any]:
    """The total is inclusive of the reasoning."""
    usage: dict[str, Any] = {"output_tokens": answer.output_tokens + answer.reasoning_tokens}
    if answer.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": answer.reasoning_tokens}
    return usage
