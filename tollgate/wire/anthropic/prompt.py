"""What a client's request says, read into the middle."""

import re
from collections.abc import Callable, Mapping

import msgspec

from tollgate.wire import Body, fields, neutral
from tollgate.wire.anthropic.ask import user
from tollgate.wire.anthropic.words import CALL_SIGNATURE, CHOICE_MODES, HOME, TIERS
from tollgate.wire.content import (
    EFFORTS,
    Cache,
    Document,
    Family,
    Format,
    Image,
    Part,
    Prompt,
    Reasoning,
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
from tollgate.wire.scope import Losses, NotCarried

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

prompt_fields: Mapping[str, str] = {
    "max_output_tokens": "max_tokens",
    "stop": "stop_sequences",
    "format": "output_config.format",
    "user": "metadata.user_id",
    "thinking.visible": "thinking.display",
    "parallel_tool_calls": "tool_choice.disable_parallel_tool_use",
    "cache": "cache_control",
    "cite": "citations",
    "name": "title",
}


def read_prompt(body: Body, losses: Losses) -> Prompt:
    for field, value in body.items():
        if value is None or field in _READ or field in fields.EXTENSION_FIELDS:
            continue
        if field in _REFUSED and value:
            raise NotCarried(field)
        losses.drop(field)
    losses.drop_others(fields.mapping(body, "metadata"), ("user_id",), "metadata")
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
        tool_choice=_read_tool_choice(choice, losses) if choice else None,
        parallel_tool_calls=False if one_call else None,
        format=_read_format(body, losses),
        thinking=_read_thinking(body, losses),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        top_k=fields.integer(body, "top_k", minimum=0),
        service_tier=_read_tier(body, losses),
        user=user(body),
    )


def _read_turn(message: Body, where: str, losses: Losses) -> Turn:
    role = ROLES.get(message["role"])
    if role is None:
        raise NotCarried(f"{where}.role")
    losses.drop_others(message, ("role", "content"), where)
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
            losses.drop_others(block, ("type", "data"), here)
            data, origin = neutral.untagged(fields.required_text(block, "data", here), HOME)
            if origin != HOME and data.startswith(CALL_SIGNATURE):
                pending = data.removeprefix(CALL_SIGNATURE), origin
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


def _read_text(block: Body, where: str, losses: Losses) -> list[Part]:
    losses.drop_others(block, ("type", "text", "cache_control"), where)
    return [Text(text=fields.required_text(block, "text", where), cache=_read_cache(block, where, losses), path=where)]


def _read_image(block: Body, where: str, losses: Losses) -> list[Part]:
    losses.drop_others(block, ("type", "source", "cache_control"), where)
    source, inside = fields.mapping(block, "source", path=f"{where}.source"), f"{where}.source"
    losses.drop_others(source, ("type", "url", "data", "media_type"), inside)
    cache = _read_cache(block, where, losses)
    match source.get("type"):
        case "url":
            return [Image(url=fields.required_text(source, "url", inside), cache=cache, path=where)]
        case "base64":
            data, media_type = (
                fields.required_text(source, "data", inside),
                fields.required_text(source, "media_type", inside),
            )
            return [Image(data=data, media_type=media_type, cache=cache, path=where)]
        case _:  # a file lies at one provider
            raise NotCarried(f"{inside}.type")


def _read_document(block: Body, where: str, losses: Losses) -> list[Part]:
    losses.drop_others(block, ("type", "source", "title", "context", "citations", "cache_control"), where)
    source, inside = fields.mapping(block, "source", path=f"{where}.source"), f"{where}.source"
    document = Document(
        name=fields.text(block, "title", path=f"{where}.title"),
        context=fields.text(block, "context", path=f"{where}.context"),
        cite=_read_cite(block, where, losses),
        cache=_read_cache(block, where, losses),
        path=where,
    )
    losses.drop_others(source, ("type", "url", "data", "media_type", "content"), inside)
    match source.get("type"):
        case "url":
            return [msgspec.structs.replace(document, url=fields.required_text(source, "url", inside))]
        case "base64":
            data, media_type = (
                fields.required_text(source, "data", inside),
                fields.required_text(source, "media_type", inside),
            )
            return [msgspec.structs.replace(document, data=data, media_type=media_type)]
        case "text":
            return [msgspec.structs.replace(document, text=fields.required_text(source, "data", inside))]
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


def _read_cite(block: Body, where: str, losses: Losses) -> bool:
    wanted = fields.mapping(block, "citations", path=f"{where}.citations")
    losses.drop_others(wanted, ("enabled",), f"{where}.citations")
    return wanted.get("enabled") is True


def _read_search_result(block: Body, where: str, losses: Losses) -> list[Part]:
    losses.drop_others(block, ("type", "source", "title", "content", "citations", "cache_control"), where)
    parts = _read_blocks(block.get("content"), f"{where}.content", losses)
    return [
        Document(
            text="\n".join(part.text for part in parts if isinstance(part, Text)),
            name=fields.text(block, "title", path=f"{where}.title"),
            context=fields.text(block, "source", path=f"{where}.source"),
            cite=_read_cite(block, where, losses),
            cache=_read_cache(block, where, losses),
            path=where,
        )
    ]


