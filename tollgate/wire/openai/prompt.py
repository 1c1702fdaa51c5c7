"""What a client's request says, read into the middle."""

from collections.abc import Callable, Mapping

import msgspec

from tollgate.wire import Body, fields
from tollgate.wire.content import (
    EFFORTS,
    Cache,
    Document,
    Format,
    Image,
    Part,
    Prompt,
    Refused,
    ResultPart,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from tollgate.wire.openai.shared import data_url, read_audio, read_schema, read_tier, read_user
from tollgate.wire.openai.thoughts import drop_extra, google_signature, read_thoughts
from tollgate.wire.openai.words import CAP_FIELDS, CHOICE_MODES, MAX_CHOICES
from tollgate.wire.scope import Losses, NotCarried

# Fields of a request that the middle holds; `metadata` are tollgate's own tags, which go on only to a provider of this
# dialect. `top_k`, `reasoning` and `cache_control` are what compatible servers have added.
_READ = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "messages",
        "metadata",
        "modalities",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning",
        "reasoning_effort",
        "response_format",
        "safety_identifier",
        "seed",
        "service_tier",
        "stop",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
        *CAP_FIELDS,
    }
)

# Fields that say what the client wants to get, and that the middle does not hold. Any other is dropped and named.
_REFUSED = frozenset({"audio", "function_call", "functions", "moderation", "web_search_options"})
_REFUSED_IN_MESSAGE = frozenset({"audio", "function_call"})

# Fields at the value that says nothing: what a provider would do without them.
_INERT: Body = {
    "function_call": "none",
    "functions": [],
    "logit_bias": {},
    "store": False,
}

prompt_fields: Mapping[str, str] = {
    "max_output_tokens": "max_completion_tokens",
    "format": "response_format",
    "thinking": "reasoning_effort",
    "thinking.visible": "reasoning.exclude",
    "strict": "function.strict",
    "cache": "cache_control",
    "detail": "image_url.detail",
    "name": "file.filename",
    "signature": "extra_content",
}


def read_prompt(body: Body, losses: Losses) -> Prompt:
    for field, value in body.items():
        if value is None or field in _READ or field in fields.EXTENSION_FIELDS or _INERT.get(field, ...) == value:
            continue
        if field in _REFUSED:
            raise NotCarried(field)
        losses.drop(field)
    if fields.items(body, "modalities") not in ([], ["text"]):
        raise NotCarried("modalities")
    for option, value in fields.mapping(body, "stream_options").items():
        if option != "include_usage" and value:
            losses.drop(f"stream_options.{option}")
    caps = [cap for field in CAP_FIELDS if (cap := fields.integer(body, field, minimum=1)) is not None]
    tools = tuple(_read_tool(tool, f"tools[{at}]", losses) for at, tool in enumerate(fields.items(body, "tools")))
    return Prompt(
        turns=tuple(_read_turn(message, f"messages[{at}]", losses) for at, message in enumerate(fields.messages(body))),
        stream=fields.boolean(body, "stream"),
        max_output_tokens=min(caps, default=None),
        stop=_read_stop(body),
        tools=tools,
        tool_choice=_read_tool_choice(body, losses) if tools else None,
        parallel_tool_calls=fields.optional_boolean(body, "parallel_tool_calls") if tools else None,
        format=_read_format(body, losses),
        thinking=_read_thinking(body, losses),
        n=fields.integer(body, "n", minimum=1, maximum=MAX_CHOICES) or 1,
        logprobs=fields.boolean(body, "logprobs"),
        top_logprobs=fields.integer(body, "top_logprobs", minimum=0) or None,
        logit_bias=fields.mapping(body, "logit_bias") or None,
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        top_k=fields.integer(body, "top_k", minimum=-1),
        presence_penalty=fields.number(body, "presence_penalty"),
        frequency_penalty=fields.number(body, "frequency_penalty"),
        seed=fields.integer(body, "seed"),
        service_tier=read_tier(body, losses),
        user=read_user(body, losses),
        verbosity=fields.text(body, "verbosity"),
    )


def _read_turn(message: Body, where: str, losses: Losses) -> Turn:
    match message["role"]:
        case "system" | "developer":
            return Turn("system", _read_content(message, where, losses), where)
        case "user":
            return Turn("user", _read_content(message, where, losses), where)
        case "assistant":
            return Turn("assistant", _read_assistant(message, where, losses), where)
        case "tool":
            return Turn("user", (_read_result(message, where, losses),), where)
        case _:
            raise NotCarried(f"{where}.role")


def _drop_others(message: Body, known: frozenset[str], where: str, losses: Losses) -> None:
    for field in _REFUSED_IN_MESSAGE:
        if message.get(field) is not None:
            raise NotCarried(f"{where}.{field}")
    losses.drop_others(message, known, where)


_MESSAGE_FIELDS = frozenset({"role", "content", "cache_control"})
_RESULT_FIELDS = _MESSAGE_FIELDS | {"tool_call_id", "name"}

