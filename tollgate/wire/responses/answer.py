"""A provider's answer, whole or event by event, as parts of the middle and figures of the meter."""

from collections.abc import Callable, Mapping

from tollgate.wire import Body, Meter, Quirks, failures, neutral, sse
from tollgate.wire.content import Choice, Citation, Delta, Part, Reasoning, Refused, Text, ToolCall
from tollgate.wire.failures import unreadable
from tollgate.wire.neutral import Mark, parse
from tollgate.wire.responses.usage import meter_usage
from tollgate.wire.responses.words import HOME, kind_of

_UNFINISHED = frozenset({"queued", "in_progress"})
_PARTS_OF_AN_ITEM = 1_000  # the key of a part of a message is its item's number times this, and its own


def read_answer(answer: Body, meter: Meter, quirks: Quirks) -> None:
    _check_failed(answer, meter, quirks)
    output = answer.get("output")
    if not isinstance(output, list):
        raise unreadable("it has no 'output'")
    if str(answer.get("status")) in _UNFINISHED:
        raise unreadable("it is not over")
    meter.output_bytes += neutral.text_bytes(output)
    _meter_end(meter, answer, quirks)


def _check_failed(response: Body, meter: Meter, quirks: Quirks) -> None:
    """Raises the error that the provider has put into its answer; it may have used tokens all the same."""
    if not response.get("error") and response.get("status") != "failed":
        return
    meter_usage(meter, response, quirks)
    raise failures.inband_error({"error": response.get("error") or {"message": "the provider's answer failed"}})


def _meter_end(meter: Meter, response: Body, quirks: Quirks) -> None:
    _meter_model(meter, response)
    meter_usage(meter, response, quirks)
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    meter.finish_reason = "completed" if response.get("status") != "incomplete" else str(reason or "max_output_tokens")


def _meter_model(meter: Meter, response: Body) -> None:
    model = response.get("model")
    if isinstance(model, str) and model:
        meter.served_model = model


def answer_choices(answer: Body, meter: Meter) -> tuple[Choice, ...]:
    parts: list[Part] = []
    logprobs: list[Body] = []
    for item in answer["output"]:
        parts += _item_parts(item, meter, logprobs)
    return (Choice(parts=tuple(parts), finish=meter.finish_reason, logprobs=tuple(logprobs)),)


def _item_parts(item: object, meter: Meter, logprobs: list[Body]) -> list[Part]:
    if not isinstance(item, dict):
        raise unreadable("an item of the output is not an object")
    match item.get("type"):
        case "message":
            return [part for one in _list(item, "content") if (part := _message_part(one, meter, logprobs)) is not None]
        case "reasoning":
            return [_reasoning(item)]
        case "function_call":
            return [ToolCall(id=_said(item, "call_id"), name=_said(item, "name"), arguments=_said(item, "arguments"))]
        case kind:
            _drop(meter, kind)
            return []


def _message_part(part: object, meter: Meter, logprobs: list[Body]) -> Part | None:
    match kind_of(part):
        case "output_text" if isinstance(part, dict):
            logprobs += _read_logprobs(part.get("logprobs"))
            return Text(text=_said(part, "text"), citations=_citations(_list(part, "annotations"), meter))
        case "refusal" if isinstance(part, dict):
            return Refused(text=_said(part, "refusal"))
        case kind:
            _drop(meter, kind)
            return None


def _reasoning(item: Body) -> Reasoning:
    text = _joined(_list(item, "summary")) or _joined(_list(item, "content"))
    sealed = _said(item, "encrypted_content")
    if not sealed:
        return Reasoning(text=text)
    if text:
        return Reasoning(text=text, signature=sealed, origin=HOME)
    return Reasoning(redacted=sealed, origin=HOME)


def _joined(parts: list[object]) -> str:
    return "\n\n".join(_said(part, "text") for part in parts if isinstance(part, dict))


def _said(holder: Body, field: str) -> str:
    value = holder.get(field)
    return value if isinstance(value, str) else ""


def _list(holder: Body, field: str) -> list[object]:
    value = holder.get(field)
    return value if isinstance(value, list) else []


def _drop(meter: Meter, kind: object) -> None:
    meter.dropped.add(f"output[].{kind}" if isinstance(kind, str) else "output[]")


def _citations(annotations: list[object], meter: Meter) -> tuple[Citation, ...]:
    """Those that name a page on the web; places in stored files have no form elsewhere."""
    found: list[Citation] = []
    for annotation in annotations:
        if not isinstance(annotation, dict) or not _said(annotation, "url"):
            _drop(meter, "annotations")
            continue
        start, end = annotation.get("start_index"), annotation.get("end_index")
        found.append(
            Citation(
                url=_said(annotation, "url"),
                title=_said(annotation, "title"),
                start=start if isinstance(start, int) else None,
                end=end if isinstance(end, int) else None,
            )
        )
    return tuple(found)


