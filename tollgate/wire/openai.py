"""OpenAI's Chat Completions: `POST /v1/chat/completions`, and every server that is compatible with it.

Usage here is inclusive: `prompt_tokens` counts what came from a cache, `completion_tokens` counts reasoning.
Reasoning of servers that show it (`reasoning_content`) is metered, but not carried to another dialect unasked. Pure.
"""

from collections.abc import Mapping

import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Dialect, Usage
from tollgate.ids import request_time_ms
from tollgate.wire import Ask, Body, Extras, Meter, Quirks, failures, fields, neutral, sse
from tollgate.wire.neutral import Finish, Mark, NotCarried, Prompt, Role, Turn, parse, tokens

# Wire names ---------------------------------------------------------------------------------------------------------

name: Dialect = "openai"
path = "/chat/completions"
forwarded_headers: tuple[str, ...] = ()
prompt_fields: dict[str, str] = {}

MAX_CHOICES = 128
MAX_STOPS = 4
DONE = b"[DONE]"
CAP_FIELDS = ("max_completion_tokens", "max_tokens")

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}

# Fields that the middle holds; `metadata` are tollgate's own tags, which go on only to a provider of this dialect.
_CARRIED = frozenset(
    {"model", "messages", "metadata", "n", "stop", "stream", "stream_options", "temperature", "top_p", "user"}
    | set(CAP_FIELDS)
)
# Fields at the value that says nothing: what a provider would do without them.
_INERT: Body = {
    "frequency_penalty": 0,
    "function_call": "none",
    "functions": [],
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "parallel_tool_calls": True,
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "service_tier": "auto",
    "store": False,
    "tool_choice": "none",
    "tools": [],
    "top_logprobs": 0,
}

# What the provider puts around the text (OpenAI Cookbook, "How to count tokens with tiktoken"): 3 tokens per message,
# 1 for a name, 3 to prime the reply; at most 10 per function, with 12 once for the list of them.
_MESSAGE_TOKENS = 4
_TOOL_TOKENS = 10
_FIXED_TOKENS = 15
_BOUNDED_PARTS = frozenset({"text", "refusal"})
_BOUNDED_TOOLS = frozenset({"function", "custom"})


# Finish reasons -----------------------------------------------------------------------------------------------------