_ASSISTANT_FIELDS = _MESSAGE_FIELDS | {
    "tool_calls",
    "refusal",
    "reasoning",
    "reasoning_content",
    "reasoning_details",
}


def _read_content(message: Body, where: str, losses: Losses) -> tuple[Part, ...]:
    _drop_others(message, _MESSAGE_FIELDS, where, losses)
    return _read_parts(message, where, losses)


def _read_parts(message: Body, where: str, losses: Losses) -> tuple[Part, ...]:
    content, where = message.get("content"), f"{where}.content"
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(text=content, cache=_read_cache(message, where, losses), path=where),)
    if not isinstance(content, list):
        raise fields.wrong_type(where, "a string or a list of parts", content)
    parts = [_read_part(part, f"{where}[{at}]", losses) for at, part in enumerate(content)]
    if parts and (cache := _read_cache(message, where, losses)) is not None:
        parts[-1] = msgspec.structs.replace(parts[-1], cache=cache)
    return tuple(parts)


def _read_part(part: object, where: str, losses: Losses) -> Part:
    if not isinstance(part, dict):
        raise fields.wrong_type(where, "an object", part)
    kind = part.get("type")
    read = _PART_READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise NotCarried(f"{where}.type")
    losses.drop_others(part, ("type", str(kind), *_CACHE_FIELDS), where)
    return read(part, where, losses)


def _read_text(part: Body, where: str, losses: Losses) -> Text:
    return Text(text=fields.required_text(part, "text", where), cache=_read_cache(part, where, losses), path=where)


def _read_refused(part: Body, where: str, losses: Losses) -> Refused:
    return Refused(text=fields.required_text(part, "refusal", where), path=where)


def _read_image(part: Body, where: str, losses: Losses) -> Image:
    given = part.get("image_url")
    image = {"url": given} if isinstance(given, str) else fields.mapping(part, "image_url", path=f"{where}.image_url")
    losses.drop_others(image, ("url", "detail"), f"{where}.image_url")
    url = fields.required_text(image, "url", f"{where}.image_url")
    cache, detail = _read_cache(part, where, losses), fields.text(image, "detail", path=f"{where}.image_url.detail")
    detail = None if detail == "auto" else detail
    if (data := data_url(url)) is not None:
        return Image(data=data[1], media_type=data[0], detail=detail, cache=cache, path=where)
    return Image(url=url, detail=detail, cache=cache, path=where)


def _read_file(part: Body, where: str, losses: Losses) -> Document:
    file = fields.mapping(part, "file", path=f"{where}.file")
    if file.get("file_id") is not None:  # it lies at one provider
        raise NotCarried(f"{where}.file.file_id")
    losses.drop_others(file, ("filename", "file_data"), f"{where}.file")
    content = fields.required_text(file, "file_data", f"{where}.file")
    title = fields.text(file, "filename", path=f"{where}.file.filename")
    cache = _read_cache(part, where, losses)
    if content.startswith(("http://", "https://")):
        return Document(url=content, name=title, cache=cache, path=where)
    media_type, data = data_url(content) or ("application/pdf", content)
    return Document(data=data, media_type=media_type, name=title, cache=cache, path=where)


_PART_READERS: Mapping[str, Callable[[Body, str, Losses], Part]] = {
    "text": _read_text,
    "refusal": _read_refused,
    "image_url": _read_image,
    "file": _read_file,
    "input_audio": read_audio,
}


_CACHE_FIELDS = ("cache_control", "prompt_cache_breakpoint")


def _read_cache(holder: Body, where: str, losses: Losses) -> Cache | None:
    """A marker as OpenRouter and LiteLLM take it from Anthropic, or as OpenAI writes it."""
    for field in _CACHE_FIELDS:
        if isinstance(marker := holder.get(field), dict):
            losses.drop_others(marker, ("type", "mode", "ttl"), f"{where}.{field}")
            ttl = marker.get("ttl")
            return Cache(ttl if ttl in ("5m", "30m", "1h", "12h", "24h") else None)
    return None


def _read_result(message: Body, where: str, losses: Losses) -> ToolResult:
    _drop_others(message, _RESULT_FIELDS, where, losses)
    parts: list[ResultPart] = []
    for part in _read_parts(message, where, losses):
        if not isinstance(part, ResultPart):
            raise NotCarried(part.path)
        parts.append(part)
    name = fields.text(message, "name", path=f"{where}.name")
    return ToolResult(
        call_id=fields.required_text(message, "tool_call_id", where), name=name, parts=tuple(parts), path=where
    )


def _read_assistant(message: Body, where: str, losses: Losses) -> tuple[Part, ...]:
    _drop_others(message, _ASSISTANT_FIELDS, where, losses)
    parts: list[Part] = [*read_thoughts(message, where, losses), *_read_parts(message, where, losses)]
    refusal = fields.text(message, "refusal", path=f"{where}.refusal")
    if refusal:
        parts.append(Refused(text=refusal, path=f"{where}.refusal"))
    for at, call in enumerate(fields.items(message, "tool_calls", path=f"{where}.tool_calls")):
        parts.append(_read_call(call, f"{where}.tool_calls[{at}]", losses))
    return tuple(parts)


