"""OpenAI's Chat Completions: `POST /v1/chat/completions`, and every server that is compatible with it.

Usage here is inclusive: `prompt_tokens` counts what came from a cache, `completion_tokens` counts reasoning.
Thoughts have no place in OpenAI's own answers. They are read and written where compatible servers have agreed to keep
them: `reasoning_content` (DeepSeek) and `reasoning_details` (OpenRouter), which holds signatures too; a signature of
Google's is in `extra_content` of the call it belongs to, as in Google's compatible endpoint. Pure.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote

import msgspec
import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Dialect, Usage
from tollgate.ids import request_time_ms
from tollgate.wire import Ask, Body, Extras, Meter, Quirks, failures, fields, neutral, sse
from tollgate.wire.content import (
    EFFORTS,
    Audio,
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
    Part,
    Prompt,
    Reasoning,
    Refused,
    ResultPart,
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

name: Dialect = "openai"
stream_type = "text/event-stream"
forwarded_headers: tuple[str, ...] = ()
prompt_fields: Mapping[str, str] = {
    "format": "response_format",
    "thinking": "reasoning_effort",
    "cache": "cache_control",
    "detail": "image_url.detail",
    "name": "file.filename",
    "signature": "extra_content",
}

MAX_CHOICES = 128
MAX_STOPS = 4
MAX_CALL_ID_CHARS = 40
MAX_USER_CHARS = 64
DONE = b"[DONE]"
CAP_FIELDS = ("max_completion_tokens", "max_tokens")

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
_TIERS: Mapping[str, Tier] = {"auto": "auto", "default": "standard", "flex": "flex", "priority": "priority"}
_TIERS_WRITTEN: Mapping[Tier, str] = {tier: word for word, tier in _TIERS.items()}
_CHOICE_MODES: Mapping[str, ToolChoice] = {
    mode.mode: mode for mode in (ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"))
}

# Whose thoughts they are, in the words of OpenRouter's `reasoning_details`
_FORMATS: Mapping[str, Family] = {
    "anthropic-claude-v1": "anthropic",
    "google-gemini-v1": "google",
    "openai-responses-v1": "openai",
    "azure-openai-responses-v1": "openai",
}
_FORMATS_WRITTEN: Mapping[Family, str] = {
    "anthropic": "anthropic-claude-v1",
    "google": "google-gemini-v1",
    "openai": "openai-responses-v1",
}

# What the provider puts around the text (OpenAI Cookbook, "How to count tokens with tiktoken"): 3 tokens per message,
# 1 for a name, 3 to prime the reply; at most 10 per function, with 12 once for the list of them.
_MESSAGE_TOKENS = 4
_TOOL_TOKENS = 10
_FIXED_TOKENS = 15
_BOUNDED_PARTS = frozenset({"text", "refusal"})
_BOUNDED_TOOLS = frozenset({"function", "custom"})


# Scope --------------------------------------------------------------------------------------------------------------

_SAMPLING = frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"})
_SCOPE = Scope(
    fields=_SAMPLING
    | {
        "format",
        "logit_bias",
        "logprobs",
        "n",
        "parallel_tool_calls",
        "seed",
        "service_tier",
        "stop",
        "thinking",
        "tool_choice",
        "tools",
        "top_logprobs",
        "user",
        "verbosity",
    },
    parts={
        "system": frozenset({Text}),
        "user": frozenset({Text, Image, Document, Audio, ToolResult}),
        "assistant": frozenset({Text, Refused, ToolCall}),
    },
    results=frozenset({Text, Image, Document}),
    image_sources=frozenset({"url", "data"}),
    document_sources=frozenset({"data", "text"}),
    part_fields=frozenset({"detail", "name"}),
    ranges={"temperature": (0, 2), "top_p": (0, 1), "presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)},
    max_stops=MAX_STOPS,
    # OpenAI's model guides: reasoning models take neither sampling nor logprobs, from gpt-5.1 on only while they think
    rules=(
        Rule(models=r"\bo[134](-|$)", lacks=_SAMPLING | {"logprobs", "top_logprobs", "logit_bias"}),
        Rule(models=r"\bgpt-5(-(?!chat)|$)", lacks=_SAMPLING | {"logprobs", "top_logprobs", "logit_bias"}),
        Rule(
            models=r"\bgpt-5\.\d", lacks=frozenset({"temperature", "top_p", "logprobs", "top_logprobs"}), thinking=True
        ),
        Rule(models=r"\b(o3|o4-mini)\b", lacks=frozenset({"stop"})),
        Rule(models=r"\b(gpt-(3\.5|4)|chatgpt-4o|gpt-5-chat)", lacks=frozenset({"thinking"})),
    ),
)


@lru_cache(maxsize=64)
def scope(quirks: Quirks) -> Scope:
    return msgspec.structs.replace(
        _SCOPE,
        fields=(_SCOPE.fields | quirks.takes) - quirks.lacks,
        part_fields=_SCOPE.part_fields | {"cache"} if quirks.cache_marker else _SCOPE.part_fields,
        origins=quirks.origins,
        plain_reasoning=bool(quirks.thoughts_field),
    )


# Finish reasons -----------------------------------------------------------------------------------------------------

finish_words: Mapping[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_FINISH_WRITTEN: Mapping[Finish, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


# Usage --------------------------------------------------------------------------------------------------------------

_NO_QUIRKS = Quirks()


def read_usage(block: Body, quirks: Quirks = _NO_QUIRKS) -> Usage | None:
    """The disjoint classes of an inclusive block, never below 0; None when it counts nothing.

    Cached tokens lie elsewhere at some compatible servers: `cached_tokens` (Together, Moonshot) and
    `prompt_cache_hit_tokens` (DeepSeek), both parts of `prompt_tokens` too.
    """
    prompt, completion = tokens(block, "prompt_tokens"), tokens(block, "completion_tokens")
    if prompt is None and completion is None:
        return None
    cached = tokens(block, "prompt_tokens_details", "cached_tokens")
    if cached is None:
        cached = tokens(block, "cached_tokens") or tokens(block, "prompt_cache_hit_tokens") or 0
    written = tokens(block, "prompt_tokens_details", "cache_write_tokens") or 0
    audio_in = tokens(block, "prompt_tokens_details", "audio_tokens") or 0
    image_in = tokens(block, "prompt_tokens_details", "image_tokens") or 0
    reasoning = tokens(block, "completion_tokens_details", "reasoning_tokens") or 0
    audio_out = tokens(block, "completion_tokens_details", "audio_tokens") or 0
    image_out = tokens(block, "completion_tokens_details", "image_tokens") or 0
    if quirks.thoughts_outside_completion:
        completion = max(completion or 0, (tokens(block, "total_tokens") or 0) - (prompt or 0))
        reasoning = reasoning or completion - (tokens(block, "completion_tokens") or 0)
    return Usage(
        input_tokens=max(0, (prompt or 0) - cached - written - audio_in - image_in),
        cache_read_tokens=cached,
        cache_write_tokens=written,
        input_audio_tokens=audio_in,
        input_image_tokens=image_in,
        output_tokens=max(0, (completion or 0) - reasoning - audio_out - image_out),
        reasoning_tokens=reasoning,
        output_audio_tokens=audio_out,
        output_image_tokens=image_out,
    )


def write_usage(usage: Usage) -> Body:
    prompt, completion = neutral.total_input(usage), neutral.total_output(usage)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens + usage.cache_write_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
        },
    }


def _meter_usage(meter: Meter, block: object, quirks: Quirks) -> None:
    if isinstance(block, dict) and (usage := read_usage(block, quirks)) is not None:
        meter.usage = usage
        meter.usage_raw = neutral.compact(block)


# Request ------------------------------------------------------------------------------------------------------------


def ask(body: Body) -> Ask:
    messages = fields.messages(body)
    stream = fields.boolean(body, "stream")
    _wants_usage(body)
    caps = [cap for field in CAP_FIELDS if (cap := fields.integer(body, field, minimum=1)) is not None]
    tools = fields.items(body, "tools")
    return Ask(
        model=fields.model(body),
        stream=stream,
        input_bound_tokens=fields.size(body)
        + _MESSAGE_TOKENS * len(messages)
        + _TOOL_TOKENS * (len(tools) + len(fields.items(body, "functions")))
        + _FIXED_TOKENS,
        max_output_tokens=min(caps, default=None),
        choices=fields.integer(body, "n", minimum=1, maximum=MAX_CHOICES) or 1,
        user=fields.text(body, "user"),
        unbounded=_unbounded(body, messages, tools),
    )


def _unbounded(body: Body, messages: list[Body], tools: list[object]) -> str | None:
    for index, message in enumerate(messages):
        if message.get("audio") is not None:  # an earlier answer, kept by the provider
            return f"messages[{index}].audio"
        content = message.get("content")
        for at, part in enumerate(content if isinstance(content, list) else ()):
            if not isinstance(part, dict) or part.get("type") not in _BOUNDED_PARTS:
                return f"messages[{index}].content[{at}]"
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or tool.get("type") not in _BOUNDED_TOOLS:
            return f"tools[{index}]"
    for field in ("web_search_options", "prediction"):  # pages found; rejected predictions are billed as output
        if body.get(field) is not None:
            return field
    return None


def _wants_usage(body: Body) -> bool:
    """Did the client ask for the extra chunk with usage?"""
    options = fields.mapping(body, "stream_options")
    return options.get("include_usage") is True


def call_path(model: str, *, stream: bool, quirks: Quirks) -> str:
    return quirks.path.replace("{model}", quote(model, safe="")) or "/chat/completions"


def request_headers(client_headers: Mapping[str, str]) -> dict[str, str]:
    return {}


def auth_headers(api_key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {api_key}"}


def pass_on(body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks) -> Body:
    sent = {field: value for field, value in body.items() if field not in fields.EXTENSION_FIELDS}
    sent["model"] = model
    if max_output_tokens is not None:
        named = [field for field in CAP_FIELDS if body.get(field) is not None] or [quirks.cap_field]
        sent.update(dict.fromkeys(named, max_output_tokens))
    if body.get("stream"):
        _ask_for_usage(sent)
    return sent


def _ask_for_usage(sent: Body) -> None:
    """Without it, a stream says nothing of what it used."""
    sent["stream_options"] = {**(sent.get("stream_options") or {}), "include_usage": True}


# Request, read --------------------------------------------------------------------------------------------------------


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
    user, identifier = fields.text(body, "user"), fields.text(body, "safety_identifier")
    if user is not None and identifier is not None:
        losses.drop("safety_identifier")
    return Prompt(
        turns=tuple(_read_turn(message, f"messages[{at}]", losses) for at, message in enumerate(fields.messages(body))),
        stream=fields.boolean(body, "stream"),
        max_output_tokens=min(caps, default=None),
        stop=_read_stop(body),
        tools=tools,
        tool_choice=_read_tool_choice(body) if tools else None,
        parallel_tool_calls=fields.optional_boolean(body, "parallel_tool_calls") if tools else None,
        format=_read_format(body),
        thinking=_read_thinking(body),
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
        service_tier=_read_tier(body, losses),
        user=identifier if user is None else user,
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


def _lose_fields(message: Body, known: frozenset[str], where: str, losses: Losses) -> None:
    for field, value in message.items():
        if field not in known and value is not None and value != []:
            if field in _REFUSED_IN_MESSAGE:
                raise NotCarried(f"{where}.{field}")
            losses.drop(f"{where}.{field}")


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
    _lose_fields(message, _MESSAGE_FIELDS, where, losses)
    return _read_parts(message, where, losses)


def _read_parts(message: Body, where: str, losses: Losses) -> tuple[Part, ...]:
    content, where = message.get("content"), f"{where}.content"
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(text=content, cache=_read_cache(message), path=where),)
    if not isinstance(content, list):
        raise fields.wrong_type(where, "a string or a list of parts", content)
    parts = [_read_part(part, f"{where}[{at}]", losses) for at, part in enumerate(content)]
    if parts and (cache := _read_cache(message)) is not None:
        parts[-1] = msgspec.structs.replace(parts[-1], cache=cache)
    return tuple(parts)


def _read_part(part: object, where: str, losses: Losses) -> Part:
    if not isinstance(part, dict):
        raise fields.wrong_type(where, "an object", part)
    kind = part.get("type")
    read = _PART_READERS.get(kind) if isinstance(kind, str) else None
    if read is None:
        raise NotCarried(f"{where}.type")
    for field, value in part.items():
        if field not in ("type", kind, "cache_control", "prompt_cache_breakpoint") and value is not None:
            losses.drop(f"{where}.{field}")
    return read(part, where, losses)


def _read_text(part: Body, where: str, losses: Losses) -> Text:
    return Text(text=_required(part, "text", where), cache=_read_cache(part), path=where)


def _read_refused(part: Body, where: str, losses: Losses) -> Refused:
    return Refused(text=_required(part, "refusal", where), path=where)


def _read_image(part: Body, where: str, losses: Losses) -> Image:
    given = part.get("image_url")
    image = {"url": given} if isinstance(given, str) else fields.mapping(part, "image_url", path=f"{where}.image_url")
    url = _required(image, "url", f"{where}.image_url")
    cache, detail = _read_cache(part), fields.text(image, "detail", path=f"{where}.image_url.detail")
    detail = None if detail == "auto" else detail
    if (data := _data_url(url)) is not None:
        return Image(data=data[1], media_type=data[0], detail=detail, cache=cache, path=where)
    return Image(url=url, detail=detail, cache=cache, path=where)


def _read_file(part: Body, where: str, losses: Losses) -> Document:
    file = fields.mapping(part, "file", path=f"{where}.file")
    if file.get("file_id") is not None:  # it lies at one provider
        raise NotCarried(f"{where}.file.file_id")
    content = _required(file, "file_data", f"{where}.file")
    title, cache = fields.text(file, "filename", path=f"{where}.file.filename"), _read_cache(part)
    if content.startswith(("http://", "https://")):
        return Document(url=content, name=title, cache=cache, path=where)
    media_type, data = _data_url(content) or ("application/pdf", content)
    return Document(data=data, media_type=media_type, name=title, cache=cache, path=where)


def _read_audio(part: Body, where: str, losses: Losses) -> Audio:
    audio, inside = fields.mapping(part, "input_audio", path=f"{where}.input_audio"), f"{where}.input_audio"
    return Audio(data=_required(audio, "data", inside), format=_required(audio, "format", inside), path=where)


_PART_READERS: Mapping[str, Callable[[Body, str, Losses], Part]] = {
    "text": _read_text,
    "refusal": _read_refused,
    "image_url": _read_image,
    "file": _read_file,
    "input_audio": _read_audio,
}


def _data_url(url: str) -> tuple[str, str] | None:
    """Media type and base64 of a `data:` URL (RFC 2397), None if it is none."""
    head, comma, data = url.partition(",")
    if not head.startswith("data:") or not comma or not head.endswith(";base64"):
        return None
    return head.removeprefix("data:").partition(";")[0], data


def _required(body: Body, field: str, where: str) -> str:
    value = fields.text(body, field, path=f"{where}.{field}")
    if value is None:
        raise fields.missing(f"{where}.{field}")
    return value


def _read_cache(holder: Body) -> Cache | None:
    """A marker as OpenRouter and LiteLLM take it from Anthropic, or as OpenAI writes it."""
    for field in ("cache_control", "prompt_cache_breakpoint"):
        if isinstance(marker := holder.get(field), dict):
            ttl = marker.get("ttl")
            return Cache(ttl if ttl in ("5m", "30m", "1h", "12h", "24h") else None)
    return None


def _read_result(message: Body, where: str, losses: Losses) -> ToolResult:
    _lose_fields(message, _RESULT_FIELDS, where, losses)
    parts: list[ResultPart] = []
    for part in _read_parts(message, where, losses):
        if not isinstance(part, ResultPart):
            raise NotCarried(part.path)
        parts.append(part)
    name = fields.text(message, "name", path=f"{where}.name")
    return ToolResult(call_id=_required(message, "tool_call_id", where), name=name, parts=tuple(parts), path=where)


def _read_assistant(message: Body, where: str, losses: Losses) -> tuple[Part, ...]:
    _lose_fields(message, _ASSISTANT_FIELDS, where, losses)
    parts: list[Part] = [*_read_thoughts(message, where, losses), *_read_parts(message, where, losses)]
    refusal = fields.text(message, "refusal", path=f"{where}.refusal")
    if refusal:
        parts.append(Refused(text=refusal, path=f"{where}.refusal"))
    for at, call in enumerate(fields.items(message, "tool_calls", path=f"{where}.tool_calls")):
        parts.append(_read_call(call, f"{where}.tool_calls[{at}]"))
    return tuple(parts)


def _read_call(call: object, where: str) -> ToolCall:
    if not isinstance(call, dict):
        raise fields.wrong_type(where, "an object", call)
    if call.get("type", "function") != "function":
        raise NotCarried(f"{where}.type")
    function = fields.mapping(call, "function", path=f"{where}.function")
    signature = _google_signature(call)
    return ToolCall(
        id=_required(call, "id", where),
        name=_required(function, "name", f"{where}.function"),
        arguments=fields.text(function, "arguments", path=f"{where}.function.arguments") or "",
        signature=signature,
        origin=None if signature is None else "google",
        path=where,
    )


def _google_signature(call: Body) -> str | None:
    extra = call.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) and signature else None


def _read_thoughts(message: Body, where: str, losses: Losses) -> list[Reasoning]:
    details = message.get("reasoning_details")
    if isinstance(details, list) and details:
        thoughts = []
        for at, detail in enumerate(details):
            here = f"{where}.reasoning_details[{at}]"
            thought = _read_detail(detail)
            if thought is None:
                losses.drop(here)
            else:
                thoughts.append(msgspec.structs.replace(thought, path=here))
        return thoughts
    for field in ("reasoning_content", "reasoning"):
        if text := fields.text(message, field, path=f"{where}.{field}"):
            return [Reasoning(text=text, path=f"{where}.{field}")]
    return []


def _read_detail(detail: object) -> Reasoning | None:
    """An entry of `reasoning_details`; None where nobody could make anything of it."""
    if not isinstance(detail, dict):
        return None
    kind, format = detail.get("type"), detail.get("format")
    origin = _FORMATS.get(format) if isinstance(format, str) else None
    if kind == "reasoning.encrypted":
        data = detail.get("data")
        return Reasoning(redacted=data, origin=origin) if isinstance(data, str) and origin is not None else None
    text, signature = detail.get("text" if kind == "reasoning.text" else "summary"), detail.get("signature")
    signature = signature if isinstance(signature, str) and signature and origin is not None else None
    text = text if isinstance(text, str) else ""
    if not text and signature is None:
        return None
    return Reasoning(text=text, signature=signature, origin=origin if signature is not None else None)


def _read_tool(tool: object, where: str, losses: Losses) -> Tool:
    if not isinstance(tool, dict):
        raise fields.wrong_type(where, "an object", tool)
    if tool.get("type", "function") != "function":
        raise NotCarried(f"{where}.type")
    inside = f"{where}.function"
    function = fields.mapping(tool, "function", path=inside)
    for field, value in function.items():
        if field not in ("name", "description", "parameters", "strict", "cache_control") and value is not None:
            losses.drop(f"{inside}.{field}")
    return Tool(
        name=_required(function, "name", inside),
        description=fields.text(function, "description", path=f"{inside}.description"),
        schema=fields.mapping(function, "parameters", path=f"{inside}.parameters") or None,
        strict=fields.optional_boolean(function, "strict", path=f"{inside}.strict"),
        cache=_read_cache(tool) or _read_cache(function),
        path=where,
    )


def _read_tool_choice(body: Body) -> ToolChoice | None:
    choice = body.get("tool_choice")
    if choice is None:
        return None
    if isinstance(choice, str) and choice in _CHOICE_MODES:
        return _CHOICE_MODES[choice]
    if not isinstance(choice, dict):
        raise fields.invalid("tool_choice", f"must be one of {', '.join(_CHOICE_MODES)}, or an object")
    if choice.get("type") == "function":
        function = fields.mapping(choice, "function", path="tool_choice.function")
        return ToolChoice("required", (_required(function, "name", "tool_choice.function"),))
    if choice.get("type") == "allowed_tools":
        allowed = fields.mapping(choice, "allowed_tools", path="tool_choice.allowed_tools")
        named = fields.items(allowed, "tools", path="tool_choice.allowed_tools.tools")
        functions = [tool.get("function") for tool in named if isinstance(tool, dict)]
        names = tuple(str(function.get("name")) for function in functions if isinstance(function, dict))
        return ToolChoice("required" if allowed.get("mode") == "required" else "auto", names)
    raise NotCarried("tool_choice")


def _read_format(body: Body) -> Format | None:
    given = fields.mapping(body, "response_format")
    match given.get("type"):
        case None | "text":
            return None
        case "json_object":
            return Format()
        case "json_schema":
            where = "response_format.json_schema"
            schema = fields.mapping(given, "json_schema", path=where)
            return Format(
                schema=fields.mapping(schema, "schema", path=f"{where}.schema"),
                name=fields.text(schema, "name", path=f"{where}.name"),
                description=fields.text(schema, "description", path=f"{where}.description"),
                strict=fields.optional_boolean(schema, "strict", path=f"{where}.strict"),
            )
        case _:
            raise NotCarried("response_format.type")


def _read_thinking(body: Body) -> Thinking | None:
    """OpenAI's effort, or OpenRouter's `reasoning` with effort, budget, and whether to show it."""
    given = fields.mapping(body, "reasoning")
    effort = fields.text(body, "reasoning_effort") or fields.text(given, "effort", path="reasoning.effort")
    budget = fields.integer(given, "max_tokens", minimum=0, path="reasoning.max_tokens")
    if effort is not None and effort not in EFFORTS:
        raise fields.invalid("reasoning_effort", f"must be one of {', '.join(EFFORTS)}")
    if effort is None and budget is None and given.get("enabled") is not True:
        return None
    known = next((word for word in EFFORTS if word == effort), None)
    return Thinking(effort=known, budget_tokens=budget, visible=False if given.get("exclude") is True else None)


def _read_tier(body: Body, losses: Losses) -> Tier | None:
    word = fields.text(body, "service_tier")
    if word is not None and word not in _TIERS:
        losses.drop("service_tier")
    return _TIERS.get(word or "")


def _read_stop(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    return (stop,) if isinstance(stop, str) else fields.texts(fields.items(body, "stop"), "stop")


# Request, written -----------------------------------------------------------------------------------------------------


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """`prompt` has been fitted to `scope`."""
    cap = prompt.max_output_tokens if max_output_tokens is None else max_output_tokens
    sent: Body = {
        "model": model,
        "messages": _write_messages(prompt.turns, quirks),
        quirks.cap_field: cap,
        "stop": list(prompt.stop) or None,
        "tools": [_write_tool(tool, quirks) for tool in neutral.callable_tools(prompt)] or None,
        "tool_choice": _write_tool_choice(prompt),
        "parallel_tool_calls": prompt.parallel_tool_calls,
        "response_format": _write_format(prompt.format),
        "n": prompt.n if prompt.n > 1 else None,
        "logprobs": prompt.logprobs or None,
        "top_logprobs": prompt.top_logprobs,
        "logit_bias": prompt.logit_bias,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "top_k": prompt.top_k,
        "presence_penalty": prompt.presence_penalty,
        "frequency_penalty": prompt.frequency_penalty,
        "seed": prompt.seed,
        "service_tier": None if prompt.service_tier is None else _TIERS_WRITTEN[prompt.service_tier],
        "user": None if prompt.user is None else _write_user(prompt.user),
        "verbosity": prompt.verbosity,
        "stream": prompt.stream or None,
    }
    if prompt.thinking is not None:
        sent[quirks.thinking_field] = _write_thinking(prompt.thinking, quirks)
    sent = {field: value for field, value in sent.items() if value is not None}
    if prompt.stream:
        _ask_for_usage(sent)
    return sent


def _write_messages(turns: Iterable[Turn], quirks: Quirks) -> list[Body]:
    """Results of tools come right after the calls, before whatever else the user says in the same breath."""
    messages: list[Body] = []
    results: list[Body] = []
    others: list[Body] = []
    for turn in turns:
        if turn.role == "user":
            _write_user_turn(turn, results, others, quirks)
            continue
        messages += results + others
        results, others = [], []
        if turn.role == "system":
            messages.append({"role": "system", "content": _write_content(turn.parts, quirks)})
        else:
            messages.append(_write_assistant(turn.parts, quirks))
    return messages + results + others


def _write_user_turn(turn: Turn, results: list[Body], others: list[Body], quirks: Quirks) -> None:
    said: list[Part] = []
    for part in turn.parts:
        if isinstance(part, ToolResult):
            results.append(_write_result(part, quirks))
            # a tool's message holds text only: what else it brought follows as the user's
            said += [shown for shown in part.parts if not isinstance(shown, Text)]
        else:
            said.append(part)
    if said or not turn.parts:
        others.append({"role": "user", "content": _write_content(said, quirks)})


def _write_result(result: ToolResult, quirks: Quirks) -> Body:
    texts = [part for part in result.parts if isinstance(part, Text)]
    if len(texts) < len(result.parts):
        texts.append(Text(text="(What this tool returned beside text follows in the next message of the user.)"))
    if texts and result.cache is not None:
        texts[-1] = msgspec.structs.replace(texts[-1], cache=result.cache)
    return {"role": "tool", "tool_call_id": _call_id(result.call_id), "content": _write_content(texts, quirks)}


def _write_assistant(parts: Iterable[Part], quirks: Quirks) -> Body:
    texts = [part for part in parts if isinstance(part, Text)]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    refusals = [part.text for part in parts if isinstance(part, Refused)]
    message: Body = {
        "role": "assistant",
        "content": _write_content(texts, quirks) if texts or not (calls or refusals) else None,
    }
    if refusals:
        message["refusal"] = "".join(refusals)
    message |= _write_thoughts([part for part in parts if isinstance(part, Reasoning)], quirks.thoughts_field)
    if calls:
        message["tool_calls"] = [_write_call(call, id=_call_id(call.id)) for call in calls]
    return message


_CALL_ID = re.compile(r"[\w\-.:]+", re.ASCII)


def _call_id(id: str) -> str:
    return neutral.safe_id(id, allowed=_CALL_ID, longest=MAX_CALL_ID_CHARS)


def _write_call(call: ToolCall, *, id: str) -> Body:
    written: Body = {
        "id": id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments or "{}"},
    }
    return written | _write_signature(call.signature, call.origin)


def _write_signature(signature: str | None, origin: Family | None) -> Body:
    return {} if signature is None else {"extra_content": {origin or "google": {"thought_signature": signature}}}


def _write_thoughts(thoughts: list[Reasoning], field: str) -> Body:
    if not thoughts or not field:
        return {}
    if field == "reasoning_details":
        return {field: [_write_detail(thought, at) for at, thought in enumerate(thoughts)]}
    text = "".join(thought.text for thought in thoughts)
    return {field: text} if text else {}


def _write_detail(thought: Reasoning, index: int) -> Body:
    detail: Body = {"type": "reasoning.text", "text": thought.text}
    if thought.redacted is not None:
        detail = {"type": "reasoning.encrypted", "data": thought.redacted}
    if thought.signature is not None:
        detail["signature"] = thought.signature
    format = None if thought.origin is None else _FORMATS_WRITTEN[thought.origin]
    return {**detail, "format": format, "index": index}


def _write_content(parts: Iterable[Part], quirks: Quirks) -> str | list[Body]:
    """A plain string where it says the same: not every compatible server takes parts."""
    parts = list(parts)
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text) and parts[0].cache is None:
        return parts[0].text
    return [_write_part(part) | _write_cache(part.cache, quirks) for part in parts]


def _write_part(part: Part) -> Body:
    match part:
        case Text():
            return {"type": "text", "text": part.text}
        case Image():
            image = {"url": part.url or f"data:{part.media_type or 'image/png'};base64,{part.data}"}
            return {"type": "image_url", "image_url": image | ({"detail": part.detail} if part.detail else {})}
        case Document() if part.text is not None:
            title = f' title="{part.name}"' if part.name else ""
            return {"type": "text", "text": f"<document{title}>\n{part.text}\n</document>"}
        case Document():
            media_type = part.media_type or "application/pdf"
            data = f"data:{media_type};base64,{part.data}"
            return {"type": "file", "file": {"filename": part.name or "document.pdf", "file_data": data}}
        case Audio():
            return {"type": "input_audio", "input_audio": {"data": part.data, "format": part.format}}
        case _:
            raise NotCarried(part.path)


def _write_cache(cache: Cache | None, quirks: Quirks) -> Body:
    if cache is None or not quirks.cache_marker:
        return {}
    marker = {"mode": "explicit"} if quirks.cache_marker == "prompt_cache_breakpoint" else {"type": "ephemeral"}
    return {quirks.cache_marker: marker | ({"ttl": cache.ttl} if cache.ttl is not None else {})}


def _write_tool(tool: Tool, quirks: Quirks) -> Body:
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.schema,
        "strict": tool.strict,
    }
    kept = {field: value for field, value in function.items() if value is not None}
    return {"type": "function", "function": kept} | _write_cache(tool.cache, quirks)


def _write_tool_choice(prompt: Prompt) -> str | Body | None:
    choice = prompt.tool_choice
    if choice is None:
        return None
    if choice.mode == "required" and len(choice.names) == 1:
        return {"type": "function", "function": {"name": choice.names[0]}}
    return choice.mode


def _write_format(format: Format | None) -> Body | None:
    if format is None:
        return None
    if format.schema is None:
        return {"type": "json_object"}
    schema = {
        "name": format.name or "answer",
        "description": format.description,
        "schema": format.schema,
        "strict": format.strict,
    }
    return {
        "type": "json_schema",
        "json_schema": {field: value for field, value in schema.items() if value is not None},
    }


def _write_thinking(thinking: Thinking, quirks: Quirks) -> str | Body | None:
    effort: Effort | None = neutral.effort_of(thinking)
    if quirks.thinking_field == "reasoning_effort":
        return effort
    if quirks.thinking_field == "thinking":
        return {"type": "disabled" if thinking.off else "enabled"}
    how: Body = {"effort": effort} if thinking.budget_tokens is None else {"max_tokens": thinking.budget_tokens}
    how = {"enabled": True} if how == {"effort": None} else how
    return how | ({"exclude": True} if thinking.visible is False else {})


def _write_user(user: str) -> str:
    """A name that is too long becomes its digest, which tells users apart just as well."""
    return user if len(user) <= MAX_USER_CHARS else hashlib.sha256(user.encode()).hexdigest()


# Response -----------------------------------------------------------------------------------------------------------


def read_answer(answer: Body, meter: Meter, quirks: Quirks) -> None:
    if answer.get("error"):  # sent with a 200 by some routers
        raise failures.inband_error(answer)
    choices = answer.get("choices")
    if not isinstance(choices, list):
        raise unreadable("it has no 'choices'")
    for choice in choices:
        if not isinstance(choice, dict):
            raise unreadable("a choice is not an object")
        meter.output_bytes += neutral.text_bytes(choice.get("message"))
        _meter_finish(meter, choice.get("finish_reason"))
    _meter_model(meter, answer)
    _meter_usage(meter, answer.get("usage"), quirks)


def answer_choices(answer: Body, meter: Meter) -> tuple[Choice, ...]:
    _meter_sources(answer, meter)
    return tuple(_answer_choice(choice, meter) for choice in answer["choices"])


def _answer_choice(choice: Body, meter: Meter) -> Choice:
    message = choice.get("message")
    finish = choice.get("finish_reason")
    return Choice(
        parts=() if not isinstance(message, dict) else _answer_parts(message, meter),  # Azure's filter leaves it out
        finish=finish if isinstance(finish, str) else None,
        logprobs=_logprobs(choice),
    )


def _answer_parts(message: Body, meter: Meter) -> tuple[Part, ...]:
    """Parts of an answer: deltas of a stream that has but one event, put together."""
    deltas: list[Delta] = []
    calls = _Calls()
    for field, value in message.items():
        if value and field != "role":
            _read_deltas(field, value, message, 0, calls, meter, deltas)
    parts: dict[tuple[str, int], Part] = {}
    for delta in deltas:
        key = (delta.kind, delta.key)
        parts[key] = _grown(parts.get(key), delta)
    order = ("reasoning", "text", "refusal", "tool_call")
    return tuple(part for _, part in sorted(parts.items(), key=lambda item: order.index(item[0][0])))


def _grown(part: Part | None, delta: Delta) -> Part:
    match part:
        case None if delta.kind == "text":
            return Text(text=delta.text, citations=delta.citations)
        case None if delta.kind == "refusal":
            return Refused(text=delta.text)
        case None if delta.kind == "reasoning":
            return Reasoning(text=delta.text, signature=delta.signature, redacted=delta.redacted, origin=delta.origin)
        case None:
            return ToolCall(
                id=delta.id,
                name=delta.name,
                arguments=delta.text,
                signature=delta.signature,
                origin=delta.origin,
            )
        case Text():
            return msgspec.structs.replace(
                part, text=part.text + delta.text, citations=part.citations + delta.citations
            )
        case Reasoning():
            return msgspec.structs.replace(
                part,
                text=part.text + delta.text,
                signature=delta.signature or part.signature,
                origin=part.origin or delta.origin,
            )
        case _:
            return part


def add_extras(answer: Body, extras: Extras) -> None:
    answer.update(extras.fields())
    if isinstance(usage := answer.get("usage"), dict):
        usage["cost"] = extras.cost


def _meter_finish(meter: Meter, reason: object) -> None:
    if reason == "error":
        raise ProviderError("server_error", "the provider ended its answer with an error")
    if isinstance(reason, str) and reason:
        meter.finish_reason = reason


def _meter_model(meter: Meter, source: Body) -> None:
    model = source.get("model")
    if isinstance(model, str) and model:
        meter.served_model = model


def _meter_sources(source: Body, meter: Meter) -> None:
    """Perplexity's list of pages, beside the text that refers to them by number."""
    if source.get("citations") or source.get("search_results"):
        meter.dropped.add("citations")


