"""An answer of Bedrock's, whole or frame by frame, as parts of the middle and figures of the meter."""

from collections.abc import Mapping

import orjson

from tollgate.errors import ProviderError
from tollgate.events import Usage
from tollgate.wire import Body, Meter, Quirks, failures, neutral
from tollgate.wire.anthropic.words import HOME
from tollgate.wire.bedrock.frames import EXCEPTION
from tollgate.wire.content import Choice, Citation, Delta, Finish, Part, Reasoning, Text, ToolCall
from tollgate.wire.failures import unreadable
from tollgate.wire.neutral import Mark, parse, tokens
from tollgate.wire.sse import Event

finish_words: Mapping[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
    "refusal": "content_filter",
}
_BROKEN = frozenset({"malformed_model_output", "malformed_tool_use"})


# Usage --------------------------------------------------------------------------------------------------------------


def read_usage(block: Body) -> Usage | None:
    """The disjoint classes; None when it counts nothing. The block repeats some counts under longer names."""
    fresh, output = tokens(block, "inputTokens"), tokens(block, "outputTokens")
    if fresh is None and output is None:
        return None
    written = tokens(block, "cacheWriteInputTokens") or 0
    long = _written_for_an_hour(block)
    return Usage(
        input_tokens=fresh or 0,
        cache_read_tokens=tokens(block, "cacheReadInputTokens") or 0,
        cache_write_5m_tokens=max(0, written - long),
        cache_write_1h_tokens=min(written, long),
        output_tokens=output or 0,
    )


def _written_for_an_hour(block: Body) -> int:
    details = block.get("cacheDetails")
    return sum(
        tokens(detail, "inputTokens") or 0
        for detail in (details if isinstance(details, list) else [])
        if isinstance(detail, dict) and detail.get("ttl") == "1h"
    )


def _meter_usage(meter: Meter, source: Body) -> None:
    block = source.get("usage")
    if isinstance(block, dict) and (usage := read_usage(block)) is not None:
        meter.usage = usage
        meter.usage_raw = neutral.compact(block)
    tier = source.get("serviceTier")
    if isinstance(tier, dict) and tier.get("type") in ("priority", "flex"):
        meter.price_context = {"service_tier": str(tier["type"])}


def _meter_finish(meter: Meter, reason: object) -> None:
    if reason in _BROKEN:
        raise ProviderError("server_error", f"the model's answer was not well formed ({reason})")
    meter.finish_reason = reason if isinstance(reason, str) and reason else "end_turn"


# Unary --------------------------------------------------------------------------------------------------------------


def read_answer(answer: Body, meter: Meter, quirks: Quirks) -> None:
    message = _message(answer)
    if message is None:
        raise unreadable("it has no 'output.message'")
    meter.output_bytes += neutral.text_bytes(message.get("content"))
    _meter_usage(meter, answer)
    _meter_finish(meter, answer.get("stopReason"))


def _message(answer: Body) -> Body | None:
    output = answer.get("output")
    message = output.get("message") if isinstance(output, dict) else None
    return message if isinstance(message, dict) else None


def answer_choices(answer: Body, meter: Meter) -> tuple[Choice, ...]:
    content = (_message(answer) or {}).get("content")
    parts: list[Part] = []
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict):
            parts += _read_block(block, meter)
    return (Choice(parts=tuple(parts), finish=meter.finish_reason),)


def _read_block(block: Body, meter: Meter) -> list[Part]:
    match block:
        case {"text": str(text)}:
            return [Text(text=text)]
        case {"toolUse": {"type": "server_tool_use"}}:  # the provider's own tool, which nobody here is to run
            meter.dropped.add("content[].toolUse")
            return []
        case {"toolUse": dict(call)}:
            return [
                ToolCall(
                    id=_text(call.get("toolUseId")),
                    name=_text(call.get("name")),
                    arguments=neutral.compact(call.get("input") or {}),
                )
            ]
        case {"reasoningContent": {"reasoningText": dict(thought)}}:
            signature = _text(thought.get("signature")) or None
            return [Reasoning(text=_text(thought.get("text")), signature=signature, origin=HOME if signature else None)]
        case {"reasoningContent": {"redactedContent": str(data)}}:
            return [Reasoning(redacted=data, origin=HOME)]
        case {"citationsContent": dict(cited)}:
            return [_read_cited(cited, meter)]
    meter.dropped.update(f"content[].{kind}" for kind in block)
    return []


def _read_cited(cited: Body, meter: Meter) -> Text:
    content, sources = cited.get("content"), cited.get("citations")
    text = "".join(_text(one.get("text")) for one in _objects(content))
    citations = tuple(found for one in _objects(sources) if (found := _citation(one, meter)) is not None)
    return Text(text=text, citations=citations)


