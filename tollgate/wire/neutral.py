"""The middle between two different dialects, and what a protocol module offers to be translated from and to.

A request for another protocol is read into a `Prompt` and written from it; an answer comes back as parts, finish words
and disjoint usage (`tollgate.wire.content`). So a protocol is written once, not once per pair. What the middle or the
other side cannot hold is refused by name or left out by name (`tollgate.wire.scope`), never dropped in silence. Pure.

A protocol is one module that offers what `ClientCodec` asks, what `ProviderCodec` asks, or both, as plain functions and
tables; the tables in `tollgate.wire.exchange` make it known.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import IntEnum
from typing import Protocol

import msgspec
import orjson

from tollgate.errors import Refusal
from tollgate.events import Usage
from tollgate.wire import Body, ClientWire, Extras, Meter, ProviderWire, Quirks
from tollgate.wire.content import (
    FAMILIES,
    Choice,
    Delta,
    Document,
    Effort,
    Family,
    Finish,
    Format,
    Part,
    Prompt,
    Role,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from tollgate.wire.failures import unreadable
from tollgate.wire.scope import Losses, Scope
from tollgate.wire.sequence import PartWriter, new_call_id
from tollgate.wire.sse import Event


class Mark(IntEnum):
    """What an event of a provider's stream means for when its bytes may leave."""

    OTHER = 0  # roles, pings, comments: leaves with what is around it
    CONTENT = 1  # something the client waits for
    CLOSING = 2  # finish or usage: held back until the books have it
    END = 3  # the provider says that nothing follows


class Splitter(Protocol):
    """Cuts a provider's stream into events, however the network has cut it."""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises `ProviderError` when one is too long or damaged."""
        ...

    def close(self) -> Event | None:
        """What is left when the body is over, if it may be an event."""
        ...


class Reader(Protocol):
    """Reads a provider's stream event by event and fills in the meter."""

    deltas: list[Delta]  # what the last event added to the answer
    finishes: dict[int, str]  # of each choice that is over, the provider's word for why

    def read(self, event: Event) -> Mark:
        """Raises `ProviderError` for an error sent in-band and for what cannot be read.

        What the answer holds beyond what the middle can is named in `meter.dropped`.
        """
        ...


