"""Requests between the dialects: what each says of tools, images, documents, thoughts and forms of answer."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.wire.fixtures import EXTRAS, REQUEST_ID
from tests.wire.wrong import wrong_inside
from tollgate.wire import Quirks, anthropic, openai
from tollgate.wire.content import (
    Audio,
    Cache,
    Document,
    Format,
    Image,
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
from tollgate.wire.exchange import cannot_carry, exchange_for
from tollgate.wire.scope import Losses, fit

PNG = "iVBORw0KGgo="
PDF = "JVBERi0xLjQ="
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def carried(dialect, protocol, body, *, model="claude-sonnet-4-5", quirks=None):
    """The provider's request, and what is named as dropped."""
    base = {"model": "m", "max_tokens": 4096, "messages": [{"role": "user", "content": "Hi"}]}
    exchange = exchange_for(
        dialect,
        protocol,
        base | body,
        request_id=REQUEST_ID,
        model=model,
        max_output_tokens=None,
        headers={},
        quirks=quirks or Quirks(),
    )
    return orjson.loads(exchange.request.body), exchange.dropped


def to_anthropic(body, **more):
    return carried("openai", "anthropic", body, **more)


def to_openai(body, **more):
    return carried("anthropic", "openai", body, **{"model": "gpt-5.4", **more})


# Tools --------------------------------------------------------------------------------------------------------------

OPENAI_TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "Of a city.", "parameters": SCHEMA, "strict": True},
}
ANTHROPIC_TOOL = {"name": "weather", "description": "Of a city.", "input_schema": SCHEMA, "strict": True}

OPENAI_CONVERSATION = [
    {"role": "user", "content": "Paris and Rome?"},
    {
        "role": "assistant",
        "content": "Let me look.",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "18 °C"},
    {"role": "tool", "tool_call_id": "call_2", "content": "24 °C"},
    {"role": "user", "content": "And in Oslo?"},
]
ANTHROPIC_CONVERSATION = [
    {"role": "user", "content": "Paris and Rome?"},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "Let me look."},
            {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}},
            {"type": "tool_use", "id": "call_2", "name": "weather", "input": {"city": "Rome"}},
        ],
    },
    {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": "18 °C"},
            {"type": "tool_result", "tool_use_id": "call_2", "content": "24 °C"},
            {"type": "text", "text": "And in Oslo?"},
        ],
    },
]


def test_tools_their_calls_and_results_go_to_anthropic():
    sent, dropped = to_anthropic({"tools": [OPENAI_TOOL], "messages": OPENAI_CONVERSATION})

    assert (sent["tools"], sent["messages"], dropped) == ([ANTHROPIC_TOOL], ANTHROPIC_CONVERSATION, ())


def test_tools_their_calls_and_results_go_to_openai():
    sent, dropped = to_openai({"tools": [ANTHROPIC_TOOL], "messages": ANTHROPIC_CONVERSATION})

    assert (sent["tools"], sent["messages"], dropped) == ([OPENAI_TOOL], OPENAI_CONVERSATION, ())


def test_results_come_first_whatever_the_user_said_before_them():
    said = [
        *ANTHROPIC_CONVERSATION[:2],
        {"role": "user", "content": [{"type": "text", "text": "Well?"}, *ANTHROPIC_CONVERSATION[2]["content"][:2]]},
    ]

    sent, _ = to_openai({"messages": said})

    assert [message["role"] for message in sent["messages"][2:]] == ["tool", "tool", "user"]


@pytest.mark.parametrize(
    ("choice", "one_call", "written"),
    [
        (None, None, None),
        ("auto", None, {"type": "auto"}),
        ("none", None, {"type": "none"}),
        ("required", True, {"type": "any"}),
        ("required", False, {"type": "any", "disable_parallel_tool_use": True}),
        (None, False, {"type": "auto", "disable_parallel_tool_use": True}),
        ("none", False, {"type": "none"}),
        ({"type": "function", "function": {"name": "weather"}}, None, {"type": "tool", "name": "weather"}),
    ],
)
def test_a_choice_of_tools_goes_to_anthropic(choice, one_call, written):
    sent, _ = to_anthropic({"tools": [OPENAI_TOOL], "tool_choice": choice, "parallel_tool_calls": one_call})

    assert sent.get("tool_choice") == written


