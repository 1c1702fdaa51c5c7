"""Anthropic's Messages: `POST /v1/messages`, and every server that is compatible with it.

Usage here is exclusive: `input_tokens` counts neither what was read from a cache nor what was written to it, and
`output_tokens` counts thinking. Thinking is metered, but not carried to another dialect unasked. Pure.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Dialect, Usage
from tollgate.wire import Ask, Body, Extras, Meter, Quirks, failures, fields, neutral, sse
from tollgate.wire.neutral import Finish, Mark, NotCarried, Prompt, Role, Turn, parse, tokens

# Wire names ---------------------------------------------------------------------------------------------------------

name: Dialect = "anthropic"
path = "/v1/messages"
forwarded_headers: tuple[str, ...] = ("anthropic-version", "anthropic-beta")
prompt_fields = {"stop": "stop_sequences"}

VERSION = "2023-06-01"  # of the requests that are written here; a client of this dialect names its own
DEFAULT_MAX_TOKENS = 4096  # the protocol requires a cap: sent when neither the client nor a budget has set one
MAX_TEMPERATURE = 1

ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}

_CARRIED = frozenset(
    {
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "top_k",
        "top_p",
    }
)
# Fields at the value that says nothing: what the provider would do without them.
_INERT: Body = {
    "service_tier": "auto",
    "thinking": {"type": "disabled"},
    "tool_choice": {"type": "none"},
    "tools": [],
}

# With tools or an output format the provider adds a system prompt of its own: its pricing page lists 159 to 530 tokens
# by model for tools, and no figure for formats, so twice the highest is allowed for.
_HIDDEN_PROMPT_TOKENS = 1060
_MESSAGE_TOKENS = 4
_TOOL_TOKENS = 10
_FIXED_TOKENS = 15
_BOUNDED_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use", "search_result"})
_BOUNDED_SOURCES = frozenset({"text", "content"})


# Finish reasons -----------------------------------------------------------------------------------------------------

finish_words: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_FINISH_WRITTEN: dict[Finish, str] = {
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
    return {
        "input_tokens": usage.input_tokens + usage.input_audio_tokens + usage.input_image_tokens,
        "cache_creation_input_tokens": short + long,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": neutral.total_output(usage),
    }


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


def read_prompt(body: Body) -> Prompt:
    for field, value in body.items():
        inert = value is None or _INERT.get(field) == value
        if not inert and field not in _CARRIED and field not in fields.EXTENSION_FIELDS:
            raise NotCarried(field)
    for field, value in fields.mapping(body, "metadata").items():
        if field != "user_id" and value is not None:
            raise NotCarried(f"metadata.{field}")
    system = _read_texts(body.get("system"), "system")
    turns = [Turn("system", tuple(system))] if system else []
    turns += [_read_turn(message, f"messages[{at}]") for at, message in enumerate(fields.messages(body))]
    stops = fields.items(body, "stop_sequences")
    for at, text in enumerate(stops):
        if not isinstance(text, str):
            raise fields.wrong_type(f"stop_sequences[{at}]", "a string", text)
    return Prompt(
        turns=tuple(turns),
        stream=fields.boolean(body, "stream"),
        max_output_tokens=fields.integer(body, "max_tokens", minimum=0),
        temperature=fields.number(body, "temperature"),
        top_p=fields.number(body, "top_p"),
        top_k=fields.integer(body, "top_k", minimum=0),
        stop=tuple(str(text) for text in stops),
        user=_user(body),
    )


def _read_turn(message: Body, where: str) -> Turn:
    role = ROLES.get(message["role"])
    if role is None:
        raise NotCarried(f"{where}.role")
    for field, value in message.items():
        if field not in ("role", "content") and value is not None:
            raise NotCarried(f"{where}.{field}")
    return Turn(role, tuple(_read_texts(message.get("content"), f"{where}.content")))


def _read_texts(content: object, where: str) -> list[str]:
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise fields.wrong_type(where, "a string or a list of blocks", content)
    return [_read_block(block, f"{where}[{at}]") for at, block in enumerate(content)]


def _read_block(block: object, where: str) -> str:
    if not isinstance(block, dict):
        raise fields.wrong_type(where, "an object", block)
    if block.get("type") != "text":
        raise NotCarried(f"{where}.type")
    for field, value in block.items():
        if field not in ("type", "text") and value is not None:
            raise NotCarried(f"{where}.{field}")
    text = fields.text(block, "text", path=f"{where}.text")
    if text is None:
        raise fields.missing(f"{where}.text")
    return text


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks) -> Body:
    """System texts go to the top level in their order, neighbours of one role become one message, and empty texts,
    which the protocol refuses, are left out."""
    if prompt.temperature is not None and prompt.temperature > MAX_TEMPERATURE:
        raise NotCarried("temperature", f"is above {MAX_TEMPERATURE}, the most that the Anthropic protocol takes")
    messages = _write_messages(prompt.turns)
    if not messages:
        raise NotCarried("messages", "has no text of a user, which the Anthropic protocol requires")
    caps = (max_output_tokens, prompt.max_output_tokens, DEFAULT_MAX_TOKENS)
    system = [text for turn in prompt.turns if turn.role == "system" for text in turn.texts if text]
    sent: Body = {
        "model": model,
        "max_tokens": next(cap for cap in caps if cap is not None),
        "system": _write_texts(system) if system else None,
        "messages": messages,
        "temperature": prompt.temperature,
        "top_p": prompt.top_p,
        "top_k": prompt.top_k,
        "stop_sequences": list(prompt.stop) or None,
        "metadata": None if prompt.user is None else {"user_id": prompt.user},
        "stream": prompt.stream or None,
    }
    return {field: value for field, value in sent.items() if value is not None}


def _write_messages(turns: tuple[Turn, ...]) -> list[Body]:
    merged: list[tuple[Role, list[str]]] = []
    for turn in turns:
        texts = [text for text in turn.texts if text]
        if turn.role == "system" or not texts:
            continue
        if merged and merged[-1][0] == turn.role:
            merged[-1][1].extend(texts)
        else:
            merged.append((turn.role, texts))
    return [{"role": role, "content": _write_texts(texts)} for role, texts in merged]


def _write_texts(texts: list[str]) -> str | list[Body]:
    return texts[0] if len(texts) == 1 else [{"type": "text", "text": text} for text in texts]


# Response -----------------------------------------------------------------------------------------------------------


def read_answer(answer: Body, meter: Meter) -> None:
    if answer.get("error"):
        raise failures.inband_error(answer)
    content = answer.get("content")
    if not isinstance(content, list):
        raise neutral.unreadable("it has no 'content'")
    meter.output_bytes += neutral.text_bytes(content)
    _meter_model(meter, answer)
    _meter_finish(meter, answer)
    _meter_usage(meter, answer.get("usage"))


def answer_text(answer: Body) -> str:
    text = ""
    for block in answer["content"]:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text" and isinstance(block.get("text"), str):
            text += block["text"]
        elif kind not in ("thinking", "redacted_thinking"):
            raise neutral.uncarried(f"a block of type {kind}")
    return text


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


class _Reader:
    """Events of a stream. Usage comes twice: in `message_start`, and cumulative in `message_delta`, which overrides
    what it names; older servers name only `output_tokens` there."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._usage: Body = {}
        self.text = ""
        self.uncarried: str | None = None

    def read(self, event: sse.Event) -> Mark:
        self.text = ""
        if not event.data:
            return Mark.OTHER
        if event.data == b"[DONE]":  # added by some gateways
            return Mark.END
        payload = parse(event.data)
        match payload.get("type"):
            case "content_block_delta":
                return self._read_delta(payload.get("delta"))
            case "content_block_start":
                return self._read_start(payload.get("content_block"))
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
                self._merge_usage(payload.get("usage"))
                return Mark.CLOSING
            case "message_stop":
                return Mark.END
            case "error":
                raise failures.inband_error(payload)
        if payload.get("error"):
            raise failures.inband_error(payload)
        return Mark.OTHER

    def _read_start(self, block: object) -> Mark:
        if not isinstance(block, dict):
            raise neutral.unreadable("a content block is not an object")
        kind = block.get("type")
        if kind == "text":
            return self._content(block.get("text")) if block.get("text") else Mark.OTHER
        if kind in ("thinking", "redacted_thinking"):
            return Mark.OTHER
        self.uncarried = f"a block of type {kind}"
        return self._content(None)

    def _read_delta(self, delta: object) -> Mark:
        if not isinstance(delta, dict):
            raise neutral.unreadable("a delta is not an object")
        if delta.get("type") == "text_delta":
            return self._content(delta.get("text"))
        self._meter.output_bytes += neutral.text_bytes(delta)
        self._meter.content_started = True
        return Mark.CONTENT

    def _content(self, text: object) -> Mark:
        meter = self._meter
        meter.content_started = True
        if isinstance(text, str):
            self.text = text
            meter.output_bytes += neutral.text_bytes(text)
        return Mark.CONTENT

    def _merge_usage(self, block: object) -> None:
        if isinstance(block, dict):
            self._usage |= {field: value for field, value in block.items() if value is not None}
            _meter_usage(self._meter, self._usage)


