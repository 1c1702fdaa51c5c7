"""What every protocol needs of the middle: ids and signatures that survive foreign hands, turns, efforts."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.fixtures import REQUEST_ID
from tollgate.errors import ProviderError
from tollgate.wire.content import FAMILIES, Choice, Prompt, Text, Thinking, Tool, ToolCall, ToolChoice, ToolResult, Turn
from tollgate.wire.neutral import (
    alternating,
    budget_of,
    callable_tools,
    effort_of,
    original_id,
    safe_id,
    settled,
    tagged,
    untagged,
)

WORD = re.compile(r"[a-zA-Z0-9_-]+")
ALNUM = re.compile(r"[a-zA-Z0-9]+")


@given(st.text(max_size=40))
def test_an_id_that_is_packed_is_found_again(id):
    packed = safe_id(id, allowed=WORD, longest=256)

    assert WORD.fullmatch(packed)
    assert original_id(packed) == id or packed == id


@given(st.lists(st.text(max_size=60), unique=True, max_size=5), st.sampled_from([9, 40]))
def test_short_ids_stay_apart(ids, longest):
    short = [safe_id(id, allowed=ALNUM, longest=longest) for id in ids]

    assert all(ALNUM.fullmatch(id) and len(id) <= longest for id in short)
    assert len(set(short)) == len(ids)


@pytest.mark.parametrize("id", ["", "call_1", "tgid_", "tgid_!", "tgid_abc=", "tgid__w"])
def test_an_id_that_nobody_packed_is_itself(id):
    assert original_id(id) in (id, "")


@given(st.text(), st.sampled_from(FAMILIES), st.sampled_from(FAMILIES))
def test_a_signature_keeps_its_origin_in_any_dialect(signature, origin, home):
    if origin == home and signature.startswith("tollgate:"):
        return  # no provider signs so
    assert untagged(tagged(signature, origin, home), home) == (signature, origin)


@pytest.mark.parametrize("value", ["", "c2ln", "tollgate:", "tollgate:elsewhere:x", "tollgate:google"])
def test_a_signature_that_nobody_tagged_is_of_the_dialects_home(value):
    assert untagged(value, "anthropic") == (value, "anthropic")


def test_turns_alternate_and_results_come_first():
    say, result = Text(text="a"), ToolResult(call_id="c")

    turns = alternating(
        [
            Turn("system", (say,)),
            Turn("user", (say,)),
            Turn("assistant", ()),
            Turn("user", (say, result)),
            Turn("assistant", (say,)),
        ]
    )

    assert turns == [Turn("user", (result, say, say)), Turn("assistant", (say,))]


@pytest.mark.parametrize(
    ("thinking", "effort"),
    [
        (Thinking(), None),
        (Thinking(effort="max"), "max"),
        (Thinking(budget_tokens=0), "none"),
        (Thinking(budget_tokens=2048), "low"),
        (Thinking(budget_tokens=8192), "medium"),
        (Thinking(budget_tokens=8193), "high"),
        (Thinking(effort="low", budget_tokens=9000), "low"),
    ],
)
def test_a_budget_is_an_effort(thinking, effort):
    assert effort_of(thinking) == effort


@pytest.mark.parametrize(
    ("thinking", "budget"),
    [(Thinking(), 5000), (Thinking(effort="low"), 2000), (Thinking(effort="none"), 0), (Thinking(budget_tokens=7), 7)],
)
def test_an_effort_is_a_share_of_the_cap(thinking, budget):
    assert budget_of(thinking, 10_000) == budget


def test_tools_that_may_not_be_called_are_not_there():
    tools = tuple(Tool(name=name) for name in "abc")

    def left(choice):
        return "".join(tool.name for tool in callable_tools(Prompt(turns=(), tools=tools, tool_choice=choice)))

    assert left(None) == left(ToolChoice("required")) == left(ToolChoice("required", ("a",))) == "abc"
    assert left(ToolChoice("auto", ("a",))) == "a"
    assert left(ToolChoice("required", ("a", "c"))) == "ac"


def test_calls_of_an_answer_get_ids_and_arguments():
    calls = (ToolCall(id="", name="f"), ToolCall(id="c", name="g", arguments="{}"), ToolCall(id="", name="h"))

    (choice,) = settled((Choice(parts=(Text(text="x"), *calls)),), REQUEST_ID)

    stem = f"call_{REQUEST_ID.replace('-', '')}"
    assert [call.id for call in choice.parts[1:]] == [f"{stem}_1", "c", f"{stem}_2"]
    assert all(call.arguments == "{}" and len(call.id) <= 40 for call in choice.parts[1:])
    with pytest.raises(ProviderError, match="no name"):
        settled((Choice(parts=(ToolCall(id="c", name=""),)),), REQUEST_ID)
