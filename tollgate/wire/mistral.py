"""Mistral's chat: `POST /v1/chat/completions`. Close to OpenAI's, but for what stands here. Pure.

https://docs.mistral.ai/api. Ids of calls are nine letters or digits. Unknown fields are refused, so a request is
written from the middle and never passed on. Thoughts are parts of the content. Streams carry their usage unasked.
"""

import re
from collections.abc import Iterable, Mapping

import msgspec

from tollgate.errors import ProviderError
from tollgate.events import Dialect
from tollgate.wire import Body, Quirks, failures, neutral
from tollgate.wire.content import (
    Audio,
    Document,
    Finish,
    Image,
    Part,
    Prompt,
    Reasoning,
    Refused,
    Text,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from tollgate.wire.openai import (
    answer_choices,
    auth_headers,
    read_answer,
    reader,
    request_headers,
    splitter,
    stream_type,
)
from tollgate.wire.openai.request import write_call, write_format, write_tool
from tollgate.wire.scope import Losses, NotCarried, Rule, Scope

__all__ = [
    "answer_choices",
    "auth_headers",
    "call_path",
    "finish_words",
    "name",
    "provider_error",
    "read_answer",
    "reader",
    "request_headers",
    "scope",
    "splitter",
    "stream_type",
    "write_prompt",
]

name: Dialect = "mistral"

finish_words: Mapping[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
}

CALL_ID_CHARS = 9
_CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")
_THINKS_BY_MODE = r"magistral"  # models that take a mode instead of an effort

_SCOPE = Scope(
    fields=frozenset(
        {
            "format",
            "frequency_penalty",
            "n",
            "parallel_tool_calls",
            "presence_penalty",
            "seed",
            "stop",
            "temperature",
            "thinking",
            "tool_choice",
            "tools",
            "top_p",
        }
    ),
    parts={
        "system": frozenset({Text}),
        "user": frozenset({Text, Image, Document, Audio, ToolResult}),
        "assistant": frozenset({Text, Refused, ToolCall}),
    },
    results=frozenset({Text, Image, Document}),
    image_sources=frozenset({"url", "data"}),
    document_sources=frozenset({"url", "data", "text"}),
    part_fields=frozenset({"name"}),
    plain_reasoning=True,
    ranges={"temperature": (0, 1.5), "top_p": (0, 1), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)},
    rules=(Rule(models=r"codestral|devstral|ministral|open-|voxtral|pixtral", lacks=frozenset({"thinking"})),),
)


def scope(quirks: Quirks) -> Scope:
    return _SCOPE


def call_path(model: str, *, sent: Body, stream: bool, quirks: Quirks) -> str:
    return quirks.call_path("/chat/completions", model)


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """`prompt` has been fitted to the scope."""
    cap = prompt.max_output_tokens if max_output_tokens is None else max_output_tokens
    sent: Body = {
        "model": model,
        "messages": [message for turn in prompt.turns for message in _write_turn(turn)],
        "max_tokens": cap,
        "stop": list(prompt.stop) or None,
        "tools": [_write_tool(tool) for tool in neutral.callable_tools(prompt)] or None,
        "tool_choice": _write_tool_choice(prompt),
        "parallel_tool_calls": prompt.parallel_tool_calls,
        "response_format": write_format(prompt.format),
        "n": prompt.n if prompt.n > 1 else None,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "presence_penalty": prompt.presence_penalty,
        "frequency_penalty": prompt.frequency_penalty,
        "random_seed": prompt.seed,
        "stream": prompt.stream or None,
        **_write_thinking(prompt, model, losses),
    }
    return {field: value for field, value in sent.items() if value is not None}


def _write_thinking(prompt: Prompt, model: str, losses: Losses) -> Body:
    thinking = prompt.thinking
    if thinking is None:
        return {}
    if thinking.visible is False and not thinking.off:  # it shows what it thinks
        losses.drop_field("thinking.visible")
    if neutral.effort_of(thinking) in ("minimal", "low", "medium"):  # it thinks as much as it likes, or not
        losses.drop_field("thinking")
    if re.search(_THINKS_BY_MODE, model):
        return {} if thinking.off else {"prompt_mode": "reasoning"}
    return {"reasoning_effort": "none" if thinking.off else "high"}  # the two that its models know


def _write_tool_choice(prompt: Prompt) -> str | Body | None:
    choice = prompt.tool_choice
    if choice is None:
        return None
    if choice.mode == "required" and len(choice.names) == 1:
        return {"type": "function", "function": {"name": choice.names[0]}}
    return {"required": "any"}.get(choice.mode, choice.mode)


def _write_tool(tool: Tool) -> Body:
    """Here a function without arguments must say so."""
    return write_tool(tool if tool.schema else msgspec.structs.replace(tool, schema={"type": "object"}))


def _write_turn(turn: Turn) -> list[Body]:
    """Results of tools come before whatever else the user says in the same breath."""
    if turn.role == "assistant":
        return [_write_assistant(turn.parts)]
    results = [part for part in turn.parts if isinstance(part, ToolResult)]
    others = [part for part in turn.parts if not isinstance(part, ToolResult)]
    messages = [_write_result(result) for result in results]
    if others or not results:
        messages.append({"role": turn.role, "content": _write_content(others)})
    return messages


def _write_result(result: ToolResult) -> Body:
    message: Body = {"role": "tool", "tool_call_id": _call_id(result.call_id), "content": _write_content(result.parts)}
    return message | ({"name": result.name} if result.name else {})


def _write_assistant(parts: Iterable[Part]) -> Body:
    said = [part for part in parts if not isinstance(part, ToolCall)]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    message: Body = {"role": "assistant", "content": _write_content(said)}
    if calls:
        message["tool_calls"] = [write_call(call, id=_call_id(call.id)) for call in calls]
    return message


def _call_id(id: str) -> str:
    return neutral.safe_id(id, allowed=_CALL_ID, longest=CALL_ID_CHARS)


def _write_content(parts: Iterable[Part]) -> str | list[Body]:
    parts = list(parts)
    if all(isinstance(part, Text | Refused) for part in parts) and len(parts) <= 1:
        return "".join(part.text for part in parts if isinstance(part, Text | Refused))
    return [_write_part(part) for part in parts]


def _write_part(part: Part) -> Body:
    match part:
        case Text() | Refused():
            return {"type": "text", "text": part.text}
        case Reasoning():
            return {"type": "thinking", "thinking": [{"type": "text", "text": part.text}]}
        case Image():
            return {"type": "image_url", "image_url": part.url or _data_url(part.media_type or "image/png", part.data)}
        case Document() if part.text is not None:
            return {"type": "text", "text": neutral.document_text(part)}
        case Document():
            url = part.url or _data_url(part.media_type or "application/pdf", part.data)
            return {"type": "document_url", "document_url": url} | ({"document_name": part.name} if part.name else {})
        case Audio():
            return {"type": "input_audio", "input_audio": part.data}
        case _:
            raise NotCarried(part.path)


def _data_url(media_type: str, data: str | None) -> str:
    return f"data:{media_type};base64,{data}"


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return failures.provider_error(status, headers, body)