# Pieces of an answer --------------------------------------------------------------------------------------------------


class _Calls:
    """Tells the calls of a choice apart, by index or id: servers leave out either, or count all as 0."""

    def __init__(self) -> None:
        self._known: list[tuple[object, str]] = []  # index and id as given

    def key(self, fragment: Body, name: str) -> int:
        index, id = fragment.get("index"), fragment.get("id")
        id = id if isinstance(id, str) else ""
        for key in reversed(range(len(self._known))):
            known_index, known_id = self._known[key]
            if id and known_id and id != known_id:
                continue
            if index == known_index and (index is not None or id or not name):
                self._known[key] = (index, known_id or id)
                return key
        self._known.append((index, id))
        return len(self._known) - 1


def _read_deltas(
    field: str, value: object, message: Body, choice: int, calls: _Calls, meter: Meter, deltas: list[Delta]
) -> None:
    """What one field of a message or of its delta adds to the answer."""
    match field:
        case "content" if isinstance(value, str):
            deltas.append(Delta(text=value, choice=choice))
        case "content":
            _read_content_list(value, choice, meter, deltas)
        case "refusal" if isinstance(value, str):
            deltas.append(Delta(kind="refusal", text=value, choice=choice))
        case "reasoning_content" | "reasoning" if isinstance(value, str):
            twice = field == "reasoning" and message.get("reasoning_content")
            if not twice and not _details_have_text(message.get("reasoning_details")):
                deltas.append(Delta(kind="reasoning", text=value, choice=choice))
        case "reasoning_details" if isinstance(value, list):
            for at, detail in enumerate(value):
                _read_detail_delta(detail, at, choice, deltas)
        case "tool_calls" if isinstance(value, list):
            for call in value:
                _read_call_delta(call, choice, calls, deltas)
        case "function_call" if isinstance(value, dict):
            _read_call_delta({"index": "function_call", "function": value}, choice, calls, deltas)
        case "annotations" if isinstance(value, list):
            if citations := tuple(citation for one in value if (citation := _citation(one)) is not None):
                deltas.append(Delta(choice=choice, citations=citations))
        case "audio" | "images":
            meter.dropped.add(field)


