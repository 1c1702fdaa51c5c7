"""What a request says arrives, or is named, or the request is refused by its name: held against every pair.

Whether a field arrives is told by two requests, one with it and one without: what the provider gets differs. A field
that nobody knows is put into every object of every request; and every field of the middle has a sample here.
"""

import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, NamedTuple, get_args

import orjson
import pytest
from msgspec.structs import replace

from tests.wire.requests import MODELS, PAIRS, QUIRKS, REQUESTS, SCHEMA
from tollgate.errors import Refusal
from tollgate.wire import Quirks
from tollgate.wire.content import (
    Audio,
    Cache,
    Document,
    Format,
    Image,
    Part,
    Prompt,
    Reasoning,
    Refused,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from tollgate.wire.exchange import PROTOCOLS, exchange_for
from tollgate.wire.scope import Losses, NotCarried, fit

Path = tuple[str | int, ...]


class Outcome(NamedTuple):
    """What the provider gets and what is named, or the name of what the request was refused for."""

    sent: bytes = b""
    dropped: tuple[str, ...] = ()
    refused: str | None = None


def outcome(dialect, protocol, body, model) -> Outcome:
    try:
        exchange = exchange_for(
            dialect,
            protocol,
            body,
            request_id="0198b4f0-1234-7000-8000-000000000001",
            model=model,
            max_output_tokens=None,
            headers={},
            quirks=QUIRKS.get(protocol, Quirks()),
        )
    except Refusal as refusal:
        assert refusal.param, "a refusal that names nothing"
        return Outcome(refused=refusal.param)
    return Outcome(exchange.request.path.encode() + exchange.request.body, exchange.dropped)


# What is below these is the client's own: schemas, arguments, labels
OPAQUE = frozenset(
    {"args", "input_schema", "labels", "logit_bias", "parameters", "parametersJsonSchema", "response", "schema"}
    | {"arguments", "responseJsonSchema"}
)


def objects(value: Any, at: Path = ()) -> Iterator[Path]:
    """The places of all objects in a request."""
    if isinstance(value, dict):
        yield at
        for field, inner in value.items():
            is_own = field in OPAQUE or (isinstance(inner, dict) and (field == "input" or "properties" in inner))
            if not is_own:
                yield from objects(inner, (*at, field))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from objects(inner, (*at, number))


def found(body: Any, at: Path) -> Any:
    for step in at:
        body = body[step]
    return body


def shown(at: Path) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at).lstrip(".")


# What is named as one where it stands in several places
PARTS_OF = {
    "thinking": ("output_config", "output_config.effort"),
    "reasoning_effort": ("reasoning",),
}


def is_named(got: Outcome, body: Any, at: Path, field: str) -> bool:
    """The field itself, or an object that it stands in: by its place, or by the kind of thing it is."""
    names = {name.replace("xNew", "x_new") for name in got.dropped}
    names |= {part for name in names for part in PARTS_OF.get(name, ())}
    if re.sub(r"\[\d+\]", "[]", shown((*at, field))) in names:
        return True
    for end in range(1, len(at) + 1):
        place = re.sub(r"\[\d+\]", "[]", shown(at[:end]))
        holder = found(body, at[:end])
        kind = holder.get("type") if isinstance(holder, dict) else None
        if not names.isdisjoint({place, place.removesuffix("[]"), f"{place}.{kind}"}):
            return True
    return False


@pytest.mark.parametrize(("dialect", "protocol"), PAIRS)
def test_a_field_that_nobody_knows_is_named_wherever_it_stands(dialect, protocol):
    silent = []
    for title, body in REQUESTS[dialect].items():
        for at in objects(body):
            more = deepcopy(body)
            found(more, at)["x_new"] = "?"
            for model in MODELS[protocol]:
                got = outcome(dialect, protocol, more, model)
                if got.refused is None and not is_named(got, body, at, "x_new"):
                    silent.append(f"{title}: {shown((*at, 'x_new'))}")
    assert not silent, "\n".join(dict.fromkeys(silent))


@pytest.mark.parametrize(("dialect", "protocol"), PAIRS)
def test_a_field_that_is_there_makes_a_difference_or_is_named(dialect, protocol):
    silent = []
    for title, body in REQUESTS[dialect].items():
        carried = {model: outcome(dialect, protocol, body, model) for model in MODELS[protocol]}
        carried = {model: got for model, got in carried.items() if got.refused is None}
        for at in objects(body):
            for field, value in found(body, at).items():
                place = re.sub(r"\[\d+\]", "[]", shown((*at, field)))
                if not value or says_nothing(title, place, protocol):
                    continue
                less = deepcopy(body)
                del found(less, at)[field]
                for model, got in carried.items():
                    is_silent = got == outcome(dialect, protocol, less, model)
                    if is_silent and not is_named(got, body, at, field):
                        silent.append(f"{title}: {place} to {model}")
    assert not silent, "\n".join(dict.fromkeys(silent))