class Writer(PartWriter, Protocol):
    """Writes an answer in a client's dialect from the middle. One writer per answer.

    In a stream, `open`, `more` and `close` come in order (`tollgate.wire.sequence`), then `end`. What must come before
    the first part is written with it, or with the end of an answer that has none.
    """

    def end(self, finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        """The end of the stream. `finishes` has an entry per choice."""
        ...

    def whole(self, choices: tuple[Choice, ...], finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        """A unary answer. Every call in it has an id and a JSON object for its arguments, if it is JSON at all."""
        ...


class ClientCodec(ClientWire, Protocol):
    """A protocol as the dialect of clients."""

    stream_type: str  # the media type of its streams
    # What a refusal or a loss is called here, where that differs from the name in `Prompt` or in a part: `stop`,
    # `max_output_tokens`, …, and of parts `cache`, `detail`, `cite`, `context`, `name`, `is_error`, `signature`
    prompt_fields: Mapping[str, str]

    def read_prompt(self, body: Body, losses: Losses) -> Prompt:
        """Raises `NotCarried` for what the middle has no place for, or `Refusal` for what is wrong in itself.

        A field that is unknown, or a hint that the middle does not hold, is named in `losses`.
        """
        ...

    def writer(self, meter: Meter, body: Body, request_id: str) -> Writer:
        """`body` is the client's request."""
        ...

    def add_extras(self, answer: Body, extras: Extras) -> None:
        """Into a provider's unary answer of the same dialect."""
        ...

    def write_tail(self, events: list[Event], body: Body, extras: Extras) -> bytes:
        """The events held back from a stream of the same dialect, with the extras in one of them."""
        ...


class ProviderCodec(ProviderWire, Protocol):
    """A protocol as providers speak it."""

    finish_words: Mapping[str, Finish]  # the provider's word → the middle's; unknown ones count as `stop`
    stream_type: str  # the media type of its streams

    def call_path(self, model: str, *, sent: Body, stream: bool, quirks: Quirks) -> str:
        """Where a call with the body `sent` goes, after the base URL."""
        ...

    def request_headers(self, client_headers: Mapping[str, str]) -> dict[str, str]:
        """What the protocol itself wants, beside content type and credentials. Names come in lower case."""
        ...

    def scope(self, quirks: Quirks) -> Scope:
        """What requests can hold: see `tollgate.wire.scope`."""
        ...

    def write_prompt(
        self, prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses
    ) -> Body:
        """`prompt` has been fitted to the scope. What still cannot be said is named in `losses` or `NotCarried`."""
        ...

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        """Meter a unary answer. Raises `ProviderError` if it is not one."""
        ...

    def answer_choices(self, answer: Body, meter: Meter) -> tuple[Choice, ...]:
        """The content of a metered answer; what the middle cannot hold is named in `meter.dropped`."""
        ...

    def splitter(self) -> Splitter: ...

    def reader(self, meter: Meter, body: Body, quirks: Quirks) -> Reader:
        """`body` is the client's request."""
        ...


class Codec(ClientCodec, ProviderCodec, Protocol):
    """A protocol on both sides, whose clients' requests are passed on to its providers."""

    def pass_on(self, body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
        """The request of a client of the same dialect, all its fields intact but for model, cap and our own.

        An earlier answer may have come from another protocol: what its translation added, and this provider would
        refuse, is left out and named in `losses`.
        """
        ...


class Listening(Protocol):
    """What it takes to meter a provider's answer: a part of `ProviderCodec`."""

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None: ...
    def splitter(self) -> Splitter: ...
    def reader(self, meter: Meter, body: Body, quirks: Quirks) -> Reader: ...


class Failing(Protocol):
    """What it takes to tell a client that a stream broke: a part of `ClientCodec`."""

    stream_type: str

    def error_event(self, refusal: Refusal, request_id: str, number: int | None = None) -> bytes: ...


class Passing(Listening, Failing, Protocol):
    """What it takes to pass an answer on to a client of the same dialect: a part of `Codec`, and all of a service."""

    def add_extras(self, answer: Body, extras: Extras) -> None: ...
    def write_tail(self, events: list[Event], body: Body, extras: Extras) -> bytes: ...


# Conversations ------------------------------------------------------------------------------------------------------


def alternating(turns: Iterable[Turn]) -> list[Turn]:
    """Turns without those of the system, neighbours of one role merged, a tool's results before all else in theirs:
    as the protocols want it that know but user and model. Turns without parts are left out."""
    merged: list[tuple[Role, list[Part]]] = []
    for turn in turns:
        if turn.role == "system" or not turn.parts:
            continue
        if merged and merged[-1][0] == turn.role:
            merged[-1][1].extend(turn.parts)
        else:
            merged.append((turn.role, list(turn.parts)))
    return [
        Turn(role, tuple(sorted(parts, key=lambda part: not isinstance(part, ToolResult)))) for role, parts in merged
    ]


def arguments_object(arguments: str) -> Body:
    """The arguments of a call, for protocols that want an object. Empty text is an empty object.

    What is not an object is wrapped as Anthropic's documentation of fine-grained tool streaming recommends for JSON
    that a model has broken: nothing is lost, and the model sees what it wrote.
    """
    try:
        value = orjson.loads(arguments) if arguments.strip() else {}
    except orjson.JSONDecodeError:
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}


def settled(choices: tuple[Choice, ...], request_id: str) -> tuple[Choice, ...]:
    """The choices with an id for each call that its provider gave none, and arguments for each call.

    Raises `ProviderError` for a call that names no tool.
    """
    number = 0
    found: list[Choice] = []
    for choice in choices:
        parts: list[Part] = []
        for part in choice.parts:
            if isinstance(part, ToolCall):
                if not part.name:
                    raise unreadable("a tool call has no name")
                number += not part.id
                id = part.id or new_call_id(request_id, number)
                part = msgspec.structs.replace(part, id=id, arguments=part.arguments or "{}")
            parts.append(part)
        found.append(msgspec.structs.replace(choice, parts=tuple(parts)))
    return tuple(found)


def callable_tools(prompt: Prompt) -> tuple[Tool, ...]:
    """The tools that the client's choice leaves, for protocols that can name one of them or all, but not some."""
    choice = prompt.tool_choice
    if choice is None or not choice.names or (choice.mode == "required" and len(choice.names) == 1):
        return prompt.tools
    return tuple(tool for tool in prompt.tools if tool.name in choice.names)


def text_of(data: str) -> str | None:
    """The text of a file in base64; None where it is none."""
    try:
        return base64.b64decode(data, validate=True).decode()
    except ValueError:  # no base64, or not of text
        return None


def described_schema(format: Format) -> Body | None:
    """The schema of an answer with its name and description as its own, for protocols that have no other place."""
    if format.schema is None:
        return None
    added = {"title": format.name, "description": format.description}
    return {word: value for word, value in added.items() if value is not None} | format.schema


def document_text(document: Document) -> str:
    """A document that is text, for protocols that take it as such."""
    title = f' title="{document.name}"' if document.name else ""
    return f"<document{title}>\n{document.text}\n</document>"


# Thinking -----------------------------------------------------------------------------------------------------------

# The share of the cap on output that an effort may think, as OpenRouter documents it for models with a budget.
_SHARES: Mapping[Effort, float] = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95, "max": 0.95}
MAX_LOW_BUDGET = 2_048  # tokens; what a client that names a budget would call low, and medium
MAX_MEDIUM_BUDGET = 8_192


def effort_of(thinking: Thinking) -> Effort | None:
    """The effort, for models that take no budget. None leaves it to the model."""
    budget = thinking.budget_tokens
    if thinking.effort is not None or budget is None:
        return thinking.effort
    if budget == 0:
        return "none"
    return "low" if budget <= MAX_LOW_BUDGET else "medium" if budget <= MAX_MEDIUM_BUDGET else "high"


def budget_of(thinking: Thinking, cap: int) -> int:
    """The budget in tokens, for models that know no effort. `cap` is that on all output."""
    if thinking.budget_tokens is not None:
        return thinking.budget_tokens
    return int(cap * _SHARES.get(thinking.effort or "medium", 0))


# Ids and signatures -------------------------------------------------------------------------------------------------

_PACKED = "tgid_"


def safe_id(id: str, *, allowed: re.Pattern[str], longest: int) -> str:
    """The id of a call as a protocol takes it: itself if it may be, or else packed so that `original_id` finds it.

    One that is too long when packed becomes a digest: equal ids stay equal and different ones different, which is all
    that a conversation needs.
    """
    if len(id) <= longest and allowed.fullmatch(id):
        return id
    packed = _PACKED + base64.urlsafe_b64encode(id.encode()).decode().rstrip("=")
    if len(packed) <= longest and allowed.fullmatch(packed):
        return packed
    digest = base64.b32encode(hashlib.sha256(id.encode()).digest()).decode().rstrip("=")
    return digest[:longest]


def original_id(id: str) -> str:
    """What `safe_id` was given, unless that was too long."""
    if not id.startswith(_PACKED):
        return id
    packed = id.removeprefix(_PACKED)
    try:
        return base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return id


def tagged(value: str, origin: Family, home: Family) -> str:
    """A signature in a dialect whose clients hand it back without knowing whose it is: `origin` is written into it,
    unless the dialect's `home` is meant."""
    return value if origin == home else f"tollgate:{origin}:{value}"


def untagged(value: str, home: Family) -> tuple[str, Family]:
    """The signature and whose it is."""
    mark, _, rest = value.partition(":")
    origin, separator, signature = rest.partition(":")
    for family in FAMILIES:
        if mark == "tollgate" and separator and origin == family:
            return signature, family
    return value, home


# JSON ---------------------------------------------------------------------------------------------------------------

# Half of a surrogate pair. Servers that cut text by UTF-16 units send one half per chunk; JSON allows the escape.
_LONE_SURROGATE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)


