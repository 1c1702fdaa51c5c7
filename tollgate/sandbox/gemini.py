"""The dialect of Google's generateContent, as its API reference documents it. Pure: no clock, no I/O.

Same names in the same order as `openai`: what one dialect must say, the other says too. The path says which model is
asked and whether the answer streams; whoever has read it puts both into the document. A stream is of server-sent
events, as with `alt=sse`.
"""

from collections.abc import Iterator, Mapping
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
    read_model,
    read_stop,
)
from tollgate.sandbox.request import read_document as read_json

NAME = "gemini"
REQUEST_ID_HEADER = b"x-request-id"
CONTENT_TYPE = b"application/json"
IN_BAND_ERROR = Refused(503, "The model is overloaded. Please try again later.")

_MAX_CHOICES = 8
_FINISH: dict[Finish, str] = {"done": "STOP", "limit": "MAX_TOKENS", "stop_sequence": "STOP"}
_STATUSES = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def read_document(body: bytes, headers: Mapping[bytes, bytes]) -> Document:
    return read_json(body)


def read_ask(document: Document, headers: Mapping[bytes, bytes]) -> Ask:
    """Raises `Refused` (400) with the field at fault."""
    contents = document.get("contents")
    if not isinstance(contents, list) or not contents:
        raise Refused(400, "contents: at least one content is required", param="contents")
    for index, content in enumerate(contents):
        if not isinstance(content, dict):
            raise Refused(400, f"contents[{index}]: an object is required", param=f"contents[{index}]")
    settings = document.get("generationConfig") or {}
    if not isinstance(settings, dict):
        raise Refused(400, "generationConfig: an object is required", param="generationConfig")
    spoken = [document.get("systemInstruction"), *contents]
    texts = (content.get("parts") for content in spoken if isinstance(content, dict))
    tokens, fingerprint = measure(texts, messages=len(contents))
    return Ask(
        model=read_model(document),
        stream=read_bool(document, "stream"),
        max_tokens=read_int(settings, "maxOutputTokens", least=1),
        stop=read_stop(settings, "stopSequences"),
        choices=read_int(settings, "candidateCount", least=1, most=_MAX_CHOICES) or 1,
        include_usage=True,
        input_tokens=tokens,
        fingerprint=fingerprint,
    )


def request_id(seq: int) -> str:
    return f"req_{seq:032d}"


def error_body(refused: Refused, seq: int) -> bytes:
    other = "INVALID_ARGUMENT" if refused.status < 500 else "INTERNAL"
    status = _STATUSES.get(refused.status, other)
    return orjson.dumps({"error": {"code": refused.status, "message": refused.message, "status": status}})


def unary_body(ask: Ask, answer: Answer, seq: int) -> bytes:
    finish = _FINISH[answer.finish]
    candidates = [_candidate(answer.text, index) | {"finishReason": finish} for index in range(ask.choices)]
    return orjson.dumps(_answer(ask, answer, seq, candidates, output_tokens=answer.output_tokens))


def opening(ask: Ask, answer: Answer, seq: int) -> bytes:
    """Nothing: the first content opens the stream."""
    return b""


def contents(ask: Ask, answer: Answer, seq: int) -> Iterator[tuple[bytes, int]]:
    """The frames of the content with the tokens of each, the candidates in turn. Every frame has the usage so far."""
    so_far = 0
    for piece, size in zip(answer.pieces, answer.sizes, strict=True):
        so_far += size
        for index in range(ask.choices):
            candidates = [_candidate(piece.decode(), index)]
            yield _frame(_answer(ask, answer, seq, candidates, output_tokens=so_far)), size


def closing(ask: Ask, answer: Answer, seq: int) -> bytes:
    """What a stream says after the last content: why each candidate ended, with the usage of the whole."""
    finish = _FINISH[answer.finish]
    candidates = [_candidate("", index) | {"finishReason": finish} for index in range(ask.choices)]
    return _frame(_answer(ask, answer, seq, candidates, output_tokens=answer.output_tokens))


def error_event(refused: Refused, seq: int) -> bytes:
    """An error inside a stream; it is the last event."""
    return b"data: " + error_body(refused, seq) + b"\r\n\r\n"


def models_body() -> bytes:
    methods = ["generateContent"]
    models = [
        {"name": f"models/{name}", "version": "1", "displayName": name, "supportedGenerationMethods": methods}
        for name in MODELS
    ]
    return orjson.dumps({"models": models})


def _candidate(text: str, index: int) -> dict[str, Any]:
    return {"content": {"parts": [{"text": text}], "role": "model"}, "index": index}


def _answer(
    ask: Ask, answer: Answer, seq: int, candidates: list[dict[str, Any]], *, output_tokens: int
) -> dict[str, Any]:
    body: dict[str, Any] = {"candidates": candidates}
    if answer.usage_reported:
        body["usageMetadata"] = _usage(ask, answer, output_tokens)
    return body | {"modelVersion": ask.model, "responseId": f"{seq:022d}"}


def _usage(ask: Ask, answer: Answer, output_tokens: int) -> dict[str, Any]:
    """The prompt is inclusive of the cached tokens, the candidates are exclusive of the thoughts."""
    prompt = answer.input_tokens + answer.cached_tokens
    candidates, thoughts = output_tokens * ask.choices, answer.reasoning_tokens * ask.choices
    usage: dict[str, Any] = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": candidates,
        "totalTokenCount": prompt + candidates + thoughts,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }
    if answer.cached_tokens:
        usage["cachedContentTokenCount"] = answer.cached_tokens
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    return usage


def _frame(answer: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(answer) + b"\r\n\r\n"