def _details_have_text(details: object) -> bool:
    return isinstance(details, list) and any(
        isinstance(detail, dict) and (detail.get("text") or detail.get("summary")) for detail in details
    )


def _read_content_list(value: object, choice: int, meter: Meter, deltas: list[Delta]) -> None:
    """Mistral's form of an answer that holds thoughts."""
    for one in value if isinstance(value, list) else [value]:
        part: Body = one if isinstance(one, dict) else {}
        kind = part.get("type")
        if kind == "text" and isinstance(part.get("text"), str):
            deltas.append(Delta(text=part["text"], choice=choice))
        elif kind == "thinking":
            inner = part.get("thinking")
            text = "".join(
                piece["text"]
                for piece in (inner if isinstance(inner, list) else [])
                if isinstance(piece, dict) and isinstance(piece.get("text"), str)
            )
            deltas.append(Delta(kind="reasoning", text=inner if isinstance(inner, str) else text, choice=choice))
        else:
            meter.dropped.add(f"content[].{kind}" if isinstance(kind, str) else "content[]")


_ENCRYPTED_KEYS = 1 << 20  # where the keys of encrypted thoughts begin, apart from those of readable ones


def _read_detail_delta(detail: object, at: int, choice: int, deltas: list[Delta]) -> None:
    if not isinstance(detail, dict):
        return
    index = detail.get("index")
    key = index if isinstance(index, int) else at
    format = detail.get("format")
    origin = _FORMATS.get(format) if isinstance(format, str) else None
    if detail.get("type") == "reasoning.encrypted":
        data = detail.get("data")
        if isinstance(data, str) and data and origin is not None:
            key += _ENCRYPTED_KEYS
            deltas.append(Delta(kind="reasoning", redacted=data, origin=origin, key=key, choice=choice, last=True))
        return
    text, signature = detail.get("text") or detail.get("summary"), detail.get("signature")
    text = text if isinstance(text, str) else ""
    signature = signature if isinstance(signature, str) and signature and origin is not None else None
    if text or signature:
        deltas.append(Delta(kind="reasoning", text=text, signature=signature, origin=origin, key=key, choice=choice))


