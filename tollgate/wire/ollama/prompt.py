"""What a client's request says, read into the middle."""

import base64
import binascii
from collections.abc import Mapping

from tollgate.wire import Body, fields
from tollgate.wire.calls import ANY, Calls
from tollgate.wire.content import (
    EFFORTS,
    Format,
    Image,
    Part,
    Prompt,
    Reasoning,
    ResultPart,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from tollgate.wire.neutral import compact
from tollgate.wire.ollama.ask import cap
from tollgate.wire.ollama.words import CAP, OPTIONS, is_generate
from tollgate.wire.scope import Losses, NotCarried

# Fields of a request that the middle holds
_READ = frozenset({"format", "logprobs", "model", "options", "stream", "think", "top_logprobs"})
_READ_OF_CHAT = _READ | {"messages", "tools"}
_READ_OF_GENERATE = _READ | {"images", "prompt", "system"}

# Fields of `/api/generate` that say what the client wants to get, and that the middle does not hold: how its template
# is filled in, text to fill a gap before, an earlier answer as numbers, an image to be drawn. Others are dropped.
_REFUSED = frozenset({"context", "height", "raw", "steps", "suffix", "template", "width"})

prompt_fields: Mapping[str, str] = {
    **{field: f"options.{name}" for field, name in OPTIONS.items()},
    "max_output_tokens": f"options.{CAP}",
    "stop": "options.stop",
    "thinking": "think",
    "messages": "messages",
}


def read_prompt(body: Body, losses: Losses) -> Prompt:
    generate = is_generate(body)
    for field, value in body.items():
        if value is False or value in (None, "", [], {}):  # SDKs send these for what is not set
            continue
        if field in (_READ_OF_GENERATE if generate else _READ_OF_CHAT) or field in fields.EXTENSION_FIELDS:
            continue
        if generate and field in _REFUSED:
            raise NotCarried(field)
        losses.drop(field)
    options = fields.mapping(body, "options")
    losses.drop_others(options, {*OPTIONS.values(), CAP, "stop"}, "options")
    named = {f"options.{field}": value for field, value in options.items()}
    return Prompt(
        turns=_read_generate(body) if generate else _read_turns(body, losses),
        stream=fields.boolean(body, "stream"),
        max_output_tokens=cap(body),
        stop=_read_stop(named),
        tools=() if generate else _read_tools(body, losses),
        format=_read_format(body),
        thinking=_read_thinking(body),
        logprobs=fields.boolean(body, "logprobs"),
        top_logprobs=fields.integer(body, "top_logprobs", minimum=0) or None,
        temperature=fields.number(named, "options.temperature"),
        top_p=fields.number(named, "options.top_p"),
        top_k=fields.integer(named, "options.top_k"),
        presence_penalty=fields.number(named, "options.presence_penalty"),
        frequency_penalty=fields.number(named, "options.frequency_penalty"),
        seed=fields.integer(named, "options.seed"),
    )


# Conversation -------------------------------------------------------------------------------------------------------


def _read_generate(body: Body) -> tuple[Turn, ...]:
    turns: list[Turn] = []
    if system := fields.text(body, "system"):
        turns.append(Turn("system", (Text(text=system, path="system"),), "system"))
    said: list[Part] = [Text(text=fields.text(body, "prompt") or "", path="prompt")]
    turns.append(Turn("user", (*said, *_read_images(body, "images")), "prompt"))
    return tuple(turns)


_MESSAGE_FIELDS = frozenset({"role", "content", "images"})
_ASSISTANT_FIELDS = _MESSAGE_FIELDS | {"thinking", "tool_calls"}
_RESULT_FIELDS = _MESSAGE_FIELDS | {"tool_name", "tool_call_id"}


def _read_turns(body: Body, losses: Losses) -> tuple[Turn, ...]:
    calls = Calls()
    return tuple(
        _read_turn(message, f"messages[{at}]", calls, losses) for at, message in enumerate(fields.messages(body))
    )


def _read_turn(message: Body, where: str, calls: Calls, losses: Losses) -> Turn:
    match message["role"]:
        case "system":
            losses.drop_others(message, _MESSAGE_FIELDS, where)
            return Turn("system", _read_content(message, where), where)
        case "user":
            losses.drop_others(message, _MESSAGE_FIELDS, where)
            return Turn("user", _read_content(message, where), where)
        case "assistant":
            losses.drop_others(message, _ASSISTANT_FIELDS, where)
            return Turn("assistant", _read_assistant(message, where, calls, losses), where)
        case "tool":
            losses.drop_others(message, _RESULT_FIELDS, where)
            return Turn("user", (_read_result(message, where, calls),), where)
        case _:
            raise NotCarried(f"{where}.role")


def _read_content(message: Body, where: str) -> tuple[ResultPart, ...]:
    text = fields.text(message, "content", path=f"{where}.content")
    images = _read_images(message, f"{where}.images")
    said = (Text(text=text, path=f"{where}.content"),) if text or (text is not None and not images) else ()
    return (*said, *images)


def _read_images(holder: Body, where: str) -> tuple[Image, ...]:
    found = fields.texts(fields.items(holder, "images", path=where), where)
    return tuple(Image(data=data, media_type=_image_type(data), path=f"{where}[{at}]") for at, data in enumerate(found))


# How files of images begin: the protocol has no place to say of what kind they are
_MAGIC = ((b"\x89PNG", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"RIFF", "image/webp"))


def _image_type(data: str) -> str | None:
    try:
        head = base64.b64decode(data[:16])
    except (binascii.Error, ValueError):
        return None
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)


