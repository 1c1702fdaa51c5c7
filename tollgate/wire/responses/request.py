"""The request that a provider gets: a client's own, passed on, or one written from the middle."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import msgspec

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
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from tollgate.wire.openai.shared import write_user
from tollgate.wire.openai.words import TIERS_WRITTEN
from tollgate.wire.responses.words import HOME, kind_of
from tollgate.wire.scope import Losses, NotCarried, Rule, Scope

stream_type = "text/event-stream"
MAX_CALL_ID_CHARS = 64
LEAST_OUTPUT_TOKENS = 16
OWN_ID = "tg"  # in the ids of items that tollgate has made: after `rs_`, `msg_`, `fc_`, `ctc_`

_SAMPLING = frozenset({"temperature", "top_p"})
_LOGPROBS = frozenset({"logprobs", "top_logprobs"})
_THINKERS = r"\b(o[134](-|$)|gpt-5(?!-chat)|codex)"

_SCOPE = Scope(
    fields=_SAMPLING
    | _LOGPROBS
    | {
        "format",
        "parallel_tool_calls",
        "service_tier",
        "thinking",
        "tool_choice",
        "tools",
        "user",
        "verbosity",
    },
    parts={
        "system": frozenset({Text}),
        "user": frozenset({Text, Image, Document, ToolResult}),  # no sound, unlike in chat completions
        "assistant": frozenset({Text, Refused, ToolCall}),
    },
    results=frozenset({Text, Image, Document}),
    image_sources=frozenset({"url", "data"}),
    document_sources=frozenset({"url", "data", "text"}),
    part_fields=frozenset({"detail", "name"}),
    origins=frozenset({HOME}),
    ranges={"temperature": (0, 2), "top_p": (0, 1)},
    least_output_tokens=LEAST_OUTPUT_TOKENS,
    # OpenAI's model guides, as for chat completions
    rules=(
        Rule(models=r"\bo[134](-|$)", lacks=_SAMPLING | _LOGPROBS),
        Rule(models=r"\bgpt-5(-(?!chat)|$)", lacks=_SAMPLING | _LOGPROBS),
        Rule(models=r"\bgpt-5\.\d", lacks=_SAMPLING | _LOGPROBS, thinking=True),
        Rule(models=r"\b(gpt-(3\.5|4)|chatgpt-4o|gpt-5-chat)", lacks=frozenset({"thinking"})),
    ),
)


@lru_cache(maxsize=64)
def scope(quirks: Quirks) -> Scope:
    return msgspec.structs.replace(_SCOPE, fields=(_SCOPE.fields | quirks.takes) - quirks.lacks)


def call_path(model: str, *, sent: Body, stream: bool, quirks: Quirks) -> str:
    return "/responses"


def request_headers(client_headers: Mapping[str, str]) -> dict[str, str]:
    return {}


def auth_headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"}


def pass_on(body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """Thoughts that other families' models had, or that nobody has sealed, would be refused."""
    sent = {field: value for field, value in body.items() if field not in fields.EXTENSION_FIELDS}
    sent["model"] = model
    if max_output_tokens is not None:
        sent["max_output_tokens"] = max_output_tokens
    items = body.get("input")
    if isinstance(items, list) and any(_is_foreign(item) for item in items):
        losses.drop("input[].reasoning")
        sent["input"] = [item for item in items if not _is_foreign(item)]
    return sent


def _is_foreign(item: object) -> bool:
    if kind_of(item) != "reasoning" or not isinstance(item, dict):
        return False
    sealed = item.get("encrypted_content")
    if isinstance(sealed, str) and sealed:
        return neutral.untagged(sealed, HOME)[1] != HOME
    return str(item.get("id")).startswith(f"rs_{OWN_ID}")


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """Nothing is kept by the provider, so what a model that thinks has thought is asked for in a form to hand back."""
    thinks = re.search(_THINKERS, model) is not None
    cap = prompt.max_output_tokens if max_output_tokens is None else max_output_tokens
    include = ["reasoning.encrypted_content"] if thinks else []
    include += ["message.output_text.logprobs"] if prompt.logprobs else []
    text: Body = {}
    if prompt.format is not None:
        text["format"] = _write_format(prompt.format)
    if prompt.verbosity is not None:
        text["verbosity"] = prompt.verbosity
    sent: Body = {
        "model": model,
        "input": _write_input(prompt.turns, losses),
        "store": False,
        "include": include or None,
        "max_output_tokens": cap,
        "tools": [_write_tool(tool) for tool in prompt.tools] or None,
        "tool_choice": _write_tool_choice(prompt.tool_choice),
        "parallel_tool_calls": prompt.parallel_tool_calls,
        "text": text or None,
        "reasoning": _write_thinking(prompt),
        "top_logprobs": prompt.top_logprobs,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "service_tier": None if prompt.service_tier is None else TIERS_WRITTEN[prompt.service_tier],
        "user": None if prompt.user is None else write_user(prompt.user),
        "stream": prompt.stream or None,
    }
    return {field: value for field, value in sent.items() if value is not None}