def _read_call_delta(call: object, choice: int, calls: _Calls, deltas: list[Delta]) -> None:
    if not isinstance(call, dict):
        raise unreadable("a tool call is not an object")
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    name, arguments, id = function.get("name"), function.get("arguments"), call.get("id")
    if isinstance(arguments, dict):  # some servers forget to write it as text
        arguments = neutral.compact(arguments)
    name = name if isinstance(name, str) else ""
    signature = _google_signature(call)
    deltas.append(
        Delta(
            kind="tool_call",
            text=arguments if isinstance(arguments, str) else "",
            key=calls.key(call, name),
            choice=choice,
            id=id if isinstance(id, str) else "",
            name=name,
            signature=signature,
            origin=None if signature is None else "google",
        )
    )


def _citation(annotation: object) -> Citation | None:
    found = annotation.get("url_citation") if isinstance(annotation, dict) else None
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        return None
    title, start, end = (found.get(field) for field in ("title", "start_index", "end_index"))
    return Citation(
        url=found["url"],
        title=title if isinstance(title, str) else "",
        start=start if isinstance(start, int) else None,
        end=end if isinstance(end, int) else None,
    )


def _logprobs(choice: Body) -> tuple[Body, ...]:
    found = choice.get("logprobs")
    entries = found.get("content") if isinstance(found, dict) else None
    return tuple(entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


# Stream -------------------------------------------------------------------------------------------------------------


def splitter() -> sse.Splitter:
    return sse.Splitter()


class _Reader:
    """Chunks of a stream. The answer is finished when as many choices are as were asked for."""

    def __init__(self, meter: Meter, choices: int, quirks: Quirks) -> None:
        self._meter = meter
        self._choices = choices
        self._quirks = quirks
        self._calls: dict[int, _Calls] = {}
        self.deltas: list[Delta] = []
        self.finishes: dict[int, str] = {}

    def read(self, event: sse.Event) -> Mark:
        self.deltas = []
        if not event.data:
            return Mark.OTHER
        if event.data == DONE:
            return Mark.END
        chunk = parse(event.data)
        if chunk.get("error"):
            raise failures.inband_error(chunk)
        meter = self._meter
        if meter.served_model is None:
            _meter_model(meter, chunk)
        usage = chunk.get("usage") or _groq_usage(chunk)
        if usage:
            _meter_usage(meter, usage, self._quirks)
        _meter_sources(chunk, meter)
        choices = chunk.get("choices")
        if not choices:  # usage comes so; so does Azure's first chunk, with the verdict on the prompt
            return Mark.CLOSING if usage else Mark.OTHER
        if not isinstance(choices, list):
            raise unreadable("'choices' is not a list")
        mark = Mark.OTHER
        for choice in choices:
            mark = max(mark, self._read_choice(choice))
        return mark

    def _read_choice(self, choice: object) -> Mark:
        if not isinstance(choice, dict):
            raise unreadable("a choice is not an object")
        mark = Mark.OTHER
        number = choice.get("index")
        number = number if isinstance(number, int) else 0
        delta = choice.get("delta")
        if isinstance(delta, dict):
            for field, value in delta.items():
                if value and field != "role":
                    mark = Mark.CONTENT
                    self._read_content(field, value, delta, number)
        if logprobs := _logprobs(choice):
            self._add_logprobs(logprobs, number)
        reason = choice.get("finish_reason")
        if reason:
            _meter_finish(self._meter, reason)
            self.finishes[number] = reason if isinstance(reason, str) else ""
            if len(self.finishes) >= self._choices:
                mark = Mark.CLOSING
        return mark

    def _read_content(self, field: str, value: object, delta: Body, choice: int) -> None:
        meter = self._meter
        meter.content_started = True
        meter.output_bytes += neutral.text_bytes(value)
        if field == "content" and isinstance(value, str):  # by far the most
            self.deltas.append(Delta(text=value, choice=choice))
            return
        calls = self._calls.setdefault(choice, _Calls())
        _read_deltas(field, value, delta, choice, calls, meter, self.deltas)

    def _add_logprobs(self, logprobs: tuple[Body, ...], choice: int) -> None:
        for at, delta in enumerate(self.deltas):
            if delta.kind == "text" and delta.choice == choice:
                self.deltas[at] = msgspec.structs.replace(delta, logprobs=logprobs)
                return


def _groq_usage(chunk: Body) -> object:
    extra = chunk.get("x_groq")
    return extra.get("usage") if isinstance(extra, dict) else None


def reader(meter: Meter, body: Body, quirks: Quirks) -> _Reader:
    return _Reader(meter, body.get("n") or 1, quirks)


class _Writer:
    """Writes chunks as the API reference shows them: role, content, finish, usage if asked for, `[DONE]`."""

    def __init__(self, meter: Meter, *, usage_wanted: bool, request_id: str) -> None:
        self._meter = meter
        self._usage_wanted = usage_wanted
        self._id = f"chatcmpl-{request_id}"
        self._created = request_time_ms(request_id) // 1000
        self._begun: set[int] = set()
        self._written: dict[int, int] = {}  # characters of a choice's text, which citations count by

    def open(self, part: Streamed) -> bytes:
        begun = self._begin(part.choice)
        if part.kind == "tool_call":
            call = {
                "index": part.call,
                "id": part.id,
                "type": "function",
                "function": {"name": part.name, "arguments": ""},
                **_write_signature(part.signature, part.origin),
            }
            return begun + self._chunk(part.choice, {"tool_calls": [call]})
        if part.redacted is not None:
            thought = Reasoning(redacted=part.redacted, origin=part.origin)
            return begun + self._chunk(part.choice, {"reasoning_details": [_write_detail(thought, part.index)]})
        return begun

    def more(self, part: Streamed, delta: Delta) -> bytes:
        if part.kind == "text":
            before = self._written.get(part.choice, 0)
            self._written[part.choice] = before + len(delta.text)
            written: Body = {"content": delta.text} if delta.text else {}
            if delta.citations:
                written["annotations"] = _write_citations(delta.citations, before, before + len(delta.text))
            return self._chunk(part.choice, written, logprobs=delta.logprobs)
        if part.kind == "refusal":
            return self._chunk(part.choice, {"refusal": delta.text})
        if part.kind == "tool_call":
            call = {"index": part.call, "function": {"arguments": delta.text}}
            return self._chunk(part.choice, {"tool_calls": [call]})
        written = {"reasoning_content": delta.text} if delta.text else {}
        if part.origin is not None:
            thought = Reasoning(text=delta.text, signature=delta.signature, origin=part.origin)
            written["reasoning_details"] = [_write_detail(thought, part.index)]
        return self._chunk(part.choice, written)

    def close(self, part: Streamed) -> bytes:
        return b""

    def end(self, finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        usage = self._usage(extras)
        apart = bool(self._usage_wanted and usage)
        chunks = [
            self._begin(choice) + self._chunk(choice, {}, finish, {} if apart else extras.fields() if last else {})
            for choice, finish, last in _with_last(finishes)
        ]
        if apart:
            chunks.append(self._event([], {"usage": usage, **extras.fields()}))
        return b"".join(chunks) + sse.write(DONE)

    def whole(self, choices: tuple[Choice, ...], finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        answer = self._head("chat.completion")
        answer["choices"] = [
            {
                "index": index,
                "message": _write_message(choice.parts),
                "logprobs": _write_logprobs(choice.logprobs),
                "finish_reason": _FINISH_WRITTEN[finishes[index]],
            }
            for index, choice in enumerate(choices)
        ]
        answer |= extras.fields()
        if usage := self._usage(extras):
            answer["usage"] = usage
        return orjson.dumps(answer)

    def _begin(self, choice: int) -> bytes:
        if choice in self._begun:
            return b""
        self._begun.add(choice)
        return self._chunk(choice, {"role": "assistant", "content": ""})

    def _chunk(
        self,
        choice: int,
        delta: Body,
        finish: Finish | None = None,
        more: Body | None = None,
        logprobs: tuple[Body, ...] = (),
    ) -> bytes:
        reason = None if finish is None else _FINISH_WRITTEN[finish]
        written = {
            "index": choice,
            "delta": delta,
            "logprobs": _write_logprobs(logprobs),
            "finish_reason": reason,
        }
        return self._event([written], more or {})

    def _event(self, choices: list[Body], more: Body) -> bytes:
        return sse.write(orjson.dumps(self._head("chat.completion.chunk") | {"choices": choices, **more}))

    def _head(self, kind: str) -> Body:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._meter.served_model or ""}

    def _usage(self, extras: Extras) -> Body | None:
        usage = self._meter.usage
        return None if usage is None else {**write_usage(usage), "cost": extras.cost}


def _with_last(finishes: Mapping[int, Finish]) -> Iterable[tuple[int, Finish, bool]]:
    last = max(finishes)
    return ((choice, finish, choice == last) for choice, finish in sorted(finishes.items()))


def _write_logprobs(entries: tuple[Body, ...]) -> Body | None:
    return {"content": list(entries), "refusal": None} if entries else None


def _write_message(parts: tuple[Part, ...]) -> Body:
    texts = [part for part in parts if isinstance(part, Text)]
    refusals = [part.text for part in parts if isinstance(part, Refused)]
    calls = [part for part in parts if isinstance(part, ToolCall)]
    thoughts = [part for part in parts if isinstance(part, Reasoning)]
    text = "".join(part.text for part in texts)
    message: Body = {
        "role": "assistant",
        "content": text if text or not (calls or refusals) else None,
        "refusal": "".join(refusals) or None,
    }
    annotations: list[Body] = []
    start = 0
    for part in texts:
        end = start + len(part.text)
        annotations += _write_citations(part.citations, start, end)
        start = end
    if annotations:
        message["annotations"] = annotations
    message |= _write_thoughts(thoughts, "reasoning_content")
    if any(thought.origin is not None for thought in thoughts):
        message |= _write_thoughts(thoughts, "reasoning_details")
    if calls:
        message["tool_calls"] = [_write_call(call, id=call.id) for call in calls]
    return message


def _write_citations(citations: tuple[Citation, ...], start: int, end: int) -> list[Body]:
    """`start` and `end` of the text around them hold for those that do not say where they belong."""
    return [
        {
            "type": "url_citation",
            "url_citation": {
                "start_index": start if citation.start is None else citation.start,
                "end_index": end if citation.end is None else citation.end,
                "title": citation.title,
                "url": citation.url,
            },
        }
        for citation in citations
    ]


def writer(meter: Meter, body: Body, request_id: str) -> _Writer:
    return _Writer(meter, usage_wanted=_wants_usage(body), request_id=request_id)


def write_tail(events: list[sse.Event], body: Body, extras: Extras) -> bytes:
    """Finish, usage and `[DONE]`. The extras go into the last chunk with usage that the client sees, or else into the
    last one that finishes a choice (a stream with neither gets none); every other event leaves as it came. The chunk
    that holds nothing but usage is kept from a client that did not ask for it."""
    usage_wanted = _wants_usage(body)
    shown: list[sse.Event] = []
    finish_at = usage_at = None
    for event in events:
        if event.data == DONE:
            continue
        chunk = parse(event.data) if event.data else {}
        choices, usage = chunk.get("choices"), chunk.get("usage")
        if usage and not choices and not usage_wanted:
            continue
        if usage:
            usage_at = len(shown)
        if choices and any(choice.get("finish_reason") for choice in choices):
            finish_at = len(shown)
        shown.append(event)
    target = finish_at if usage_at is None else usage_at
    pieces = [event.raw for event in shown]
    if target is not None:
        chunk = parse(shown[target].data)
        add_extras(chunk, extras)
        pieces[target] = sse.write(orjson.dumps(chunk))
    return b"".join(pieces) + sse.write(DONE)


# Errors -------------------------------------------------------------------------------------------------------------


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return failures.provider_error(status, headers, body)


def error_body(refusal: Refusal, request_id: str) -> bytes:
    error = {"message": refusal.message, "type": refusal.type, "param": refusal.param, "code": refusal.code}
    return orjson.dumps({"error": error})


def error_event(refusal: Refusal, request_id: str) -> bytes:
    """What the SDKs raise as an `APIError` in the middle of a stream; nothing follows it."""
    return sse.write(error_body(refusal, request_id))


# Models -------------------------------------------------------------------------------------------------------------


def models_body(models: list[tuple[str, str, int]]) -> bytes:
    data = [{"id": id, "object": "model", "created": created, "owned_by": owner} for id, owner, created in models]
    return orjson.dumps({"object": "list", "data": data})