def _read_tool_use(block: Body, where: str, losses: Losses) -> list[Part]:
    losses.drop_others(block, ("type", "id", "name", "input", "cache_control", "caller"), where)
    given = fields.mapping(block, "input", path=f"{where}.input")
    call = ToolCall(
        id=neutral.original_id(fields.required_text(block, "id", where)),
        name=fields.required_text(block, "name", where),
        arguments=neutral.compact(given),
        cache=_read_cache(block, where, losses),
        path=where,
    )
    return [call]


def _read_tool_result(block: Body, where: str, losses: Losses) -> list[Part]:
    losses.drop_others(block, ("type", "tool_use_id", "content", "is_error", "cache_control"), where)
    parts: list[ResultPart] = []
    for part in _read_blocks(block.get("content"), f"{where}.content", losses):
        if not isinstance(part, ResultPart):
            raise NotCarried(part.path)
        parts.append(part)
    result = ToolResult(
        call_id=neutral.original_id(fields.required_text(block, "tool_use_id", where)),
        parts=tuple(parts),
        is_error=fields.optional_boolean(block, "is_error", path=f"{where}.is_error") or False,
        cache=_read_cache(block, where, losses),
        path=where,
    )
    return [result]


def _read_thinking_block(block: Body, where: str, losses: Losses) -> list[Part]:
    losses.drop_others(block, ("type", "thinking", "signature"), where)
    text = fields.text(block, "thinking", path=f"{where}.thinking") or ""
    signature = fields.text(block, "signature", path=f"{where}.signature")
    here = f"{where}.thinking"
    if not signature:  # thoughts that no provider has signed, and that were passed on to this client as they were
        return [Reasoning(text=text, path=here)]
    signature, origin = neutral.untagged(signature, HOME)
    return [Reasoning(text=text, signature=signature, origin=origin, path=here)]


def _read_redacted(block: Body, where: str, losses: Losses) -> list[Part]:
    data, origin = neutral.untagged(fields.required_text(block, "data", where), HOME)
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


def _read_cache(holder: Body, where: str, losses: Losses) -> Cache | None:
    marker = holder.get("cache_control")
    if not isinstance(marker, dict):
        return None
    losses.drop_others(marker, ("type", "ttl"), f"{where}.cache_control")
    return Cache("1h" if marker.get("ttl") == "1h" else None)


def _read_tool(tool: object, where: str, losses: Losses) -> Tool:
    if not isinstance(tool, dict):
        raise fields.wrong_type(where, "an object", tool)
    if tool.get("type") not in (None, "custom"):  # run, or filled in, by the provider
        raise NotCarried(f"{where}.type")
    known = ("type", "name", "description", "input_schema", "strict", "cache_control")
    losses.drop_others(tool, known, where)
    return Tool(
        name=fields.required_text(tool, "name", where),
        description=fields.text(tool, "description", path=f"{where}.description"),
        schema=fields.mapping(tool, "input_schema", path=f"{where}.input_schema") or None,
        strict=fields.optional_boolean(tool, "strict", path=f"{where}.strict"),
        cache=_read_cache(tool, where, losses),
        path=where,
    )


def _read_tool_choice(choice: Body, losses: Losses) -> ToolChoice:
    losses.drop_others(choice, ("type", "name", "disable_parallel_tool_use"), "tool_choice")
    kind = choice.get("type")
    if kind == "tool":
        return ToolChoice("required", (fields.required_text(choice, "name", "tool_choice"),))
    mode = CHOICE_MODES.get(kind) if isinstance(kind, str) else None
    if mode is None:
        raise fields.invalid("tool_choice.type", f"must be one of {', '.join(CHOICE_MODES)}, tool")
    return mode


def _read_format(body: Body, losses: Losses) -> Format | None:
    config = fields.mapping(body, "output_config")
    losses.drop_others(config, ("format", "effort"), "output_config")
    given = fields.mapping(config, "format", path="output_config.format") or fields.mapping(body, "output_format")
    if not given:
        return None
    losses.drop_others(given, ("type", "schema"), "output_config.format")
    if given.get("type") != "json_schema":
        raise NotCarried("output_config.format.type")
    return Format(schema=fields.mapping(given, "schema", path="output_config.format.schema"), strict=None)


def _read_thinking(body: Body, losses: Losses) -> Thinking | None:
    given = fields.mapping(body, "thinking")
    losses.drop_others(given, ("type", "budget_tokens", "display"), "thinking")
    word = fields.text(fields.mapping(body, "output_config"), "effort", path="output_config.effort")
    if word is not None and word not in EFFORTS:
        raise fields.invalid("output_config.effort", f"must be one of {', '.join(EFFORTS)}")
    effort = next((effort for effort in EFFORTS if effort == word), None)
    visible = {"omitted": False, "summarized": True}.get(str(given.get("display")))
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
    if word is not None and word not in TIERS:
        losses.drop("service_tier")
    return TIERS.get(word or "")
