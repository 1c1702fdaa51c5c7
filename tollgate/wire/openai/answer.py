"""A provider's answer, whole or chunk by chunk, as parts of the middle and figures of the meter."""

import msgspec

from tollgate.errors import ProviderError
from tollgate.wire import Body, Meter, Quirks, failures, neutral, sse
from tollgate.wire.content import Choice, Citation, Delta, Part, Reasoning, Refused, Text, ToolCall
from tollgate.wire.failures import unreadable
from tollgate.wire.logprobs import read_logprobs
from tollgate.wire.neutral import Mark, parse
from tollgate.wire.openai.thoughts import google_signature
from tollgate.wire.openai.usage import meter_usage
from tollgate.wire.openai.words import DONE, FORMATS


def read_answer(answer: Body, meter: Meter, quirks: Quirks) -> None:
    _meter_model(meter, answer)
    meter_usage(meter, answer, answer.get("usage"), quirks)  # first: what failed may have cost all the same
    if answer.get("error"):  # sent with a 200 by some routers
        raise failures.inband_error(answer)
    choices = answer.get("choices")
    if not isinstance(choices, list):
        raise unreadable("it has no 'choices'")
    for choice in choices:
        if not isinstance(choice, dict):
            raise unreadable("a choice is not an object")
        meter.output_bytes += neutral.text_bytes(choice.get("message"))
        _meter_finish(meter, choice.get("finish_reason"))


def answer_choices(answer: Body, meter: Meter) -> tuple[Choice, ...]:
    _meter_sources(answer, meter)
    return tuple(_answer_choice(choice, meter) for choice in answer["choices"])


def _answer_choice(choice: Body, meter: Meter) -> Choice:
    message = choice.get("message")
    finish = choice.get("finish_reason")
    return Choice(
        parts=() if not isinstance(message, dict) else _answer_parts(message, meter),  # Azure's filter leaves it out
        finish=finish if isinstance(finish, str) else None,
        logprobs=_logprobs(choice),
    )


def _answer_parts(message: Body, meter: Meter) -> tuple[Part, ...]:
    """Parts of an answer: deltas of a stream that has but one event, put together."""
    deltas: list[Delta] = []
    calls = _Calls()
    for field, value in message.items():
        if value and field != "role":
            _read_deltas(field, value, message, 0, calls, meter, deltas)
    parts: dict[tuple[str, int], Part] = {}
    for delta in deltas:
        key = (delta.kind, delta.key)
        parts[key] = _grown(parts.get(key), delta)
    order = ("reasoning", "text", "refusal", "tool_call")
    return tuple(part for _, part in sorted(parts.items(), key=lambda item: order.index(item[0][0])))


def _grown(part: Part | None, delta: Delta) -> Part:
    match part:
        case None if delta.kind == "text":
            return Text(text=delta.text, citations=delta.citations)
        case None if delta.kind == "refusal":
            return Refused(text=delta.text)
        case None if delta.kind == "reasoning":
            return Reasoning(text=delta.text, signature=delta.signature, redacted=delta.redacted, origin=delta.origin)
        case None:
            return ToolCall(
                id=delta.id,
                name=delta.name,
                arguments=delta.text,
                signature=delta.signature,
                origin=delta.origin,
            )
        case Text():
            return msgspec.structs.replace(
                part, text=part.text + delta.text, citations=part.citations + delta.citations
            )
        case Reasoning():
            return msgspec.structs.replace(
                part,
                text=part.text + delta.text,
                signature=delta.signature or part.signature,
                origin=part.origin or delta.origin,
            )
        case _:
            return part


def _meter_finish(meter: Meter, reason: object) -> None:
    if reason == "error":
        raise ProviderError("server_error", "the provider ended its answer with an error")
    if isinstance(reason, str) and reason:
        meter.finish_reason = reason


def _meter_model(meter: Meter, source: Body) -> None:
    model = source.get("model")
    if isinstance(model, str) and model:
        meter.served_model = model


def _meter_sources(source: Body, meter: Meter) -> None:
    """Perplexity's list of pages, beside the text that refers to them by number."""
    if source.get("citations") or source.get("search_results"):
        meter.dropped.add("citations")


