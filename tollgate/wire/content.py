"""What a conversation is made of, in no dialect: the types of the middle that every protocol is read into and written
from.

A request is a `Prompt`, an answer is `Choice`s of parts, a stream is `Delta`s. Each part knows where the client had put
it (`path`), so that what is refused or left out can be named in the client's own words. Pure data.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

Json = dict[str, Any]
Role = Literal["system", "user", "assistant"]
Finish = Literal["stop", "stop_sequence", "length", "tool_calls", "content_filter"]

# Who can read a signature or encrypted thought. One family may be served by several providers: thoughts that Claude has
# signed are good at Anthropic, Bedrock and Vertex alike.
Family = Literal["anthropic", "google", "openai"]
FAMILIES: tuple[Family, ...] = ("anthropic", "google", "openai")


# Parts --------------------------------------------------------------------------------------------------------------


class Cache(msgspec.Struct, frozen=True):
    """The client's wish that all up to and including this part be kept by the provider. None: its default lifetime."""

    ttl: Literal["5m", "30m", "1h", "12h", "24h"] | None = None


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    path: str = ""  # where the client's request holds it, such as `messages[2].content[0]`
    cache: Cache | None = None


class Text(_Part, frozen=True, kw_only=True, tag="text"):
    """`citations` are of answers; a request's are left out by its reader and named."""

    text: str
    citations: tuple["Citation", ...] = ()


class Image(_Part, frozen=True, kw_only=True, tag="image"):
    """Either `url` (http or https) or `data` (base64) with its `media_type`. `detail` is a hint in OpenAI's words."""

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    detail: str | None = None


class Document(_Part, frozen=True, kw_only=True, tag="document"):
    """A file to read: `data` (base64) with its `media_type`, an http `url`, or plain `text`.

    `name` is a file name or title, `context` what the client says about it, `cite` whether it wants citations.
    """

    url: str | None = None
    data: str | None = None
    media_type: str | None = None
    text: str | None = None
    name: str | None = None
    context: str | None = None
    cite: bool = False


class Audio(_Part, frozen=True, kw_only=True, tag="audio"):
    """Sound in base64; `format` as in `wav`, `mp3`."""

    data: str
    format: str


class ToolCall(_Part, frozen=True, kw_only=True, tag="tool_call"):
    """The model's wish to have a tool run.

    `arguments` is the JSON text as it was written, which need not be an object or even JSON: `neutral.arguments_object`
    reads it. `id` is as the provider gave it, however odd; a protocol that restricts ids maps it (`neutral.safe_id`).
    An empty `id` is one that the provider did not give: an answer gets one before any client sees it.
    `signature` belongs to `origin`, which wants it back with the call.
    """

    id: str
    name: str
    arguments: str = ""
    signature: str | None = None
    origin: Family | None = None


ResultPart = Text | Image | Document


