"""The dialect of OpenAI's responses, as its API reference documents it. Pure: no clock, no I/O.

Same names in the same order as `openai`: what one dialect must say, the other says too.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from tollgate.sandbox.answer import Answer
from tollgate.sandbox.answer import compose as compose
from tollgate.sandbox.openai import CREATED_S
from tollgate.sandbox.openai import error_body as error_body
from tollgate.sandbox.openai import models_body as models_body
from tollgate.sandbox.openai import request_id as request_id
from tollgate.sandbox.request import Ask, Document, Refused, measure, read_bool, read_int, read_model
from tollgate.sandbox.request import read_document as read_json

NAME = "responses"
REQUEST_ID_HEADER = b"x-request-id"
CONTENT_TYPE = b"application/json"
IN_BAND_ERROR = Refused(500, "The server had an error while processing your request.")


def read_document(body: bytes, headers: Mapping[bytes, bytes]) -> Document:
    return read_json(body)


def read_ask(document: Document, headers: Mapping[bytes, bytes]) -> Ask:
    """Raises `Refused` (400) with the field at fault."""
    model = read_model(document)
    given = document.get("input")
    if not isinstance(given, str | list) or not given:
        raise Refused(400, "input: a string or a list of items is required", param="input")
    items = given if isinstance(given, list) else [{"role": "user", "content": given}]
    texts = [document.get("instructions")]
    for index, item in enumerate(items):
        if not isinstance(item, dict):
            param = f"input[{index}]"
            raise Refused(400, f"{param}: an object is required", param=param)
        texts += [item.get(field) for field in ("content", "output", "arguments", "input", "summary")]
    tokens, fingerprint = measure(texts, messages=len(items))
    return Ask(
        model=model,
        stream=read_bool(document, "stream"),
        max_tokens=read_int(document, "max_output_tokens", least=1),
        stop=(),
        choices=1,
        include_usage=True,
        input_tokens=tokens,
        fingerprint=fingerprint,
    )


def unary_body(ask: Ask, answer: Answer, seq: int) -> bytes:
    return orjson.dumps(_response(ask, seq, answer))


def opening(ask: Ask, answer: Answer, seq: int) -> bytes:
    """What a stream says before the first content: the response, its thoughts if it has any, and the message."""
    events = _Events(seq)
    response = _response(ask, seq, None)
    out = events.write("response.created", response=response) + events.write("response.in_progress", response=response)
    if answer.reasoning_tokens:
        thought = _reasoning(seq)
        out += events.write("response.output_item.added", output_index=0, item=thought)
        out += events.write("response.output_item.done", output_index=0, item=thought)
    message = _message(seq, "in_progress", [])
    out += events.write("response.output_item.added", output_index=_index(answer), item=message)
    return out + events.of_part("response.content_part.added", answer, part=_part(""))


def contents(ask: Ask, answer: Answer, seq: int) -> Iterator[tuple[bytes, int]]:
    """The frames of the content with the tokens of each."""
    events = _Events(seq, number=_numbered_before(answer))
    for piece, size in zip(answer.pieces, answer.sizes, strict=True):
        yield events.of_part("response.output_text.delta", answer, delta=piece.decode(), logprobs=[]), size


def closing(ask: Ask, answer: Answer, seq: int) -> bytes:
    """What a stream says after the last content: the message whole, and the whole response with its usage."""
    events = _Events(seq, number=_numbered_before(answer) + len(answer.pieces))
    part = _part(answer.text)
    response = _response(ask, seq, answer)
    return (
        events.of_part("response.output_text.done", answer, text=answer.text, logprobs=[])
        + events.of_part("response.content_part.done", answer, part=part)
        + events.write(
            "response.output_item.done", output_index=_index(answer), item=_message(seq, "completed", [part])
        )
        + events.write(f"response.{response['status']}", response=response)
    )


def error_event(refused: Refused, seq: int) -> bytes:
    """An error inside a stream; it is the last event."""
    error = {"type": "server_error", "code": "server_error", "message": refused.message, "param": refused.param}
    return _Events(seq, number=1_000_000).write("error", **error, error=error)


class _Events:
    """Writes events with their numbers."""

    def __init__(self, seq: int, *, number: int = 0) -> None:
        self._seq = seq
        self._number = number

    def write(self, name: str, **fields: Any) -> bytes:
        payload = {**fields, "type": name, "sequence_number": self._number}
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps(payload))

    def of_part(self, name: str, answer: Answer, **fields: Any) -> bytes:
        item_id = _message_id(self._seq)
        return self.write(name, item_id=item_id, output_index=_index(answer), content_index=0, **fields)


def _index(answer: Answer) -> int:
    """The place of the message among the items."""
    return 1 if answer.reasoning_tokens else 0


def _numbered_before(answer: Answer) -> int:
    return 6 if answer.reasoning_tokens else 4


def _message_id(seq: int) -> str:
    return f"msg_{seq:048d}"


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _message(seq: int, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    return {"id": _message_id(seq), "type": "message", "role": "assistant", "status": status, "content": content}


def _reasoning(seq: int) -> dict[str, Any]:
    return {"id": f"rs_{seq:048d}", "type": "reasoning", "summary": []}


def _response(ask: Ask, seq: int, answer: Answer | None) -> dict[str, Any]:
    """The response object; without an answer, as it is before one."""
    limited = answer is not None and answer.finish == "limit"
    status = "in_progress" if answer is None else "incomplete" if limited else "completed"
    output: list[dict[str, Any]] = []
    if answer is not None:
        output = [_reasoning(seq)] if answer.reasoning_tokens else []
        output.append(_message(seq, "incomplete" if limited else "completed", [_part(answer.text)]))
    return {
        "id": f"resp_{seq:048d}",
        "object": "response",
        "created_at": CREATED_S,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if limited else None,
        "max_output_tokens": ask.max_tokens,
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "store": False,
        "tool_choice": "auto",
        "tools": [],
        "usage": _usage(answer) if answer is not None and answer.usage_reported else None,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    """Totals are inclusive: input of the cached tokens, output of the reasoning."""
    total_in = answer.input_tokens + answer.cached_tokens
    total_out = answer.output_tokens + answer.reasoning_tokens
    return {
        "input_tokens": total_in,
        "input_tokens_details": {"cached_tokens": answer.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": total_out,
        "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
        "total_tokens": total_in + total_out,
    }