@pytest.mark.parametrize(
    ("choice", "written", "parallel"),
    [
        (None, None, None),
        ({"type": "auto"}, "auto", None),
        ({"type": "none"}, "none", None),
        ({"type": "any", "disable_parallel_tool_use": True}, "required", False),
        ({"type": "tool", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}, None),
    ],
)
def test_a_choice_of_tools_goes_to_openai(choice, written, parallel):
    sent, _ = to_openai({"tools": [ANTHROPIC_TOOL], "tool_choice": choice})

    assert (sent.get("tool_choice"), sent.get("parallel_tool_calls")) == (written, parallel)


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_of_allowed_tools_only_those_are_sent(mode):
    other = {"type": "function", "function": {"name": "time"}}
    allowed = {"mode": mode, "tools": [{"type": "function", "function": {"name": "time"}}]}

    sent, _ = to_anthropic(
        {"tools": [OPENAI_TOOL, other], "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}
    )

    named = [tool["name"] for tool in sent["tools"]]
    if mode == "auto":
        assert (named, sent["tool_choice"]) == (["time"], {"type": "auto"})
    else:  # one that must be called can be named
        assert (named, sent["tool_choice"]) == (["weather", "time"], {"type": "tool", "name": "time"})


def test_a_choice_without_tools_says_nothing():
    assert "tool_choice" not in to_anthropic({"tool_choice": "none", "parallel_tool_calls": False})[0]
    assert "tool_choice" not in to_openai({"tool_choice": {"type": "none"}, "tools": []})[0]


@pytest.mark.parametrize(
    ("arguments", "input"),
    [
        ("", {}),
        ("  ", {}),
        ("{}", {}),
        ('{"a":', {"INVALID_JSON": '{"a":'}),
        ("[1]", {"INVALID_JSON": "[1]"}),
        ('"x"', {"INVALID_JSON": '"x"'}),
    ],
)
def test_arguments_that_are_no_object_are_wrapped_in_one(arguments, input):
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    messages = [*OPENAI_CONVERSATION[:1], {"role": "assistant", "content": None, "tool_calls": [call]}]

    sent, _ = to_anthropic({"messages": messages})

    assert sent["messages"][1]["content"] == [{"type": "tool_use", "id": "c", "name": "f", "input": input}]


@pytest.mark.parametrize("id", ["functions.weather:0", "é", "", "x" * 300])
def test_ids_that_anthropic_refuses_are_replaced_alike_in_call_and_result(id):
    call = {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": id, "content": "x"},
    ]

    sent, _ = to_anthropic({"messages": messages})

    used, result = sent["messages"][1]["content"][0]["id"], sent["messages"][2]["content"][0]["tool_use_id"]
    assert used == result
    assert used.replace("_", "").replace("-", "").isalnum() and used.isascii() and len(used) <= 256


def test_an_id_that_was_replaced_for_a_client_is_itself_again_for_a_provider():
    packed = to_anthropic({"messages": [{"role": "user", "content": "x"}, assistant_call("functions.f:0")]})[0]

    sent, _ = to_openai({"messages": packed["messages"]})

    assert sent["messages"][1]["tool_calls"][0]["id"] == "functions.f:0"


def assistant_call(id, **more):
    call = {"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}, **more}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def test_ids_that_openai_finds_too_long_are_shortened_alike():
    id = "toolu_" + "x" * 60
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": id, "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id}]},
    ]

    sent, _ = to_openai({"messages": messages})

    short = sent["messages"][1]["tool_calls"][0]["id"]
    assert len(short) <= 40 and sent["messages"][2] == {"role": "tool", "tool_call_id": short, "content": ""}


def test_an_error_of_a_tool_goes_to_anthropic_and_openai_has_no_word_for_it():
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "no such city", "is_error": True}
    messages = [*ANTHROPIC_CONVERSATION[:2], {"role": "user", "content": [result]}]

    assert carried("anthropic", "anthropic", {"messages": messages})[0]["messages"] == messages
    sent, dropped = to_openai({"messages": messages})
    assert sent["messages"][-1] == {"role": "tool", "tool_call_id": "call_1", "content": "no such city"}
    assert dropped == ("messages[].content[].is_error",)


