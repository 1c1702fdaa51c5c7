"""What a client's request says, read into the middle."""

import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

from tollgate.wire import Body, fields, neutral
from tollgate.wire.content import (
    EFFORTS,
    Document,
    Format,
    Image,
    Part,
    Prompt,
    Reasoning,
    Refused,
    ResultPart,
    Role,
    Text,
    Thinking,
    ToolCall,
    ToolResult,
    Turn,
)
from tollgate.wire.openai.shared import data_url, read_audio, read_schema, read_tier, read_user
from tollgate.wire.responses.ask import read_input
from tollgate.wire.responses.tools import read_tool_choice, read_tools
from tollgate.wire.responses.words import (
    CALL_SIGNATURE,
    CUSTOM_INPUT,
    HOME,
    REDACTED,
    SIGNATURE,
    kind_of,
    namespaced,
)
from tollgate.wire.scope import Losses, NotCarried

# Fields of a request that the middle holds; `metadata` are tollgate's own tags
_READ = frozenset(
    {
        "frequency_penalty",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "metadata",
        "model",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning",
        "safety_identifier",
        "service_tier",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "user",
    }
)

# Fields that say what the client wants to get, and that the middle does not hold. Any other is dropped and named.
_REFUSED = frozenset({"context_management", "moderation"})
_KEPT_BY_THE_PROVIDER = frozenset({"conversation", "previous_response_id", "prompt"})

# Fields at the value that says nothing: what happens anyway
_INERT: Body = {"background": False, "store": False, "truncation": "disabled"}

# Items that the provider's own tools left in the conversation: their findings are in the text that follows
_OWN_TOOLS_ITEM = re.compile(
    r"(web_search|file_search|code_interpreter|image_generation|tool_search|mcp)_call|tool_search_output"
    r"|mcp_list_tools|mcp_approval_(request|response)"
)

prompt_fields: Mapping[str, str] = {
    "format": "text.format",
    "thinking": "reasoning",
    "thinking.visible": "reasoning.summary",
    "verbosity": "text.verbosity",
    "logprobs": "include",
    "cache": "prompt_cache_breakpoint",
    "name": "filename",
    "signature": "encrypted_content",
}


def read_prompt(body: Body, losses: Losses) -> Prompt:
    for field, value in body.items():
        if value is None or field in _READ or field in fields.EXTENSION_FIELDS or _INERT.get(field, ...) == value:
            continue
        if field in _KEPT_BY_THE_PROVIDER:
            raise NotCarried(field, "names what another provider keeps, which nobody else can read")
        if field in _REFUSED:
            raise NotCarried(field)
        losses.drop(field)
    losses.drop_others(fields.mapping(body, "stream_options"), (), "stream_options")
    instructions = fields.text(body, "instructions")
    turns = [Turn("system", (Text(text=instructions, path="instructions"),), "instructions")] if instructions else []
    turns += _joined(_read_items(read_input(body), losses))
    tools = read_tools(fields.items(body, "tools"), losses)
    return Prompt(
        turns=tuple(turns),
        stream=fields.boolean(body, "stream"),
        max_output_tokens=fields.integer(body, "max_output_tokens", minimum=1),
        tools=tools,
        tool_choice=read_tool_choice(body, losses) if tools else None,
        parallel_tool_calls=fields.optional_boolean(body, "parallel_tool_calls") if tools else None,
        format=_read_format(body, losses),
        thinking=_read_thinking(body, losses),
        logprobs=_wants_logprobs(body, losses),
        top_logprobs=fields.integer(body, "top_logprobs", minimum=0) or None,
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        presence_penalty=fields.number(body, "presence_penalty"),
        frequency_penalty=fields.number(body, "frequency_penalty"),
        service_tier=read_tier(body, losses),
        user=read_user(body, losses),
        verbosity=fields.text(fields.mapping(body, "text"), "verbosity", path="text.verbosity"),
    )


# The conversation ---------------------------------------------------------------------------------------------------


def _read_items(items: list[Body], losses: Losses) -> Iterator[Turn]:
    """A turn per item; `_joined` puts those together that are one."""
    pending: Reasoning | None = None  # another family's signature of the call that follows
    for at, item in enumerate(items):
        where = f"input[{at}]"
        kind = kind_of(item)
        if kind is not None and _OWN_TOOLS_ITEM.fullmatch(kind):
            losses.drop(f"{where}.{kind}")
            continue
        if kind is None and "role" not in item:
            raise fields.missing(f"{where}.type")
        read = _ITEM_READERS.get(kind or "message")
        if read is None:
            raise NotCarried(f"{where}.type")
        turn = read(item, where, losses)
        part = turn.parts[0] if turn.parts else None
        if isinstance(part, Reasoning) and part.redacted is not None and part.redacted.startswith(CALL_SIGNATURE):
            pending = part
            continue
        if isinstance(part, ToolCall) and pending is not None and pending.redacted is not None:
            signature = pending.redacted.removeprefix(CALL_SIGNATURE)
            part = msgspec.structs.replace(part, signature=signature, origin=pending.origin)
            turn, pending = Turn(turn.role, (part,), turn.path), None
        yield turn


