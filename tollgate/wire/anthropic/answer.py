"""A provider's answer, whole or event by event, as parts of the middle and figures of the meter."""

from tollgate.wire import Body, Meter, Quirks, failures, neutral, sse
from tollgate.wire.anthropic.usage import meter_usage
from tollgate.wire.anthropic.words import HOME
from tollgate.wire.content import Choice, Citation, Delta, Kind, Part, Reasoning, Text, ToolCall
from tollgate.wire.failures import unreadable
from tollgate.wire.neutral import Mark, parse


def read_answer(answer: Body, meter: Meter, quirks: Quirks) -> None:
    if answer.get("error"):
        raise failures.inband_error(answer)
    content = answer.get("content")
    if not isinstance(content, list):
        raise unreadable("it has no 'content'")
    meter.output_bytes += neutral.text_bytes(content)
    _meter_model(meter, answer)
    _meter_finish(meter, answer)
    meter_usage(meter, answer.get("usage"))


def answer_choices(answer: Body, meter: Meter) -> tuple[Choice, ...]:
    parts = [part for block in answer["content"] if (part := _answer_part(block, meter)) is not None]
    finish = answer.get("stop_reason")
    return (Choice(parts=tuple(parts), finish=finish if isinstance(finish, str) else None),)


def _answer_part(block: object, meter: Meter) -> Part | None:
    """None for what no other dialect can be told, which the meter names."""
    if not isinstance(block, dict):
        raise unreadable("a content block is not an object")
    kind = block.get("type")
    match kind:
        case "text":
            return Text(text=_said(block, "text"), citations=_read_citations(block.get("citations"), meter))
        case "thinking":
            signature = _said(block, "signature") or None
            origin = None if signature is None else HOME
            return Reasoning(text=_said(block, "thinking"), signature=signature, origin=origin)
        case "redacted_thinking":
            return Reasoning(redacted=_said(block, "data"), origin=HOME)
        case "tool_use":
            given = block.get("input")
            arguments = neutral.compact(given if isinstance(given, dict) else {})
            id = neutral.original_id(_said(block, "id"))
            return ToolCall(id=id, name=_said(block, "name"), arguments=arguments)
        case _:
            meter.dropped.add(f"content[].{kind}" if isinstance(kind, str) else "content[]")
            return None


def _said(block: Body, field: str) -> str:
    value = block.get(field)
    return value if isinstance(value, str) else ""


def _read_citations(citations: object, meter: Meter) -> tuple[Citation, ...]:
    """Those that name a page on the web; places in the client's own documents have no form elsewhere."""
    found: list[Citation] = []
    for citation in citations if isinstance(citations, list) else ():
        if not isinstance(citation, dict):
            continue
        if url := _said(citation, "url"):
            found.append(Citation(url=url, title=_said(citation, "title"), cited_text=_said(citation, "cited_text")))
        else:
            meter.dropped.add("content[].citations")
    return tuple(found)


def _meter_finish(meter: Meter, source: Body) -> None:
    reason = source.get("stop_reason")
    if isinstance(reason, str) and reason:
        meter.finish_reason = reason


def _meter_model(meter: Meter, source: Body) -> None:
    model = source.get("model")
    if isinstance(model, str) and model:
        meter.served_model = model


def splitter() -> sse.Splitter:
    return sse.Splitter()


