"""The request that Bedrock gets, written from the middle."""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import msgspec
import orjson

from tollgate.wire import Body, Quirks, neutral
from tollgate.wire.anthropic import request as claude
from tollgate.wire.anthropic.words import HOME
from tollgate.wire.content import (
    Cache,
    Document,
    Effort,
    Format,
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
    ToolResult,
    Turn,
)
from tollgate.wire.scope import Losses, NotCarried, Rule, Scope

stream_type = "application/vnd.amazon.eventstream"
MAX_CALL_ID_CHARS = 64
MAX_DOCUMENT_NAME_CHARS = 200
MAX_STOPS = 2500

_CLAUDE = "claude"
_NOVA = r"\bnova-2"
_GPT_OSS = r"gpt-oss"

_SCOPE = Scope(
    fields=frozenset(
        {"format", "service_tier", "stop", "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p"}
    ),
    parts={
        "system": frozenset({Text}),
        "user": frozenset({Text, Image, Document, ToolResult}),
        "assistant": frozenset({Text, Refused, ToolCall}),
    },
    results=frozenset({Text, Image, Document}),
    image_sources=frozenset({"data"}),
    document_sources=frozenset({"data", "text"}),
    part_fields=frozenset({"cache", "name", "context", "cite", "is_error"}),
    origins=frozenset({HOME}),
    ranges={"temperature": (0, 1), "top_p": (0, 1)},
    max_stops=MAX_STOPS,
    rules=(
        *claude.MODEL_RULES,
        Rule(models=rf"^(?!.*({_CLAUDE}|{_NOVA}|{_GPT_OSS}))", lacks=frozenset({"thinking"})),
        Rule(models=rf"^(?!.*({_CLAUDE}|\bnova))", lacks=frozenset({"top_k"})),
    ),
)


def scope(quirks: Quirks) -> Scope:
    return _SCOPE


def call_path(model: str, *, sent: Body, stream: bool, quirks: Quirks) -> str:
    """Names of models may be ARNs, with slashes and colons."""
    return f"/model/{quote(model, safe='')}/{'converse-stream' if stream else 'converse'}"


def request_headers(client_headers: Mapping[str, str]) -> dict[str, str]:
    return {}


def auth_headers(api_key: str) -> dict[str, str]:
    """A Bedrock API key; other credentials sign the request."""
    return {"authorization": f"Bearer {api_key}"}


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """`prompt` has been fitted to `scope`. Turns alternate; blank texts, which the protocol refuses, are left out.

    The protocol knows no choice of no tool, and wants tools wherever calls are in the conversation. So where no tool
    may be called, none is sent, and earlier calls and results become texts.
    """
    tools = () if prompt.tool_choice and prompt.tool_choice.mode == "none" else neutral.callable_tools(prompt)
    turns = prompt.turns if tools else _told(prompt.turns)
    messages = _write_messages(turns)
    if not messages:
        raise NotCarried("messages", "has no text of a user, which the Bedrock protocol requires")
    cap = prompt.max_output_tokens if max_output_tokens is None else max_output_tokens
    limits = {
        "maxTokens": cap,
        "temperature": prompt.temperature,
        "topP": prompt.top_p,
        "stopSequences": [stop for stop in prompt.stop if stop.strip()] or None,
    }
    system = [
        block
        for turn in turns
        if turn.role == "system"
        for part in turn.parts
        if not _is_blank(part)
        for block in write_blocks(part)
    ]
    sent: Body = {
        "messages": messages,
        "system": system or None,
        "inferenceConfig": {name: value for name, value in limits.items() if value is not None} or None,
        "toolConfig": _write_tools(tools, prompt) if tools else None,
        "outputConfig": _write_format(prompt.format, losses),
        "serviceTier": _write_tier(prompt.service_tier),
        "additionalModelRequestFields": _write_additional(prompt, model, cap, losses) or None,
    }
    return {field: value for field, value in sent.items() if value is not None}


# Messages -----------------------------------------------------------------------------------------------------------


def _told(turns: Iterable[Turn]) -> tuple[Turn, ...]:
    """Calls and results as the texts that tell of them."""
    return tuple(
        msgspec.structs.replace(turn, parts=tuple(told for part in turn.parts for told in _tell(part)))
        for turn in turns
    )


def _tell(part: Part) -> tuple[Part, ...]:
    match part:
        case ToolCall():
            return (Text(text=f"(I called the tool {part.name} with {part.arguments or '{}'}.)"),)
        case ToolResult():
            words = "failed" if part.is_error else "said"
            texts = "\n".join(inner.text for inner in part.parts if isinstance(inner, Text))
            shown = tuple(inner for inner in part.parts if not isinstance(inner, Text))
            return (Text(text=f"(The tool {part.name or ''} {words}: {texts})"), *shown)
        case _:
            return (part,)


def _write_messages(turns: Iterable[Turn]) -> list[Body]:
    spoken = [
        msgspec.structs.replace(turn, parts=tuple(part for part in turn.parts if not _is_blank(part))) for turn in turns
    ]
    messages: list[Body] = []
    for turn in neutral.alternating(spoken):
        blocks = [block for part in turn.parts for block in write_blocks(part)]
        if any("document" in block for block in blocks) and not any("text" in block for block in blocks):
            blocks.append({"text": "(See the document.)"})  # a document needs a text beside it
        messages.append({"role": turn.role, "content": blocks})
    return messages


def _is_blank(part: Part) -> bool:
    return isinstance(part, Text | Refused) and not part.text.strip()


_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")
_NOT_IN_A_DOCUMENT_NAME = re.compile(r"[^a-zA-Z0-9\s\-()\[\]]|\s{2,}")


