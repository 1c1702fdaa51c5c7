"""The wire formats: one module per protocol, serving clients and providers alike.

What every protocol offers, and what the rest of the project may ask of it. An `Exchange` is one attempt's translation:
it makes the provider's request, reads the provider's bytes and writes the client's. It knows no socket and no clock.
Same dialect on both sides passes through, unknown fields intact. Pure.

`tollgate.wire.exchange` makes exchanges and holds the table of protocols; `tollgate.wire.failures` says what a
provider's failure means and what the client is told of it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import quote

import msgspec
import orjson
from msgspec import Meta

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Dialect, Usage
from tollgate.wire.content import Family

Body = dict[str, Any]


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What admission and routing must know of a request, in any dialect.

    `input_bound_tokens` is never lower than what a byte-level tokenizer makes of the input: the UTF-8 bytes of the
    whole request as JSON (a field unknown here may be text too), plus constants per message and tool.
    `max_output_tokens` is the client's own cap, per choice. `unbounded` is the path of a field whose tokens cannot be
    bounded by counting bytes (images, audio, stored input, the provider's own tools). `unbounded_at_home` is one that
    only a provider of the same dialect is told of, because a translation leaves it out.

    `limits` are what it can use at most beyond input and output tokens (images, characters). `uncappable` is the path
    of the field that decides how much comes out where no cap can be sent. `sound` is the path of one whose tokens only
    the model's window bounds; its time is in `limits` where it can be told. `free`: nobody charges for it.
    """

    model: str
    stream: bool
    input_bound_tokens: int
    max_output_tokens: int | None = None
    choices: int = 1
    user: str | None = None
    unbounded: str | None = None
    unbounded_at_home: str | None = None
    limits: Usage = Usage()
    uncappable: str | None = None
    sound: str | None = None
    free: bool = False