def _read_logprobs(entries: object) -> list[Body]:
    """As chat completions write them, where every entry has its bytes."""
    found: list[Body] = []
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("token"), str):
            top = [_with_bytes(one) for one in _list(entry, "top_logprobs") if isinstance(one, dict)]
            found.append({**_with_bytes(entry), "top_logprobs": top})
    return found


def _with_bytes(entry: Body) -> Body:
    token = entry.get("token")
    known = entry.get("bytes") or (list(token.encode()) if isinstance(token, str) else None)
    return {"token": token, "logprob": entry.get("logprob"), "bytes": known}


def splitter() -> sse.Splitter:
    return sse.Splitter()


class _Reader:
    """Events of a stream. Servers differ in what they send in pieces: what came in none is taken from the end of its
    item, and what that does not say, from the end of the answer."""

    def __init__(self, meter: Meter, quirks: Quirks) -> None:
        self._meter = meter
        self._quirks = quirks
        self._seen: set[tuple[str, int]] = set()  # parts whose pieces came, by kind and key
        self._ended: set[int] = set()  # items that are over
        self._begun: set[int] = set()  # calls that have been named
        self.deltas: list[Delta] = []
        self.finishes: dict[int, str] = {}

    def read(self, event: sse.Event) -> Mark:
        self.deltas = []
        if not event.data:
            return Mark.OTHER
        if event.data == b"[DONE]":  # added by some gateways
            return Mark.END
        payload = parse(event.data)
        number = payload.get("sequence_number")
        if isinstance(number, int):
            self._meter.events = number + 1
        kind = payload.get("type")
        if kind == "error" or payload.get("error"):
            raise failures.inband_error(payload)
        read = _EVENT_READERS.get(kind) if isinstance(kind, str) else None
        return Mark.OTHER if read is None else read(self, payload)

    def begin(self, payload: Body) -> Mark:
        response = payload.get("response")
        if isinstance(response, dict):
            _meter_model(self._meter, response)
        return Mark.OTHER

    def end(self, payload: Body) -> Mark:
        response = payload.get("response")
        if not isinstance(response, dict):
            raise unreadable("the end of the answer has no 'response'")
        _check_failed(response, self._meter, self._quirks)
        for index, item in enumerate(_list(response, "output")):
            if index not in self._ended:
                self._end_item(item, index)
        _meter_end(self._meter, response, self._quirks)
        self.finishes[0] = self._meter.finish_reason or ""
        return Mark.END

    def item_added(self, payload: Body) -> Mark:
        item, index = payload.get("item"), _number(payload, "output_index")
        match kind_of(item):
            case "function_call" if isinstance(item, dict):
                return self._call(item, index)
            case "message" | "reasoning":
                return Mark.OTHER
            case kind:  # a tool of the provider's own has begun to work
                _drop(self._meter, kind)
                self._meter.content_started = True
                return Mark.CONTENT

    def item_done(self, payload: Body) -> Mark:
        return self._end_item(payload.get("item"), _number(payload, "output_index"))

    def text(self, payload: Body) -> Mark:
        logprobs = tuple(_read_logprobs(payload.get("logprobs")))
        return self._content(Delta(text=_said(payload, "delta"), key=_part_key(payload), logprobs=logprobs))

    def refusal(self, payload: Body) -> Mark:
        return self._content(Delta(kind="refusal", text=_said(payload, "delta"), key=_part_key(payload)))

    def annotation(self, payload: Body) -> Mark:
        citations = _citations([payload.get("annotation")], self._meter)
        return self._content(Delta(key=_part_key(payload), citations=citations))

    def thought(self, payload: Body) -> Mark:
        return self._content(
            Delta(kind="reasoning", text=_said(payload, "delta"), key=_number(payload, "output_index"), origin=HOME)
        )

    def summary_part(self, payload: Body) -> Mark:
        """Another paragraph of what was thought."""
        index = _number(payload, "output_index")
        if _number(payload, "summary_index") == 0 or ("reasoning", index) not in self._seen:
            return Mark.OTHER
        return self._content(Delta(kind="reasoning", text="\n\n", key=index, origin=HOME))

    def arguments(self, payload: Body) -> Mark:
        delta = Delta(kind="tool_call", text=_said(payload, "delta"), key=_number(payload, "output_index"))
        return self._content(delta)

    def other_content(self, payload: Body) -> Mark:
        """Pieces of what no other dialect can be told, such as the code of an interpreter."""
        self._meter.output_bytes += neutral.text_bytes(payload.get("delta"))
        self._meter.content_started = True
        return Mark.CONTENT

    def _call(self, item: Body, index: int) -> Mark:
        self._begun.add(index)
        arguments = _said(item, "arguments")
        delta = Delta(kind="tool_call", text=arguments, key=index, id=_said(item, "call_id"), name=_said(item, "name"))
        return self._content(delta)

    def _end_item(self, item: object, index: int) -> Mark:
        """What of an item came in no piece, and that it is over."""
        self._ended.add(index)
        if not isinstance(item, dict):
            return Mark.OTHER
        mark = Mark.OTHER
        match item.get("type"):
            case "message":
                for at, part in enumerate(_list(item, "content")):
                    mark = max(mark, self._end_part(part, index * _PARTS_OF_AN_ITEM + at))
            case "reasoning":
                mark = self._end_reasoning(item, index)
            case "function_call":
                if index not in self._begun:
                    mark = self._call(item, index)
                elif ("tool_call", index) not in self._seen and (arguments := _said(item, "arguments")):
                    mark = self._content(Delta(kind="tool_call", text=arguments, key=index))
                self.deltas.append(Delta(kind="tool_call", key=index, last=True))
            case kind:
                _drop(self._meter, kind)
                self._meter.output_bytes += neutral.text_bytes(item)
                self._meter.content_started = True
                mark = Mark.CONTENT
        return mark

    def _end_part(self, part: object, key: int) -> Mark:
        mark = Mark.OTHER
        match kind_of(part):
            case "output_text" if isinstance(part, dict):
                if ("text", key) not in self._seen:
                    logprobs = tuple(_read_logprobs(part.get("logprobs")))
                    citations = _citations(_list(part, "annotations"), self._meter)
                    delta = Delta(text=_said(part, "text"), key=key, logprobs=logprobs, citations=citations)
                    mark = self._content(delta)
                self.deltas.append(Delta(key=key, last=True))
            case "refusal" if isinstance(part, dict):
                if ("refusal", key) not in self._seen:
                    delta = Delta(kind="refusal", text=_said(part, "refusal"), key=key)
                    mark = self._content(delta)
                self.deltas.append(Delta(kind="refusal", key=key, last=True))
        return mark

    def _end_reasoning(self, item: Body, index: int) -> Mark:
        thought = _reasoning(item)
        seen = ("reasoning", index) in self._seen
        text = "" if seen else thought.text
        if thought.redacted is not None and not seen:
            self._meter.content_started = True
            redacted = Delta(kind="reasoning", key=index, redacted=thought.redacted, origin=HOME, last=True)
            self.deltas.append(redacted)
            return Mark.CONTENT
        sealed = thought.signature or thought.redacted
        mark = Mark.OTHER
        if text or sealed:
            delta = Delta(kind="reasoning", text=text, signature=sealed, origin=HOME if sealed else None, key=index)
            mark = self._content(delta)
        self.deltas.append(Delta(kind="reasoning", key=index, last=True))
        return mark

    def _content(self, delta: Delta) -> Mark:
        """Something of a part, unless it is its empty beginning."""
        meter = self._meter
        if delta.text:
            self._seen.add((delta.kind, delta.key))
            meter.output_bytes += len(delta.text) if delta.text.isascii() else len(delta.text.encode())
        elif not (delta.name or delta.signature or delta.citations or delta.logprobs):
            return Mark.OTHER
        meter.content_started = True
        self.deltas.append(delta)
        return Mark.CONTENT


