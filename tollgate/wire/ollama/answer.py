"""What a provider answers, whole and in lines, and what it used."""

from tollgate.errors import ProviderError
from tollgate.events import Usage
from tollgate.wire import Body, Meter, Quirks, failures, neutral
from tollgate.wire.content import Choice, Delta, Part, Reasoning, Text, ToolCall
from tollgate.wire.failures import unreadable
from tollgate.wire.logprobs import read_logprobs
from tollgate.wire.neutral import Mark, parse, tokens
from tollgate.wire.sse import MAX_EVENT_BYTES, Event


def read_usage(answer: Body) -> Usage | None:
    """The counts of a line that ends an answer."""
    prompt, output = tokens(answer, "prompt_eval_count"), tokens(answer, "eval_count")
    if prompt is None and output is None:
        return None
    return Usage(input_tokens=prompt or 0, output_tokens=output or 0)


_COUNTS = (
    "prompt_eval_count",
    "eval_count",
    "total_duration",
    "load_duration",
    "prompt_eval_duration",
    "eval_duration",
)


def _meter_end(meter: Meter, line: Body) -> None:
    usage = read_usage(line)
    if usage is not None:
        meter.usage = usage
        meter.usage_raw = neutral.compact({name: line[name] for name in _COUNTS if name in line})
    reason = line.get("done_reason")
    meter.finish_reason = reason if isinstance(reason, str) and reason else "stop"


def _meter_model(meter: Meter, line: Body) -> None:
    model = line.get("model")
    if isinstance(model, str) and model:
        meter.served_model = model


def _message(line: Body) -> Body | None:
    """What was said: `/api/generate` has it a level higher, and calls the text `response`."""
    if isinstance(line.get("response"), str):
        return {"content": line["response"], "thinking": line.get("thinking")}
    message = line.get("message")
    return message if isinstance(message, dict) else None


def _logprobs(line: Body) -> tuple[Body, ...]:
    return read_logprobs(line.get("logprobs"))


def read_answer(answer: Body, meter: Meter, quirks: Quirks) -> None:
    if answer.get("error"):
        raise failures.inband_error(answer)
    message = _message(answer)
    if message is None:
        raise unreadable("it has no 'message'")
    meter.output_bytes += neutral.text_bytes(message)
    _meter_model(meter, answer)
    _meter_end(meter, answer)


def answer_choices(answer: Body, meter: Meter) -> tuple[Choice, ...]:
    deltas = _deltas(_message(answer) or {}, 0)
    parts: list[Part] = []
    for delta in deltas:
        match delta.kind:
            case "reasoning":
                parts.append(Reasoning(text=delta.text))
            case "text":
                parts.append(Text(text=delta.text))
            case _:
                parts.append(ToolCall(id=delta.id, name=delta.name, arguments=delta.text))
    return (Choice(parts=tuple(parts), finish=meter.finish_reason, logprobs=_logprobs(answer)),)


def _deltas(message: Body, calls_before: int, logprobs: tuple[Body, ...] = ()) -> list[Delta]:
    """Thoughts, text and calls of a message or of a piece of one, in this order."""
    deltas: list[Delta] = []
    thoughts, text, calls = (message.get(field) for field in ("thinking", "content", "tool_calls"))
    if isinstance(thoughts, str) and thoughts:
        deltas.append(Delta(kind="reasoning", text=thoughts))
    if isinstance(text, str) and text:
        deltas.append(Delta(text=text, logprobs=logprobs))
    for number, call in enumerate(calls if isinstance(calls, list) else (), calls_before):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise unreadable("a tool call has no function")
        name, arguments, id = function.get("name"), function.get("arguments"), call.get("id")
        deltas.append(
            Delta(
                kind="tool_call",
                key=number,
                id=id if isinstance(id, str) else "",
                name=name if isinstance(name, str) else "",
                text=arguments if isinstance(arguments, str) else neutral.compact(arguments or {}),
                last=True,
            )
        )
    return deltas


class _Lines:
    """Cuts a stream into lines, each of which is an event."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises `ProviderError` when one grows past `MAX_EVENT_BYTES`."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ProviderError("server_error", f"the provider sent a line of more than {MAX_EVENT_BYTES} bytes")
        return [Event(line + b"\n", line.strip()) for line in lines if line.strip()]

    def close(self) -> Event | None:
        """A last line without an end."""
        rest, self._rest = self._rest.strip(), b""
        return Event(rest, rest) if rest else None


def splitter() -> _Lines:
    return _Lines()


class _Reader:
    """Lines of a stream; the one that is `done` is the last."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._calls = 0
        self.deltas: list[Delta] = []
        self.finishes: dict[int, str] = {}

    def read(self, event: Event) -> Mark:
        self.deltas = []
        line = parse(event.data)
        if line.get("error"):
            raise failures.inband_error(line)
        meter = self._meter
        _meter_model(meter, line)
        message = _message(line)
        if message is not None:
            self.deltas = _deltas(message, self._calls, _logprobs(line))
            self._calls += sum(delta.kind == "tool_call" for delta in self.deltas)
            meter.output_bytes += sum(len(delta.text.encode()) for delta in self.deltas)
            meter.content_started = meter.content_started or bool(self.deltas)
        if line.get("done") is True:
            _meter_end(meter, line)
            self.finishes[0] = meter.finish_reason or ""
            return Mark.END
        return Mark.CONTENT if self.deltas else Mark.OTHER


def reader(meter: Meter, body: Body, quirks: Quirks) -> _Reader:
    return _Reader(meter)