def test_an_image_that_a_tool_brought_follows_as_the_users():
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": [{"type": "text", "text": "Here"}, image]}
    other = {"type": "tool_result", "tool_use_id": "call_2", "content": "x"}
    messages = [*ANTHROPIC_CONVERSATION[:2], {"role": "user", "content": [result, other]}]

    sent, dropped = to_openai({"messages": messages})

    first, second, user = sent["messages"][-3:]
    assert first["content"][0] == {"type": "text", "text": "Here"} and len(first["content"]) == 2
    assert second == {"role": "tool", "tool_call_id": "call_2", "content": "x"}
    assert user == {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}],
    }
    assert dropped == ()


LONG = "mcp__" + "a" * 70 + "__find"


def test_names_that_a_protocol_refuses_are_replaced_and_come_back_in_the_answer():
    use = {"type": "tool_use", "id": "c", "name": LONG, "input": {}}
    asked = {
        "model": "m",
        "max_tokens": 9,
        "tools": [{"name": LONG, "input_schema": SCHEMA}, ANTHROPIC_TOOL],
        "tool_choice": {"type": "tool", "name": LONG},
        "messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": [use]}],
    }
    exchange = exchange_for(
        "anthropic", "openai", asked, request_id=REQUEST_ID, model="m", max_output_tokens=None, headers={}
    )
    sent = orjson.loads(exchange.request.body)
    (short, kept) = (tool["function"]["name"] for tool in sent["tools"])

    assert (kept, len(short)) == ("weather", 64)
    assert sent["tool_choice"]["function"]["name"] == short
    assert sent["messages"][1]["tool_calls"][0]["function"]["name"] == short

    call = {"id": "c", "type": "function", "function": {"name": short, "arguments": "{}"}}
    exchange.answer(orjson.dumps({"choices": [{"index": 0, "message": {"tool_calls": [call]}}]}))
    assert orjson.loads(exchange.final(EXTRAS))["content"][0]["name"] == LONG

    streamed = exchange_for(
        "anthropic",
        "openai",
        asked | {"stream": True},
        request_id=REQUEST_ID,
        model="m",
        max_output_tokens=None,
        headers={},
    )
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, **call}]}, "finish_reason": "tool_calls"}]}
    assert LONG.encode() in streamed.feed(b"data: " + orjson.dumps(chunk) + b"\n\n")


# Images and documents -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("openai_part", "anthropic_block"),
    [
        (
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        ),
        (
            {"type": "image_url", "image_url": {"url": f"data:image/webp;base64,{PNG}"}},
            {"type": "image", "source": {"type": "base64", "media_type": "image/webp", "data": PNG}},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": PDF},
                "title": "a.pdf",
            },
        ),
    ],
)
def test_images_and_documents_go_both_ways(openai_part, anthropic_block):
    question = {"type": "text", "text": "What is this?"}

    there, _ = to_anthropic({"messages": [{"role": "user", "content": [question, openai_part]}]})
    back, _ = to_openai({"messages": [{"role": "user", "content": [question, anthropic_block]}]})

    assert there["messages"][0]["content"] == [question, anthropic_block]
    assert back["messages"][0]["content"] == [question, openai_part]


def test_a_document_of_text_is_shown_to_openai_as_text():
    document = {
        "type": "document",
        "source": {"type": "text", "media_type": "text/plain", "data": "It is late."},
        "title": "Diary",
        "citations": {"enabled": True},
    }

    sent, dropped = to_openai({"messages": [{"role": "user", "content": [document]}]})

    assert sent["messages"][0]["content"] == [
        {"type": "text", "text": '<document title="Diary">\nIt is late.\n</document>'}
    ]
    assert dropped == ("messages[].content[].citations",)


def test_a_document_of_blocks_and_a_search_result_are_documents_of_text():
    inner = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
    blocks = [
        {"type": "document", "source": {"type": "content", "content": inner}},
        {"type": "search_result", "source": "https://example.com", "title": "Numbers", "content": inner},
    ]

    sent, _ = to_openai({"messages": [{"role": "user", "content": blocks}]})

    assert [part["text"] for part in sent["messages"][0]["content"]] == [
        "<document>\nOne.\nTwo.\n</document>",
        '<document title="Numbers">\nOne.\nTwo.\n</document>',
    ]


