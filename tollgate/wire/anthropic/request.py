"""The request that a provider gets: a client's own, passed on, or one written from the middle."""

import re
from collections.abc import Mapping

import msgspec

from tollgate.wire import Body, Quirks, fields, neutral
from tollgate.wire.anthropic.words import CHOICES_WRITTEN, HOME, TIERS_WRITTEN
from tollgate.wire.content import (
    Document,
    Effort,
    Image,
    Part,
    Prompt,
    Reasoning,
    Refused,
    Text,
    Thinking,
    Tier,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from tollgate.wire.scope import Losses, NotCarried, Rule, Scope

stream_type = "text/event-stream"
forwarded_headers: tuple[str, ...] = ("anthropic-version", "anthropic-beta")
VERSION = "2023-06-01"  # of the requests that are written here; a client of this dialect names its own
DEFAULT_MAX_TOKENS = 4096  # the protocol requires a cap: sent when neither the client nor a budget has set one
MIN_BUDGET_TOKENS = 1024  # of thinking, by the API reference
MAX_CALL_ID_CHARS = 256

# Which models think how, and what else they take, by the provider's pages on models, thinking and migration. The
# numbers are written with dashes by Anthropic and with points by routers.
_NEWEST = r"claude-((opus|sonnet|haiku)-([5-9]|4[-.][7-9])|fable|mythos)"
_ADAPTIVE = rf"{_NEWEST}|claude-(opus|sonnet)-4[-.]6"
_THOUGHTLESS = r"claude-(2|instant|3-(opus|sonnet|haiku)|3[-.]5)"
_FORMATLESS = rf"{_THOUGHTLESS}|claude-3[-.]7|claude-(opus|sonnet)-4(-0|-20\d+|@\d+)?$"

MODEL_RULES = (
    Rule(models=_NEWEST, lacks=frozenset({"temperature", "top_p", "top_k"})),
    Rule(models=r"claude-(opus-4[-.][1-6]|sonnet-4[-.][56]|haiku-4[-.]5)", either=(("temperature", "top_p"),)),
    Rule(models=r"claude", thinking=True, lacks=frozenset({"temperature", "top_p", "top_k"})),
    Rule(models=_THOUGHTLESS, lacks=frozenset({"thinking"})),
    Rule(models=_FORMATLESS, lacks=frozenset({"format"})),
)

_SCOPE = Scope(
    fields=frozenset(
        {
            "format",
            "parallel_tool_calls",
            "service_tier",
            "stop",
            "temperature",
            "thinking",
            "tool_choice",
            "tools",
            "top_k",
            "top_p",
            "user",
        }
    ),
    parts={
        "system": frozenset({Text}),
        "user": frozenset({Text, Image, Document, ToolResult}),
        "assistant": frozenset({Text, Refused, ToolCall}),
    },
    results=frozenset({Text, Image, Document}),
    image_sources=frozenset({"url", "data"}),
    document_sources=frozenset({"url", "data", "text"}),
    part_fields=frozenset({"cache", "name", "context", "cite", "is_error"}),
    origins=frozenset({HOME}),
    ranges={"temperature": (0, 1), "top_p": (0, 1)},
    least_output_tokens=0,  # with none, it reads the prompt into its cache
    max_tool_name_chars=128,
    rules=MODEL_RULES,
)


def scope(quirks: Quirks) -> Scope:
    return _SCOPE


def call_path(model: str, *, sent: Body, stream: bool, quirks: Quirks) -> str:
    return quirks.call_path("/v1/messages", model)


def request_headers(client_headers: Mapping[str, str]) -> dict[str, str]:
    return {"anthropic-version": VERSION} | {
        header: client_headers[header] for header in forwarded_headers if header in client_headers
    }


def auth_headers(api_key: str) -> dict[str, str]:
    return {"x-api-key": api_key}


def pass_on(body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """Thoughts that other families' models had, and that this client was given as blocks, would be refused."""
    sent = {field: value for field, value in body.items() if field not in fields.EXTENSION_FIELDS}
    sent["model"] = model
    if max_output_tokens is not None:
        sent["max_tokens"] = max_output_tokens
    if any(_is_foreign(block) for message in body["messages"] for block in _blocks(message)):
        losses.drop("messages[].content[].thinking")
        sent["messages"] = [kept for message in body["messages"] if (kept := _without_foreign(message)) is not None]
        thinking = body.get("thinking")
        if isinstance(thinking, dict) and thinking.get("type") == "enabled":  # it would miss the thoughts before calls
            losses.drop("thinking")
            del sent["thinking"]
    return sent


def _blocks(message: Body) -> list[object]:
    content = message.get("content")
    return content if message.get("role") == "assistant" and isinstance(content, list) else []


def _is_foreign(block: object) -> bool:
    """A thought that Claude has not signed."""
    if not isinstance(block, dict) or block.get("type") not in ("thinking", "redacted_thinking"):
        return False
    signature = block.get("signature" if block["type"] == "thinking" else "data")
    return not signature or (isinstance(signature, str) and neutral.untagged(signature, HOME)[1] != HOME)


def _without_foreign(message: Body) -> Body | None:
    """None where nothing else was said."""
    blocks = _blocks(message)
    kept = [block for block in blocks if not _is_foreign(block)]
    if len(kept) == len(blocks):
        return message
    return {**message, "content": kept} if kept else None


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """System texts go to the top level in their order, neighbours of one role become one message, and blank texts,
    which the protocol refuses, are left out."""
    messages = _write_messages(prompt.turns)
    if not messages:
        raise NotCarried("messages", "has no text of a user, which the Anthropic protocol requires")
    format = prompt.format
    if format is not None and format.schema is None:
        raise NotCarried("format", "asks for JSON without a schema, which the Anthropic protocol cannot be asked for")
    cap = next(cap for cap in (max_output_tokens, prompt.max_output_tokens, DEFAULT_MAX_TOKENS) if cap is not None)
    system = [
        write_block(part)
        for turn in prompt.turns
        if turn.role == "system"
        for part in turn.parts
        if not _is_blank(part)
    ]
    sent: Body = {
        "model": model,
        "max_tokens": cap,
        "system": _plain(system) if system else None,
        "messages": messages,
        "tools": [_write_tool(tool) for tool in neutral.callable_tools(prompt)] or None,
        "tool_choice": _write_tool_choice(prompt),
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "top_k": prompt.top_k,
        "stop_sequences": [stop for stop in prompt.stop if stop.strip()] or None,
        "metadata": None if prompt.user is None else {"user_id": prompt.user},
        "service_tier": _write_tier(prompt.service_tier, losses),
        "stream": prompt.stream or None,
    }
    config: Body = {}
    if format is not None:
        config["format"] = {"type": "json_schema", "schema": neutral.described_schema(format)}
    if prompt.thinking is not None:
        write_thinking(prompt, prompt.thinking, model, cap, sent, config, losses)
    if config:
        sent["output_config"] = config
    return {field: value for field, value in sent.items() if value is not None}


def write_thinking(
    prompt: Prompt, thinking: Thinking, model: str, cap: int, sent: Body, config: Body, losses: Losses
) -> None:
    """Models from 4.6 on decide for themselves and take an effort; those before want a budget, which must be below the
    cap, and thoughts before every call that they are shown."""
    if thinking.off:
        return
    if prompt.tool_choice is not None and prompt.tool_choice.mode == "required":  # a model that thinks decides itself
        losses.drop_field("thinking")
        return
    display = {} if thinking.visible is None else {"display": "summarized" if thinking.visible else "omitted"}
    if re.search(_ADAPTIVE, model):
        sent["thinking"] = {"type": "adaptive", **display}
        effort = _EFFORTS.get(neutral.effort_of(thinking) or "")
        if effort is not None:
            config["effort"] = effort
        return
    budget = min(max(neutral.budget_of(thinking, cap), MIN_BUDGET_TOKENS), cap - 1)
    if budget < MIN_BUDGET_TOKENS or _has_thoughtless_call(prompt.turns):
        losses.drop_field("thinking")
        return
    sent["thinking"] = {"type": "enabled", "budget_tokens": budget, **display}


_EFFORTS: Mapping[str, Effort] = {
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "xhigh",
    "max": "max",
}


def _has_thoughtless_call(turns: tuple[Turn, ...]) -> bool:
    """Is there, since the user last spoke, a call without the thoughts that led to it?"""
    since: list[Part] = []
    for turn in turns:
        if turn.role == "user" and any(not isinstance(part, ToolResult) for part in turn.parts):
            since = []
        elif turn.role == "assistant":
            since += turn.parts
    called = any(isinstance(part, ToolCall) for part in since)
    return called and not isinstance(since[0], Reasoning)


def _write_messages(turns: tuple[Turn, ...]) -> list[Body]:
    spoken = [
        msgspec.structs.replace(turn, parts=tuple(part for part in turn.parts if not _is_blank(part))) for turn in turns
    ]
    return [
        {"role": turn.role, "content": _plain([write_block(part) for part in turn.parts])}
        for turn in neutral.alternating(spoken)
    ]


def _is_blank(part: Part) -> bool:
    return isinstance(part, Text | Refused) and not part.text.strip()


def _plain(blocks: list[Body]) -> str | list[Body]:
    """A string where it says the same."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks


CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")  # as the API reference has it


def call_id(id: str) -> str:
    return neutral.safe_id(id, allowed=CALL_ID, longest=MAX_CALL_ID_CHARS)


def write_block(part: Part) -> Body:
    match part:
        case Text() | Refused():
            block: Body = {"type": "text", "text": part.text}
        case Image():
            block = {"type": "image", "source": _write_image(part)}
        case Document():
            block = _write_document(part)
        case ToolCall():
            arguments = neutral.arguments_object(part.arguments)
            block = {"type": "tool_use", "id": call_id(part.id), "name": part.name, "input": arguments}
        case ToolResult():
            block = {"type": "tool_result", "tool_use_id": call_id(part.call_id)}
            if shown := [write_block(inner) for inner in part.parts if not _is_blank(inner)]:
                block["content"] = _plain(shown)
            if part.is_error:
                block["is_error"] = True
        case Reasoning() if part.redacted is not None:
            return {"type": "redacted_thinking", "data": part.redacted}
        case Reasoning():
            return {"type": "thinking", "thinking": part.text, "signature": part.signature or ""}
        case _:
            raise NotCarried(part.path)
    if part.cache is not None:
        block["cache_control"] = {"type": "ephemeral"} | ({"ttl": "1h"} if part.cache.ttl in LONG else {})
    return block


LONG = frozenset({"30m", "1h", "12h", "24h"})  # what five minutes would not cover


_IMAGES = frozenset({"image/gif", "image/jpeg", "image/png", "image/webp"})


def _write_image(part: Image) -> Body:
    if part.url is not None:
        return {"type": "url", "url": part.url}
    media_type = (part.media_type or "image/png").lower()
    media_type = "image/jpeg" if media_type == "image/jpg" else media_type
    if media_type not in _IMAGES:
        raise NotCarried(part.path, "is no image that Anthropic takes: png, jpeg, gif and webp it does")
    return {"type": "base64", "media_type": media_type, "data": part.data}


def _write_document(part: Document) -> Body:
    block: Body = {"type": "document"}
    if part.text is not None:
        block["source"] = {"type": "text", "media_type": "text/plain", "data": part.text}
    elif part.url is not None:
        block["source"] = {"type": "url", "url": part.url}
    else:
        block["source"] = _write_file(part)
    if part.name is not None:
        block["title"] = part.name
    if part.context is not None:
        block["context"] = part.context
    if part.cite:
        block["citations"] = {"enabled": True}
    return block


def _write_file(part: Document) -> Body:
    """Files are PDF or plain text: a table or a page goes as the text that it is."""
    media_type = (part.media_type or "application/pdf").partition(";")[0].lower()
    if media_type == "application/pdf":
        return {"type": "base64", "media_type": media_type, "data": part.data}
    text = neutral.text_of(part.data or "") if media_type.startswith("text/") or media_type in _TEXTS else None
    if text is None:
        raise NotCarried(
            part.path, f"is a document of a kind that Anthropic does not take: {media_type}; PDF and texts it does"
        )
    return {"type": "text", "media_type": "text/plain", "data": text}


_TEXTS = frozenset({"application/json", "application/xml", "application/yaml", "application/x-yaml"})


def _write_tool(tool: Tool) -> Body:
    written: Body = {"name": tool.name, "input_schema": tool.schema or {"type": "object", "properties": {}}}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict is not None:
        written["strict"] = tool.strict
    if tool.cache is not None:
        written["cache_control"] = {"type": "ephemeral"} | ({"ttl": "1h"} if tool.cache.ttl in LONG else {})
    return written


def _write_tool_choice(prompt: Prompt) -> Body | None:
    choice = prompt.tool_choice
    if choice is None and prompt.parallel_tool_calls is not False:
        return None
    choice = choice or ToolChoice("auto")
    written: Body = {"type": CHOICES_WRITTEN[choice.mode]}
    if choice.mode == "required" and len(choice.names) == 1:
        written = {"type": "tool", "name": choice.names[0]}
    if prompt.parallel_tool_calls is False and choice.mode != "none":
        written["disable_parallel_tool_use"] = True
    return written


def _write_tier(tier: Tier | None, losses: Losses) -> str | None:
    if tier is not None and tier not in TIERS_WRITTEN:
        losses.drop_field("service_tier")
    return None if tier is None else TIERS_WRITTEN.get(tier)