# Fields without which a request means the same: the end of the place, in which request (all), and why
SAYS_NOTHING = {
    ("model", ""): "the provider has its own name for it",
    ("type", ""): "the sample has the kind that is meant without it",
    ("role", ""): "so has it the role",
    ("id", ""): "results find their calls by order, messages need no name",
    ("tool_call_id", "tools"): "or by the name of the tool",
    ("tool_name", "tools"): "or by the id of the call",
    ("index", ""): "the order says it",
    ("status", "system texts"): "an item that is not whole would be another one",
    ("media_type", "a text"): "a text is one",
    ("mimeType", "an image on the web"): "the web says it",
    ("responseMimeType", "a form of the answer"): "a schema is one of JSON",
    ("stream_options", "stream"): "the usage is always asked for",
    ("stream_options.include_usage", "stream"): "the usage is always asked for",
    ("allowed_tools.mode", "tools of which one may be called"): "so has it the mode",
    ("tools[].function.parameters", "tools of which one may be called"): "the tool that may not be called is left out",
    ("tools[].function.description", "tools of which one may be called"): "the tool that may not be called is left out",
    ("tools", "no tool"): "no tool may be called: those that know no word for it are sent none",
    ("description", "no tool"): "as above",
    ("parameters", "no tool"): "as above",
    ("input_schema", "no tool"): "as above",
    ("functionDeclarations", "no tool"): "as above",
    ("parametersJsonSchema", "no tool"): "as above",
    ("strict", "a form of the answer"): "the answer always holds to the schema there",
    ("reasoning.summary", "thinking"): "thoughts are shown anyway",
    ("thinking", "thinking"): "the effort says it",
    ("think", "thoughts"): "as much as it likes",
    ("thinking.display", "thinking"): "thoughts are not shown anyway",
}


# To Mistral, whose models think as much as they like where they think: so much is meant by a high effort
ONLY_ON_AND_OFF = ("output_config", "output_config.effort", "thinkingLevel")


def says_nothing(title: str, place: str, protocol: str) -> bool:
    if protocol == "mistral" and title == "thinking" and place.endswith(ONLY_ON_AND_OFF):
        return True
    return any(
        (place == end or place.endswith(("." + end, "]" + end))) and only in ("", title) for end, only in SAYS_NOTHING
    )


# The middle ---------------------------------------------------------------------------------------------------------

_HERE = "messages[0].content[0]"
_SIGNED = {"text": "Hm", "signature": "c2lnbmVk", "path": _HERE}


def _user(*parts: Any) -> Prompt:
    return Prompt(turns=(Turn("user", (Text(text="Hi"), *parts)),))


def _assistant(*parts: Any) -> Prompt:
    return Prompt(turns=(Turn("user", (Text(text="Hi"),)), Turn("assistant", parts), Turn("user", (Text(text="So?"),))))


def _called(call: ToolCall, *results: ToolResult) -> Prompt:
    said = (Turn("user", (Text(text="Hi"),)), Turn("assistant", (call,)), Turn("user", results))
    return Prompt(turns=said, tools=(Tool(name="f"),))


_CALL = ToolCall(id="c1", name="f", arguments="{}")
_RESULT = ToolResult(call_id="c1", parts=(Text(text="Rain"),), path=_HERE)
_TOOLS = (Tool(name="f", path="tools[0]"),)
_FORM = Format(schema=SCHEMA)
_PDF = Document(data="AA==", media_type="application/pdf", path=_HERE)
_PICTURE = Image(data="AA==", media_type="image/png", path=_HERE)