def _joined(turns: Iterator[Turn]) -> list[Turn]:
    """What the assistant thought, said and called is one turn, however many items it was; so are a round of results."""
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        if before is not None and before.role == turn.role and (turn.role == "assistant" or _results(before, turn)):
            joined[-1] = Turn(before.role, before.parts + turn.parts, before.path)
        else:
            joined.append(turn)
    return joined


def _results(*turns: Turn) -> bool:
    return all(turn.parts and all(isinstance(part, ToolResult) for part in turn.parts) for turn in turns)


_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def _read_message(item: Body, where: str, losses: Losses) -> Turn:
    role = _ROLES.get(fields.required_text(item, "role", where))
    if role is None:
        raise NotCarried(f"{where}.role")
    losses.drop_others(item, ("type", "id", "role", "content", "status", "phase"), where)
    return Turn(role, _read_parts(item.get("content"), f"{where}.content", losses), where)


def _read_parts(content: object, where: str, losses: Losses) -> tuple[Part, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(text=content, path=where),)
    if not isinstance(content, list):
        raise fields.wrong_type(where, "a string or a list of parts", content)
    return tuple(_read_part(part, f"{where}[{at}]", losses) for at, part in enumerate(content))


def _read_part(part: object, where: str, losses: Losses) -> Part:
    if not isinstance(part, dict):
        raise fields.wrong_type(where, "an object", part)
    read = _PART_READERS.get(kind_of(part) or "")
    if read is None:
        raise NotCarried(f"{where}.type")
    if part.get("prompt_cache_breakpoint") is not None:
        losses.drop(where, "cache")
    losses.drop_others(part, _PART_FIELDS, where)
    return read(part, where, losses)


# Of all kinds together; `annotations` of what the assistant has said are named where there are any
_PART_FIELDS = frozenset({"type", "text", "logprobs", "prompt_cache_breakpoint", "refusal", "image_url", "detail"}) | {
    "filename",
    "file_url",
    "file_data",
    "input_audio",
}


def _read_text(part: Body, where: str, losses: Losses) -> Text:
    return Text(text=fields.required_text(part, "text", where), path=where)


def _read_refused(part: Body, where: str, losses: Losses) -> Refused:
    return Refused(text=fields.required_text(part, "refusal", where), path=where)


def _read_image(part: Body, where: str, losses: Losses) -> Image:
    if part.get("file_id") is not None:  # it lies at one provider
        raise NotCarried(f"{where}.file_id")
    url = fields.required_text(part, "image_url", where)
    detail = fields.text(part, "detail", path=f"{where}.detail")
    detail = None if detail == "auto" else detail
    if (data := data_url(url)) is not None:
        return Image(data=data[1], media_type=data[0], detail=detail, path=where)
    return Image(url=url, detail=detail, path=where)


def _read_file(part: Body, where: str, losses: Losses) -> Document:
    if part.get("file_id") is not None:
        raise NotCarried(f"{where}.file_id")
    name = fields.text(part, "filename", path=f"{where}.filename")
    if (url := fields.text(part, "file_url", path=f"{where}.file_url")) is not None:
        return Document(url=url, name=name, path=where)
    content = fields.required_text(part, "file_data", where)
    media_type, data = data_url(content) or ("application/pdf", content)
    return Document(data=data, media_type=media_type, name=name, path=where)


_PART_READERS: Mapping[str, Callable[[Body, str, Losses], Part]] = {
    "input_text": _read_text,
    "output_text": _read_text,
    "text": _read_text,
    "refusal": _read_refused,
    "input_image": _read_image,
    "input_file": _read_file,
    "input_audio": read_audio,
}


def _read_call(item: Body, where: str, losses: Losses) -> Turn:
    losses.drop_others(item, ("type", "id", "call_id", "name", "namespace", "arguments", "status", "caller"), where)
    return _call(item, where, fields.text(item, "arguments", path=f"{where}.arguments") or "")


def _read_custom_call(item: Body, where: str, losses: Losses) -> Turn:
    losses.drop_others(item, ("type", "id", "call_id", "name", "namespace", "input", "status", "caller"), where)
    said = fields.text(item, "input", path=f"{where}.input") or ""
    return _call(item, where, neutral.compact({CUSTOM_INPUT: said}))


