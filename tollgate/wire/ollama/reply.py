"""What a client gets: answers, written from the middle or the provider's own with our fields in them; and errors."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from tollgate.errors import Refusal
from tollgate.ids import request_time_ms
from tollgate.wire import Body, Extras, Meter
from tollgate.wire.content import Choice, Delta, Finish, Reasoning, Refused, Text, ToolCall
from tollgate.wire.neutral import arguments_object, parse, total_input, total_output
from tollgate.wire.ollama.words import FINISH_WRITTEN, is_generate
from tollgate.wire.sequence import Streamed
from tollgate.wire.sse import Event


class _Writer:
    """Writes lines: text and thoughts as they come, calls once they are whole, and in the last line the counts.

    How long things took is left out, as the protocol does with what is zero: nobody has said it.
    """

    def __init__(self, meter: Meter, *, generate: bool, request_id: str) -> None:
        self._meter = meter
        self._generate = generate
        self._created = _stamp(request_time_ms(request_id) // 1000)
        self._arguments: list[str] = []  # of the call that is open

    def open(self, part: Streamed) -> bytes:
        if part.choice:  # nobody asked for it
            return b""
        self._arguments = []
        self._drop_seals(part.redacted, part.signature)
        return b""

    def more(self, part: Streamed, delta: Delta) -> bytes:
        if part.choice:
            return b""
        self._drop_seals(delta.redacted, delta.signature)
        if part.kind == "tool_call":
            self._arguments.append(delta.text)
            return b""
        if delta.citations:
            self._meter.dropped.add("citations")
        if not delta.text and not delta.logprobs:
            return b""
        if part.kind == "reasoning":
            return self._line(self._message("", thoughts=delta.text))
        return self._line(self._message(delta.text) | _write_logprobs(delta.logprobs))

    def close(self, part: Streamed) -> bytes:
        if part.choice or part.kind != "tool_call":
            return b""
        call = ToolCall(id=part.id, name=part.name, arguments="".join(self._arguments))
        return self._line(self._message("", calls=[_write_call(call, part.call)]))

    def end(self, finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        return self._line(self._message("") | self._end(finishes.get(0, "stop"), extras))

    def whole(self, choices: tuple[Choice, ...], finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        choice = choices[0]
        calls = [part for part in choice.parts if isinstance(part, ToolCall)]
        message = self._message(
            "".join(part.text for part in choice.parts if isinstance(part, Text | Refused)),
            thoughts="".join(part.text for part in choice.parts if isinstance(part, Reasoning)),
            calls=[_write_call(call, at) for at, call in enumerate(calls)],
        )
        return orjson.dumps(self._head() | message | _write_logprobs(choice.logprobs) | self._end(finishes[0], extras))

    def _message(self, text: str, *, thoughts: str = "", calls: list[Body] | None = None) -> Body:
        said: Body = ({"thinking": thoughts} if thoughts else {}) | ({"tool_calls": calls} if calls else {})
        if self._generate:
            return {"response": text, **said}
        return {"message": {"role": "assistant", "content": text, **said}}

    def _line(self, more: Body) -> bytes:
        return orjson.dumps(self._head() | {"done": False} | more) + b"\n"

    def _head(self) -> Body:
        return {"model": self._meter.served_model or "", "created_at": self._created}

    def _end(self, finish: Finish, extras: Extras) -> Body:
        end: Body = {"done": True, "done_reason": FINISH_WRITTEN[finish]}
        if (usage := self._meter.usage) is not None:
            end |= {"prompt_eval_count": total_input(usage), "eval_count": total_output(usage)}
        return end | extras.fields()

    def _drop_seals(self, *seals: str | None) -> None:
        """What only the family can read that has signed it: the protocol has no place for it."""
        if any(seal is not None for seal in seals):
            self._meter.dropped.add("signature")


def _write_call(call: ToolCall, index: int) -> Body:
    arguments = arguments_object(call.arguments)
    return {"id": call.id, "function": {"index": index, "name": call.name, "arguments": arguments}}


def _write_logprobs(entries: tuple[Body, ...]) -> Body:
    return {"logprobs": list(entries)} if entries else {}


def _stamp(at_s: int) -> str:
    return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def writer(meter: Meter, body: Body, request_id: str) -> _Writer:
    return _Writer(meter, generate=is_generate(body), request_id=request_id)


def add_extras(answer: Body, extras: Extras) -> None:
    answer.update(extras.fields())


def write_tail(events: list[Event], body: Body, extras: Extras) -> bytes:
    """The line that is done, with the extras in it."""
    lines = [parse(event.data) for event in events]
    add_extras(lines[-1], extras)
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


# Errors and models --------------------------------------------------------------------------------------------------


def error_body(refusal: Refusal, request_id: str) -> bytes:
    """The text that the SDKs show, and what other dialects say beside it."""
    more = {"type": refusal.type, "param": refusal.param, "code": refusal.code, "request_id": request_id or None}
    said = {name: value for name, value in more.items() if value is not None}
    return orjson.dumps({"error": refusal.message} | said | refusal.details)


def error_event(refusal: Refusal, request_id: str, number: int | None = None) -> bytes:
    """A line; the SDKs raise it wherever it comes."""
    return error_body(refusal, request_id) + b"\n"


def models_body(models: list[tuple[str, str, int]]) -> bytes:
    """`GET /api/tags`. No file lies behind a model here, so its size is 0 and its digest is that of its name."""
    listed = [
        {
            "name": id,
            "model": id,
            "modified_at": _stamp(created),
            "size": 0,
            "digest": hashlib.sha256(id.encode()).hexdigest(),
            "details": {
                "parent_model": "",
                "format": "",
                "family": owner,
                "families": [owner],
                "parameter_size": "",
                "quantization_level": "",
            },
        }
        for id, owner, created in models
    ]
    return orjson.dumps({"models": listed})