def _citation(source: Body, meter: Meter) -> Citation | None:
    """A source on the web; places in documents of the request have no words in other dialects."""
    match source.get("location"):
        case {"web": {"url": str(url)}}:
            quoted = "".join(_text(one.get("text")) for one in _objects(source.get("sourceContent")))
            return Citation(url=url, title=_text(source.get("title")), cited_text=quoted)
    meter.dropped.add("citations")
    return None


def _objects(value: object) -> list[Body]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


# Streams ------------------------------------------------------------------------------------------------------------


class _Reader:
    """Events of a stream: `messageStop` ends the answer, `metadata` with the usage comes after it."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._kinds: dict[int, str] = {}  # of the blocks, by index
        self.deltas: list[Delta] = []
        self.finishes: dict[int, str] = {}

    def read(self, event: Event) -> Mark:
        self.deltas = []
        if event.name.startswith(EXCEPTION):
            raise _stream_error(event)
        payload = parse(event.data) if event.data else {}
        match event.name:
            case b"contentBlockStart":
                return self._start(payload)
            case b"contentBlockDelta":
                return self._delta(payload)
            case b"contentBlockStop":
                return self._stop(_index(payload))
            case b"messageStop":
                _meter_finish(self._meter, payload.get("stopReason"))
                self.finishes[0] = self._meter.finish_reason or ""
                return Mark.CLOSING
            case b"metadata":
                _meter_usage(self._meter, payload)
                return Mark.END if self.finishes else Mark.CLOSING
        return Mark.OTHER

    def _start(self, payload: Body) -> Mark:
        match payload.get("start"):
            case {"toolUse": {"type": "server_tool_use"}} | {"toolResult": dict()} | {"image": dict()}:
                self._meter.dropped.add("content[].toolUse")
                self._kinds[_index(payload)] = "dropped"
            case {"toolUse": dict(call)}:
                id, name = _text(call.get("toolUseId")), _text(call.get("name"))
                return self._add(_index(payload), Delta(kind="tool_call", id=id, name=name, key=_index(payload)))
        return Mark.OTHER

    def _delta(self, payload: Body) -> Mark:
        key = _index(payload)
        if self._kinds.get(key) == "dropped":
            return Mark.OTHER
        match payload.get("delta"):
            case {"text": str(text)}:
                return self._add(key, Delta(text=text, key=key))
            case {"toolUse": {"input": str(text)}}:
                return self._add(key, Delta(kind="tool_call", text=text, key=key))
            case {"reasoningContent": {"text": str(text)}}:
                return self._add(key, Delta(kind="reasoning", text=text, key=key))
            case {"reasoningContent": {"signature": str(signature)}}:
                return self._add(key, Delta(kind="reasoning", signature=signature, origin=HOME, key=key))
            case {"reasoningContent": {"redactedContent": str(data)}}:
                return self._add(key, Delta(kind="reasoning", redacted=data, origin=HOME, key=key))
            case {"citation": dict(source)}:
                found = _citation(source, self._meter)
                return Mark.OTHER if found is None else self._add(key, Delta(citations=(found,), key=key))
            case dict(other):
                self._meter.dropped.update(f"content[].{kind}" for kind in other)
        return Mark.OTHER

    def _add(self, key: int, delta: Delta) -> Mark:
        self._kinds[key] = delta.kind
        self.deltas.append(delta)
        self._meter.content_started = True
        self._meter.output_bytes += len(delta.text.encode())
        return Mark.CONTENT

    def _stop(self, key: int) -> Mark:
        if self._kinds.get(key) in ("text", "tool_call", "reasoning"):
            self.deltas.append(Delta(kind=self._kinds[key], key=key, last=True))  # type: ignore[arg-type]
        return Mark.OTHER


def _index(payload: Body) -> int:
    index = payload.get("contentBlockIndex")
    return index if isinstance(index, int) else 0


def reader(meter: Meter, body: Body, quirks: Quirks) -> _Reader:
    return _Reader(meter)


# Errors -------------------------------------------------------------------------------------------------------------


def provider_error_of(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    """The error's kind is in a header, `ValidationException:http://…` for example, and sometimes in the body too."""
    lower = {name.lower(): value for name, value in headers.items()}
    kind = lower.get("x-amzn-errortype", "").partition(":")[0]
    return failures.provider_error(status, headers, _as_error(kind, body))


def _stream_error(event: Event) -> ProviderError:
    kind = event.name.removeprefix(EXCEPTION).decode(errors="replace")
    return failures.inband_error(orjson.loads(_as_error(kind, event.data)))


def _as_error(kind: str, body: bytes) -> bytes:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    said = payload if isinstance(payload, dict) else {}
    kind = kind or _text(said.get("__type")).rpartition("#")[2]
    message = _text(said.get("message")) or _text(said.get("Message"))
    return orjson.dumps({"error": {"type": kind or None, "message": message}})