def _read_call(call: object, where: str, losses: Losses) -> ToolCall:
    if not isinstance(call, dict):
        raise fields.wrong_type(where, "an object", call)
    if call.get("type", "function") != "function":
        raise NotCarried(f"{where}.type")
    function = fields.mapping(call, "function", path=f"{where}.function")
    losses.drop_others(call, ("id", "type", "index", "function", "extra_content"), where)
    losses.drop_others(function, ("name", "arguments"), f"{where}.function")
    signature = google_signature(call)
    drop_extra(call, where, losses)
    return ToolCall(
        id=fields.required_text(call, "id", where),
        name=fields.required_text(function, "name", f"{where}.function"),
        arguments=fields.text(function, "arguments", path=f"{where}.function.arguments") or "",
        signature=signature,
        origin=None if signature is None else "google",
        path=where,
    )


def _read_tool(tool: object, where: str, losses: Losses) -> Tool:
    if not isinstance(tool, dict):
        raise fields.wrong_type(where, "an object", tool)
    if tool.get("type", "function") != "function":
        raise NotCarried(f"{where}.type")
    inside = f"{where}.function"
    function = fields.mapping(tool, "function", path=inside)
    losses.drop_others(tool, ("type", "function", *_CACHE_FIELDS), where)
    losses.drop_others(function, ("name", "description", "parameters", "strict", "cache_control"), inside)
    return Tool(
        name=fields.required_text(function, "name", inside),
        description=fields.text(function, "description", path=f"{inside}.description"),
        schema=fields.mapping(function, "parameters", path=f"{inside}.parameters") or None,
        strict=fields.optional_boolean(function, "strict", path=f"{inside}.strict"),
        cache=_read_cache(tool, where, losses) or _read_cache(function, inside, losses),
        path=where,
    )


def _read_tool_choice(body: Body, losses: Losses) -> ToolChoice | None:
    choice = body.get("tool_choice")
    if choice is None:
        return None
    if isinstance(choice, str) and choice in CHOICE_MODES:
        return CHOICE_MODES[choice]
    if not isinstance(choice, dict):
        raise fields.invalid("tool_choice", f"must be one of {', '.join(CHOICE_MODES)}, or an object")
    if choice.get("type") == "function":
        function = fields.mapping(choice, "function", path="tool_choice.function")
        losses.drop_others(choice, ("type", "function"), "tool_choice")
        losses.drop_others(function, ("name",), "tool_choice.function")
        return ToolChoice("required", (fields.required_text(function, "name", "tool_choice.function"),))
    if choice.get("type") == "allowed_tools":
        where = "tool_choice.allowed_tools"
        allowed = fields.mapping(choice, "allowed_tools", path=where)
        losses.drop_others(choice, ("type", "allowed_tools"), "tool_choice")
        losses.drop_others(allowed, ("mode", "tools"), where)
        named = [tool for tool in fields.items(allowed, "tools", path=f"{where}.tools") if isinstance(tool, dict)]
        functions = [one for tool in named if isinstance(one := tool.get("function"), dict)]
        for tool in named:
            losses.drop_others(tool, ("type", "function"), f"{where}.tools[]")
        for one in functions:
            losses.drop_others(one, ("name",), f"{where}.tools[].function")
        names = tuple(str(one.get("name")) for one in functions)
        return ToolChoice("required" if allowed.get("mode") == "required" else "auto", names)
    raise NotCarried("tool_choice")


def _read_format(body: Body, losses: Losses) -> Format | None:
    given = fields.mapping(body, "response_format")
    losses.drop_others(given, ("type", "json_schema"), "response_format")
    match given.get("type"):
        case None | "text":
            return None
        case "json_object":
            return Format()
        case "json_schema":
            where = "response_format.json_schema"
            schema = fields.mapping(given, "json_schema", path=where)
            losses.drop_others(schema, ("name", "description", "schema", "strict"), where)
            return read_schema(schema, where)
        case _:
            raise NotCarried("response_format.type")


def _read_thinking(body: Body, losses: Losses) -> Thinking | None:
    """OpenAI's effort, or OpenRouter's `reasoning` with effort, budget, and whether to show it."""
    given = fields.mapping(body, "reasoning")
    losses.drop_others(given, ("effort", "max_tokens", "enabled", "exclude"), "reasoning")
    effort = fields.text(body, "reasoning_effort") or fields.text(given, "effort", path="reasoning.effort")
    budget = fields.integer(given, "max_tokens", minimum=0, path="reasoning.max_tokens")
    if effort is not None and effort not in EFFORTS:
        raise fields.invalid("reasoning_effort", f"must be one of {', '.join(EFFORTS)}")
    if effort is None and budget is None and given.get("enabled") is not True:
        return None
    known = next((word for word in EFFORTS if word == effort), None)
    return Thinking(effort=known, budget_tokens=budget, visible=False if given.get("exclude") is True else None)


def _read_stop(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    return (stop,) if isinstance(stop, str) else fields.texts(fields.items(body, "stop"), "stop")