class _Calls:
    """Tells the calls of a choice apart, by index or id: servers leave out either, or count all as 0."""

    def __init__(self) -> None:
        self._known: list[tuple[object, str]] = []  # index and id as given

    def key(self, fragment: Body, name: str) -> int:
        index, id = fragment.get("index"), fragment.get("id")
        id = id if isinstance(id, str) else ""
        for key in reversed(range(len(self._known))):
            known_index, known_id = self._known[key]
            if id and known_id and id != known_id:
                continue
            if index == known_index and (index is not None or id or not name):
                self._known[key] = (index, known_id or id)
                return key
        self._known.append((index, id))
        return len(self._known) - 1


def _read_deltas(
    field: str, value: object, message: Body, choice: int, calls: _Calls, meter: Meter, deltas: list[Delta]
) -> None:
    """What one field of a message or of its delta adds to the answer."""
    match field:
        case "content" if isinstance(value, str):
            deltas.append(Delta(text=value, choice=choice))
        case "content":
            _read_content_list(value, choice, meter, deltas)
        case "refusal" if isinstance(value, str):
            deltas.append(Delta(kind="refusal", text=value, choice=choice))
        case "reasoning_content" | "reasoning" if isinstance(value, str):
            twice = field == "reasoning" and message.get("reasoning_content")
            if not twice and not _details_have_text(message.get("reasoning_details")):
                deltas.append(Delta(kind="reasoning", text=value, choice=choice))
        case "reasoning_details" if isinstance(value, list):
            for at, detail in enumerate(value):
                _read_detail_delta(detail, at, choice, deltas)
        case "tool_calls" if isinstance(value, list):
            for call in value:
                _read_call_delta(call, choice, calls, deltas)
        case "function_call" if isinstance(value, dict):
            _read_call_delta({"index": "function_call", "function": value}, choice, calls, deltas)
        case "annotations" if isinstance(value, list):
            if citations := tuple(citation for one in value if (citation := _citation(one)) is not None):
                deltas.append(Delta(choice=choice, citations=citations))
        case "audio" | "images":
            meter.dropped.add(field)


def _details_have_text(details: object) -> bool:
    return isinstance(details, list) and any(
        isinstance(detail, dict) and (detail.get("text") or detail.get("summary")) for detail in details
    )


def _read_content_list(value: object, choice: int, meter: Meter, deltas: list[Delta]) -> None:
    """Mistral's form of an answer that holds thoughts."""
    for one in value if isinstance(value, list) else [value]:
        part: Body = one if isinstance(one, dict) else {}
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            deltas.append(Delta(text=part["text"], choice=choice))
        elif kind == "thinking":
            inner = part.get("thinking")
            text = "".join(
                piece["text"]
                for piece in (inner if isinstance(inner, list) else [])
                if isinstance(piece, dict) and isinstance(piece.get("text"), str)
            )
            deltas.append(Delta(kind="reasoning", text=inner if isinstance(inner, str) else text, choice=choice))
        else:
            meter.dropped.add(f"content[].{kind}" if isinstance(kind, str) else "content[]")


_ENCRYPTED_KEYS = 1 << 20  # where the keys of encrypted thoughts begin, apart from those of readable ones


def _read_detail_delta(detail: object, at: int, choice: int, deltas: list[Delta]) -> None:
    if not isinstance(detail, dict):
        return
    index = detail.get("index")
    key = index if isinstance(index, int) else at
    format = detail.get("format")
    origin = FORMATS.get(format) if isinstance(format, str) else None
    if detail.get("type") == "reasoning.encrypted":
        data = detail.get("data")
        if isinstance(data, str) and data and origin is not None:
            key += _ENCRYPTED_KEYS
            deltas.append(Delta(kind="reasoning", redacted=data, origin=origin, key=key, choice=choice, last=True))
        return
    text, signature = detail.get("text") or detail.get("summary"), detail.get("signature")
    text = text if isinstance(text, str) else ""
    signature = signature if isinstance(signature, str) and signature and origin is not None else None
    if text or signature:
        deltas.append(Delta(kind="reasoning", text=text, signature=signature, origin=origin, key=key, choice=choice))


