"""Names of tools that a protocol does not take."""

import re

from hypothesis import given
from hypothesis import strategies as st

from tollgate.wire.content import Choice, Delta, Prompt, Tool, ToolCall, ToolChoice, ToolResult, Turn
from tollgate.wire.names import ToolNames
from tollgate.wire.scope import Scope

SCOPE = Scope(fields=frozenset(), parts={})


def test_names_that_are_taken_stay():
    prompt = Prompt(turns=(), tools=(Tool(name="get_weather-2"),))
    names = ToolNames(SCOPE)

    assert names.replace(prompt) is prompt
    assert names.restore_delta(Delta(kind="tool_call", name="get_weather-2")).name == "get_weather-2"


def test_a_name_is_replaced_wherever_it_stands():
    long = "x" * 65
    prompt = Prompt(
        turns=(
            Turn("assistant", (ToolCall(id="c", name=long),)),
            Turn("user", (ToolResult(call_id="c", name=long), ToolResult(call_id="d"))),
        ),
        tools=(Tool(name=long), Tool(name="f")),
        tool_choice=ToolChoice("required", (long,)),
    )

    told = ToolNames(SCOPE).replace(prompt)

    short = told.tools[0].name
    assert len(short) == 64 and told.tools[1].name == "f"
    assert told.tool_choice == ToolChoice("required", (short,))
    assert told.turns[0].parts[0].name == told.turns[1].parts[0].name == short
    assert told.turns[1].parts[1].name is None


@given(st.lists(st.text(min_size=1, max_size=100), unique=True, max_size=5))
def test_every_name_is_taken_and_comes_back(given_names):
    names = ToolNames(SCOPE)

    told = names.replace(Prompt(turns=(), tools=tuple(Tool(name=name) for name in given_names)))

    assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", tool.name) for tool in told.tools)
    calls = tuple(ToolCall(id="c", name=tool.name) for tool in told.tools)
    (choice,) = names.restore_choices((Choice(parts=calls),))
    assert [call.name for call in choice.parts] == given_names
    assert [names.restore_delta(Delta(kind="tool_call", name=call.name)).name for call in calls] == given_names