def _write_input(turns: Iterable[Turn], losses: Losses) -> list[Body]:
    """Results, thoughts and calls are items of their own; what was said between them is a message."""
    items: list[Body] = []
    for turn in turns:
        said: list[Body] = []
        for part in turn.parts:
            if isinstance(part, ToolCall | ToolResult | Reasoning):
                items += _message(turn, said)
                said = []
                items.append(_write_item(part, losses))
            else:
                said.append(_write_part(part, losses))
        items += _message(turn, said)
    return items


def _message(turn: Turn, said: list[Body]) -> list[Body]:
    """Of the assistant one for each text: parts would have to come with the ids that the provider once gave them."""
    if not said:
        return []
    if turn.role == "assistant":
        return [{"role": turn.role, "content": part["text"]} for part in said]
    if len(said) == 1 and said[0].keys() == {"type", "text"}:
        return [{"role": turn.role, "content": said[0]["text"]}]
    return [{"role": turn.role, "content": said}]


def _write_item(part: ToolCall | ToolResult | Reasoning, losses: Losses) -> Body:
    match part:
        case ToolCall():
            arguments = part.arguments or "{}"
            return {"type": "function_call", "call_id": call_id(part.id), "name": part.name, "arguments": arguments}
        case ToolResult():
            shown = [_write_part(inner, losses) for inner in part.parts]
            plain = all(inner["type"] == "input_text" for inner in shown)
            output = "\n".join(inner["text"] for inner in shown) if plain else shown
            return {"type": "function_call_output", "call_id": call_id(part.call_id), "output": output}
        case _:
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            return {"type": "reasoning", "summary": summary, "encrypted_content": part.redacted or part.signature}


_CALL_ID = re.compile(r"[\w\-.:]+", re.ASCII)


def call_id(id: str) -> str:
    return neutral.safe_id(id, allowed=_CALL_ID, longest=MAX_CALL_ID_CHARS)


def _write_part(part: Part, losses: Losses) -> Body:
    match part:
        case Text() | Refused():
            return {"type": "input_text", "text": part.text}
        case Image():
            image = part.url or f"data:{part.media_type or 'image/png'};base64,{part.data}"
            return {"type": "input_image", "image_url": image, "detail": part.detail or "auto"}
        case Document() if part.text is not None:
            return {"type": "input_text", "text": neutral.document_text(part)}
        case Document() if part.url is not None:
            if part.name is not None:  # the address names the file
                losses.drop(part.path, "name")
            return {"type": "input_file", "file_url": part.url}
        case Document():
            data = f"data:{part.media_type or 'application/pdf'};base64,{part.data}"
            return {"type": "input_file", "filename": part.name or "document.pdf", "file_data": data}
        case _:
            raise NotCarried(part.path)


def _write_tool(tool: Tool) -> Body:
    """`strict` is said always: left out it would mean true here, and false in the dialects that this comes from."""
    written: Body = {
        "type": "function",
        "name": tool.name,
        "parameters": tool.schema or {"type": "object", "properties": {}},
        "strict": bool(tool.strict),
    }
    return written if tool.description is None else {**written, "description": tool.description}


def _write_tool_choice(choice: ToolChoice | None) -> str | Body | None:
    if choice is None:
        return None
    if choice.mode == "required" and len(choice.names) == 1:
        return {"type": "function", "name": choice.names[0]}
    if choice.names:
        tools = [{"type": "function", "name": name} for name in choice.names]
        return {"type": "allowed_tools", "mode": choice.mode, "tools": tools}
    return choice.mode


def _write_format(format: Format) -> Body:
    if format.schema is None:
        return {"type": "json_object"}
    written = {
        "type": "json_schema",
        "name": format.name or "answer",
        "schema": format.schema,
        "strict": bool(format.strict),
        "description": format.description,
    }
    return {field: value for field, value in written.items() if value is not None}


def _write_thinking(prompt: Prompt) -> Body | None:
    thinking = prompt.thinking
    if thinking is None:
        return None
    effort = neutral.effort_of(thinking)
    written: Body = {} if effort is None else {"effort": effort}
    return written if thinking.visible is False or thinking.off else {**written, "summary": "auto"}
