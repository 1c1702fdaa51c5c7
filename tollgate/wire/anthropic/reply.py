"""What a client gets: answers, written from the middle or the provider's own with our fields in them; and errors."""

from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from tollgate.errors import Refusal
from tollgate.events import Usage
from tollgate.wire import Body, Extras, Meter, neutral, sse
from tollgate.wire.anthropic.request import call_id, write_block
from tollgate.wire.anthropic.usage import write_usage
from tollgate.wire.anthropic.words import CALL_SIGNATURE, FINISH_WRITTEN, HOME
from tollgate.wire.content import Choice, Citation, Delta, Family, Finish, Part, Reasoning, Refused, Text, ToolCall
from tollgate.wire.neutral import parse
from tollgate.wire.sequence import Streamed


class _Writer:
    """Writes the event grammar of the Messages API: blocks one after another between start and end of the message.

    The dialect knows one answer only: parts of another choice, which nobody can have asked for, are not written.
    """

    def __init__(self, meter: Meter, request_id: str) -> None:
        self._meter = meter
        self._id = f"msg_{request_id.replace('-', '')}"
        self._begun = False
        self._refused = False
        self._blocks = 0

    def open(self, part: Streamed) -> bytes:
        if part.choice:
            return b""
        out = self._begin()
        if part.kind == "tool_call" and part.signature is not None and part.origin is not None:
            out += self._start_block(_write_call_signature(part.signature, part.origin)) + self._stop_block()
        return out + self._start_block(self._empty_block(part))

    def more(self, part: Streamed, delta: Delta) -> bytes:
        if part.choice:
            return b""
        match part.kind:
            case "tool_call":
                return self._delta({"type": "input_json_delta", "partial_json": delta.text})
            case "reasoning":
                out = self._delta({"type": "thinking_delta", "thinking": delta.text}) if delta.text else b""
                if delta.signature is not None:
                    signature = neutral.tagged(delta.signature, delta.origin or HOME, HOME)
                    out += self._delta({"type": "signature_delta", "signature": signature})
                return out
            case _:
                out = self._delta({"type": "text_delta", "text": delta.text}) if delta.text else b""
                return out + b"".join(
                    self._delta({"type": "citations_delta", "citation": citation})
                    for citation in _write_citations(delta.citations)
                )

    def close(self, part: Streamed) -> bytes:
        if part.choice:
            return b""
        self._refused |= part.kind == "refusal"
        return self._stop_block()

    def end(self, finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        reason = _stop_reason(finishes.get(0, "stop"), refused=self._refused)
        last = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {**self._usage(), "cost": extras.cost},
            **extras.fields(),
        }
        return self._begin() + _event(last) + _event({"type": "message_stop"})

    def whole(self, choices: tuple[Choice, ...], finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        parts = choices[0].parts
        refused = any(isinstance(part, Refused) for part in parts)
        message = self._message(
            content=[block for part in parts for block in _write_answer_blocks(part)],
            stop_reason=_stop_reason(finishes[0], refused=refused),
        )
        message["usage"]["cost"] = extras.cost
        return orjson.dumps(message | extras.fields())

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _event({"type": "message_start", "message": self._message(content=[], stop_reason=None)})

    @staticmethod
    def _empty_block(part: Streamed) -> Body:
        match part.kind:
            case "tool_call":
                return {"type": "tool_use", "id": call_id(part.id), "name": part.name, "input": {}}
            case "reasoning" if part.redacted is not None:
                return _write_redacted(part.redacted, part.origin)
            case "reasoning":
                return {"type": "thinking", "thinking": "", "signature": ""}
            case _:
                return {"type": "text", "text": ""}

    def _start_block(self, block: Body) -> bytes:
        return _event({"type": "content_block_start", "index": self._blocks, "content_block": block})

    def _delta(self, delta: Body) -> bytes:
        return _event({"type": "content_block_delta", "index": self._blocks, "delta": delta})

    def _stop_block(self) -> bytes:
        self._blocks += 1
        return _event({"type": "content_block_stop", "index": self._blocks - 1})

    def _message(self, *, content: list[Body], stop_reason: str | None) -> Body:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._meter.served_model or "",
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": self._usage(),
        }

    def _usage(self) -> Body:
        """What is known so far. The dialect demands numbers, so what is unknown is written as 0 here."""
        return write_usage(self._meter.usage or Usage())