def parse(data: bytes) -> Body:
    """A JSON object of the provider's. Raises `ProviderError` for anything else."""
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            value = orjson.loads(_LONE_SURROGATE.sub(rb"\\ufffd", data))
        except orjson.JSONDecodeError:
            raise unreadable("it is not JSON") from None
    if not isinstance(value, dict):
        raise unreadable("it is not a JSON object")
    return value


def compact(value: object) -> str:
    """JSON text as it is kept in events."""
    return orjson.dumps(value).decode()


# Counting -----------------------------------------------------------------------------------------------------------

# Fields of an answer that are not generated text
_NOT_TEXT = frozenset(
    {"id", "type", "index", "object", "role", "signature", "data", "status", "call_id", "encrypted_content"}
    | {"thoughtSignature", "mimeType"}
)
_MAX_DEPTH = 32
MAX_TOKENS = 10**12  # a count beyond it is nobody's usage, and would break sums and prices


_ANSWERS = ("choices", "content", "output", "candidates", "message", "text")  # where protocols have what was said


def answer_texts(answer: Body) -> list[str]:
    """All text of a unary answer, in any protocol."""
    return [text for field in _ANSWERS for text in _texts(answer.get(field), 0)]


def _texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < _MAX_DEPTH and isinstance(value, dict):
        for key, part in value.items():
            if key not in _NOT_TEXT and key != "finish_reason":
                yield from _texts(part, depth + 1)
    elif depth < _MAX_DEPTH and isinstance(value, list):
        for part in value:
            yield from _texts(part, depth + 1)


def text_bytes(value: object, depth: int = 0) -> int:
    """UTF-8 bytes of all text in a piece of an answer: what an estimate is made from when no usage comes."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if depth == _MAX_DEPTH:
        return 0
    if isinstance(value, dict):
        return sum(text_bytes(part, depth + 1) for key, part in value.items() if key not in _NOT_TEXT)
    if isinstance(value, list):
        return sum(text_bytes(part, depth + 1) for part in value)
    return 0


def tokens(block: object, *path: str) -> int | None:
    """A count in a usage block: 0 is 0, absent or unreadable is None."""
    for name in path:
        if not isinstance(block, dict):
            return None
        block = block.get(name)
    if type(block) is not int or block > MAX_TOKENS:  # a bool is none
        return None
    return max(0, block)


def total_input(usage: Usage) -> int:
    """All that went in, as dialects with inclusive totals say it."""
    return (
        usage.input_tokens
        + usage.cache_read_tokens
        + usage.cache_write_5m_tokens
        + usage.cache_write_1h_tokens
        + usage.cache_write_tokens
        + usage.input_audio_tokens
        + usage.input_image_tokens
    )


def total_output(usage: Usage) -> int:
    """All that came out."""
    return usage.output_tokens + usage.reasoning_tokens + usage.output_audio_tokens + usage.output_image_tokens
