"""What a provider is sent: a client's request passed on, or one written from the middle."""

from collections.abc import Mapping

from tollgate.wire import Body, Quirks, fields, neutral
from tollgate.wire.content import (
    Document,
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
from tollgate.wire.ollama.words import CAP, OPTIONS, is_generate
from tollgate.wire.scope import Losses, NotCarried, Scope

forwarded_headers: tuple[str, ...] = ()
stream_type = "application/x-ndjson"

_SCOPE = Scope(
    fields=frozenset(
        {
            "format",
            "frequency_penalty",
            "logprobs",
            "presence_penalty",
            "seed",
            "stop",
            "temperature",
            "thinking",
            "tool_choice",
            "tools",
            "top_k",
            "top_logprobs",
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


def scope(quirks: Quirks) -> Scope:
    return _SCOPE


def call_path(model: str, *, sent: Body, stream: bool, quirks: Quirks) -> str:
    return quirks.call_path("/api/generate" if is_generate(sent) else "/api/chat", model)


def request_headers(client_headers: Mapping[str, str]) -> dict[str, str]:
    return {}


def auth_headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"}


def pass_on(body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    sent = {field: value for field, value in body.items() if field not in fields.EXTENSION_FIELDS}
    sent["model"] = model
    if max_output_tokens is not None:
        sent["options"] = {**(sent.get("options") or {}), CAP: max_output_tokens}
    return sent


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """`prompt` has been fitted to the scope."""
    choice = prompt.tool_choice
    if choice is not None and choice.mode == "required":
        raise NotCarried("tool_choice", "asks for a call of a tool, which Ollama cannot be made to do")
    tools = () if choice is not None and choice.mode == "none" else neutral.callable_tools(prompt)
    options = {word: getattr(prompt, field) for field, word in OPTIONS.items()}
    options[CAP] = prompt.max_output_tokens if max_output_tokens is None else max_output_tokens
    options["stop"] = list(prompt.stop) or None
    sent: Body = {
        "model": model,
        "messages": [message for turn in prompt.turns for message in _write_turn(turn)],
        "tools": [_write_tool(tool, losses) for tool in tools] or None,
        "format": _write_format(prompt.format),
        "think": None if prompt.thinking is None else _write_thinking(prompt.thinking, losses),
        "logprobs": prompt.logprobs or None,
        "top_logprobs": prompt.top_logprobs,
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
        case Document() if part.text is not None:
            return neutral.document_text(part)
    return ""


def _write_tool(tool: Tool, losses: Losses) -> Body:
    if tool.strict:
        losses.drop(tool.path, "strict")
    function = {
        "name": tool.name,
        "description": tool.description or "",
        "parameters": tool.schema or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def _write_format(format: Format | None) -> str | Body | None:
    if format is None:
        return None
    return neutral.described_schema(format) or "json"


def _write_thinking(thinking: Thinking, losses: Losses) -> bool | str:
    """A level for models that know levels (gpt-oss); for all others any level is yes."""
    if thinking.off:
        return False
    if thinking.visible is False:  # it shows what it thinks
        losses.drop_field("thinking.visible")
    effort = neutral.effort_of(thinking)
    return {"minimal": "low", "low": "low", "medium": "medium"}.get(effort, "high") if effort is not None else True
