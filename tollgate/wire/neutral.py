"""The middle between two different dialects, and what a protocol module offers to be translated from and to.

A request for another protocol is read into a `Prompt` and written from it; an answer comes back as text, a finish word
and disjoint usage. So a protocol is written once, not once per pair. What the middle cannot hold is refused by name
(`NotCarried`), never dropped in silence. Today it holds text. Pure.
"""

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Literal, Protocol

import msgspec
import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Usage
from tollgate.wire import Body, Extras, Meter, Quirks, Wire
from tollgate.wire.sse import Event

Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "stop_sequence", "length", "tool_calls", "content_filter"]


class Turn(msgspec.Struct, frozen=True):
    """One message: its texts in order, each as the client cut it."""

    role: Role
    texts: tuple[str, ...]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A request that any protocol can say. None and empty are what the client did not send."""

    turns: tuple[Turn, ...]
    stream: bool = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    user: str | None = None


class NotCarried(Exception):
    """A field that does not survive the way to another protocol. `param` is its path in the client's request.

    A writer does not know the client's dialect: it names a field of `Prompt`, which the client's module knows by
    another name (`prompt_fields`). `problem` completes the sentence that begins with the field's name.
    """

    def __init__(self, param: str, problem: str | None = None) -> None:
        super().__init__(param)
        self.param = param
        self.problem = problem


class Mark(IntEnum):
    """What an event of a provider's stream means for when its bytes may leave."""

    OTHER = 0  # roles, pings, comments: leaves with what is around it
    CONTENT = 1  # something the client waits for
    CLOSING = 2  # finish or usage: held back until the books have it
    END = 3  # the provider says that nothing follows


class Reader(Protocol):
    """Reads a provider's stream event by event and fills in the meter."""

    text: str  # what the last event added to the first answer's text
    uncarried: str | None  # what else it held that the middle cannot hold, in the provider's word for it

    def read(self, event: Event) -> Mark:
        """Raises `ProviderError` for an error sent in-band and for what cannot be read."""
        ...


class Writer(Protocol):
    """Writes an answer in a client's dialect from the middle. One writer per answer."""

    def text(self, text: str) -> bytes:
        """A piece of the text, with whatever must come before the first one."""
        ...

    def end(self, finish: Finish, extras: Extras) -> bytes:
        """The end of the stream, and its beginning if there was no text."""
        ...

    def whole(self, text: str, finish: Finish, extras: Extras) -> bytes:
        """A unary answer."""
        ...


class Codec(Wire, Protocol):
    """A protocol module as `exchange` sees it."""

    path: str
    prompt_fields: dict[str, str]  # field of `Prompt` → this dialect's name for it, where that differs
    finish_words: dict[str, Finish]  # the provider's word → the middle's; unknown ones count as `stop`

    # As the provider's protocol
    def request_headers(self, client_headers: Mapping[str, str]) -> dict[str, str]:
        """What the protocol itself wants, beside content type and credentials. Names come in lower case."""
        ...

    def pass_on(self, body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks) -> Body:
        """The request of a client of the same dialect, all its fields intact but for model, cap and our own."""
        ...

    def write_prompt(self, prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks) -> Body:
        """Raises `NotCarried`."""
        ...

    def read_answer(self, answer: Body, meter: Meter) -> None:
        """Meter a unary answer. Raises `ProviderError` if it is not one."""
        ...

    def answer_text(self, answer: Body) -> str:
        """The text of a metered answer. Raises `ProviderError` when it holds what the middle cannot."""
        ...

    def reader(self, meter: Meter, body: Body) -> Reader:
        """`body` is the request that was sent."""
        ...

    # As the client's dialect
    def read_prompt(self, body: Body) -> Prompt:
        """Raises `NotCarried`, or `Refusal` for what is wrong in itself."""
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

    def error_event(self, refusal: Refusal, request_id: str) -> bytes:
        """What ends a stream that has begun, and makes the SDKs raise."""
        ...


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


def unreadable(why: str) -> ProviderError:
    """The provider broke its own protocol. `why` repeats nothing of what it sent."""
    return ProviderError("server_error", f"the provider's answer cannot be read: {why}")


def uncarried(what: str) -> ProviderError:
    return ProviderError(
        "server_error", f"the provider answered with {what}, which nobody asked for and no other dialect can carry"
    )


def compact(value: object) -> str:
    """JSON text as it is kept in events."""
    return orjson.dumps(value).decode()


# Counting -----------------------------------------------------------------------------------------------------------

# Fields of an answer that are not generated text
_NOT_TEXT = frozenset({"id", "type", "index", "object", "role", "signature", "data"})
_MAX_DEPTH = 32
MAX_TOKENS = 10**12  # a count beyond it is nobody's usage, and would break sums and prices


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
        block = block.get(name) if isinstance(block, dict) else None
    if isinstance(block, bool) or not isinstance(block, int) or block > MAX_TOKENS:
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