# Thinking -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "effort", "thinking", "config"),
    [
        ("claude-sonnet-4-5", "low", {"type": "enabled", "budget_tokens": 1024}, None),
        ("claude-sonnet-4-5", "high", {"type": "enabled", "budget_tokens": 3276}, None),
        ("claude-sonnet-4-5", "none", None, None),
        ("claude-opus-4-6", "high", {"type": "adaptive"}, {"effort": "high"}),
        ("claude-opus-5", "minimal", {"type": "adaptive"}, {"effort": "low"}),
        ("claude-opus-4.7", "xhigh", {"type": "adaptive"}, {"effort": "xhigh"}),
    ],
)
def test_an_effort_becomes_what_the_claude_takes(model, effort, thinking, config):
    sent, dropped = to_anthropic({"reasoning_effort": effort}, model=model)

    assert (sent.get("thinking"), sent.get("output_config"), dropped) == (thinking, config, ())


@pytest.mark.parametrize(
    "change",
    [
        {"max_tokens": 1024},
        {"tools": [OPENAI_TOOL], "tool_choice": "required"},
        {"tools": [OPENAI_TOOL], "messages": OPENAI_CONVERSATION[:4]},
    ],
)
def test_where_claude_could_not_think_it_is_not_asked_to(change):
    sent, dropped = to_anthropic({"reasoning_effort": "high"} | change)

    assert "thinking" not in sent
    assert dropped == ("reasoning_effort",)


def test_thinking_goes_on_after_calls_that_were_thought_about():
    thought = {
        "type": "reasoning.text",
        "text": "Hm.",
        "signature": "c2ln",
        "format": "anthropic-claude-v1",
        "index": 0,
    }
    said = [
        OPENAI_CONVERSATION[0],
        OPENAI_CONVERSATION[1] | {"reasoning_details": [thought]},
        *OPENAI_CONVERSATION[2:4],
    ]

    sent, dropped = to_anthropic({"reasoning_effort": "high", "messages": said})

    assert sent["thinking"]["type"] == "enabled" and dropped == ()
    assert sent["messages"][1]["content"][0] == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}


@pytest.mark.parametrize(
    ("asked", "effort"),
    [
        ({"thinking": {"type": "disabled"}}, None),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "max"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2048}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 8000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 31999}}, "high"),
    ],
)
def test_thinking_becomes_an_effort(asked, effort):
    sent, dropped = to_openai(asked)

    assert (sent.get("reasoning_effort"), dropped) == (effort, ())


@pytest.mark.parametrize(
    ("field", "written"),
    [
        ("reasoning_effort", "medium"),
        ("reasoning", {"max_tokens": 8000}),
        ("thinking", {"type": "enabled"}),
    ],
)
def test_compatible_servers_are_asked_to_think_in_their_own_way(field, written):
    sent, _ = to_openai(
        {"thinking": {"type": "enabled", "budget_tokens": 8000}}, model="x", quirks=Quirks(thinking_field=field)
    )

    assert sent[field] == written


FRAGMENTS = [
    {"type": "reasoning.text", "text": "H", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.text", "text": "m.", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.text", "signature": "c2ln", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "ZW5j", "format": "anthropic-claude-v1", "index": 1},
]


def test_fragments_of_thoughts_that_a_client_hands_back_are_put_together():
    said = {"role": "assistant", "content": "Yes", "reasoning_content": "Hm.", "reasoning_details": FRAGMENTS}

    sent, _ = to_anthropic({"messages": [{"role": "user", "content": "?"}, said]})

    assert sent["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "ZW5j"},
        {"type": "text", "text": "Yes"},
    ]


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ({"reasoning_content": "Hm."}, "messages[].reasoning_content"),
        ({"reasoning": "Hm."}, "messages[].reasoning"),
        (
            {"reasoning_details": [{"type": "reasoning.encrypted", "data": "x", "format": "google-gemini-v1"}]},
            "messages[].reasoning_details",
        ),
        ({"reasoning_details": ["odd", {"type": "x"}]}, "messages[].reasoning_details"),
    ],
)
def test_thoughts_of_others_are_not_shown_to_claude(message, name):
    said = {"role": "assistant", "content": "Yes", **message}

    sent, dropped = to_anthropic({"messages": [{"role": "user", "content": "?"}, said]})

    assert sent["messages"][1]["content"] == "Yes"
    assert dropped == (name,)


SIGNED = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
UNSIGNED = {"type": "thinking", "thinking": "Hm.", "signature": ""}
GOOGLES = {"type": "redacted_thinking", "data": "tollgate:google:call:Zm9v"}