def _read_assistant(message: Body, where: str, calls: Calls, losses: Losses) -> tuple[Part, ...]:
    parts: list[Part] = []
    if thoughts := fields.text(message, "thinking", path=f"{where}.thinking"):
        parts.append(Reasoning(text=thoughts, path=f"{where}.thinking"))
    called = fields.items(message, "tool_calls", path=f"{where}.tool_calls")
    said = _read_content(message, where)
    parts += [part for part in said if not (called and isinstance(part, Text) and not part.text)]
    parts += [_read_call(call, f"{where}.tool_calls[{at}]", calls, losses) for at, call in enumerate(called)]
    return tuple(parts)


def _read_call(call: object, where: str, calls: Calls, losses: Losses) -> ToolCall:
    if not isinstance(call, dict):
        raise fields.wrong_type(where, "an object", call)
    inside = f"{where}.function"
    function = fields.mapping(call, "function", path=inside)
    losses.drop_others(call, ("type", "id", "function"), where)
    losses.drop_others(function, ("index", "name", "arguments"), inside)
    name = fields.required_text(function, "name", inside)
    arguments = function.get("arguments")
    return ToolCall(
        id=calls.call(name, fields.text(call, "id", path=f"{where}.id") or None),
        name=name,
        arguments=arguments if isinstance(arguments, str) else compact(arguments or {}),
        path=where,
    )


def _read_result(message: Body, where: str, calls: Calls) -> ToolResult:
    name = fields.text(message, "tool_name", path=f"{where}.tool_name") or None
    id = fields.text(message, "tool_call_id", path=f"{where}.tool_call_id") or None
    return ToolResult(call_id=calls.result(name or ANY, id), name=name, parts=_read_content(message, where), path=where)


# The rest -----------------------------------------------------------------------------------------------------------


def _read_tools(body: Body, losses: Losses) -> tuple[Tool, ...]:
    return tuple(_read_tool(tool, f"tools[{at}]", losses) for at, tool in enumerate(fields.items(body, "tools")))


def _read_tool(tool: object, where: str, losses: Losses) -> Tool:
    if not isinstance(tool, dict):
        raise fields.wrong_type(where, "an object", tool)
    if tool.get("type", "function") != "function":
        raise NotCarried(f"{where}.type")
    inside = f"{where}.function"
    function = fields.mapping(tool, "function", path=inside)
    losses.drop_others(tool, ("type", "function"), where)
    losses.drop_others(function, ("name", "description", "parameters"), inside)
    return Tool(
        name=fields.required_text(function, "name", inside),
        description=fields.text(function, "description", path=f"{inside}.description"),
        schema=fields.mapping(function, "parameters", path=f"{inside}.parameters") or None,
        path=where,
    )


def _read_stop(named: Body) -> tuple[str, ...]:
    stop = named.get("options.stop")
    return (stop,) if isinstance(stop, str) else fields.texts(fields.items(named, "options.stop"), "options.stop")


def _read_format(body: Body) -> Format | None:
    wanted = body.get("format")
    if wanted is None or wanted == "":
        return None
    if wanted == "json":
        return Format()
    if not isinstance(wanted, dict):
        raise fields.invalid("format", "must be 'json' or a JSON Schema")
    return Format(schema=wanted)


def _read_thinking(body: Body) -> Thinking | None:
    """Yes, no, or how much."""
    wanted = body.get("think")
    match wanted:
        case None:
            return None
        case True | "true":
            return Thinking()
        case False | "false":
            return Thinking(effort="none")
    known = next((effort for effort in EFFORTS if effort == wanted), None)
    if known is None:
        raise fields.invalid("think", f"must be true, false or one of {', '.join(EFFORTS)}")
    return Thinking(effort=known)