def _call(item: Body, where: str, arguments: str) -> Turn:
    namespace = fields.text(item, "namespace", path=f"{where}.namespace")
    call = ToolCall(
        id=fields.required_text(item, "call_id", where),
        name=namespaced(namespace, fields.required_text(item, "name", where)),
        arguments=arguments,
        path=where,
    )
    return Turn("assistant", (call,), where)


def _read_result(item: Body, where: str, losses: Losses) -> Turn:
    losses.drop_others(item, ("type", "id", "call_id", "name", "namespace", "output", "status", "caller"), where)
    parts: list[ResultPart] = []
    for part in _read_parts(item.get("output"), f"{where}.output", losses):
        if not isinstance(part, ResultPart):
            raise NotCarried(part.path)
        parts.append(part)
    result = ToolResult(call_id=fields.required_text(item, "call_id", where), parts=tuple(parts), path=where)
    return Turn("user", (result,), where)


def _read_reasoning(item: Body, where: str, losses: Losses) -> Turn:
    """A thought: the summary, or what a model that hides nothing has said; sealed by `encrypted_content`."""
    losses.drop_others(item, ("type", "id", "summary", "content", "encrypted_content", "status"), where)
    text = _thought(item, "summary", where, losses) or _thought(item, "content", where, losses)
    sealed = fields.text(item, "encrypted_content", path=f"{where}.encrypted_content")
    return Turn("assistant", (_reasoning(text, sealed, f"{where}.reasoning"),), where)


def _reasoning(text: str, sealed: str | None, where: str) -> Reasoning:
    if not sealed:
        return Reasoning(text=text, path=where)
    value, origin = neutral.untagged(sealed, HOME)
    if origin == HOME:
        if text:
            return Reasoning(text=text, signature=value, origin=HOME, path=where)
        return Reasoning(redacted=value, origin=HOME, path=where)
    if value.startswith(SIGNATURE):
        return Reasoning(text=text, signature=value.removeprefix(SIGNATURE), origin=origin, path=where)
    return Reasoning(redacted=value.removeprefix(REDACTED), origin=origin, path=where)


def _thought(item: Body, field: str, where: str, losses: Losses) -> str:
    texts = []
    for at, part in enumerate(fields.items(item, field, path=f"{where}.{field}")):
        if not isinstance(part, dict):
            raise fields.wrong_type(f"{where}.{field}[{at}]", "an object", part)
        losses.drop_others(part, ("type", "text"), f"{where}.{field}[{at}]")
        texts.append(fields.required_text(part, "text", f"{where}.{field}[{at}]"))
    return "\n\n".join(texts)


_ITEM_READERS: Mapping[str, Callable[[Body, str, Losses], Turn]] = {
    "message": _read_message,
    "function_call": _read_call,
    "function_call_output": _read_result,
    "custom_tool_call": _read_custom_call,
    "custom_tool_call_output": _read_result,
    "reasoning": _read_reasoning,
}


# The rest -----------------------------------------------------------------------------------------------------------


def _read_format(body: Body, losses: Losses) -> Format | None:
    text = fields.mapping(body, "text")
    losses.drop_others(text, ("format", "verbosity"), "text")
    given = fields.mapping(text, "format", path="text.format")
    losses.drop_others(given, ("type", "name", "description", "schema", "strict"), "text.format")
    match given.get("type"):
        case None | "text":
            return None
        case "json_object":
            return Format()
        case "json_schema":
            return read_schema(given, "text.format")
        case _:
            raise NotCarried("text.format.type")


def _read_thinking(body: Body, losses: Losses) -> Thinking | None:
    given = fields.mapping(body, "reasoning")
    losses.drop_others(given, ("effort", "summary", "generate_summary"), "reasoning")
    effort = fields.text(given, "effort", path="reasoning.effort")
    if effort is not None and effort not in EFFORTS:
        raise fields.invalid("reasoning.effort", f"must be one of {', '.join(EFFORTS)}")
    summary = given.get("summary") or given.get("generate_summary")
    if effort is None:
        if summary is not None:  # of what it would think unasked
            losses.drop("reasoning.summary")
        return None
    return Thinking(effort=next(word for word in EFFORTS if word == effort), visible=None if summary is None else True)


def _wants_logprobs(body: Body, losses: Losses) -> bool:
    included = fields.items(body, "include")
    for what in included:
        if what not in ("reasoning.encrypted_content", "message.output_text.logprobs"):
            losses.drop("include")
    return "message.output_text.logprobs" in included