def reader(meter: Meter, body: Body) -> _Reader:
    return _Reader(meter)


class _Writer:
    """Writes the event grammar of the Messages API: one text block between start and end of the message."""

    def __init__(self, meter: Meter, request_id: str) -> None:
        self._meter = meter
        self._id = f"msg_{request_id.replace('-', '')}"
        self._begun = False
        self._block_open = False

    def text(self, text: str) -> bytes:
        opened = b""
        if not self._block_open:
            self._block_open = True
            block = {"type": "text", "text": ""}
            opened = self._begin() + _event({"type": "content_block_start", "index": 0, "content_block": block})
        delta = {"type": "text_delta", "text": text}
        return opened + _event({"type": "content_block_delta", "index": 0, "delta": delta})

    def end(self, finish: Finish, extras: Extras) -> bytes:
        closed = _event({"type": "content_block_stop", "index": 0}) if self._block_open else b""
        last = {
            "type": "message_delta",
            "delta": {"stop_reason": _FINISH_WRITTEN[finish], "stop_sequence": None},
            "usage": {**self._usage(), "cost": extras.cost},
            **extras.fields(),
        }
        return self._begin() + closed + _event(last) + _event({"type": "message_stop"})

    def whole(self, text: str, finish: Finish, extras: Extras) -> bytes:
        message = self._message(
            content=[{"type": "text", "text": text}] if text else [], stop_reason=_FINISH_WRITTEN[finish]
        )
        message["usage"]["cost"] = extras.cost
        return orjson.dumps(message | extras.fields())

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return _event({"type": "message_start", "message": self._message(content=[], stop_reason=None)})

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