class _Reader:
    """Events of a stream. Usage comes twice: in `message_start`, and cumulative in `message_delta`, which overrides
    what it names; older servers name only `output_tokens` there."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._usage: Body = {}
        self._kinds: dict[int, Kind] = {}  # of the blocks that are parts of the answer, by index
        self.deltas: list[Delta] = []
        self.finishes: dict[int, str] = {}

    def read(self, event: sse.Event) -> Mark:
        self.deltas = []
        if not event.data:
            return Mark.OTHER
        if event.data == b"[DONE]":  # added by some gateways
            return Mark.END
        payload = parse(event.data)
        match payload.get("type"):
            case "content_block_delta":
                return self._read_delta(payload.get("delta"), _index(payload))
            case "content_block_start":
                return self._read_start(payload.get("content_block"), _index(payload))
            case "content_block_stop":
                index = _index(payload)
                if (kind := self._kinds.pop(index, None)) is not None:
                    self.deltas.append(Delta(kind=kind, key=index, last=True))
                return Mark.OTHER
            case "message_start":
                message = payload.get("message")
                if isinstance(message, dict):
                    _meter_model(self._meter, message)
                    self._merge_usage(message.get("usage"))
                return Mark.OTHER
            case "message_delta":
                delta = payload.get("delta")
                if isinstance(delta, dict):
                    _meter_finish(self._meter, delta)
                    if self._meter.finish_reason is not None:
                        self.finishes[0] = self._meter.finish_reason
                self._merge_usage(payload.get("usage"))
                return Mark.CLOSING
            case "message_stop":
                return Mark.END
            case "error":
                raise failures.inband_error(payload)
        if payload.get("error"):
            raise failures.inband_error(payload)
        return Mark.OTHER

    def _read_start(self, block: object, index: int) -> Mark:
        if not isinstance(block, dict):
            raise unreadable("a content block is not an object")
        match block.get("type"):
            case "text":
                self._kinds[index] = "text"
                citations = _read_citations(block.get("citations"), self._meter)
                return self._content(Delta(text=_said(block, "text"), key=index, citations=citations))
            case "thinking":
                self._kinds[index] = "reasoning"
                signature = _said(block, "signature") or None
                return self._content(
                    Delta(
                        kind="reasoning",
                        text=_said(block, "thinking"),
                        key=index,
                        signature=signature,
                        origin=HOME,
                    )
                )
            case "redacted_thinking":
                self._kinds[index] = "reasoning"
                data = _said(block, "data")
                self.deltas.append(Delta(kind="reasoning", key=index, redacted=data, origin=HOME))
                return Mark.OTHER
            case "tool_use":
                self._kinds[index] = "tool_call"
                given = block.get("input")
                arguments = neutral.compact(given) if isinstance(given, dict) and given else ""
                id = neutral.original_id(_said(block, "id"))
                return self._content(
                    Delta(kind="tool_call", text=arguments, key=index, id=id, name=_said(block, "name"))
                )
            case kind:
                self._meter.dropped.add(f"content[].{kind}" if isinstance(kind, str) else "content[]")
                self._meter.content_started = True
                return Mark.CONTENT

    def _read_delta(self, delta: object, index: int) -> Mark:
        if not isinstance(delta, dict):
            raise unreadable("a delta is not an object")
        match delta.get("type"):
            case "text_delta":
                self._kinds.setdefault(index, "text")
                return self._content(Delta(text=_said(delta, "text"), key=index))
            case "thinking_delta":
                text = _said(delta, "thinking")
                return self._content(Delta(kind="reasoning", text=text, key=index, origin=HOME))
            case "signature_delta":
                signature = _said(delta, "signature")
                return self._content(Delta(kind="reasoning", signature=signature, key=index, origin=HOME))
            case "input_json_delta" if self._kinds.get(index) == "tool_call":
                return self._content(Delta(kind="tool_call", text=_said(delta, "partial_json"), key=index))
            case "citations_delta":
                citations = _read_citations([delta.get("citation")], self._meter)
                return self._content(Delta(key=index, citations=citations))
        self._meter.output_bytes += neutral.text_bytes(delta)
        self._meter.content_started = True
        return Mark.CONTENT

    def _content(self, delta: Delta) -> Mark:
        """Something of a part, unless it is its empty beginning."""
        meter = self._meter
        if delta.text:
            meter.output_bytes += len(delta.text) if delta.text.isascii() else len(delta.text.encode())
        elif not (delta.name or delta.signature or delta.citations):
            return Mark.OTHER
        meter.content_started = True
        self.deltas.append(delta)
        return Mark.CONTENT

    def _merge_usage(self, block: object) -> None:
        if isinstance(block, dict):
            self._usage |= {field: value for field, value in block.items() if value is not None}
            meter_usage(self._meter, self._usage)


def _index(payload: Body) -> int:
    index = payload.get("index")
    return index if isinstance(index, int) else 0


def reader(meter: Meter, body: Body, quirks: Quirks) -> _Reader:
    return _Reader(meter)