def _stop_reason(finish: Finish, *, refused: bool) -> str:
    return "refusal" if refused and finish == "stop" else FINISH_WRITTEN[finish]


def _write_answer_blocks(part: Part) -> list[Body]:
    match part:
        case Text() | Refused() if not part.text:
            return []
        case Text() if part.citations:
            return [{"type": "text", "text": part.text, "citations": _write_citations(part.citations)}]
        case ToolCall() if part.signature is not None and part.origin is not None:
            return [_write_call_signature(part.signature, part.origin), write_block(part)]
        case Reasoning() if part.redacted is not None:
            return [_write_redacted(part.redacted, part.origin)]
        case Reasoning():
            signature = neutral.tagged(part.signature or "", part.origin or HOME, HOME)
            return [{"type": "thinking", "thinking": part.text, "signature": signature}]
        case _:
            return [write_block(part)]


def _write_redacted(data: str, origin: Family | None) -> Body:
    return {"type": "redacted_thinking", "data": neutral.tagged(data, origin or HOME, HOME)}


def _write_call_signature(signature: str, origin: Family) -> Body:
    return {"type": "redacted_thinking", "data": neutral.tagged(CALL_SIGNATURE + signature, origin, HOME)}


def _write_citations(citations: tuple[Citation, ...]) -> list[Body]:
    return [
        {
            "type": "web_search_result_location",
            "url": citation.url,
            "title": citation.title or None,
            "cited_text": citation.cited_text,
            "encrypted_index": "",
        }
        for citation in citations
    ]


def writer(meter: Meter, body: Body, request_id: str) -> _Writer:
    return _Writer(meter, request_id)


def add_extras(answer: Body, extras: Extras) -> None:
    answer.update(extras.fields())
    if isinstance(usage := answer.get("usage"), dict):
        usage["cost"] = extras.cost


def write_tail(events: list[sse.Event], body: Body, extras: Extras) -> bytes:
    """From the first `message_delta` to `message_stop`, which some servers forget. The last `message_delta` takes the
    extras."""
    shown: list[sse.Event] = []
    target = None
    stop: Body = {"type": "message_stop"}
    for event in events:
        payload = {} if event.data in (b"", b"[DONE]") else parse(event.data)
        if payload.get("type") == "message_stop":
            stop = payload
            continue
        if event.data == b"[DONE]":
            continue
        if payload.get("type") == "message_delta":
            target = len(shown)
        shown.append(event)
    pieces = [event.raw for event in shown]
    if target is not None:
        payload = parse(shown[target].data)
        add_extras(payload, extras)
        pieces[target] = _event(payload)
    return b"".join(pieces) + _event(stop)


def _event(payload: Body) -> bytes:
    return sse.write(orjson.dumps(payload), payload["type"])


_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def error_body(refusal: Refusal, request_id: str) -> bytes:
    return orjson.dumps(_error(refusal, request_id))


def error_event(refusal: Refusal, request_id: str, number: int | None = None) -> bytes:
    return _event(_error(refusal, request_id))


def _error(refusal: Refusal, request_id: str) -> Body:
    """The dialect's shape with OpenAI's `code` and `param` beside it, where they say something."""
    general = "api_error" if refusal.status >= 500 else "invalid_request_error"
    error = {"type": _ERROR_TYPES.get(refusal.status, general), "message": refusal.message}
    if refusal.code is not None:
        error["code"] = refusal.code
    if refusal.param is not None:
        error["param"] = refusal.param
    return {"type": "error", "error": error | refusal.details, "request_id": request_id}


def models_body(models: list[tuple[str, str, int]]) -> bytes:
    data = [
        {
            "type": "model",
            "id": id,
            "display_name": id,
            "created_at": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycle": "active",
        }
        for id, _owner, created in models
    ]
    first, last = (models[0][0], models[-1][0]) if models else (None, None)
    return orjson.dumps({"data": data, "has_more": False, "first_id": first, "last_id": last})
