"""Anthropic's Messages: `POST /v1/messages`, and every server that is compatible with it.

Usage here is exclusive: `input_tokens` counts neither what was read from a cache nor what was written to it, and
`output_tokens` counts thinking. A signature of another family travels to clients of this dialect, who hand back what
they were given, with its origin written into it: in a block `thinking`, or before a call in a block
`redacted_thinking`. Pure.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from urllib.parse import quote

import msgspec
import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Dialect, Usage
from tollgate.wire import Ask, Body, Extras, Meter, Quirks, failures, fields, neutral, sse
from tollgate.wire.content import (
    EFFORTS,
    Cache,
    Choice,
    Citation,
    Delta,
    Document,
    Effort,
    Family,
    Finish,
    Format,
    Image,
    Kind,
    Part,
    Prompt,
    Reasoning,
    Refused,
    ResultPart,
    Role,
    Text,
    Thinking,
    Tier,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from tollgate.wire.failures import unreadable
from tollgate.wire.neutral import Mark, parse, tokens
from tollgate.wire.scope import Losses, NotCarried, Rule, Scope
from tollgate.wire.sequence import Streamed

# Wire names ---------------------------------------------------------------------------------------------------------

name: Dialect = "anthropic"
stream_type = "text/event-stream"
forwarded_headers: tuple[str, ...] = ("anthropic-version", "anthropic-beta")
prompt_fields: Mapping[str, str] = {
    "stop": "stop_sequences",
    "format": "output_config.format",
    "user": "metadata.user_id",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "cache": "cache_control",
    "cite": "citations",
    "name": "title",
}

VERSION = "2023-06-01"  # of the requests that are written here; a client of this dialect names its own
DEFAULT_MAX_TOKENS = 4096  # the protocol requires a cap: sent when neither the client nor a budget has set one
MIN_BUDGET_TOKENS = 1024  # of thinking, by the API reference
HOME: Family = "anthropic"

ROLES: Mapping[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}

# Fields of a request that the middle holds
_READ = frozenset(
    {
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "service_tier",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
# Fields that say what the client wants to get (or where), and that the middle does not hold. Any other is dropped and
# named.
_REFUSED = frozenset({"container", "inference_geo", "mcp_servers"})
# Blocks that the provider's own tools left in the conversation: their findings are in the text that follows.
_OWN_TOOLS_BLOCK = re.compile(
    r"server_tool_use|mcp_tool_use|(web_search|web_fetch|(bash_|text_editor_)?code_execution|tool_search|mcp)_tool_result"
    r"|compaction|advisor_tool_result|fallback"
)
_TIERS: Mapping[str, Tier] = {"auto": "auto", "standard_only": "standard"}
_TIERS_WRITTEN: Mapping[Tier, str] = {tier: word for word, tier in _TIERS.items()}
_CHOICE_MODES: Mapping[str, ToolChoice] = {
    "auto": ToolChoice("auto"),
    "none": ToolChoice("none"),
    "any": ToolChoice("required"),
}
_CHOICES_WRITTEN = {choice.mode: word for word, choice in _CHOICE_MODES.items()}

# With tools or an output format the provider adds a system prompt of its own: its pricing page lists 159 to 530 tokens
# by model for tools, and no figure for formats, so twice the highest is allowed for.
_HIDDEN_PROMPT_TOKENS = 1060
_MESSAGE_TOKENS = 4
_TOOL_TOKENS = 10
_FIXED_TOKENS = 15
_BOUNDED_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use", "search_result"})
_BOUNDED_SOURCES = frozenset({"text", "content"})


# Scope --------------------------------------------------------------------------------------------------------------

# Which models think how, and what else they take, by the provider's pages on models, thinking and migration. The
# numbers are written with dashes by Anthropic and with points by routers.
_NEWEST = r"claude-((opus|sonnet|haiku)-([5-9]|4[-.][7-9])|fable|mythos)"
_ADAPTIVE = rf"{_NEWEST}|claude-(opus|sonnet)-4[-.]6"
_THOUGHTLESS = r"claude-(2|instant|3-(opus|sonnet|haiku)|3[-.]5)"
_FORMATLESS = rf"{_THOUGHTLESS}|claude-3[-.]7|claude-(opus|sonnet)-4(-0|-20\d+|@\d+)?$"
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
    rules=(
        Rule(models=_NEWEST, lacks=frozenset({"temperature", "top_p", "top_k"})),
        Rule(models=r"claude-(opus-4[-.][1-6]|sonnet-4[-.][56]|haiku-4[-.]5)", either=(("temperature", "top_p"),)),
        Rule(models=r"claude", thinking=True, lacks=frozenset({"temperature", "top_k"})),
        Rule(models=_THOUGHTLESS, lacks=frozenset({"thinking"})),
        Rule(models=_FORMATLESS, lacks=frozenset({"format"})),
    ),
)


def scope(quirks: Quirks) -> Scope:
    return _SCOPE


# Finish reasons -----------------------------------------------------------------------------------------------------

finish_words: Mapping[str, Finish] = {
    "end_turn": "stop",
    "pause_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_FINISH_WRITTEN: Mapping[Finish, str] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}


# Usage --------------------------------------------------------------------------------------------------------------


def read_usage(block: Body) -> Usage | None:
    """The disjoint classes; None when it counts nothing.

    `iterations`, when present, holds every pass that is charged, also those that the top level leaves out (compaction,
    an advisor): their sum counts. A pass that was declined and repeated by another model is not charged.
    """
    if tokens(block, "input_tokens") is None and tokens(block, "output_tokens") is None:
        return None
    passes = _charged_passes(block) or [block]
    written = [_cache_writes(one) for one in passes]
    output = sum(tokens(one, "output_tokens") or 0 for one in passes)
    reasoning = min(output, tokens(block, "output_tokens_details", "thinking_tokens") or 0)
    return Usage(
        input_tokens=sum(tokens(one, "input_tokens") or 0 for one in passes),
        cache_read_tokens=sum(tokens(one, "cache_read_input_tokens") or 0 for one in passes),
        cache_write_5m_tokens=sum(short for short, _ in written),
        cache_write_1h_tokens=sum(long for _, long in written),
        output_tokens=output - reasoning,
        reasoning_tokens=reasoning,
        web_searches=tokens(block, "server_tool_use", "web_search_requests") or 0,
    )


def _charged_passes(block: Body) -> list[Body]:
    iterations = block.get("iterations")
    passes = [one for one in iterations if isinstance(one, dict)] if isinstance(iterations, list) else []
    if any(one.get("type") == "fallback_message" for one in passes):
        return [one for one in passes if one.get("type") != "message"]
    return passes


def _cache_writes(block: Body) -> tuple[int, int]:
    """Tokens written for five minutes and for an hour; what the split leaves out has the default, five minutes."""
    short = tokens(block, "cache_creation", "ephemeral_5m_input_tokens") or 0
    long = tokens(block, "cache_creation", "ephemeral_1h_input_tokens") or 0
    total = tokens(block, "cache_creation_input_tokens") or 0
    return short + max(0, total - short - long), long


def write_usage(usage: Usage) -> Body:
    short, long = usage.cache_write_5m_tokens + usage.cache_write_tokens, usage.cache_write_1h_tokens
    block: Body = {
        "input_tokens": usage.input_tokens + usage.input_audio_tokens + usage.input_image_tokens,
        "cache_creation_input_tokens": short + long,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": neutral.total_output(usage),
    }
    if usage.reasoning_tokens:
        block["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if long:
        block["cache_creation"] = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}
    return block


def _meter_usage(meter: Meter, block: object) -> None:
    if isinstance(block, dict) and (usage := read_usage(block)) is not None:
        meter.usage = usage
        meter.usage_raw = neutral.compact(block)


# Request ------------------------------------------------------------------------------------------------------------


def ask(body: Body) -> Ask:
    messages = fields.messages(body)
    tools = fields.items(body, "tools")
    hidden = _HIDDEN_PROMPT_TOKENS if tools or fields.mapping(body, "output_config").get("format") else 0
    return Ask(
        model=fields.model(body),
        stream=fields.boolean(body, "stream"),
        input_bound_tokens=fields.size(body)
        + _MESSAGE_TOKENS * len(messages)
        + _TOOL_TOKENS * len(tools)
        + _FIXED_TOKENS
        + hidden,
        max_output_tokens=fields.integer(body, "max_tokens", minimum=0),  # 0 fills a cache and says nothing
        user=_user(body),
        unbounded=_unbounded(body, messages, tools),
    )


def _user(body: Body) -> str | None:
    return fields.text(fields.mapping(body, "metadata"), "user_id", path="metadata.user_id")


def _unbounded(body: Body, messages: list[Body], tools: list[object]) -> str | None:
    for index, message in enumerate(messages):
        if found := _unbounded_block(message.get("content"), f"messages[{index}].content"):
            return found
    if found := _unbounded_block(body.get("system"), "system"):
        return found
    for index, tool in enumerate(tools):  # a type other than custom is run or filled in by the provider
        if not isinstance(tool, dict) or tool.get("type") not in (None, "custom"):
            return f"tools[{index}]"
    management = body.get("context_management")
    edits = management.get("edits") if isinstance(management, dict) else None
    for index, edit in enumerate(edits if isinstance(edits, list) else ()):
        if isinstance(edit, dict) and str(edit.get("type")).startswith("compact"):  # a pass of its own
            return f"context_management.edits[{index}]"
    for field in ("container", "mcp_servers"):
        if body.get(field):
            return field
    return None


def _unbounded_block(content: object, where: str) -> str | None:
    """The first block, however deep in tool results and documents, whose tokens its bytes do not bound."""
    for at, block in enumerate(content if isinstance(content, list) else ()):
        here = f"{where}[{at}]"
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "tool_result":
            found = _unbounded_block(block.get("content"), f"{here}.content")
        elif kind == "document":
            source = block.get("source")
            bounded = isinstance(source, dict) and source.get("type") in _BOUNDED_SOURCES
            found = _unbounded_block(source.get("content"), f"{here}.source.content") if bounded else here
        else:
            found = None if kind in _BOUNDED_BLOCKS else here
        if found:
            return found
    return None


def call_path(model: str, *, stream: bool, quirks: Quirks) -> str:
    return quirks.path.replace("{model}", quote(model, safe="")) or "/v1/messages"


def request_headers(client_headers: Mapping[str, str]) -> dict[str, str]:
    return {"anthropic-version": VERSION} | {
        header: client_headers[header] for header in forwarded_headers if header in client_headers
    }


def auth_headers(api_key: str) -> dict[str, str]:
    return {"x-api-key": api_key}


def pass_on(body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks) -> Body:
    sent = {field: value for field, value in body.items() if field not in fields.EXTENSION_FIELDS}
    sent["model"] = model
    if max_output_tokens is not None:
        sent["max_tokens"] = max_output_tokens
    return sent


# Request, read --------------------------------------------------------------------------------------------------------


def read_prompt(body: Body, losses: Losses) -> Prompt:
    for field, value in body.items():
        if value is None or field in _READ or field in fields.EXTENSION_FIELDS:
            continue
        if field in _REFUSED and value:
            raise NotCarried(field)
        losses.drop(field)
    for field, value in fields.mapping(body, "metadata").items():
        if field != "user_id" and value is not None:
            losses.drop(f"metadata.{field}")
    system = _read_blocks(body.get("system"), "system", losses)
    turns = [Turn("system", system, "system")] if system else []
    turns += [_read_turn(message, f"messages[{at}]", losses) for at, message in enumerate(fields.messages(body))]
    tools = tuple(_read_tool(tool, f"tools[{at}]", losses) for at, tool in enumerate(fields.items(body, "tools")))
    choice = fields.mapping(body, "tool_choice") if tools else {}
    one_call = fields.optional_boolean(
        choice, "disable_parallel_tool_use", path="tool_choice.disable_parallel_tool_use"
    )
    return Prompt(
        turns=tuple(turns),
        stream=fields.boolean(body, "stream"),
        max_output_tokens=fields.integer(body, "max_tokens", minimum=0),
        stop=fields.texts(fields.items(body, "stop_sequences"), "stop_sequences"),
        tools=tools,
        tool_choice=_read_tool_choice(choice) if choice else None,
        parallel_tool_calls=False if one_call else None,
        format=_read_format(body),
        thinking=_read_thinking(body),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        top_k=fields.integer(body, "top_k", minimum=0),
        service_tier=_read_tier(body, losses),
        user=_user(body),
    )


def _read_turn(message: Body, where: str, losses: Losses) -> Turn:
    role = ROLES.get(message["role"])
    if role is None:
        raise NotCarried(f"{where}.role")
    for field, value in message.items():
        if field not in ("role", "content") and value is not None:
            losses.drop(f"{where}.{field}")
    return Turn(role, _read_blocks(message.get("content"), f"{where}.content", losses), where)


def _read_blocks(content: object, where: str, losses: Losses) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(text=content, path=where),)
    if not isinstance(content, list):
        raise fields.wrong_type(where, "a string or a list of blocks", content)
    parts: list[Part] = []
    pending: tuple[str, Family] | None = None  # another family's signature of the call that follows
    for at, block in enumerate(content):
        here = f"{where}[{at}]"
        if not isinstance(block, dict):
            raise fields.wrong_type(here, "an object", block)
        kind = block.get("type")
        if isinstance(kind, str) and _OWN_TOOLS_BLOCK.fullmatch(kind):
            losses.drop(f"{here}.{kind}")
            continue
        if kind == "redacted_thinking":
            data, origin = neutral.untagged(_required(block, "data", here), HOME)
            if origin != HOME and data.startswith(_CALL_SIGNATURE):
                pending = data.removeprefix(_CALL_SIGNATURE), origin
                continue
        read = _BLOCK_READERS.get(kind) if isinstance(kind, str) else None
        if read is None:
            raise NotCarried(f"{here}.type")
        for part in read(block, here, losses):
            if pending is not None and isinstance(part, ToolCall):
                part = msgspec.structs.replace(part, signature=pending[0], origin=pending[1])
                pending = None
            parts.append(part)
    return tuple(parts)


# Before the signature of a call, which has no place of its own in this dialect, in a block `redacted_thinking`
_CALL_SIGNATURE = "call:"


def _lose_fields(block: Body, known: tuple[str, ...], where: str, losses: Losses) -> None:
    for field, value in block.items():
        if field not in known and value is not None:
            losses.drop(f"{where}.{field}")


def _read_text(block: Body, where: str, losses: Losses) -> list[Part]:
    _lose_fields(block, ("type", "text", "cache_control"), where, losses)
    return [Text(text=_required(block, "text", where), cache=_read_cache(block), path=where)]


def _read_image(block: Body, where: str, losses: Losses) -> list[Part]:
    _lose_fields(block, ("type", "source", "cache_control"), where, losses)
    source, inside = fields.mapping(block, "source", path=f"{where}.source"), f"{where}.source"
    cache = _read_cache(block)
    match source.get("type"):
        case "url":
            return [Image(url=_required(source, "url", inside), cache=cache, path=where)]
        case "base64":
            data, media_type = _required(source, "data", inside), _required(source, "media_type", inside)
            return [Image(data=data, media_type=media_type, cache=cache, path=where)]
        case _:  # a file lies at one provider
            raise NotCarried(f"{inside}.type")


def _read_document(block: Body, where: str, losses: Losses) -> list[Part]:
    _lose_fields(block, ("type", "source", "title", "context", "citations", "cache_control"), where, losses)
    source, inside = fields.mapping(block, "source", path=f"{where}.source"), f"{where}.source"
    document = Document(
        name=fields.text(block, "title", path=f"{where}.title"),
        context=fields.text(block, "context", path=f"{where}.context"),
        cite=fields.mapping(block, "citations", path=f"{where}.citations").get("enabled") is True,
        cache=_read_cache(block),
        path=where,
    )
    match source.get("type"):
        case "url":
            return [msgspec.structs.replace(document, url=_required(source, "url", inside))]
        case "base64":
            data, media_type = _required(source, "data", inside), _required(source, "media_type", inside)
            return [msgspec.structs.replace(document, data=data, media_type=media_type)]
        case "text":
            return [msgspec.structs.replace(document, text=_required(source, "data", inside))]
        case "content":
            return _read_content_source(document, source, inside, losses)
        case _:
            raise NotCarried(f"{inside}.type")


def _read_content_source(document: Document, source: Body, inside: str, losses: Losses) -> list[Part]:
    """Blocks that are a document together: their texts are its text, their images follow it."""
    parts = _read_blocks(source.get("content"), f"{inside}.content", losses)
    text = "\n".join(part.text for part in parts if isinstance(part, Text))
    return [
        msgspec.structs.replace(document, text=text),
        *(part for part in parts if isinstance(part, Image)),
    ]


def _read_search_result(block: Body, where: str, losses: Losses) -> list[Part]:
    _lose_fields(block, ("type", "source", "title", "content", "citations", "cache_control"), where, losses)
    parts = _read_blocks(block.get("content"), f"{where}.content", losses)
    return [
        Document(
            text="\n".join(part.text for part in parts if isinstance(part, Text)),
            name=fields.text(block, "title", path=f"{where}.title"),
            context=fields.text(block, "source", path=f"{where}.source"),
            cite=fields.mapping(block, "citations", path=f"{where}.citations").get("enabled") is True,
            cache=_read_cache(block),
            path=where,
        )
    ]


def _read_tool_use(block: Body, where: str, losses: Losses) -> list[Part]:
    _lose_fields(block, ("type", "id", "name", "input", "cache_control", "caller"), where, losses)
    given = fields.mapping(block, "input", path=f"{where}.input")
    call = ToolCall(
        id=neutral.original_id(_required(block, "id", where)),
        name=_required(block, "name", where),
        arguments=neutral.compact(given),
        cache=_read_cache(block),
        path=where,
    )
    return [call]


def _read_tool_result(block: Body, where: str, losses: Losses) -> list[Part]:
    _lose_fields(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), where, losses)
    parts: list[ResultPart] = []
    for part in _read_blocks(block.get("content"), f"{where}.content", losses):
        if not isinstance(part, ResultPart):
            raise NotCarried(part.path)
        parts.append(part)
    result = ToolResult(
        call_id=neutral.original_id(_required(block, "tool_use_id", where)),
        parts=tuple(parts),
        is_error=fields.optional_boolean(block, "is_error", path=f"{where}.is_error") or False,
        cache=_read_cache(block),
        path=where,
    )
    return [result]


def _read_thinking_block(block: Body, where: str, losses: Losses) -> list[Part]:
    text = fields.text(block, "thinking", path=f"{where}.thinking") or ""
    signature = fields.text(block, "signature", path=f"{where}.signature")
    here = f"{where}.thinking"
    if not signature:  # thoughts that no provider has signed, and that were passed on to this client as they were
        return [Reasoning(text=text, path=here)]
    signature, origin = neutral.untagged(signature, HOME)
    return [Reasoning(text=text, signature=signature, origin=origin, path=here)]


def _read_redacted(block: Body, where: str, losses: Losses) -> list[Part]:
    data, origin = neutral.untagged(_required(block, "data", where), HOME)
    return [Reasoning(redacted=data, origin=origin, path=f"{where}.redacted_thinking")]


_BLOCK_READERS: Mapping[str, Callable[[Body, str, Losses], list[Part]]] = {
    "text": _read_text,
    "image": _read_image,
    "document": _read_document,
    "search_result": _read_search_result,
    "tool_use": _read_tool_use,
    "tool_result": _read_tool_result,
    "thinking": _read_thinking_block,
    "redacted_thinking": _read_redacted,
}


def _required(body: Body, field: str, where: str) -> str:
    value = fields.text(body, field, path=f"{where}.{field}")
    if value is None:
        raise fields.missing(f"{where}.{field}")
    return value


def _read_cache(holder: Body) -> Cache | None:
    marker = holder.get("cache_control")
    if not isinstance(marker, dict):
        return None
    return Cache("1h" if marker.get("ttl") == "1h" else None)


def _read_tool(tool: object, where: str, losses: Losses) -> Tool:
    if not isinstance(tool, dict):
        raise fields.wrong_type(where, "an object", tool)
    if tool.get("type") not in (None, "custom"):  # run, or filled in, by the provider
        raise NotCarried(f"{where}.type")
    known = ("type", "name", "description", "input_schema", "strict", "cache_control")
    _lose_fields(tool, known, where, losses)
    return Tool(
        name=_required(tool, "name", where),
        description=fields.text(tool, "description", path=f"{where}.description"),
        schema=fields.mapping(tool, "input_schema", path=f"{where}.input_schema") or None,
        strict=fields.optional_boolean(tool, "strict", path=f"{where}.strict"),
        cache=_read_cache(tool),
        path=where,
    )


def _read_tool_choice(choice: Body) -> ToolChoice:
    kind = choice.get("type")
    if kind == "tool":
        return ToolChoice("required", (_required(choice, "name", "tool_choice"),))
    mode = _CHOICE_MODES.get(kind) if isinstance(kind, str) else None
    if mode is None:
        raise fields.invalid("tool_choice.type", f"must be one of {', '.join(_CHOICE_MODES)}, tool")
    return mode


def _read_format(body: Body) -> Format | None:
    given = fields.mapping(
        fields.mapping(body, "output_config"), "format", path="output_config.format"
    ) or fields.mapping(body, "output_format")
    if not given:
        return None
    if given.get("type") != "json_schema":
        raise NotCarried("output_config.format.type")
    return Format(schema=fields.mapping(given, "schema", path="output_config.format.schema"), strict=None)


def _read_thinking(body: Body) -> Thinking | None:
    given = fields.mapping(body, "thinking")
    word = fields.text(fields.mapping(body, "output_config"), "effort", path="output_config.effort")
    if word is not None and word not in EFFORTS:
        raise fields.invalid("output_config.effort", f"must be one of {', '.join(EFFORTS)}")
    effort = next((effort for effort in EFFORTS if effort == word), None)
    visible = False if given.get("display") == "omitted" else None
    match given.get("type"):
        case "enabled":
            budget = fields.integer(given, "budget_tokens", minimum=0, path="thinking.budget_tokens")
            return Thinking(effort=effort, budget_tokens=budget, visible=visible)
        case None | "disabled":
            return None if effort is None else Thinking(effort=effort)
        case _:  # the model decides, and may be told how eagerly
            return Thinking(effort=effort, visible=visible)


def _read_tier(body: Body, losses: Losses) -> Tier | None:
    word = fields.text(body, "service_tier")
    if word is not None and word not in _TIERS:
        losses.drop("service_tier")
    return _TIERS.get(word or "")


# Request, written -----------------------------------------------------------------------------------------------------


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """System texts go to the top level in their order, neighbours of one role become one message, and blank texts,
    which the protocol refuses, are left out."""
    messages = _write_messages(prompt.turns)
    if not messages:
        raise NotCarried("messages", "has no text of a user, which the Anthropic protocol requires")
    format = prompt.format
    if format is not None and format.schema is None:
        raise NotCarried("format", "asks for JSON without a schema, which the Anthropic protocol cannot be asked for")
    if format is not None and format.description is not None:
        losses.drop("response_format.json_schema.description")
    cap = next(cap for cap in (max_output_tokens, prompt.max_output_tokens, DEFAULT_MAX_TOKENS) if cap is not None)
    system = [
        _write_block(part)
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
        config["format"] = {"type": "json_schema", "schema": format.schema}
    if prompt.thinking is not None:
        _write_thinking(prompt, prompt.thinking, model, cap, sent, config, losses)
    if config:
        sent["output_config"] = config
    return {field: value for field, value in sent.items() if value is not None}


def _write_thinking(
    prompt: Prompt, thinking: Thinking, model: str, cap: int, sent: Body, config: Body, losses: Losses
) -> None:
    """Models from 4.6 on decide for themselves and take an effort; those before want a budget, which must be below the
    cap, and thoughts before every call that they are shown."""
    if thinking.off:
        return
    if prompt.tool_choice is not None and prompt.tool_choice.mode == "required":  # a model that thinks decides itself
        losses.drop_field("thinking")
        return
    if re.search(_ADAPTIVE, model):
        sent["thinking"] = {"type": "adaptive"} | ({"display": "omitted"} if thinking.visible is False else {})
        effort = _EFFORTS.get(neutral.effort_of(thinking) or "")
        if effort is not None:
            config["effort"] = effort
        return
    budget = min(max(neutral.budget_of(thinking, cap), MIN_BUDGET_TOKENS), cap - 1)
    if budget < MIN_BUDGET_TOKENS or _has_thoughtless_call(prompt.turns):
        losses.drop_field("thinking")
        return
    sent["thinking"] = {"type": "enabled", "budget_tokens": budget}


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
        {"role": turn.role, "content": _plain([_write_block(part) for part in turn.parts])}
        for turn in neutral.alternating(spoken)
    ]


def _is_blank(part: Part) -> bool:
    return isinstance(part, Text | Refused) and not part.text.strip()


def _plain(blocks: list[Body]) -> str | list[Body]:
    """A string where it says the same."""
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return str(blocks[0]["text"])
    return blocks


_CALL_ID = re.compile(r"[a-zA-Z0-9_-]+")  # as the API reference has it
MAX_CALL_ID_CHARS = 256


def _call_id(id: str) -> str:
    return neutral.safe_id(id, allowed=_CALL_ID, longest=MAX_CALL_ID_CHARS)


def _write_block(part: Part) -> Body:
    match part:
        case Text() | Refused():
            block: Body = {"type": "text", "text": part.text}
        case Image():
            block = {"type": "image", "source": _write_source(part.url, part.data, part.media_type or "image/png")}
        case Document():
            block = _write_document(part)
        case ToolCall():
            arguments = neutral.arguments_object(part.arguments)
            block = {"type": "tool_use", "id": _call_id(part.id), "name": part.name, "input": arguments}
        case ToolResult():
            block = {"type": "tool_result", "tool_use_id": _call_id(part.call_id)}
            if shown := [_write_block(inner) for inner in part.parts if not _is_blank(inner)]:
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
        block["cache_control"] = {"type": "ephemeral"} | ({"ttl": "1h"} if part.cache.ttl in _LONG else {})
    return block


_LONG = frozenset({"30m", "1h", "12h", "24h"})  # what five minutes would not cover


def _write_source(url: str | None, data: str | None, media_type: str) -> Body:
    if url is not None:
        return {"type": "url", "url": url}
    return {"type": "base64", "media_type": media_type, "data": data}


def _write_document(part: Document) -> Body:
    block: Body = {"type": "document"}
    if part.text is not None:
        block["source"] = {"type": "text", "media_type": "text/plain", "data": part.text}
    else:
        block["source"] = _write_source(part.url, part.data, part.media_type or "application/pdf")
    if part.name is not None:
        block["title"] = part.name
    if part.context is not None:
        block["context"] = part.context
    if part.cite:
        block["citations"] = {"enabled": True}
    return block


def _write_tool(tool: Tool) -> Body:
    written: Body = {"name": tool.name, "input_schema": tool.schema or {"type": "object", "properties": {}}}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict is not None:
        written["strict"] = tool.strict
    if tool.cache is not None:
        written["cache_control"] = {"type": "ephemeral"} | ({"ttl": "1h"} if tool.cache.ttl in _LONG else {})
    return written


def _write_tool_choice(prompt: Prompt) -> Body | None:
    choice = prompt.tool_choice
    if choice is None and prompt.parallel_tool_calls is not False:
        return None
    choice = choice or ToolChoice("auto")
    written: Body = {"type": _CHOICES_WRITTEN[choice.mode]}
    if choice.mode == "required" and len(choice.names) == 1:
        written = {"type": "tool", "name": choice.names[0]}
    if prompt.parallel_tool_calls is False and choice.mode != "none":
        written["disable_parallel_tool_use"] = True
    return written


def _write_tier(tier: Tier | None, losses: Losses) -> str | None:
    if tier is not None and tier not in _TIERS_WRITTEN:
        losses.drop_field("service_tier")
    return None if tier is None else _TIERS_WRITTEN.get(tier)


# Response -----------------------------------------------------------------------------------------------------------


def read_answer(answer: Body, meter: Meter, quirks: Quirks) -> None:
    if answer.get("error"):
        raise failures.inband_error(answer)
    content = answer.get("content")
    if not isinstance(content, list):
        raise unreadable("it has no 'content'")
    meter.output_bytes += neutral.text_bytes(content)
    _meter_model(meter, answer)
    _meter_finish(meter, answer)
    _meter_usage(meter, answer.get("usage"))


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
            name = _said(block, "name")
            if not name:
                raise unreadable("a tool call has no name")
            return ToolCall(id=neutral.original_id(_said(block, "id")), name=name, arguments=arguments)
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


def add_extras(answer: Body, extras: Extras) -> None:
    answer.update(extras.fields())
    if isinstance(usage := answer.get("usage"), dict):
        usage["cost"] = extras.cost


def _meter_finish(meter: Meter, source: Body) -> None:
    reason = source.get("stop_reason")
    if isinstance(reason, str) and reason:
        meter.finish_reason = reason


def _meter_model(meter: Meter, source: Body) -> None:
    model = source.get("model")
    if isinstance(model, str) and model:
        meter.served_model = model


# Stream -------------------------------------------------------------------------------------------------------------


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
            _meter_usage(self._meter, self._usage)


def _index(payload: Body) -> int:
    index = payload.get("index")
    return index if isinstance(index, int) else 0


def reader(meter: Meter, body: Body, quirks: Quirks) -> _Reader:
    return _Reader(meter)


class _Writer:
    """Writes the event grammar of the Messages API: blocks one after another between start and end of the message.

    The dialect knows one answer only: parts of another choice, which nobody can have asked for, are not written.
    """

    def __init__(self, meter: Meter, request_id: str) -> None:
        self._meter = meter
        self._id = f"msg_{request_id.replace('-', '')}"
        self._begun = False
        self._refused = False
        self._blocks = 0

    def open(self, part: Streamed) -> bytes:
        if part.choice:
            return b""
        out = self._begin()
        if part.kind == "tool_call" and part.signature is not None and part.origin is not None:
            out += self._start_block(_write_call_signature(part.signature, part.origin)) + self._stop_block()
        return out + self._start_block(self._empty_block(part))

    def more(self, part: Streamed, delta: Delta) -> bytes:
        if part.choice:
            return b""
        match part.kind:
            case "tool_call":
                return self._delta({"type": "input_json_delta", "partial_json": delta.text})
            case "reasoning":
                out = self._delta({"type": "thinking_delta", "thinking": delta.text}) if delta.text else b""
                if delta.signature is not None:
                    signature = neutral.tagged(delta.signature, delta.origin or HOME, HOME)
                    out += self._delta({"type": "signature_delta", "signature": signature})
                return out
            case _:
                out = self._delta({"type": "text_delta", "text": delta.text}) if delta.text else b""
                return out + b"".join(
                    self._delta({"type": "citations_delta", "citation": citation})
                    for citation in _write_citations(delta.citations)
                )

    def close(self, part: Streamed) -> bytes:
        if part.choice:
            return b""
        self._refused |= part.kind == "refusal"
        return self._stop_block()

    def end(self, finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        reason = _stop_reason(finishes.get(0, "stop"), refused=self._refused)
        last = {
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": None},
            "usage": {**self._usage(), "cost": extras.cost},
            **extras.fields(),
        }
        return self._begin() + _event(last) + _event({"type": "message_stop"})

    def whole(self, choices: tuple[Choice, ...], finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        parts = choices[0].parts
        refused = any(isinstance(part, Refused) for part in parts)
        message = self._message(
            content=[block for part in parts for block in _write_answer_blocks(part)],
            stop_reason=_stop_reason(finishes[0], refused=refused),
        )
        message["usage"]["cost"] = extras.cost
        return orjson.dumps(message | extras.fields())

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _event({"type": "message_start", "message": self._message(content=[], stop_reason=None)})

    @staticmethod
    def _empty_block(part: Streamed) -> Body:
        match part.kind:
            case "tool_call":
                return {"type": "tool_use", "id": _call_id(part.id), "name": part.name, "input": {}}
            case "reasoning" if part.redacted is not None:
                return _write_redacted(part.redacted, part.origin)
            case "reasoning":
                return {"type": "thinking", "thinking": "", "signature": ""}
            case _:
                return {"type": "text", "text": ""}

    def _start_block(self, block: Body) -> bytes:
        return _event({"type": "content_block_start", "index": self._blocks, "content_block": block})

    def _delta(self, delta: Body) -> bytes:
        return _event({"type": "content_block_delta", "index": self._blocks, "delta": delta})

    def _stop_block(self) -> bytes:
        self._blocks += 1
        return _event({"type": "content_block_stop", "index": self._blocks - 1})

    def _message(self, *, content: list[Body], stop_reason: str | None) -> Body:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": self._meter.served_model or "",
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": None,
            "usage": self._usage(),
        }

    def _usage(self) -> Body:
        """What is known so far. The dialect demands numbers, so what is unknown is written as 0 here."""
        return write_usage(self._meter.usage or Usage())


def _stop_reason(finish: Finish, *, refused: bool) -> str:
    return "refusal" if refused and finish == "stop" else _FINISH_WRITTEN[finish]


def _write_answer_blocks(part: Part) -> list[Body]:
    match part:
        case Text() | Refused() if not part.text:
            return []
        case Text() if part.citations:
            return [{"type": "text", "text": part.text, "citations": _write_citations(part.citations)}]
        case ToolCall() if part.signature is not None and part.origin is not None:
            return [_write_call_signature(part.signature, part.origin), _write_block(part)]
        case Reasoning() if part.redacted is not None:
            return [_write_redacted(part.redacted, part.origin)]
        case Reasoning():
            signature = neutral.tagged(part.signature or "", part.origin or HOME, HOME)
            return [{"type": "thinking", "thinking": part.text, "signature": signature}]
        case _:
            return [_write_block(part)]


def _write_redacted(data: str, origin: Family | None) -> Body:
    return {"type": "redacted_thinking", "data": neutral.tagged(data, origin or HOME, HOME)}


def _write_call_signature(signature: str, origin: Family) -> Body:
    return {"type": "redacted_thinking", "data": neutral.tagged(_CALL_SIGNATURE + signature, origin, HOME)}


def _write_citations(citations: tuple[Citation, ...]) -> list[Body]:
    return [
        {
            "type": "web_search_result_location",
            "url": citation.url,
            "title": citation.title or None,
            "cited_text": citation.cited_text,
            "encrypted_index": "",
        }
        for citation in citations
    ]


def writer(meter: Meter, body: Body, request_id: str) -> _Writer:
    return _Writer(meter, request_id)


def write_tail(events: list[sse.Event], body: Body, extras: Extras) -> bytes:
    """From the first `message_delta` to `message_stop`. The last `message_delta` takes the extras."""
    shown: list[sse.Event] = []
    target = None
    for event in events:
        payload = {} if event.data in (b"", b"[DONE]") else parse(event.data)
        if event.data == b"[DONE]" or payload.get("type") == "message_stop":
            continue
        if payload.get("type") == "message_delta":
            target = len(shown)
        shown.append(event)
    pieces = [event.raw for event in shown]
    if target is not None:
        payload = parse(shown[target].data)
        add_extras(payload, extras)
        pieces[target] = _event(payload)
    return b"".join(pieces) + _event({"type": "message_stop"})


def _event(payload: Body) -> bytes:
    return sse.write(orjson.dumps(payload), payload["type"])


# Errors -------------------------------------------------------------------------------------------------------------

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return failures.provider_error(status, headers, body)


def error_body(refusal: Refusal, request_id: str) -> bytes:
    return orjson.dumps(_error(refusal, request_id))


def error_event(refusal: Refusal, request_id: str) -> bytes:
    return _event(_error(refusal, request_id))


def _error(refusal: Refusal, request_id: str) -> Body:
    """The dialect's shape with OpenAI's `code` and `param` beside it, where they say something."""
    general = "api_error" if refusal.status >= 500 else "invalid_request_error"
    error = {"type": _ERROR_TYPES.get(refusal.status, general), "message": refusal.message}
    if refusal.code is not None:
        error["code"] = refusal.code
    if refusal.param is not None:
        error["param"] = refusal.param
    return {"type": "error", "error": error, "request_id": request_id}


# Models -------------------------------------------------------------------------------------------------------------


def models_body(models: list[tuple[str, str, int]]) -> bytes:
    data = [
        {
            "type": "model",
            "id": id,
            "display_name": id,
            "created_at": datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycle": "active",
        }
        for id, _owner, created in models
    ]
    first, last = (models[0][0], models[-1][0]) if models else (None, None)
    return orjson.dumps({"data": data, "has_more": False, "first_id": first, "last_id": last})