finish_words: dict[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_FINISH_WRITTEN: dict[Finish, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


# Usage --------------------------------------------------------------------------------------------------------------


def read_usage(block: Body) -> Usage | None:
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


def _meter_usage(meter: Meter, block: object) -> None:
    if isinstance(block, dict) and (usage := read_usage(block)) is not None:
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


def read_prompt(body: Body) -> Prompt:
    for field, value in body.items():
        inert = value is None or _INERT.get(field) == value
        if not inert and field not in _CARRIED and field not in fields.EXTENSION_FIELDS:
            raise NotCarried(field)
    for option, value in fields.mapping(body, "stream_options").items():
        if option != "include_usage" and value:
            raise NotCarried(f"stream_options.{option}")
    if (fields.integer(body, "n", minimum=1, maximum=MAX_CHOICES) or 1) > 1:
        raise NotCarried("n", "above 1 is not carried between dialects")
    caps = [cap for field in CAP_FIELDS if (cap := fields.integer(body, field, minimum=1)) is not None]
    return Prompt(
        turns=tuple(_read_turn(message, f"messages[{at}]") for at, message in enumerate(fields.messages(body))),
        stream=fields.boolean(body, "stream"),
        max_output_tokens=min(caps, default=None),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        stop=_read_stop(body),
        user=fields.text(body, "user"),
    )


def _read_turn(message: Body, where: str) -> Turn:
    role = ROLES.get(message["role"])
    if role is None:
        raise NotCarried(f"{where}.role")
    for field, value in message.items():
        if field not in ("role", "content") and value is not None and value != []:
            raise NotCarried(f"{where}.{field}")
    return Turn(role, tuple(_read_texts(message.get("content"), f"{where}.content")))


def _read_texts(content: object, where: str) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise fields.wrong_type(where, "a string or a list of parts", content)
    return [_read_part(part, f"{where}[{at}]") for at, part in enumerate(content)]


def _read_part(part: object, where: str) -> str:
    if not isinstance(part, dict):
        raise fields.wrong_type(where, "an object", part)
    if part.get("type") != "text":
        raise NotCarried(f"{where}.type")
    for field, value in part.items():
        if field not in ("type", "text") and value is not None:
            raise NotCarried(f"{where}.{field}")
    text = fields.text(part, "text", path=f"{where}.text")
    if text is None:
        raise fields.missing(f"{where}.text")
    return text


def _read_stop(body: Body) -> tuple[str, ...]:
    stop = body.get("stop")
    stops = [stop] if isinstance(stop, str) else fields.items(body, "stop")
    for at, text in enumerate(stops):
        if not isinstance(text, str):
            raise fields.wrong_type(f"stop[{at}]", "a string", text)
    return tuple(str(text) for text in stops)


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks) -> Body:
    if prompt.top_k is not None:
        raise NotCarried("top_k")
    if len(prompt.stop) > MAX_STOPS:
        raise NotCarried("stop", f"has {len(prompt.stop)} entries, and the OpenAI protocol takes {MAX_STOPS}")
    cap = prompt.max_output_tokens if max_output_tokens is None else max_output_tokens
    sent: Body = {
        "model": model,
        "messages": [{"role": turn.role, "content": _write_texts(turn.texts)} for turn in prompt.turns],
        quirks.cap_field: cap,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "stop": list(prompt.stop) or None,
        "user": prompt.user,
        "stream": prompt.stream or None,
    }
    sent = {field: value for field, value in sent.items() if value is not None}
    if prompt.stream:
        _ask_for_usage(sent)
    return sent


def _write_texts(texts: tuple[str, ...]) -> str | list[Body]:
    """A plain string where it says the same: not every compatible server takes parts."""
    if len(texts) > 1:
        return [{"type": "text", "text": text} for text in texts]
    return texts[0] if texts else ""


# Response -----------------------------------------------------------------------------------------------------------


def read_answer(answer: Body, meter: Meter) -> None:
    if answer.get("error"):  # sent with a 200 by some routers
        raise failures.inband_error(answer)
    choices = answer.get("choices")
    if not isinstance(choices, list):
        raise neutral.unreadable("it has no 'choices'")
    for choice in choices:
        if not isinstance(choice, dict):
            raise neutral.unreadable("a choice is not an object")
        meter.output_bytes += neutral.text_bytes(choice.get("message"))
        _meter_finish(meter, choice.get("finish_reason"))
    _meter_model(meter, answer)
    _meter_usage(meter, answer.get("usage"))


def answer_text(answer: Body) -> str:
    message = answer["choices"][0].get("message") if answer["choices"] else None
    if not isinstance(message, dict):  # Azure filters an answer by leaving it out
        return ""
    for field in ("tool_calls", "function_call", "audio"):
        if message.get(field):
            raise neutral.uncarried(field)
    text = message.get("content") or message.get("refusal") or ""
    if not isinstance(text, str):
        raise neutral.uncarried("content other than text")
    return text


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


# Stream -------------------------------------------------------------------------------------------------------------


class _Reader:
    """Chunks of a stream. The answer is finished when as many choices are as were asked for."""

    def __init__(self, meter: Meter, choices: int) -> None:
        self._meter = meter
        self._choices = choices
        self._finished: set[object] = set()
        self.text = ""
        self.uncarried: str | None = None

    def read(self, event: sse.Event) -> Mark:
        self.text = ""
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
        usage = chunk.get("usage")
        if usage:
            _meter_usage(meter, usage)
        choices = chunk.get("choices")
        if not choices:  # usage comes so; so does Azure's first chunk, with the verdict on the prompt
            return Mark.CLOSING if usage else Mark.OTHER
        if not isinstance(choices, list):
            raise neutral.unreadable("'choices' is not a list")
        mark = Mark.OTHER
        for choice in choices:
            mark = max(mark, self._read_choice(choice))
        return mark

    def _read_choice(self, choice: object) -> Mark:
        if not isinstance(choice, dict):
            raise neutral.unreadable("a choice is not an object")
        mark = Mark.OTHER
        delta = choice.get("delta")
        if isinstance(delta, dict):
            for field, value in delta.items():
                if value and field != "role":
                    mark = Mark.CONTENT
                    self._read_content(field, value)
        reason = choice.get("finish_reason")
        if reason:
            _meter_finish(self._meter, reason)
            self._finished.add(choice.get("index") if isinstance(choice.get("index"), int) else 0)
            if len(self._finished) >= self._choices:
                mark = Mark.CLOSING
        return mark

    def _read_content(self, field: str, value: object) -> None:
        self._meter.content_started = True
        self._meter.output_bytes += neutral.text_bytes(value)
        if field in ("content", "refusal"):
            if isinstance(value, str):
                self.text += value
            else:
                self.uncarried = "content other than text"
        elif field in ("tool_calls", "function_call", "audio"):
            self.uncarried = field


def reader(meter: Meter, body: Body) -> _Reader:
    return _Reader(meter, body.get("n") or 1)


class _Writer:
    """Writes chunks as the API reference shows them: role, text, finish, usage if asked for, `[DONE]`."""

    def __init__(self, meter: Meter, *, usage_wanted: bool, request_id: str) -> None:
        self._meter = meter
        self._usage_wanted = usage_wanted
        self._id = f"chatcmpl-{request_id}"
        self._created = request_time_ms(request_id) // 1000
        self._begun = False

    def text(self, text: str) -> bytes:
        return self._begin() + self._chunk({"content": text})

    def end(self, finish: Finish, extras: Extras) -> bytes:
        usage = self._usage(extras)
        if self._usage_wanted and usage:
            last = self._chunk({}, finish) + self._event([], {"usage": usage, **extras.fields()})
        else:
            last = self._chunk({}, finish, extras.fields())
        return self._begin() + last + sse.write(DONE)

    def whole(self, text: str, finish: Finish, extras: Extras) -> bytes:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH_WRITTEN[finish]}
        answer = self._head("chat.completion") | {"choices": [choice], **extras.fields()}
        if usage := self._usage(extras):
            answer["usage"] = usage
        return orjson.dumps(answer)

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._chunk({"role": "assistant", "content": ""})

    def _chunk(self, delta: Body, finish: Finish | None = None, more: Body | None = None) -> bytes:
        reason = None if finish is None else _FINISH_WRITTEN[finish]
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._event([choice], more or {})

    def _event(self, choices: list[Body], more: Body) -> bytes:
        return sse.write(orjson.dumps(self._head("chat.completion.chunk") | {"choices": choices, **more}))

    def _head(self, kind: str) -> Body:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._meter.served_model or ""}

    def _usage(self, extras: Extras) -> Body | None:
        usage = self._meter.usage
        return None if usage is None else {**write_usage(usage), "cost": extras.cost}


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
