"""What a model can be told, by the tables; what is refused, and what is dropped and named."""

import pytest

from tollgate.wire import Quirks, anthropic, openai
from tollgate.wire.content import (
    Cache,
    Document,
    Image,
    Prompt,
    Reasoning,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolChoice,
    ToolResult,
    Turn,
)
from tollgate.wire.scope import MAX_NAMES, Losses, NotCarried, Rule, Scope, fit

ALL = Scope(
    fields=frozenset({"tools", "temperature", "top_p", "stop"}),
    parts={"user": frozenset({Text, Image, Document, ToolResult}), "assistant": frozenset({Text, ToolCall})},
    results=frozenset({Text}),
    image_sources=frozenset({"data"}),
    document_sources=frozenset({"data", "text"}),
)


def prompt(*parts, role="user", **fields):
    return Prompt(turns=(Turn(role, parts),), **fields)


def fitted(asked, scope=ALL, *, model="m", names=None):
    losses = Losses(names or {})
    return fit(asked, scope, model=model, losses=losses), losses.names


def test_what_can_be_told_stays_as_it_is():
    asked = prompt(Text(text="Hi"), temperature=0.5, stop=("END",), tools=(Tool(name="f"),))

    assert fitted(asked) == (asked, ())


def test_a_hint_is_dropped_and_named_as_the_client_knows_it():
    told, dropped = fitted(prompt(seed=1, user="ann", top_k=3), names={"user": "metadata.user_id"})

    assert (told.seed, told.user, told.top_k) == (None, None, None)
    assert dropped == ("top_k", "seed", "metadata.user_id")


def test_a_hint_for_what_happens_anyway_is_dropped_without_a_word():
    asked = prompt(presence_penalty=0, service_tier="auto", parallel_tool_calls=True)

    assert fitted(asked) == (prompt(), ())


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        (prompt(n=2), "n"),
        (prompt(logprobs=True), "logprobs"),
        (prompt(parallel_tool_calls=False), "parallel_tool_calls"),
        (prompt(tool_choice=ToolChoice("required")), "tool_choice"),
        (prompt(Image(url="https://example.com/a.png", path="messages[0].content[0]")), "messages[0].content[0]"),
        (prompt(Text(text="x", path="here"), role="system"), "here"),
        (prompt(ToolResult(call_id="c", parts=(Image(data="AA==", path="inside"),))), "inside"),
    ],
)
def test_what_says_what_the_client_wants_is_refused_by_its_path(asked, param):
    with pytest.raises(NotCarried) as refused:
        fitted(asked)

    assert refused.value.param == param


def test_a_protocol_may_drop_what_others_refuse():
    scope = Scope(fields=frozenset(), parts={}, drops=frozenset({"logit_bias"}))

    assert fitted(Prompt(turns=(), logit_bias={"1": 1}), scope) == (Prompt(turns=()), ("logit_bias",))


@pytest.mark.parametrize(("value", "is_refused"), [(0, False), (1, False), (1.01, True), (-0.1, True)])
def test_a_value_out_of_range_is_refused(value, is_refused):
    scope = Scope(fields=frozenset({"temperature"}), parts={}, ranges={"temperature": (0, 1)})
    asked = Prompt(turns=(), temperature=value)

    if is_refused:
        with pytest.raises(NotCarried, match="temperature"):
            fitted(asked, scope)
    else:
        assert fitted(asked, scope) == (asked, ())


@pytest.mark.parametrize(("cap", "is_refused"), [(None, False), (16, False), (15, True), (0, True)])
def test_a_cap_below_the_least_is_refused(cap, is_refused):
    scope = Scope(fields=frozenset(), parts={}, least_output_tokens=16)
    asked = Prompt(turns=(), max_output_tokens=cap)

    if is_refused:
        with pytest.raises(NotCarried, match="max_output_tokens"):
            fitted(asked, scope)
    else:
        assert fitted(asked, scope) == (asked, ())


def test_a_rule_holds_for_the_models_that_it_names():
    scope = Scope(
        fields=frozenset({"temperature", "top_p", "thinking"}),
        parts={},
        rules=(
            Rule(models="^old", lacks=frozenset({"temperature"})),
            Rule(models="^strict", either=(("temperature", "top_p"),)),
            Rule(models="^deep", thinking=True, lacks=frozenset({"top_p"})),
        ),
    )
    asked = Prompt(turns=(), temperature=0.5, top_p=0.5)

    assert fitted(asked, scope, model="new")[1] == ()
    assert fitted(asked, scope, model="old-1")[1] == ("temperature",)
    assert fitted(asked, scope, model="strict-1")[1] == ("top_p",)
    assert fitted(asked, scope, model="deep-1")[1] == ()
    thinking = Prompt(turns=(), temperature=0.5, top_p=0.5, thinking=Thinking(effort="low"))
    assert fitted(thinking, scope, model="deep-1")[1] == ("top_p",)
    off = Prompt(turns=(), temperature=0.5, top_p=0.5, thinking=Thinking(effort="none"))
    assert fitted(off, scope, model="deep-1")[1] == ()


def test_thoughts_go_back_to_the_family_that_had_them():
    scope = Scope(fields=frozenset(), parts={}, origins=frozenset({"anthropic"}))
    own = Reasoning(text="a", signature="s", origin="anthropic")
    asked = prompt(
        own,
        Reasoning(text="b", signature="s", origin="google", path="messages[3].content[1].thinking"),
        Reasoning(text="c", path="messages[3].reasoning_content"),
        role="assistant",
    )

    told, dropped = fitted(asked, scope)

    assert told.turns[0].parts == (own,)
    assert dropped == ("messages[].content[].thinking", "messages[].reasoning_content")