_EVENT_READERS: Mapping[str, Callable[[_Reader, Body], Mark]] = {
    "response.created": _Reader.begin,
    "response.in_progress": _Reader.begin,
    "response.queued": _Reader.begin,
    "response.output_item.added": _Reader.item_added,
    "response.output_item.done": _Reader.item_done,
    "response.output_text.delta": _Reader.text,
    "response.output_text.annotation.added": _Reader.annotation,
    "response.refusal.delta": _Reader.refusal,
    "response.reasoning_text.delta": _Reader.thought,
    "response.reasoning_summary_text.delta": _Reader.thought,
    "response.reasoning_summary_part.added": _Reader.summary_part,
    "response.function_call_arguments.delta": _Reader.arguments,
    "response.custom_tool_call_input.delta": _Reader.other_content,
    "response.code_interpreter_call_code.delta": _Reader.other_content,
    "response.mcp_call_arguments.delta": _Reader.other_content,
    "response.apply_patch_call_operation_diff.delta": _Reader.other_content,
    "response.shell_call_command.delta": _Reader.other_content,
    "response.completed": _Reader.end,
    "response.incomplete": _Reader.end,
    "response.failed": _Reader.end,
}


def _number(payload: Body, field: str) -> int:
    value = payload.get(field)
    return value if isinstance(value, int) else 0


def _part_key(payload: Body) -> int:
    return _number(payload, "output_index") * _PARTS_OF_AN_ITEM + _number(payload, "content_index")


def reader(meter: Meter, body: Body, quirks: Quirks) -> _Reader:
    return _Reader(meter, quirks)