class ToolResult(_Part, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool said; in a turn of the user. `name` is the tool's, found in the conversation when not given."""

    call_id: str
    parts: tuple[ResultPart, ...] = ()
    name: str | None = None
    is_error: bool = False


class Reasoning(_Part, frozen=True, kw_only=True, tag="reasoning"):
    """The model's thoughts: readable `text` with its `signature`, or `redacted`, which only `origin` can read.

    `origin` None is plain text, which nobody has signed.
    """

    text: str = ""
    signature: str | None = None
    redacted: str | None = None
    origin: Family | None = None


class Refused(_Part, frozen=True, kw_only=True, tag="refusal"):
    """The model's own words for why it will not answer, where a protocol keeps them apart from text."""

    text: str


Part = Text | Image | Document | Audio | ToolCall | ToolResult | Reasoning | Refused


class Citation(msgspec.Struct, frozen=True, kw_only=True):
    """A source on the web. `start` and `end` count characters of the part's text, None where nobody said."""

    url: str
    title: str = ""
    cited_text: str = ""
    start: int | None = None
    end: int | None = None


# Request ------------------------------------------------------------------------------------------------------------


class Turn(msgspec.Struct, frozen=True):
    """One message. A tool's results are parts of a user's turn; a system turn may stand anywhere and holds texts."""

    role: Role
    parts: tuple[Part, ...]
    path: str = ""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A function that the model may call. `schema` is JSON Schema for its arguments, None for none."""

    name: str
    description: str | None = None
    schema: Json | None = None
    strict: bool | None = None
    cache: Cache | None = None
    path: str = ""


class ToolChoice(msgspec.Struct, frozen=True):
    """`required` with one name is that tool; with several, or with `auto`, only those may be called. No names: any."""

    mode: Literal["auto", "none", "required"]
    names: tuple[str, ...] = ()


class Format(msgspec.Struct, frozen=True, kw_only=True):
    """The form of the answer: JSON of this schema, or of any where it is None."""

    schema: Json | None = None
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
EFFORTS: tuple[Effort, ...] = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


class Thinking(msgspec.Struct, frozen=True, kw_only=True):
    """How much to think: an `effort`, a `budget_tokens`, both, or neither, which leaves it to the model.

    `visible` False: the client does not want to read the thoughts.
    """

    effort: Effort | None = None
    budget_tokens: int | None = None
    visible: bool | None = None

    @property
    def off(self) -> bool:
        return self.effort == "none" or self.budget_tokens == 0


Tier = Literal["auto", "standard", "flex", "priority"]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A request. None and empty are what the client did not send, or sent with the value that says nothing.

    Which of its fields a protocol carries is its `Scope`; what happens to the others is `HINTS`.
    """

    turns: tuple[Turn, ...]
    stream: bool = False
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: Format | None = None
    thinking: Thinking | None = None
    n: int = 1
    logprobs: bool = False
    top_logprobs: int | None = None
    logit_bias: Json | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    service_tier: Tier | None = None
    user: str | None = None
    verbosity: str | None = None


# Fields of `Prompt` that every protocol carries in its own way.
ALWAYS = frozenset({"turns", "stream", "max_output_tokens"})

# Fields that steer chance, cost or speed: a protocol without them drops them and the client is told. Every other field
# says what the client wants to get, and a request that cannot say it is refused.
HINTS = frozenset(
    {
        "frequency_penalty",
        "presence_penalty",
        "seed",
        "service_tier",
        "temperature",
        "thinking",
        "top_k",
        "top_p",
        "user",
        "verbosity",
    }
)
# Values that ask for what happens anyway: left out without a word where they cannot be sent.
DEFAULTS: Mapping[str, object] = {
    "temperature": 1,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "parallel_tool_calls": True,
    "service_tier": "auto",
}


# Answer -------------------------------------------------------------------------------------------------------------


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the answers of a unary call. `finish` is the provider's word; `logprobs` as OpenAI writes their entries:
    `{token, logprob, bytes, top_logprobs}`."""

    parts: tuple[Part, ...]
    finish: str | None = None
    logprobs: tuple[Json, ...] = ()


Kind = Literal["text", "reasoning", "refusal", "tool_call"]


class Delta(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one event of a stream adds to one part of one choice.

    Deltas with equal `kind`, `key` and `choice` are of one part; `key` is whatever tells a provider's parts apart
    (Anthropic's block index, OpenAI's index of a tool call). They may come in any order: `sequence` puts parts one
    after another, and holds back what comes too early. `text` is text, thought, refusal, or a fragment of the JSON of a
    call's arguments. `last` says that nothing more of the part follows; without it a part ends when the next begins.
    """

    kind: Kind = "text"
    text: str = ""
    key: int = 0
    choice: int = 0
    id: str = ""  # of a call
    name: str = ""  # of a call
    signature: str | None = None  # of a thought or a call
    redacted: str | None = None  # of a thought
    origin: Family | None = None  # of signature and redacted
    citations: tuple[Citation, ...] = ()
    logprobs: tuple[Json, ...] = ()
    last: bool = False
