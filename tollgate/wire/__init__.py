"""The wire formats: one module per protocol, serving clients and providers alike.

What every protocol offers, and what the rest of the project may ask of it. An `Exchange` is one attempt's translation:
it makes the provider's request, reads the provider's bytes and writes the client's. It knows no socket and no clock.
Same dialect on both sides passes through, unknown fields intact. Pure.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Dialect, Usage

Body = dict[str, Any]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What admission and routing must know of a request, in any dialect.

    `input_bound_tokens` is never lower than what any tokenizer makes of the text: UTF-8 bytes of all text, tools and
    schemas plus constants per message and tool. `max_output_tokens` is the client's own cap, per choice.
    `unbounded` names a field whose input cannot be bounded by counting bytes (images, audio, stored input).
    """

    model: str
    stream: bool
    input_bound_tokens: int
    max_output_tokens: int | None = None
    choices: int = 1
    user: str | None = None
    unbounded: str | None = None


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A provider call, ready to be sent: `path` is relative to the provider's base URL. Credentials are added later."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    stream: bool


class Meter(msgspec.Struct, kw_only=True):
    """What is known so far of one answer; filled in as the bytes come."""

    content_started: bool = False
    output_bytes: int = 0  # UTF-8 bytes of content received, to estimate by when no usage comes
    served_model: str | None = None
    finish_reason: str | None = None  # the provider's own word
    usage: Usage | None = None
    usage_raw: str | None = None  # the provider's block, verbatim


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What tollgate adds to an answer. `cost_usd` is exact decimal text (what the tenant is billed)."""

    request_id: str
    provider: str
    model: str
    cost_usd: str
    attempts: int
    reason: str
    price_version: str
    cache: str = "off"


class Exchange(Protocol):
    """One attempt: client dialect on one side, provider protocol on the other.

    Unary: `answer` once, then `final`. Streams: `feed` for each piece, `finish` at the end of the body, then `final`.
    `failure` instead of `final` when the stream broke after content.
    """

    request: UpstreamRequest
    meter: Meter

    def answer(self, body: bytes) -> None:
        """Take the whole body of a 2xx answer. Raises `ProviderError` when it is not one."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take bytes of a 2xx stream, cut anywhere; return the client's bytes that may leave at once.

        The tail (from the finish or usage event on) is held back for `final`. Returns b"" before the first content:
        what comes before it is kept and leaves with it. Raises `ProviderError` for an error sent in-band.
        """
        ...

    def finish(self) -> None:
        """The provider's body is over. Raises `ProviderError` of class `cut` when the answer was not."""
        ...

    def final(self, extras: Extras) -> bytes:
        """The whole body (unary) or the last bytes (stream), with provider, `usage.cost` and the `tollgate` object."""
        ...

    def failure(self, error: ProviderError | Refusal, request_id: str) -> bytes:
        """The client dialect's own error event, to end a stream that has begun."""
        ...


class Wire(Protocol):
    """One protocol, as a module: a client dialect and a provider protocol at once."""

    name: Dialect

    def ask(self, body: Body) -> Ask:
        """Raises `Refusal` (400, with `param`) for a field of the wrong type or a missing one."""
        ...

    def provider_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Classify a non-2xx answer. Never raises, whatever the body is."""
        ...

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        """A refusal as this dialect's clients read it."""
        ...

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """How this protocol's providers want the credential."""
        ...

    def models_body(self, models: list[tuple[str, str, int]]) -> bytes:
        """`GET /v1/models`: (id, owner, created as Unix seconds) as this dialect lists them."""
        ...