def test_claudes_thoughts_are_not_shown_to_others():
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": [SIGNED, {"type": "text", "text": "Y"}]}]

    sent, dropped = to_openai({"messages": said}, quirks=Quirks(thoughts_field="reasoning_content"))

    assert sent["messages"][1] == {"role": "assistant", "content": "Y"}
    assert dropped == ("messages[].content[].thinking",)


def test_unsigned_thoughts_go_back_to_servers_that_want_them():
    said = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [UNSIGNED, {"type": "tool_use", "id": "c", "name": "f", "input": {}}]},
    ]

    sent, dropped = to_openai({"messages": said}, quirks=Quirks(thoughts_field="reasoning_content"))

    assert sent["messages"][1]["reasoning_content"] == "Hm."
    assert dropped == ()


def test_a_signature_of_googles_goes_back_with_its_call_and_only_to_google():
    use = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": [GOOGLES, use]}]

    sent, dropped = to_openai({"messages": said}, quirks=Quirks(origins=frozenset({"google"})))
    assert sent["messages"][1]["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": "Zm9v"}}
    assert dropped == ()

    sent, dropped = to_openai({"messages": said})
    assert "extra_content" not in sent["messages"][1]["tool_calls"][0]
    assert dropped == ("messages[].content[].signature",)


def test_foreign_thoughts_stay_out_of_a_request_that_is_passed_on_to_claude():
    said = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": [UNSIGNED, GOOGLES, SIGNED, {"type": "text", "text": "Y"}]},
        {"role": "assistant", "content": [UNSIGNED]},
    ]
    body = {"messages": said, "thinking": {"type": "enabled", "budget_tokens": 2000}}

    sent, dropped = carried("anthropic", "anthropic", body)

    assert sent["messages"] == [said[0], {"role": "assistant", "content": [SIGNED, {"type": "text", "text": "Y"}]}]
    assert "thinking" not in sent
    assert dropped == ("messages[].content[].thinking", "thinking")


def test_foreign_thoughts_stay_out_of_a_request_that_is_passed_on_to_a_strict_server():
    call = assistant_call("c", extra_content={"google": {"thought_signature": "Zm9v"}})
    said = [{"role": "user", "content": "?"}, call | {"reasoning_content": "Hm."}]

    assert carried("openai", "openai", {"messages": said}) == (
        {"model": "claude-sonnet-4-5", "max_tokens": 4096, "messages": said},
        (),
    )
    sent, dropped = carried("openai", "openai", {"messages": said}, quirks=Quirks(strict_messages=True))
    assert sent["messages"] == [said[0], assistant_call("c")]
    assert sorted(dropped) == ["messages[].reasoning_content", "messages[].tool_calls[].extra_content"]


# Forms, caches, and the rest ----------------------------------------------------------------------------------------


def test_a_schema_for_the_answer_goes_both_ways():
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "description": "Of a city"}}

    there, dropped = to_anthropic({"response_format": form})
    back, _ = to_openai({"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}})

    described = {"title": "weather", "description": "Of a city", **SCHEMA}
    assert there["output_config"] == {"format": {"type": "json_schema", "schema": described}}
    assert dropped == ()
    assert back["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


@pytest.mark.parametrize("model", ["claude-3-5-haiku-20241022", "claude-sonnet-4-20250514", "claude-opus-4"])
def test_a_schema_is_refused_for_models_that_take_none(model):
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}

    refused = cannot_carry(
        "openai",
        "anthropic",
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "response_format": form},
        model=model,
    )

    assert refused is not None and refused.param == "response_format"


def test_markers_of_the_cache_go_to_those_who_know_them():
    marked = {"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    body = {"messages": [{"role": "user", "content": [marked]}], "tools": [OPENAI_TOOL | {"cache_control": {}}]}

    sent, dropped = to_anthropic(body)
    assert sent["messages"][0]["content"] == [marked]
    assert sent["tools"][0]["cache_control"] == {"type": "ephemeral"}
    assert dropped == ()

    sent, dropped = to_openai({"messages": [{"role": "user", "content": [marked]}]})
    assert sent["messages"][0]["content"] == "Long."
    assert dropped == ("messages[].content[].cache_control",)

    sent, dropped = to_openai(
        {"messages": [{"role": "user", "content": [marked]}]}, quirks=Quirks(cache_marker="cache_control")
    )
    assert sent["messages"][0]["content"][0]["cache_control"]["ttl"] == "1h"
    assert dropped == ()


def test_openais_own_marker_of_the_cache_is_read_and_written():
    marked = {"type": "text", "text": "Long.", "prompt_cache_breakpoint": {"mode": "explicit", "ttl": "30m"}}

    sent, _ = to_anthropic({"messages": [{"role": "user", "content": [marked]}]})
    assert sent["messages"][0]["content"][0]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}

    cached = {"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral"}}
    sent, _ = to_openai(
        {"messages": [{"role": "user", "content": [cached]}]}, quirks=Quirks(cache_marker="prompt_cache_breakpoint")
    )
    assert sent["messages"][0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}