def test_a_foreign_signature_of_a_call_is_dropped_and_the_call_is_not():
    asked = prompt(
        ToolCall(id="c", name="f", signature="s", origin="google", path="messages[0].tool_calls[0]"), role="assistant"
    )

    told, dropped = fitted(asked, names={"signature": "extra_content"})

    assert told.turns[0].parts == (ToolCall(id="c", name="f", path="messages[0].tool_calls[0]"),)
    assert dropped == ("messages[].tool_calls[].extra_content",)


def test_hints_of_parts_are_dropped_and_named():
    asked = prompt(
        Text(text="x", cache=Cache("1h"), path="messages[0].content[0]"),
        Image(data="AA==", detail="high", path="messages[0].content[1]"),
        Document(text="x", name="a.txt", context="from the archive", cite=True, path="messages[0].content[2]"),
        ToolResult(call_id="c", is_error=True, path="messages[0].content[3]"),
        tools=(Tool(name="f", cache=Cache(), path="tools[0]"),),
    )

    told, dropped = fitted(asked)

    assert all(part.cache is None for part in told.turns[0].parts) and told.tools[0].cache is None
    assert dropped == (
        "messages[].content[].cache",
        "messages[].content[].detail",
        "messages[].content[].name",
        "messages[].content[].context",
        "messages[].content[].cite",
        "messages[].content[].is_error",
        "tools[].cache",
    )


def test_a_result_learns_the_name_of_its_tool():
    asked = Prompt(
        turns=(
            Turn("assistant", (ToolCall(id="c", name="f"),)),
            Turn("user", (ToolResult(call_id="c"), ToolResult(call_id="d"), ToolResult(call_id="c", name="own"))),
        )
    )

    told, _ = fitted(asked)

    assert [result.name for result in told.turns[1].parts] == ["f", None, "own"]


def test_names_of_losses_are_fit_for_a_header_and_few():
    losses = Losses({})
    losses.drop("x\r\nset-cookie: a=é")
    losses.drop("y" * 500)
    for number in range(100):
        losses.drop(f"field_{number}")
        losses.drop(f"messages[{number}].name")

    assert losses.names[0] == "x??set-cookie??a??"
    assert all(name.isascii() and name.isprintable() and len(name) <= 80 for name in losses.names)
    assert len(losses.names) == MAX_NAMES + 1 and losses.names[-1] == "others"


# The tables of models -----------------------------------------------------------------------------------------------

SAMPLING = {"temperature": 0.5, "top_p": 0.9, "top_k": 5}


@pytest.mark.parametrize(
    ("model", "lost"),
    [
        ("claude-3-5-haiku-20241022", ()),
        ("claude-sonnet-4-20250514", ()),
        ("claude-opus-4-1-20250805", ("top_p",)),
        ("claude-sonnet-4-5", ("top_p",)),
        ("us.anthropic.claude-haiku-4-5-20251001-v1:0", ("top_p",)),
        ("claude-opus-4-6", ("top_p",)),
        ("claude-opus-4-7", ("temperature", "top_p", "top_k")),
        ("anthropic/claude-opus-4.8", ("temperature", "top_p", "top_k")),
        ("claude-sonnet-5", ("temperature", "top_p", "top_k")),
        ("kimi-k2", ()),
    ],
)
def test_sampling_of_claude(model, lost):
    assert fitted(prompt(**SAMPLING), anthropic.scope(Quirks()), model=model)[1] == lost


@pytest.mark.parametrize(
    ("model", "lost"),
    [
        ("claude-3-5-sonnet-20241022", ("thinking",)),
        ("claude-3-7-sonnet-20250219", ("temperature",)),
        ("claude-sonnet-4-5", ("temperature",)),
    ],
)
def test_claude_thinks_without_temperature(model, lost):
    asked = prompt(temperature=0.5, thinking=Thinking(effort="high"))

    assert fitted(asked, anthropic.scope(Quirks()), model=model)[1] == lost


@pytest.mark.parametrize(
    ("model", "effort", "lost"),
    [
        ("gpt-4o", None, ()),
        ("gpt-4o", "low", ("thinking",)),
        ("o3-mini", None, ("temperature",)),
        ("openai/o4-mini", "high", ("temperature",)),
        ("gpt-5", None, ("temperature",)),
        ("gpt-5-mini-2025-08-07", None, ("temperature",)),
        ("gpt-5-chat-latest", None, ()),
        ("gpt-5.2", None, ()),
        ("gpt-5.2", "none", ()),
        ("gpt-5.2", "high", ("temperature",)),
        ("deepseek-chat", "high", ()),
    ],
)
def test_sampling_of_openai(model, effort, lost):
    thinking = None if effort is None else Thinking(effort=effort)

    assert fitted(prompt(temperature=0.5, thinking=thinking), openai.scope(Quirks()), model=model)[1] == lost


def test_quirks_widen_and_narrow_what_a_provider_is_sent():
    asked = prompt(Text(text="a", cache=Cache(), path="messages[0].content"), top_k=5, verbosity="low")

    assert fitted(asked, openai.scope(Quirks()))[1] == ("top_k", "messages[].content.cache")
    quirks = Quirks(takes=frozenset({"top_k"}), lacks=frozenset({"verbosity"}), cache_marker="cache_control")
    assert fitted(asked, openai.scope(quirks))[1] == ("verbosity",)