# For each field of each type of the middle: a prompt that does without it, or has it otherwise, and one that has it
SAMPLES: dict[tuple[type, str], tuple[Prompt, Prompt]] = {
    (Prompt, "stream"): (_user(), replace(_user(), stream=True)),
    (Prompt, "turns"): (_user(), _user(Text(text="More"))),
    **{
        (Prompt, field): (base, replace(base, **{field: value}))
        for base, fields in (
            (
                _user(),
                {
                    "max_output_tokens": 5000,
                    "stop": ("END",),
                    "tools": _TOOLS,
                    "format": _FORM,
                    "thinking": Thinking(effort="low"),
                    "n": 2,
                    "logprobs": True,
                    "top_logprobs": 2,
                    "logit_bias": {"1": 1},
                    "temperature": 0.5,
                    "top_p": 0.5,
                    "top_k": 5,
                    "presence_penalty": 0.5,
                    "frequency_penalty": 0.5,
                    "seed": 5,
                    "service_tier": "flex",
                    "user": "ann",
                    "verbosity": "low",
                },
            ),
            (replace(_user(), tools=_TOOLS), {"tool_choice": ToolChoice("required"), "parallel_tool_calls": False}),
        )
        for field, value in fields.items()
    },
    (Turn, "role"): (_user(), _assistant()),
    (Turn, "parts"): (_user(), _user(Text(text="More"))),
    (Text, "text"): (_user(Text(text="a")), _user(Text(text="b"))),
    (Text, "cache"): (_user(Text(text="a")), _user(Text(text="a", cache=Cache(), path=_HERE))),
    (Cache, "ttl"): (
        _user(Text(text="a", cache=Cache(), path=_HERE)),
        _user(Text(text="a", cache=Cache("1h"), path=_HERE)),
    ),
    (Image, "url"): (_user(), _user(Image(url="https://example.com/a.png", path=_HERE))),
    (Image, "data"): (_user(_PICTURE), _user(replace(_PICTURE, data="BB=="))),
    (Image, "media_type"): (_user(_PICTURE), _user(replace(_PICTURE, media_type="image/gif"))),
    (Image, "detail"): (_user(_PICTURE), _user(replace(_PICTURE, detail="high"))),
    (Image, "cache"): (_user(_PICTURE), _user(replace(_PICTURE, cache=Cache()))),
    (Document, "url"): (_user(), _user(Document(url="https://example.com/a.pdf", path=_HERE))),
    (Document, "data"): (_user(_PDF), _user(replace(_PDF, data="BB=="))),
    (Document, "media_type"): (_user(_PDF), _user(replace(_PDF, media_type="text/csv", data="YSxi"))),
    (Document, "text"): (_user(), _user(Document(text="words", path=_HERE))),
    (Document, "name"): (_user(_PDF), _user(replace(_PDF, name="a.pdf"))),
    (Document, "context"): (_user(_PDF), _user(replace(_PDF, context="from the archive"))),
    (Document, "cite"): (_user(_PDF), _user(replace(_PDF, cite=True))),
    (Document, "cache"): (_user(_PDF), _user(replace(_PDF, cache=Cache()))),
    (Audio, "data"): (_user(), _user(Audio(data="AA==", format="wav", path=_HERE))),
    (Audio, "format"): (
        _user(Audio(data="AA==", format="wav", path=_HERE)),
        _user(Audio(data="AA==", format="mp3", path=_HERE)),
    ),
    (Audio, "cache"): (
        _user(Audio(data="AA==", format="wav", path=_HERE)),
        _user(Audio(data="AA==", format="wav", path=_HERE, cache=Cache())),
    ),
    (ToolCall, "id"): (_called(_CALL, _RESULT), _called(replace(_CALL, id="c2"), replace(_RESULT, call_id="c2"))),
    (ToolCall, "name"): (_called(_CALL, _RESULT), _called(replace(_CALL, name="g"), _RESULT)),
    (ToolCall, "arguments"): (_called(_CALL, _RESULT), _called(replace(_CALL, arguments='{"a":1}'), _RESULT)),
    (ToolCall, "signature"): (
        _called(_CALL, _RESULT),
        _called(replace(_CALL, signature="c2lnbmVk", origin="google", path=_HERE), _RESULT),
    ),
    (ToolCall, "origin"): (
        _called(replace(_CALL, signature="c2lnbmVk", origin="google", path=_HERE), _RESULT),
        _called(replace(_CALL, signature="c2lnbmVk", origin="openai", path=_HERE), _RESULT),
    ),
    (ToolCall, "cache"): (_called(_CALL, _RESULT), _called(replace(_CALL, cache=Cache(), path=_HERE), _RESULT)),
    (ToolResult, "call_id"): (_called(_CALL), _called(_CALL, _RESULT)),
    (ToolResult, "parts"): (_called(_CALL, replace(_RESULT, parts=())), _called(_CALL, _RESULT)),
    (ToolResult, "name"): (_called(_CALL, _RESULT), _called(_CALL, replace(_RESULT, name="g"))),
    (ToolResult, "is_error"): (_called(_CALL, _RESULT), _called(_CALL, replace(_RESULT, is_error=True))),
    (ToolResult, "cache"): (_called(_CALL, _RESULT), _called(_CALL, replace(_RESULT, cache=Cache()))),
    (Reasoning, "text"): (_assistant(Text(text="a")), _assistant(Reasoning(text="Hm", path=_HERE), Text(text="a"))),
    **{
        (Reasoning, field): (
            _assistant(Text(text="a")),
            _assistant(Reasoning(**said, origin=origin), Text(text="a")),
        )
        for field, said, origin in (
            ("signature", _SIGNED, "anthropic"),
            ("redacted", {"redacted": "c2VhbGVk", "path": _HERE}, "openai"),
            ("origin", _SIGNED, "google"),
        )
    },
    (Reasoning, "cache"): (
        _assistant(Reasoning(text="Hm", path=_HERE), Text(text="a")),
        _assistant(Reasoning(text="Hm", path=_HERE, cache=Cache()), Text(text="a")),
    ),
    (Refused, "text"): (_assistant(Text(text="a")), _assistant(Text(text="a"), Refused(text="No.", path=_HERE))),
    (Refused, "cache"): (
        _assistant(Refused(text="No.", path=_HERE)),
        _assistant(Refused(text="No.", path=_HERE, cache=Cache())),
    ),
    **{
        (Tool, field): (replace(_user(), tools=_TOOLS), replace(_user(), tools=(replace(_TOOLS[0], **{field: value}),)))
        for field, value in {
            "name": "g",
            "description": "Of a city",
            "schema": SCHEMA,
            "strict": True,
            "cache": Cache(),
        }.items()
    },
    (ToolChoice, "mode"): (
        replace(_user(), tools=_TOOLS, tool_choice=ToolChoice("auto")),
        replace(_user(), tools=_TOOLS, tool_choice=ToolChoice("none")),
    ),
    (ToolChoice, "names"): (
        replace(_user(), tools=(*_TOOLS, Tool(name="g")), tool_choice=ToolChoice("auto")),
        replace(_user(), tools=(*_TOOLS, Tool(name="g")), tool_choice=ToolChoice("auto", ("g",))),
    ),
    **{
        (Format, field): (replace(_user(), format=_FORM), replace(_user(), format=replace(_FORM, **{field: value})))
        for field, value in {"schema": None, "name": "city", "description": "A city", "strict": True}.items()
    },
    **{
        (Thinking, field): (
            replace(_user(), thinking=Thinking(), max_output_tokens=9000),
            replace(_user(), thinking=Thinking(**{field: value}), max_output_tokens=9000),
        )
        for field, value in {"effort": "low", "budget_tokens": 2000}.items()
    },
    (Thinking, "visible"): (
        replace(_user(), thinking=Thinking(effort="high", visible=True), max_output_tokens=9000),
        replace(_user(), thinking=Thinking(effort="high", visible=False), max_output_tokens=9000),
    ),
}
# What is no content, or of answers only
NOT_SENT = {(type, "path") for type in (*get_args(Part), Turn, Tool)} | {(Text, "citations")}
# What makes no difference, and why
SAME: dict[tuple[type, str], str] = {
    (Audio, "format"): "the sound itself says it, and some protocols want nothing else",
    (Image, "media_type"): "so does the image",
    (Format, "strict"): "the answer always holds to the schema there",
    (ToolResult, "name"): "the id of the call says whose result it is",
    (ToolCall, "id"): "where calls have none, the order says whose a result is",
}