def test_a_refusal_of_the_past_is_the_assistants_text():
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "refusal": "I can't."}]

    assert to_anthropic({"messages": said})[0]["messages"][1] == {"role": "assistant", "content": "I can't."}


@pytest.mark.parametrize(
    ("tier", "written", "dropped"),
    [
        ("auto", "auto", ()),
        ("default", "standard_only", ()),
        ("flex", None, ("service_tier",)),
        ("scale", None, ("service_tier",)),
    ],
)
def test_tiers_of_service_go_to_anthropic_by_meaning(tier, written, dropped):
    sent, names = to_anthropic({"service_tier": tier})

    assert (sent.get("service_tier"), names) == (written, dropped)


def test_what_only_steers_is_dropped_and_named_in_the_clients_words():
    asked = {
        "seed": 1,
        "presence_penalty": 0.5,
        "verbosity": "low",
        "prediction": {"type": "content", "content": "x"},
        "prompt_cache_key": "k",
        "store": True,
        "user": "ann",
        "safety_identifier": "a1",
        "stream_options": {"include_obfuscation": True},
        "messages": [{"role": "user", "name": "ann", "content": "Hi"}],
    }

    sent, dropped = to_anthropic(asked)

    assert sorted(dropped) == [
        "messages[].name",
        "prediction",
        "presence_penalty",
        "prompt_cache_key",
        "safety_identifier",
        "seed",
        "store",
        "stream_options.include_obfuscation",
        "verbosity",
    ]
    assert sent == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": "Hi"}],
        "metadata": {"user_id": "ann"},
    }


def test_a_coding_tools_request_goes_to_openai():
    """What Claude Code sends, in small."""
    body = {
        "system": [
            {"type": "text", "text": "billing"},
            {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}]},
            {"role": "system", "content": "The date has changed."},
        ],
        "tools": [ANTHROPIC_TOOL | {"eager_input_streaming": True}],
        "metadata": {"user_id": "u" * 100, "session": "s"},
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": []},
        "output_config": {"effort": "medium"},
        "temperature": 1,
        "stream": True,
    }

    sent, dropped = to_openai(body, model="gpt-5")

    assert [message["role"] for message in sent["messages"]] == ["system", "user", "system"]
    assert sent["reasoning_effort"] == "medium" and "temperature" not in sent
    assert len(sent["user"]) == 64
    assert sorted(dropped) == [
        "context_management",
        "messages[].content[].cache_control",
        "metadata.session",
        "system[].cache_control",
        "tools[].eager_input_streaming",
    ]


def test_blocks_of_a_providers_own_tools_are_left_out_of_the_past():
    blocks = [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "text", "text": "It is late.", "citations": [{"type": "web_search_result_location"}]},
    ]

    sent, dropped = to_openai(
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": blocks}]}
    )

    assert sent["messages"][1]["content"] == "It is late."
    assert dropped == (
        "messages[].content[].server_tool_use",
        "messages[].content[].web_search_tool_result",
        "messages[].content[].citations",
    )