def _read_call_delta(call: object, choice: int, calls: _Calls, deltas: list[Delta]) -> None:
    if not isinstance(call, dict):
        raise unreadable("a tool call is not an object")
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    name, arguments, id = function.get("name"), function.get("arguments"), call.get("id")
    if isinstance(arguments, dict):  # some servers forget to write it as text
        arguments = neutral.compact(arguments)
    name = name if isinstance(name, str) else ""
    signature = google_signature(call)
    deltas.append(
        Delta(
            kind="tool_call",
            text=arguments if isinstance(arguments, str) else "",
            key=calls.key(call, name),
            choice=choice,
            id=id if isinstance(id, str) else "",
            name=name,
            signature=signature,
            origin=None if signature is None else "google",
        )
    )


def _citation(annotation: object) -> Citation | None:
    found = annotation.get("url_citation") if isinstance(annotation, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        return None
    title, start, end = (found.get(field) for field in ("title", "start_index", "end_index"))
    return Citation(
        url=found["url"],
        title=title if isinstance(title, str) else "",
        start=start if isinstance(start, int) else None,
        end=end if isinstance(end, int) else None,
    )


def _logprobs(choice: Body) -> tuple[Body, ...]:
    found = choice.get("logprobs")
    entries = found.get("content") if isinstance(found, dict) else None
    return read_logprobs(entries)


def splitter() -> sse.Splitter:
    return sse.Splitter()


class _Reader:
    """Chunks of a stream. The answer is finished when as many choices are as were asked for."""

    def __init__(self, meter: Meter, choices: int, quirks: Quirks) -> None:
        self._meter = meter
        self._choices = choices
        self._quirks = quirks
        self._calls: dict[int, _Calls] = {}
        self.deltas: list[Delta] = []
        self.finishes: dict[int, str] = {}

    def read(self, event: sse.Event) -> Mark:
        self.deltas = []
        if not event.data:
            return Mark.OTHER
        if event.data == DONE:
            return Mark.END
        chunk = parse(event.data)
        meter = self._meter
        if meter.served_model is None:
            _meter_model(meter, chunk)
        usage = chunk.get("usage") or _groq_usage(chunk)
        if usage:
            meter_usage(meter, chunk, usage, self._quirks)
        if chunk.get("error"):
            raise failures.inband_error(chunk)
        _meter_sources(chunk, meter)
        choices = chunk.get("choices")
        if not choices:  # usage comes so; so does Azure's first chunk, with the verdict on the prompt
            return Mark.CLOSING if usage else Mark.OTHER
        if not isinstance(choices, list):
            raise unreadable("'choices' is not a list")
        mark = Mark.OTHER
        for choice in choices:
            mark = max(mark, self._read_choice(choice))
        return mark

    def _read_choice(self, choice: object) -> Mark:
        if not isinstance(choice, dict):
            raise unreadable("a choice is not an object")
        mark = Mark.OTHER
        number = choice.get("index")
        number = number if isinstance(number, int) else 0
        delta = choice.get("delta")
        if isinstance(delta, dict):
            for field, value in delta.items():
                if value and field != "role":
                    mark = Mark.CONTENT
                    self._read_content(field, value, delta, number)
        if logprobs := _logprobs(choice):
            self._add_logprobs(logprobs, number)
        reason = choice.get("finish_reason")
        if reason:
            _meter_finish(self._meter, reason)
            self.finishes[number] = reason if isinstance(reason, str) else ""
            if len(self.finishes) >= self._choices:
                mark = Mark.CLOSING
        return mark

    def _read_content(self, field: str, value: object, delta: Body, choice: int) -> None:
        meter = self._meter
        meter.content_started = True
        meter.output_bytes += neutral.text_bytes(value)
        if field == "content" and isinstance(value, str):  # by far the most
            self.deltas.append(Delta(text=value, choice=choice))
            return
        calls = self._calls.setdefault(choice, _Calls())
        _read_deltas(field, value, delta, choice, calls, meter, self.deltas)

    def _add_logprobs(self, logprobs: tuple[Body, ...], choice: int) -> None:
        for at, delta in enumerate(self.deltas):
            if delta.kind == "text" and delta.choice == choice:
                self.deltas[at] = msgspec.structs.replace(delta, logprobs=logprobs)
                return


def _groq_usage(chunk: Body) -> object:
    extra = chunk.get("x_groq")
    return extra.get("usage") if isinstance(extra, dict) else None


def reader(meter: Meter, body: Body, quirks: Quirks) -> _Reader:
    return _Reader(meter, body.get("n") or 1, quirks)