def write_blocks(part: Part) -> list[Body]:
    """The part, and the cache's mark behind it."""
    block = _write_block(part)
    return [block] if part.cache is None else [block, _cache_point(part.cache)]


def _cache_point(cache: Cache) -> Body:
    return {"cachePoint": {"type": "default"} | ({"ttl": "1h"} if cache.ttl in claude.LONG else {})}


def _write_block(part: Part) -> Body:
    match part:
        case Text() | Refused():
            return {"text": part.text}
        case Image():
            return {"image": {"format": _image_format(part), "source": {"bytes": part.data}}}
        case Document():
            return {"document": _write_document(part)}
        case ToolCall():
            arguments = neutral.arguments_object(part.arguments)
            return {"toolUse": {"toolUseId": call_id(part.id), "name": part.name, "input": arguments}}
        case ToolResult():
            content = [_write_block(inner) for inner in part.parts if not _is_blank(inner)]
            result: Body = {"toolUseId": call_id(part.call_id), "content": content or [{"json": {}}]}
            return {"toolResult": result | ({"status": "error"} if part.is_error else {})}
        case Reasoning() if part.redacted is not None:
            return {"reasoningContent": {"redactedContent": part.redacted}}
        case Reasoning():
            thought: Body = {"text": part.text} | ({"signature": part.signature} if part.signature else {})
            return {"reasoningContent": {"reasoningText": thought}}
        case _:
            raise NotCarried(part.path)


def call_id(id: str) -> str:
    return neutral.safe_id(id, allowed=_CALL_ID, longest=MAX_CALL_ID_CHARS)


def _image_format(part: Image) -> str:
    found = (part.media_type or "image/png").partition("/")[2].lower()
    format = {"jpg": "jpeg"}.get(found, found)
    if format not in ("png", "jpeg", "gif", "webp"):
        raise NotCarried(part.path, "is an image of a kind that Bedrock does not take: png, jpeg, gif and webp it does")
    return format


_DOCUMENT_FORMATS = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
}


def _write_document(part: Document) -> Body:
    media_type = part.media_type or ("text/plain" if part.text is not None else "application/pdf")
    format = _DOCUMENT_FORMATS.get(media_type.partition(";")[0])
    if format is None:
        raise NotCarried(part.path, f"is a document of a kind that Bedrock does not take: {media_type}")
    name = _NOT_IN_A_DOCUMENT_NAME.sub("-", part.name or "document")[:MAX_DOCUMENT_NAME_CHARS].strip() or "document"
    document: Body = {
        "format": format,
        "name": name,
        "source": {"bytes": part.data} if part.text is None else {"text": part.text},
    }
    if part.context is not None:
        document["context"] = part.context
    if part.cite:
        document["citations"] = {"enabled": True}
    return document


# The rest -----------------------------------------------------------------------------------------------------------


def _write_tools(tools: Iterable[Tool], prompt: Prompt) -> Body:
    written: list[Body] = []
    for tool in tools:
        spec: Body = {
            "name": tool.name,
            "inputSchema": {"json": tool.schema or {"type": "object", "properties": {}}},
            "description": tool.description or None,
            "strict": tool.strict,
        }
        written.append({"toolSpec": {field: value for field, value in spec.items() if value is not None}})
        if tool.cache is not None:
            written.append(_cache_point(tool.cache))
    config: Body = {"tools": written}
    choice = prompt.tool_choice
    if choice is not None and choice.mode == "required":
        config["toolChoice"] = {"tool": {"name": choice.names[0]}} if len(choice.names) == 1 else {"any": {}}
    return config


def _write_format(format: Format | None, losses: Losses) -> Body | None:
    if format is None:
        return None
    if format.schema is None:
        raise NotCarried("format", "asks for JSON without a schema, which the Bedrock protocol cannot be asked for")
    schema: Body = {
        "schema": orjson.dumps(format.schema).decode(),
        "name": format.name,
        "description": format.description,
    }
    kept = {field: value for field, value in schema.items() if value is not None}
    return {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": kept}}}


_TIERS: Mapping[Tier, str] = {"standard": "default", "flex": "flex", "priority": "priority"}


def _write_tier(tier: Tier | None) -> Body | None:
    word = _TIERS.get(tier) if tier is not None else None
    return {"type": word} if word is not None else None


_NOVA_EFFORTS: Mapping[Effort, str] = {"minimal": "low", "low": "low", "medium": "medium"}


def _write_additional(prompt: Prompt, model: str, cap: int | None, losses: Losses) -> Body:
    """What only some makers' models take, in each maker's own words."""
    added: Body = {}
    if re.search(r"\bnova", model):
        if prompt.top_k is not None:
            added["inferenceConfig"] = {"topK": prompt.top_k}
    elif prompt.top_k is not None:
        added["top_k"] = prompt.top_k
    thinking = prompt.thinking
    if thinking is None:
        return added
    if re.search(_CLAUDE, model):
        config: Body = {}
        claude.write_thinking(prompt, thinking, model, cap or claude.DEFAULT_MAX_TOKENS, added, config, losses)
        return added | ({"output_config": config} if config else {})
    if thinking.visible is False and not thinking.off:  # there is no word for it
        losses.drop_field("thinking.visible")
    return added | _write_effort(thinking, model)


def _write_effort(thinking: Thinking, model: str) -> Body:
    effort = neutral.effort_of(thinking)
    if re.search(_NOVA, model):
        if thinking.off:
            return {"reasoningConfig": {"type": "disabled"}}
        level = {} if effort is None else {"maxReasoningEffort": _NOVA_EFFORTS.get(effort, "high")}
        return {"reasoningConfig": {"type": "enabled"} | level}
    return {} if effort is None else {"reasoning_effort": effort if effort in ("low", "medium", "high") else "low"}