def test_every_field_of_the_middle_has_a_sample():
    fields = {
        (type, field)
        for type in (Prompt, Turn, *get_args(Part), Cache, Tool, ToolChoice, Format, Thinking)
        for field in type.__struct_fields__
    }
    assert fields - NOT_SENT == SAMPLES.keys()


@pytest.mark.parametrize("protocol", MODELS)
def test_every_field_of_the_middle_arrives_or_is_named(protocol):
    codec, quirks = PROTOCOLS[protocol], QUIRKS.get(protocol, Quirks())
    scope = codec.scope(quirks)

    def told(prompt: Prompt, model: str) -> Outcome:
        losses = Losses({})
        try:
            fitted = fit(prompt, scope, model=model, losses=losses)
            body = codec.write_prompt(fitted, model=model, max_output_tokens=None, quirks=quirks, losses=losses)
        except NotCarried as lost:
            assert lost.param, "a refusal that names nothing"
            return Outcome(refused=lost.param)
        path = codec.call_path(model, sent=body, stream=prompt.stream, quirks=quirks)
        return Outcome(path.encode() + orjson.dumps(body), losses.names)

    silent = []
    for (type, field), (without, with_it) in SAMPLES.items():
        for model in MODELS[protocol]:
            got = told(with_it, model)
            # what is named in both is what the field is a part of
            is_silent = got.refused is None and not got.dropped and got == told(without, model)
            if is_silent and (type, field) not in SAME:
                silent.append(f"{type.__name__}.{field} to {model}")
    assert not silent, "\n".join(silent)