@pytest.mark.parametrize(
    ("dialect", "change", "param"),
    [
        ("openai", {"tools": ["x"]}, "tools[0]"),
        ("openai", {"tools": [{"type": "function"}]}, "tools[0].function.name"),
        ("openai", {"tools": [{"type": "function", "function": []}]}, "tools[0].function"),
        ("openai", {"tools": [OPENAI_TOOL], "tool_choice": "any"}, "tool_choice"),
        ("openai", {"tools": [OPENAI_TOOL], "tool_choice": {"type": "function"}}, "tool_choice.function.name"),
        ("openai", {"reasoning_effort": "extreme"}, "reasoning_effort"),
        ("openai", {"response_format": "json"}, "response_format"),
        ("openai", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ("openai", {"messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        ("openai", {"messages": [{"role": "assistant", "tool_calls": [{"id": 1}]}]}, "messages[0].tool_calls[0].id"),
        (
            "openai",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0].image_url.url",
        ),
        ("anthropic", {"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ("anthropic", {"tools": [ANTHROPIC_TOOL], "tool_choice": {"type": "all"}}, "tool_choice.type"),
        ("anthropic", {"thinking": {"type": "enabled", "budget_tokens": "x"}}, "thinking.budget_tokens"),
        ("anthropic", {"output_config": {"effort": "extreme"}}, "output_config.effort"),
        (
            "anthropic",
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "name": "f"}]}]},
            "messages[0].content[0].id",
        ),
        (
            "anthropic",
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64"}}]}]},
            "messages[0].content[0].source.data",
        ),
    ],
)
def test_what_is_wrong_in_itself_is_refused_by_its_path(dialect, change, param):
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **change}

    refused = cannot_carry(dialect, "anthropic" if dialect == "openai" else "openai", body)

    assert refused is not None
    assert (refused.status, refused.param) == (400, param)
    assert refused.code != "unsupported_parameter"


# There and back -----------------------------------------------------------------------------------------------------

words = st.text(min_size=1, max_size=12).filter(str.strip)
names = st.text("abcdefghij_", min_size=1, max_size=12)
json_objects = st.dictionaries(words, st.none() | st.booleans() | st.integers(-99, 99) | words, max_size=3)
base64 = st.sampled_from([PNG, PDF, "AAAA"])
caches = st.none() | st.sampled_from([Cache(), Cache("1h")])

texts = st.builds(Text, text=words, cache=caches)
images = st.builds(Image, url=st.just("https://example.com/a.png"), cache=caches) | st.builds(
    Image, data=base64, media_type=st.sampled_from(["image/png", "image/jpeg"]), cache=caches
)
files = st.builds(Document, data=base64, media_type=st.just("application/pdf"), name=words, cache=caches)
calls = st.builds(
    ToolCall, id=names, name=names, arguments=json_objects.map(lambda value: orjson.dumps(value).decode())
)
thoughts = st.builds(Reasoning, text=words, signature=names, origin=st.just("anthropic"))
results = st.builds(
    ToolResult,
    call_id=names,
    parts=st.lists(texts | images, min_size=1, max_size=2).map(tuple),
    is_error=st.booleans(),
    cache=caches,
)
tools = st.builds(
    Tool,
    name=names,
    description=st.none() | words,
    schema=st.just(SCHEMA),
    strict=st.none() | st.booleans(),
    cache=caches,
)


def conversations(*, results, users, assistants):
    """The user and the assistant in turns."""
    said = st.lists(users, min_size=1, max_size=3)
    user = st.tuples(results, said).map(lambda found: Turn("user", (*found[0], *found[1])))
    assistant = assistants.map(lambda parts: Turn("assistant", tuple(parts)))
    return st.lists(st.tuples(user, assistant), min_size=1, max_size=3).map(
        lambda pairs: tuple(turn for pair in pairs for turn in pair)
    )


def without_paths(value):
    """The same prompt as if it came from nowhere."""
    if isinstance(value, tuple):
        return tuple(without_paths(item) for item in value)
    if hasattr(value, "__struct_fields__"):
        fields = {field: without_paths(getattr(value, field)) for field in value.__struct_fields__}
        return type(value)(**{**fields, "path": ""} if "path" in fields else fields)
    return value


