"""Ollama's own API: `POST /api/chat`. A stream is one JSON object per line, the last of which has the counts. Pure.

https://docs.ollama.com/api/chat. Calls have no ids, and come whole; the word for an answer that ends in them is `stop`.
A count that is missing where the answer is done is a zero: all of the prompt was cached.
"""

from collections.abc import Mapping

from tollgate.errors import ProviderError
from tollgate.events import Dialect, Usage
from tollgate.wire import Body, Meter, Quirks, failures, neutral
from tollgate.wire.content import (
    Choice,
    Delta,
    Document,
    Finish,
    Format,
    Image,
    Part,
    Prompt,
    Reasoning,
    Refused,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from tollgate.wire.failures import unreadable
from tollgate.wire.neutral import Mark, parse, tokens
from tollgate.wire.scope import Losses, NotCarried, Scope
from tollgate.wire.sse import MAX_EVENT_BYTES, Event

name: Dialect = "ollama"
stream_type = "application/x-ndjson"

finish_words: Mapping[str, Finish] = {"stop": "stop", "length": "length", "load": "stop", "unload": "stop"}

_SCOPE = Scope(
    fields=frozenset(
        {
            "format",
            "frequency_penalty",
            "presence_penalty",
            "seed",
            "stop",
            "temperature",
            "thinking",
            "tool_choice",
            "tools",
            "top_k",
            "top_p",
        }
    ),
    parts={
        "system": frozenset({Text}),
        "user": frozenset({Text, Image, Document, ToolResult}),
        "assistant": frozenset({Text, Refused, ToolCall}),
    },
    results=frozenset({Text, Image}),
    image_sources=frozenset({"data"}),
    document_sources=frozenset({"text"}),
    part_fields=frozenset({"name"}),
    plain_reasoning=True,
)

# Fields of `Prompt` → their names among Ollama's options
_OPTIONS = {
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "seed": "seed",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}


# Request ------------------------------------------------------------------------------------------------------------


def scope(quirks: Quirks) -> Scope:
    return _SCOPE


def call_path(model: str, *, stream: bool, quirks: Quirks) -> str:
    return quirks.call_path("/api/chat", model)


def request_headers(client_headers: Mapping[str, str]) -> dict[str, str]:
    return {}


def auth_headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"}


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """`prompt` has been fitted to the scope."""
    choice = prompt.tool_choice
    if choice is not None and choice.mode == "required":
        raise NotCarried("tool_choice", "asks for a call of a tool, which Ollama cannot be made to do")
    tools = () if choice is not None and choice.mode == "none" else neutral.callable_tools(prompt)
    options = {word: getattr(prompt, field) for field, word in _OPTIONS.items()}
    options["num_predict"] = prompt.max_output_tokens if max_output_tokens is None else max_output_tokens
    options["stop"] = list(prompt.stop) or None
    sent: Body = {
        "model": model,
        "messages": [message for turn in prompt.turns for message in _write_turn(turn)],
        "tools": [_write_tool(tool) for tool in tools] or None,
        "format": _write_format(prompt.format),
        "think": None if prompt.thinking is None else _write_thinking(prompt.thinking),
        "options": {word: value for word, value in options.items() if value is not None} or None,
        "stream": prompt.stream,  # it streams unless it is told not to
    }
    return {field: value for field, value in sent.items() if value is not None}


def _write_turn(turn: Turn) -> list[Body]:
    messages: list[Body] = []
    said: list[Part] = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            messages.append(_write_result(part))
        else:
            said.append(part)
    if said or not turn.parts:
        messages.append(_write_message(turn.role, said))
    return messages


def _write_message(role: str, parts: list[Part]) -> Body:
    message: Body = {"role": role, "content": "\n".join(_text(part) for part in parts if _text(part))}
    if images := [part.data for part in parts if isinstance(part, Image)]:
        message["images"] = images
    if thoughts := "".join(part.text for part in parts if isinstance(part, Reasoning)):
        message["thinking"] = thoughts
    if calls := [part for part in parts if isinstance(part, ToolCall)]:
        message["tool_calls"] = [
            {"function": {"name": call.name, "arguments": neutral.arguments_object(call.arguments)}} for call in calls
        ]
    return message


def _write_result(result: ToolResult) -> Body:
    message = _write_message("tool", list(result.parts))
    return message | ({"tool_name": result.name} if result.name else {})


def _text(part: Part) -> str:
    match part:
        case Text() | Refused():
            return part.text
        case Document(text=str(text)):
            title = f' title="{part.name}"' if part.name else ""
            return f"<document{title}>\n{text}\n</document>"
    return ""


def _write_tool(tool: Tool) -> Body:
    function = {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": tool.schema or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def _write_format(format: Format | None) -> str | Body | None:
    if format is None:
        return None
    return "json" if format.schema is None else format.schema


def _write_thinking(thinking: Thinking) -> bool | str:
    """A level for models that know levels (gpt-oss); for all others any level is yes."""
    if thinking.off:
        return False
    effort = neutral.effort_of(thinking)
    return {"minimal": "low", "low": "low", "medium": "medium"}.get(effort, "high") if effort is not None else True


# Answer -------------------------------------------------------------------------------------------------------------


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


def read_answer(answer: Body, meter: Meter, quirks: Quirks) -> None:
    if answer.get("error"):
        raise failures.inband_error(answer)
    message = answer.get("message")
    if not isinstance(message, dict):
        raise unreadable("it has no 'message'")
    meter.output_bytes += neutral.text_bytes(message)
    _meter_model(meter, answer)
    _meter_end(meter, answer)


def answer_choices(answer: Body, meter: Meter) -> tuple[Choice, ...]:
    deltas = _deltas(answer["message"], 0)
    parts: list[Part] = []
    for delta in deltas:
        match delta.kind:
            case "reasoning":
                parts.append(Reasoning(text=delta.text))
            case "text":
                parts.append(Text(text=delta.text))
            case _:
                parts.append(ToolCall(id=delta.id, name=delta.name, arguments=delta.text))
    return (Choice(parts=tuple(parts), finish=meter.finish_reason),)


def _deltas(message: Body, calls_before: int) -> list[Delta]:
    """Thoughts, text and calls of a message or of a piece of one, in this order."""
    deltas: list[Delta] = []
    thoughts, text, calls = (message.get(field) for field in ("thinking", "content", "tool_calls"))
    if isinstance(thoughts, str) and thoughts:
        deltas.append(Delta(kind="reasoning", text=thoughts))
    if isinstance(text, str) and text:
        deltas.append(Delta(text=text))
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
        message = line.get("message")
        if isinstance(message, dict):
            self.deltas = _deltas(message, self._calls)
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


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return failures.provider_error(status, headers, body)
