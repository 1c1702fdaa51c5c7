"""What a client gets: answers, written from the middle or the provider's own with our fields in them; and errors."""

from collections.abc import Iterable, Mapping

import orjson

from tollgate.errors import Refusal
from tollgate.ids import request_time_ms
from tollgate.wire import Body, Extras, Meter, sse
from tollgate.wire.content import Choice, Citation, Delta, Finish, Part, Reasoning, Refused, Text, ToolCall
from tollgate.wire.neutral import parse
from tollgate.wire.openai.request import write_call, write_detail, write_signature, write_thoughts
from tollgate.wire.openai.usage import write_usage
from tollgate.wire.openai.words import DONE, FINISH_WRITTEN, wants_usage
from tollgate.wire.sequence import Streamed


class _Writer:
    """Writes chunks as the API reference shows them: role, content, finish, usage if asked for, `[DONE]`."""

    def __init__(self, meter: Meter, *, usage_wanted: bool, request_id: str) -> None:
        self._meter = meter
        self._usage_wanted = usage_wanted
        self._id = f"chatcmpl-{request_id}"
        self._created = request_time_ms(request_id) // 1000
        self._begun: set[int] = set()
        self._written: dict[int, int] = {}  # characters of a choice's text, which citations count by

    def open(self, part: Streamed) -> bytes:
        begun = self._begin(part.choice)
        if part.kind == "tool_call":
            call = {
                "index": part.call,
                "id": part.id,
                "type": "function",
                "function": {"name": part.name, "arguments": ""},
                **write_signature(part.signature, part.origin),
            }
            return begun + self._chunk(part.choice, {"tool_calls": [call]})
        if part.redacted is not None:
            thought = Reasoning(redacted=part.redacted, origin=part.origin)
            return begun + self._chunk(part.choice, {"reasoning_details": [write_detail(thought, part.index)]})
        return begun

    def more(self, part: Streamed, delta: Delta) -> bytes:
        if part.kind == "text":
            before = self._written.get(part.choice, 0)
            self._written[part.choice] = before + len(delta.text)
            written: Body = {"content": delta.text} if delta.text else {}
            if delta.citations:
                written["annotations"] = _write_citations(delta.citations, before, before + len(delta.text))
            return self._chunk(part.choice, written, logprobs=delta.logprobs)
        if part.kind == "refusal":
            return self._chunk(part.choice, {"refusal": delta.text})
        if part.kind == "tool_call":
            call = {"index": part.call, "function": {"arguments": delta.text}}
            return self._chunk(part.choice, {"tool_calls": [call]})
        written = {"reasoning_content": delta.text} if delta.text else {}
        if part.origin is not None:
            thought = Reasoning(text=delta.text, signature=delta.signature, origin=part.origin)
            written["reasoning_details"] = [write_detail(thought, part.index)]
        return self._chunk(part.choice, written)

    def close(self, part: Streamed) -> bytes:
        return b""

    def end(self, finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        usage = self._usage(extras)
        apart = bool(self._usage_wanted and usage)
        chunks = [
            self._begin(choice) + self._chunk(choice, {}, finish, {} if apart else extras.fields() if last else {})
            for choice, finish, last in _with_last(finishes)
        ]
        if apart:
            chunks.append(self._event([], {"usage": usage, **extras.fields()}))
        return b"".join(chunks) + sse.write(DONE)

    def whole(self, choices: tuple[Choice, ...], finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        answer = self._head("chat.completion")
        answer["choices"] = [
            {
                "index": index,
                "message": _write_message(choice.parts),
                "logprobs": _write_logprobs(choice.logprobs),
                "finish_reason": FINISH_WRITTEN[finishes[index]],
            }
            for index, choice in enumerate(choices)
        ]
        answer |= extras.fields()
        if usage := self._usage(extras):
            answer["usage"] = usage
        return orjson.dumps(answer)

    def _begin(self, choice: int) -> bytes:
        if choice in self._begun:
            return b""
        self._begun.add(choice)
        return self._chunk(choice, {"role": "assistant", "content": ""})

    def _chunk(
        self,
        choice: int,
        delta: Body,
        finish: Finish | None = None,
        more: Body | None = None,
        logprobs: tuple[Body, ...] = (),
    ) -> bytes:
        reason = None if finish is None else FINISH_WRITTEN[finish]
        written = {
            "index": choice,
            "delta": delta,
            "logprobs": _write_logprobs(logprobs),
            "finish_reason": reason,
        }
        return self._event([written], more or {})

    def _event(self, choices: list[Body], more: Body) -> bytes:
        return sse.write(orjson.dumps(self._head("chat.completion.chunk") | {"choices": choices, **more}))

    def _head(self, kind: str) -> Body:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._meter.served_model or ""}

    def _usage(self, extras: Extras) -> Body | None:
        usage = self._meter.usage
        return None if usage is None else {**write_usage(usage), "cost": extras.cost}


def _with_last(finishes: Mapping[int, Finish]) -> Iterable[tuple[int, Finish, bool]]:
    last = max(finishes)
    return ((choice, finish, choice == last) for choice, finish in sorted(finishes.items()))


def _write_logprobs(entries: tuple[Body, ...]) -> Body | None:
    return {"content": list(entries), "refusal": None} if entries else None


def _write_message(parts: tuple[Part, ...]) -> Body:
    texts = [part for part in parts if isinstance(part, Text)]
    refusals = [part.text for part in parts if isinstance(part, Refused)]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    thoughts = [part for part in parts if isinstance(part, Reasoning)]
    text = "".join(part.text for part in texts)
    message: Body = {
        "role": "assistant",
        "content": text if text or not (calls or refusals) else None,
        "refusal": "".join(refusals) or None,
    }
    annotations: list[Body] = []
    start = 0
    for part in texts:
        end = start + len(part.text)
        annotations += _write_citations(part.citations, start, end)
        start = end
    if annotations:
        message["annotations"] = annotations
    message |= write_thoughts(thoughts, "reasoning_content")
    if any(thought.origin is not None for thought in thoughts):
        message |= write_thoughts(thoughts, "reasoning_details")
    if calls:
        message["tool_calls"] = [write_call(call, id=call.id) for call in calls]
    return message


def _write_citations(citations: tuple[Citation, ...], start: int, end: int) -> list[Body]:
    """`start` and `end` of the text around them hold for those that do not say where they belong."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": start if citation.start is None else citation.start,
                "end_index": end if citation.end is None else citation.end,
                "title": citation.title,
                "url": citation.url,
            },
        }
        for citation in citations
    ]


def writer(meter: Meter, body: Body, request_id: str) -> _Writer:
    return _Writer(meter, usage_wanted=wants_usage(body), request_id=request_id)


def add_extras(answer: Body, extras: Extras) -> None:
    answer.update(extras.fields())
    if isinstance(usage := answer.get("usage"), dict):
        usage["cost"] = extras.cost


def write_tail(events: list[sse.Event], body: Body, extras: Extras) -> bytes:
    """Finish, usage and `[DONE]`. The extras go into the last chunk with usage that the client sees, or else into the
    last one that finishes a choice (a stream with neither gets none); every other event leaves as it came. The chunk
    that holds nothing but usage is kept from a client that did not ask for it."""
    usage_wanted = wants_usage(body)
    shown: list[sse.Event] = []
    finish_at = usage_at = None
    for event in events:
        if event.data == DONE:
            continue
        chunk = parse(event.data) if event.data else {}
        choices, usage = chunk.get("choices"), chunk.get("usage")
        if usage and not choices and not usage_wanted:
            continue
        if usage:
            usage_at = len(shown)
        if choices and any(choice.get("finish_reason") for choice in choices):
            finish_at = len(shown)
        shown.append(event)
    target = finish_at if usage_at is None else usage_at
    pieces = [event.raw for event in shown]
    if target is not None:
        chunk = parse(shown[target].data)
        add_extras(chunk, extras)
        pieces[target] = sse.write(orjson.dumps(chunk))
    return b"".join(pieces) + sse.write(DONE)


def error_body(refusal: Refusal, request_id: str) -> bytes:
    error = {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code}
    return orjson.dumps({"error": error | refusal.details})


def error_event(refusal: Refusal, request_id: str, number: int | None = None) -> bytes:
    """What the SDKs raise as an `APIError` in the middle of a stream; nothing follows it."""
    return sse.write(error_body(refusal, request_id))


def models_body(models: list[tuple[str, str, int]]) -> bytes:
    data = [{"id": id, "object": "model", "created": created, "owned_by": owner} for id, owner, created in models]
    return orjson.dumps({"object": "list", "data": data})