class Quirks(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider departs from the protocol it speaks: data beside the translator, not an `if` inside it.

    They concern the OpenAI protocol, which has many speakers; others take of it what fits.
    """

    # Every compatible server knows `max_tokens`, and one that ignored the newer name would answer without a cap;
    # api.openai.com itself refuses `max_tokens` for its reasoning models.
    cap_field: Annotated[
        Literal["max_tokens", "max_completion_tokens"],
        Meta(description="Where the cap on output goes when the client named neither field."),
    ] = "max_tokens"
    path: Annotated[
        str, Meta(description="Where calls go instead; `{model}` stands for the model's name. A query may follow.")
    ] = ""
    takes: Annotated[frozenset[str], Meta(description="Fields beyond the protocol's own, such as `top_k`.")] = (
        frozenset()
    )
    lacks: Annotated[frozenset[str], Meta(description="Fields of the protocol that it does not know.")] = frozenset()
    cache_marker: Annotated[
        Literal["", "cache_control", "prompt_cache_breakpoint"],
        Meta(description="How parts and tools are marked for its cache."),
    ] = ""
    thinking_field: Annotated[
        Literal["reasoning_effort", "reasoning", "thinking"], Meta(description="How it is told to think.")
    ] = "reasoning_effort"
    thoughts_field: Annotated[
        Literal["", "reasoning_content", "reasoning", "reasoning_details"],
        Meta(description="Where it wants its earlier thoughts back."),
    ] = ""
    origins: Annotated[frozenset[Family], Meta(description="Whose signed thoughts it takes back.")] = frozenset()
    strict_messages: Annotated[
        bool, Meta(description="It refuses a message with fields that it does not know, such as another's thoughts.")
    ] = False
    thoughts_outside_completion: Annotated[
        bool, Meta(description="Tokens of thought are in the total only: neither among the completion's, nor stated.")
    ] = False
    states_cost: Annotated[
        bool,
        Meta(description="The usage says what the call cost, as OpenRouter, Perplexity or xAI do; it is believed."),
    ] = False
    embeds_by_prediction: Annotated[
        bool, Meta(description="Embeddings are asked for by `:predict`, as those of Vertex AI are.")
    ] = False
    key_header: Annotated[
        str, Meta(description="The header that holds the key by itself, instead of the protocol's own.")
    ] = ""

    def call_path(self, path: str, model: str) -> str:
        """Where a call goes: to the protocol's `path`, or to the provider's own."""
        return self.path.replace("{model}", quote(model, safe="")) if self.path else path


class UpstreamRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A provider call, ready to be sent. Credentials are added later.

    `path` continues the provider's base URL as that protocol's own SDK writes it: `https://api.openai.com/v1` with
    `/chat/completions`, `https://api.anthropic.com` with `/v1/messages`. Join them with `upstream_url`.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    stream: bool


def upstream_url(base_url: str, path: str) -> str:
    """The address of a call. A `/v1` that ends the base and begins the path is meant once."""
    base = base_url.rstrip("/")
    if path.startswith("/v1/") and base.endswith("/v1"):
        base = base.removesuffix("/v1")
    return base + path


class Meter(msgspec.Struct, kw_only=True):
    """What is known so far of one answer; filled in as the bytes come."""

    content_started: bool = False
    complete: bool = False  # nothing more is wanted from the provider: stop reading and call `finish`
    output_bytes: int = 0  # UTF-8 bytes of content received, to estimate by when no usage comes
    served_model: str | None = None
    finish_reason: str | None = None  # the provider's own word
    usage: Usage | None = None  # None: the provider has said nothing, which is not the same as zero
    estimate: Usage | None = None  # where the provider has said nothing, or not what the model is charged by
    usage_raw: str | None = None  # the provider's block as JSON; parts that came in several events are merged
    stated_cost_pusd: int | None = None  # what the provider says that the call cost, where it can be believed
    price_context: dict[str, str] = {}  # what chose among the model's prices, such as {"service_tier": "priority"}
    events: int = 0  # the number of the next event, in dialects that number them
    dropped: set[str] = msgspec.field(default_factory=set)  # parts of the answer that no other dialect can be told


class Extras(msgspec.Struct, frozen=True, kw_only=True):
    """What tollgate adds to an answer. `cost_usd` is exact decimal text (what the tenant is billed).

    `max_output_tokens` is the cap on output that the gateway set where the client named none, per choice.
    """

    request_id: str
    provider: str
    model: str
    cost_usd: str
    attempts: int
    reason: str
    price_version: str
    cache: str = "off"
    max_output_tokens: int | None = None
    dropped: tuple[str, ...] = ()  # what was left out between two dialects, of the request and of the answer

    @property
    def cost(self) -> orjson.Fragment:
        """The amount as a JSON number with every decimal it has; a float would round it."""
        return orjson.Fragment(self.cost_usd)

    def fields(self) -> Body:
        """The top-level fields that every answer gets, in any dialect."""
        fields: Body = {
            "request_id": self.request_id,
            "cost": self.cost,
            "attempts": self.attempts,
            "routing": {"model": self.model, "reason": self.reason},
            "cache": self.cache,
            "price_version": self.price_version,
        }
        if self.max_output_tokens is not None:
            fields["max_output_tokens"] = self.max_output_tokens
        if self.dropped:
            fields["dropped"] = self.dropped
        return {"provider": self.provider, "tollgate": fields}


class Exchange(Protocol):
    """One attempt: client dialect on one side, provider protocol on the other.

    Unary: `answer` once, then `final`. Streams: `feed` for each piece, `finish` at the end of the body or as soon as
    `meter.complete`, then `final`. `failure` instead of `final` when the stream broke after content.
    """

    request: UpstreamRequest
    meter: Meter
    content_type: str  # of what the client gets
    dropped: tuple[str, ...]  # the client's names of what the provider is not told

    def answer(self, body: bytes) -> None:
        """Take the whole body of a 2xx answer. Raises `ProviderError` when it is not one."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Take bytes of a 2xx stream, cut anywhere; return the client's bytes that may leave at once.

        The tail (from the finish or usage event on) is held back for `final`. Returns b"" before the first content:
        what comes before it is kept and leaves with it. Raises `ProviderError` for an error sent in-band; when content
        came in the same piece, that content is returned first, `meter.complete` is set and `finish` raises.
        """
        ...

    def finish(self) -> None:
        """The provider's body is over. Raises `ProviderError`, of class `cut` when the answer was not over."""
        ...

    def final(self, extras: Extras) -> bytes:
        """The whole body (unary) or the last bytes (stream), with provider, `usage.cost` and the `tollgate` object."""
        ...

    def said(self) -> list[str]:
        """The text of the answer so far, for whoever has to count it because the provider did not."""
        ...

    def failure(self, error: ProviderError | Refusal, request_id: str) -> bytes:
        """The client dialect's own error event, to end a stream that has begun; b"" where its form has no words."""
        ...


class ClientWire(Protocol):
    """One protocol, as the dialect of clients."""

    name: Dialect
    forwarded_headers: tuple[str, ...]  # lower case; the client's headers that a provider of this dialect is sent

    def ask(self, body: Body) -> Ask:
        """Raises `Refusal` (400, with `param`) for a field of the wrong type or a missing one."""
        ...

    def error_body(self, refusal: Refusal, request_id: str) -> bytes:
        """A refusal as this dialect's clients read it."""
        ...

    def error_event(self, refusal: Refusal, request_id: str, number: int | None = None) -> bytes:
        """The same to end a stream that has begun, in a form that makes the dialect's SDKs raise.

        `number` is that of the event, in dialects that number them; None where nobody has counted.
        """
        ...

    def models_body(self, models: list[tuple[str, str, int]]) -> bytes:
        """`GET /v1/models`: (id, owner, created as Unix seconds) as this dialect lists them."""
        ...


class ProviderWire(Protocol):
    """One protocol, as providers speak it."""

    name: Dialect

    def provider_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
        """Classify a non-2xx answer. Never raises, whatever the body is."""
        ...

    def auth_headers(self, api_key: str) -> dict[str, str]:
        """How this protocol's providers want the credential."""
        ...