common = {
    "stream": st.booleans(),
    "stop": st.lists(words, max_size=3).map(tuple),
    "tools": st.lists(tools, min_size=1, max_size=2).map(tuple),
    "tool_choice": st.none()
    | st.sampled_from([ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"), ToolChoice("required", ("f",))]),
    "temperature": st.none() | st.floats(0, 1),
    "top_p": st.none() | st.floats(0, 1),
    "service_tier": st.sampled_from([None, "auto", "standard"]),
    "user": st.none() | words,
}


def chosen(prompt):
    """A named tool is one of those that there are."""
    choice = prompt.tool_choice
    if choice is None or not choice.names:
        return prompt
    return replace(prompt, tool_choice=ToolChoice(choice.mode, (prompt.tools[0].name,)))


anthropic_prompts = st.builds(
    Prompt,
    turns=conversations(
        results=st.lists(results, max_size=2),
        users=texts | images | files,
        assistants=st.lists(thoughts | texts | calls, min_size=1, max_size=4),
    ),
    max_output_tokens=st.integers(0, 9999),
    top_k=st.none() | st.integers(0, 100),
    thinking=st.none() | st.builds(Thinking, effort=st.sampled_from(["low", "high", "max"])),
    **common,
).map(chosen)


@settings(max_examples=60)
@given(anthropic_prompts)
def test_a_prompt_that_is_written_for_anthropic_is_read_back_the_same(prompt):
    losses = Losses({})
    body = anthropic.write_prompt(
        prompt, model="claude-opus-4-6", max_output_tokens=None, quirks=Quirks(), losses=losses
    )

    read = without_paths(anthropic.read_prompt(body, losses))

    thinking = read.thinking  # a model that has to call a tool is not asked to think
    if prompt.tool_choice is not None and prompt.tool_choice.mode == "required":
        thinking = prompt.thinking
    assert replace(read, thinking=thinking) == prompt


openai_prompts = st.builds(
    Prompt,
    turns=conversations(
        results=st.just([]),  # they become messages of their own
        users=texts | images | files | st.builds(Audio, data=base64, format=st.just("wav")),
        assistants=st.tuples(
            st.lists(texts, max_size=2),
            st.lists(st.builds(Refused, text=words), max_size=1),
            st.lists(calls, min_size=1, max_size=2),
        ).map(lambda lists: [part for parts in lists for part in parts]),
    ),
    max_output_tokens=st.none() | st.integers(1, 9999),
    parallel_tool_calls=st.none() | st.booleans(),
    format=st.none() | st.just(Format()) | st.just(Format(schema=SCHEMA, name="x", strict=True)),
    thinking=st.none() | st.builds(Thinking, effort=st.sampled_from(["low", "high", "max"])),
    n=st.integers(1, 3),
    logprobs=st.booleans(),
    seed=st.none() | st.integers(0, 9),
    logit_bias=st.none() | st.just({"1": 5}),
    presence_penalty=st.none() | st.floats(-2, 2),
    **common,
).map(chosen)


@settings(max_examples=60)
@given(openai_prompts)
def test_a_prompt_that_is_written_for_openai_is_read_back_the_same(prompt):
    quirks = Quirks(cache_marker="cache_control")
    losses = Losses({})
    fitted = fit(prompt, openai.scope(quirks), model="m", losses=losses)
    body = openai.write_prompt(fitted, model="m", max_output_tokens=None, quirks=quirks, losses=losses)

    read = without_paths(openai.read_prompt(body, losses))

    assert read == prompt
    assert losses.names == ()


ODD = [None, True, 0, -1, 1.5, "", "x", [], [None], {}, {"a": 1}, {"type": "text"}, ["x"], "function", "base64"]


WHOLE = {
    "openai": {
        "model": "m",
        "tools": [OPENAI_TOOL],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
        "reasoning": {"max_tokens": 2000},
        "stop": ["a"],
        "messages": [
            *OPENAI_CONVERSATION,
            {"role": "assistant", "content": "x", "reasoning_details": FRAGMENTS},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    {"type": "file", "file": {"filename": "a", "file_data": PDF}},
                ],
            },
        ],
    },
    "anthropic": {
        "model": "m",
        "max_tokens": 9,
        "system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
        "tools": [ANTHROPIC_TOOL],
        "tool_choice": {"type": "tool", "name": "weather"},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}, "effort": "low"},
        "messages": [
            *ANTHROPIC_CONVERSATION,
            {"role": "assistant", "content": [SIGNED, GOOGLES, UNSIGNED]},
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}},
                    {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}},
                ],
            },
        ],
    },
}


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@settings(max_examples=300)
@given(draws=st.data())
def test_a_request_with_wrong_types_is_carried_or_refused(draws, dialect):
    """Never an exception of another kind: a client can send anything."""
    whole = WHOLE[dialect]
    assert cannot_carry(dialect, "anthropic" if dialect == "openai" else "openai", whole) is None

    body = draws.draw(wrong_inside(whole, ODD))

    cannot_carry(dialect, "anthropic" if dialect == "openai" else "openai", body)
