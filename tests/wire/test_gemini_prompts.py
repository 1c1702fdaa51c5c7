"""Requests to and from Google's protocol: what it says of tools, files, thoughts, signatures and forms of answer."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.wire.sdk import validate_gemini_request
from tests.wire.test_prompts import (
    ANTHROPIC_CONVERSATION,
    ANTHROPIC_TOOL,
    ODD,
    OPENAI_CONVERSATION,
    OPENAI_TOOL,
    PDF,
    PNG,
    SCHEMA,
    WHOLE,
    base64,
    calls,
    chosen,
    common,
    conversations,
    files,
    images,
    names,
    texts,
    without_paths,
    words,
)
from tests.wire.test_prompts import carried as carried_between
from tests.wire.wrong import wrong_inside
from tollgate.errors import Refusal
from tollgate.wire import Quirks, gemini
from tollgate.wire.content import Audio, Format, Prompt, Thinking, Tool, ToolCall
from tollgate.wire.exchange import cannot_carry, exchange_for
from tollgate.wire.gemini.schema import json_schema
from tollgate.wire.gemini.words import camel, pack_signature, unpack_signature
from tollgate.wire.scope import Losses, fit

REQUEST_ID = "0198b4f0-1234-7000-8000-000000000001"
NEWEST, BUDGETED, OLD = "gemini-3-flash-preview", "gemini-2.5-flash", "gemini-2.0-flash"


def to_gemini(body, *, dialect="openai", model=NEWEST):
    sent, dropped = carried_between(dialect, "gemini", body, model=model)
    validate_gemini_request(sent)
    return sent, dropped


def from_gemini(body, *, protocol="openai", model="gpt-5.4", quirks=None):
    exchange = exchange_for(
        "gemini",
        protocol,
        {"model": "m", "stream": False, "contents": [{"parts": [{"text": "Hi"}]}]} | body,
        request_id=REQUEST_ID,
        model=model,
        max_output_tokens=None,
        headers={},
        quirks=quirks or Quirks(),
    )
    return orjson.loads(exchange.request.body), exchange.dropped


def passed_on(body):
    exchange = exchange_for(
        "gemini", "gemini", body, request_id=REQUEST_ID, model="gemini-x", max_output_tokens=None, headers={}
    )
    return orjson.loads(exchange.request.body), exchange.dropped


def refused(dialect, protocol, body, *, model=NEWEST):
    found = cannot_carry(dialect, protocol, body, model=model)
    assert found is not None
    return found


CALLED = [
    {"role": "user", "parts": [{"text": "Paris and Rome?"}]},
    {
        "role": "model",
        "parts": [
            {"text": "Let me look."},
            {"functionCall": {"name": "weather", "args": {"city": "Paris"}}},
            {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
        ],
    },
    {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "weather", "response": {"output": "18 °C"}}},
            {"functionResponse": {"name": "weather", "response": {"output": "24 °C"}}},
            {"text": "And in Oslo?"},
        ],
    },
]
DECLARATION = {"name": "weather", "description": "Of a city.", "parametersJsonSchema": SCHEMA}


# Where it goes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        ("gemini-2.5-flash", False, "/models/gemini-2.5-flash:generateContent"),
        ("gemini-2.5-flash", True, "/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        ("tunedModels/mine", False, "/tunedModels/mine:generateContent"),
        ("a?b#c", False, "/models/a%3Fb%23c:generateContent"),
    ],
)
def test_the_path_says_which_model_is_asked_and_how(model, stream, path):
    assert gemini.call_path(model, sent={}, stream=stream, quirks=Quirks()) == path


def test_what_the_path_says_is_not_in_the_body():
    sent, _ = passed_on({"model": "m", "stream": True, "contents": [], "x_new": 1, "session_id": "s"})

    assert sent == {"contents": [], "x_new": 1}


def test_a_model_is_asked_for_by_name_or_as_a_resource():
    assert gemini.ask({"model": "models/gemini-x", "contents": [{}]}).model == "gemini-x"


@pytest.mark.parametrize("field", ["generationConfig", "generation_config"])
def test_a_cap_goes_where_the_client_has_its_settings(field):
    body = {"model": "m", "contents": [], field: {"temperature": 1, "max_output_tokens": 9}}

    exchange = exchange_for("gemini", "gemini", body, request_id=REQUEST_ID, model="x", max_output_tokens=5, headers={})

    assert orjson.loads(exchange.request.body)[field] == {"temperature": 1, "max_output_tokens": 5}


def test_a_cap_is_set_where_there_are_no_settings():
    exchange = exchange_for(
        "gemini", "gemini", {"contents": []}, request_id=REQUEST_ID, model="x", max_output_tokens=5, headers={}
    )

    assert orjson.loads(exchange.request.body)["generationConfig"] == {"maxOutputTokens": 5}


# Tools --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "tool", "conversation", "strict"),
    [
        ("openai", OPENAI_TOOL, OPENAI_CONVERSATION, "tools[].function.strict"),
        ("anthropic", ANTHROPIC_TOOL, ANTHROPIC_CONVERSATION, "tools[].strict"),
    ],
)
def test_tools_their_calls_and_results_go_to_gemini(dialect, tool, conversation, strict):
    sent, dropped = to_gemini({"tools": [tool], "messages": conversation}, dialect=dialect, model=BUDGETED)

    assert sent["contents"] == CALLED
    assert sent["tools"] == [{"functionDeclarations": [DECLARATION]}]
    assert dropped == (strict,)


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({"type": "object", "properties": {}}, None),
        ({"type": "object", "properties": {}, "additionalProperties": False, "required": []}, None),
        ({"type": "object", "additionalProperties": {"type": "string"}}, ...),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "object"}}}, ...),
        (SCHEMA | {"$schema": "https://json-schema.org/draft/2020-12/schema"}, SCHEMA),
    ],
)
def test_a_schema_for_no_arguments_is_none_and_its_dialect_is_not_told(schema, written):
    sent, dropped = to_gemini({"tools": [{"type": "function", "function": {"name": "f", "parameters": schema}}]})

    (declaration,) = sent["tools"][0]["functionDeclarations"]
    assert declaration.get("parametersJsonSchema") == (schema if written is ... else written)
    assert dropped == ()


def test_calls_and_results_of_gemini_are_matched_by_name_and_order():
    sent, dropped = from_gemini({"contents": CALLED, "tools": [{"functionDeclarations": [DECLARATION]}]})

    ids = ["call_1", "call_2"]
    assert [call["id"] for call in sent["messages"][1]["tool_calls"]] == ids
    assert [message["tool_call_id"] for message in sent["messages"][2:4]] == ids
    assert [message["content"] for message in sent["messages"][2:]] == ["18 °C", "24 °C", "And in Oslo?"]
    assert sent["tools"][0]["function"]["parameters"] == SCHEMA
    assert dropped == ()


def test_ids_go_to_models_that_know_them_and_results_are_put_in_the_order_of_calls():
    messages = [*OPENAI_CONVERSATION[:2], OPENAI_CONVERSATION[3], OPENAI_CONVERSATION[2]]

    new, _ = to_gemini({"messages": messages})
    old, _ = to_gemini({"messages": messages}, model=BUDGETED)

    assert [part["functionResponse"]["id"] for part in new["contents"][2]["parts"]] == ["call_1", "call_2"]
    assert [part["functionResponse"]["response"] for part in old["contents"][2]["parts"]] == [
        {"output": "18 °C"},
        {"output": "24 °C"},
    ]
    assert b'"id"' not in orjson.dumps(old)


def test_a_result_without_a_call_is_refused_by_its_path():
    body = {"messages": [{"role": "tool", "tool_call_id": "gone", "content": "x"}]}
    assert refused("openai", "gemini", {"model": "m", **body}).param == "messages[0]"


@pytest.mark.parametrize(
    ("choice", "written"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "weather"}}, {"mode": "ANY", "allowedFunctionNames": ["weather"]}),
    ],
)
def test_a_choice_of_tools_goes_to_gemini_and_back(choice, written):
    sent, _ = to_gemini({"tools": [OPENAI_TOOL], "tool_choice": choice})
    assert sent["toolConfig"] == {"functionCallingConfig": written}

    back, _ = from_gemini({"tools": sent["tools"], "toolConfig": sent["toolConfig"]})
    assert back["tool_choice"] == choice


def test_of_several_allowed_tools_gemini_takes_the_names():
    tools = [{"type": "function", "function": {"name": name}} for name in "abc"]
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": name}} for name in "ab"]}

    sent, _ = to_gemini({"tools": tools, "tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}})

    assert sent["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["a", "b"]}
    assert len(sent["tools"][0]["functionDeclarations"]) == 3


@pytest.mark.parametrize("mode", ["any", "ANY"])
def test_words_are_read_in_any_case_and_fields_in_either_spelling(mode):
    body = {
        "tools": {"function_declarations": {"name": "f", "parameters_json_schema": SCHEMA}},
        "tool_config": {"function_calling_config": {"mode": mode}},
        "generation_config": {"stop_sequences": ["END"], "max_output_tokens": 5, "topK": 40.0},
        "system_instruction": {"parts": {"text": "Be brief."}},
    }

    sent, dropped = from_gemini(body, protocol="anthropic", model="claude-sonnet-4-5")

    assert sent["tools"] == [{"name": "f", "input_schema": SCHEMA}]
    assert sent["tool_choice"] == {"type": "any"}
    assert (sent["stop_sequences"], sent["max_tokens"], sent["top_k"]) == (["END"], 5, 40)
    assert sent["system"] == "Be brief."
    assert dropped == ()


def test_names_within_arguments_results_and_schemas_are_not_spelt_anew():
    opaque = {"snake_case": {"more_of_it": 1}}
    body = {"contents": [{"parts": [{"function_call": {"name": "f", "args": opaque}}]}], "labels": opaque}

    assert camel(body) == {"contents": [{"parts": [{"functionCall": {"name": "f", "args": opaque}}]}], "labels": opaque}


@pytest.mark.parametrize(
    ("response", "content", "is_error"),
    [
        ({"output": "18 °C"}, "18 °C", False),
        ({"output": {"c": 18}}, '{"c":18}', False),
        ({"error": "no such city"}, "no such city", True),
        ({"output": "a", "more": "b"}, '{"output":"a","more":"b"}', False),
        ({"c": 18}, '{"c":18}', False),
    ],
)
def test_what_a_tool_said_is_its_output_or_the_whole_object(response, content, is_error):
    contents = [CALLED[0], CALLED[1], {"parts": [{"functionResponse": {"name": "weather", "response": response}}]}]

    sent, _ = from_gemini({"contents": contents}, protocol="anthropic", model="claude-sonnet-4-5")

    block = sent["messages"][2]["content"][0]
    assert (block["content"], block.get("is_error", False)) == (content, is_error)


def test_an_image_that_a_tool_brought_follows_its_result():
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": [block]}
    messages = [*ANTHROPIC_CONVERSATION[:2], {"role": "user", "content": [result]}]

    sent, _ = to_gemini({"messages": messages}, dialect="anthropic", model=BUDGETED)

    assert sent["contents"][2]["parts"] == [
        {"functionResponse": {"name": "weather", "response": {"output": "(What this tool returned follows.)"}}},
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
    ]


def test_tools_that_the_provider_runs_are_refused_by_name():
    body = {"contents": [{"parts": [{"text": "x"}]}], "tools": [{"googleSearch": {}}]}
    assert refused("gemini", "openai", body, model="m").param == "tools[0].googleSearch"


def test_what_its_own_tools_left_in_the_conversation_is_dropped_and_named():
    parts = [{"executableCode": {"code": "1"}}, {"codeExecutionResult": {"output": "1"}}, {"text": "1"}]

    sent, dropped = from_gemini({"contents": [{"role": "model", "parts": parts}]})

    assert sent["messages"] == [{"role": "assistant", "content": "1"}]
    assert dropped == ("contents[].parts[].executableCode", "contents[].parts[].codeExecutionResult")


def test_schemas_of_the_old_kind_become_json_schema():
    old = {
        "type": "OBJECT",
        "properties": {
            "any_of": {"anyOf": [{"type": "STRING"}, {"type": "NUMBER", "nullable": True}]},
            "list": {"type": "ARRAY", "items": {"type": "STRING", "enum": ["a"], "nullable": True}, "min_items": "2"},
            "either": {"any_of": [{"type": "STRING"}], "nullable": True},
        },
        "propertyOrdering": ["list"],
        "required": ["list"],
    }

    assert json_schema(old) == {
        "type": "object",
        "properties": {
            "any_of": {"anyOf": [{"type": "string"}, {"type": ["number", "null"]}]},
            "list": {"type": "array", "items": {"type": ["string", "null"], "enum": ["a", None]}, "minItems": 2},
            "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
        "required": ["list"],
    }


# Images, documents, sound -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("part", "written"),
    [
        (
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            {"inlineData": {"mimeType": "image/png", "data": PNG}},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://example.com/a.webp?x=1"}},
            {"fileData": {"mimeType": "image/webp", "fileUri": "https://example.com/a.webp?x=1"}},
        ),
        (
            {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}},
            {"inlineData": {"mimeType": "application/pdf", "data": PDF}},
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
        ),
    ],
)
def test_images_documents_and_sound_go_to_gemini_and_back(part, written):
    sent, dropped = to_gemini({"messages": [{"role": "user", "content": [part]}]})
    assert (sent["contents"][0]["parts"], dropped) == ([written], ())

    kinds = Quirks(takes=frozenset())
    if part["type"] == "file":
        part["file"]["filename"] = "document.pdf"
    back, _ = from_gemini({"contents": sent["contents"]}, quirks=kinds)
    assert back["messages"][0]["content"] == [part]


def test_a_document_of_text_is_shown_as_text_and_the_name_of_a_file_is_named():
    blocks = [
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "x"}},
        {"type": "document", "title": "T", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
    ]

    sent, dropped = to_gemini({"messages": [{"role": "user", "content": blocks}]}, dialect="anthropic")

    assert sent["contents"][0]["parts"] == [
        {"text": '<document title="T">\nx\n</document>'},
        {"fileData": {"mimeType": "application/pdf", "fileUri": "https://example.com/a.pdf"}},
    ]
    assert dropped == ("messages[].content[].title",)


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"fileData": {"fileUri": "gs://bucket/a.png", "mimeType": "image/png"}}, "fileData.fileUri"),
        (
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x"}},
            "fileData.fileUri",
        ),
        ({"fileData": {"fileUri": "https://youtu.be/x"}}, "fileData.fileUri"),
        ({"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}, "inlineData"),
        ({"x_new": 1}, "xNew"),
    ],
)
def test_what_only_google_can_read_is_refused_by_its_path(part, param):
    found = refused("gemini", "openai", {"contents": [{"parts": [part]}]}, model="m")
    assert (found.param, found.code) == (f"contents[0].parts[0].{param}", "unsupported_parameter")


def test_base64_is_read_in_both_alphabets():
    sent, _ = from_gemini({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "-_-_"}}]}]})

    assert sent["messages"][0]["content"][0]["image_url"]["url"] == "data:image/png;base64,+/+/"


# Thinking and signatures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "effort", "written", "dropped"),
    [
        (NEWEST, "minimal", {"includeThoughts": True, "thinkingLevel": "MINIMAL"}, ()),
        (NEWEST, "medium", {"includeThoughts": True, "thinkingLevel": "MEDIUM"}, ()),
        (NEWEST, "none", {"thinkingLevel": "MINIMAL"}, ("reasoning_effort",)),
        ("gemini-3-pro-preview", "medium", {"includeThoughts": True, "thinkingLevel": "HIGH"}, ()),
        ("gemini-3.1-pro-preview", "minimal", {"includeThoughts": True, "thinkingLevel": "LOW"}, ()),
        (BUDGETED, "low", {"includeThoughts": True, "thinkingBudget": 1024}, ()),
        (BUDGETED, "none", {"thinkingBudget": 0}, ()),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 128}, ("reasoning_effort",)),
        (OLD, "low", None, ("reasoning_effort",)),
    ],
)
def test_an_effort_becomes_what_the_model_takes(model, effort, written, dropped):
    sent, named = to_gemini({"reasoning_effort": effort}, model=model)

    assert sent["generationConfig"].get("thinkingConfig") == written
    assert named == dropped


@pytest.mark.parametrize(
    ("model", "budget", "written"),
    [
        (BUDGETED, 2000, {"thinkingBudget": 2000}),
        (BUDGETED, 99_999, {"thinkingBudget": 24_576}),
        ("gemini-2.5-pro", 99_999, {"thinkingBudget": 32_768}),
        ("gemini-2.5-flash-lite", 9, {"thinkingBudget": 512}),
        (NEWEST, 9000, {"thinkingLevel": "HIGH"}),
    ],
)
def test_a_budget_is_kept_within_what_the_model_can(model, budget, written):
    sent, dropped = to_gemini({"reasoning": {"max_tokens": budget}}, model=model)

    assert sent["generationConfig"]["thinkingConfig"] == written | {"includeThoughts": True}
    assert dropped == ()


@pytest.mark.parametrize(
    ("config", "effort"),
    [
        ({"thinkingLevel": "low"}, "low"),
        ({"thinkingBudget": 0}, "none"),
        ({"thinkingBudget": 9000, "includeThoughts": True}, "high"),
        ({"thinkingBudget": -1}, None),
    ],
)
def test_thinking_of_gemini_becomes_an_effort(config, effort):
    sent, _ = from_gemini({"generationConfig": {"thinkingConfig": config}})
    assert sent.get("reasoning_effort") == effort


def test_signatures_of_googles_go_back_to_it_through_clients_of_either_dialect():
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    chat = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [call | {"extra_content": {"google": {"thought_signature": "Zm9v"}}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "x"},
    ]
    messages = [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [
                {"type": "redacted_thinking", "data": "tollgate:google:call:Zm9v"},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "x"}]},
    ]
    sent = [
        to_gemini({"messages": chat})[0]["contents"],
        to_gemini({"messages": messages}, dialect="anthropic")[0]["contents"],
    ]

    assert sent[0] == sent[1]
    assert sent[0][1]["parts"] == [
        {
            "functionCall": {"id": "c1", "name": "weather", "args": {"city": "Paris"}},
            "thoughtSignature": "Zm9v",
        }
    ]


def test_the_signature_of_a_text_goes_back_onto_it():
    detail = {"type": "reasoning.text", "text": "", "signature": "Zm9v", "format": "google-gemini-v1", "index": 0}
    assistant = {"role": "assistant", "content": "Hello", "reasoning_details": [detail]}

    sent, dropped = to_gemini({"messages": [{"role": "user", "content": "Hi"}, assistant]})

    assert sent["contents"][1]["parts"] == [{"text": "Hello", "thoughtSignature": "Zm9v"}]
    assert dropped == ()


def test_calls_that_another_model_made_are_marked_so_that_the_newest_take_them():
    new, _ = to_gemini({"messages": OPENAI_CONVERSATION[:4]})
    spoken, _ = to_gemini({"messages": OPENAI_CONVERSATION})
    old, _ = to_gemini({"messages": OPENAI_CONVERSATION[:4]}, model=BUDGETED)

    signed = [part.get("thoughtSignature") for part in new["contents"][1]["parts"]]
    assert signed == [None, "skip_thought_signature_validator", None], "the first call of the step"
    for sent in (spoken, old):
        assert b"thoughtSignature" not in orjson.dumps(sent), "the user has spoken since, or it is not asked for"


def test_claudes_thoughts_are_not_shown_to_gemini():
    block = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [block]}]

    sent, dropped = to_gemini({"messages": messages}, dialect="anthropic")

    assert len(sent["contents"]) == 1
    assert dropped == ("messages[].content[].thinking",)


def foreign(**more):
    return {"text": "", "thought": True, "thoughtSignature": pack_signature("c2ln", "anthropic"), **more}


def test_claudes_thoughts_go_back_to_claude_through_clients_of_gemini():
    said = [{"text": "H", "thought": True}, {"text": "m.", "thought": True}, foreign(), {"text": "Hello"}]
    hidden = {"text": "", "thought": True, "thoughtSignature": pack_signature("ZW5j", "anthropic", redacted=True)}
    contents = [{"parts": [{"text": "Hi"}]}, {"role": "model", "parts": [hidden, *said]}]

    sent, dropped = from_gemini({"contents": contents}, protocol="anthropic", model="claude-opus-4-6")

    assert sent["messages"][1]["content"] == [
        {"type": "redacted_thinking", "data": "ZW5j"},
        {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
        {"type": "text", "text": "Hello"},
    ]
    assert dropped == ()


def test_foreign_thoughts_stay_out_of_a_request_that_is_passed_on():
    signed_call = {"functionCall": {"name": "f"}, "thoughtSignature": pack_signature("x", "openai")}
    own = {"text": "Hm.", "thought": True, "thoughtSignature": "Zm9v"}
    contents = [
        {"role": "model", "parts": [foreign(text="Hm."), own, {"text": "Hello"}, signed_call]},
        {"role": "model", "parts": [foreign()]},
    ]

    sent, dropped = passed_on({"contents": contents})

    assert sent["contents"] == [{"role": "model", "parts": [own, {"text": "Hello"}, {"functionCall": {"name": "f"}}]}]
    assert dropped == ("contents[].parts[].thoughtSignature",)


@given(value=st.text(), origin=st.sampled_from(["anthropic", "google", "openai"]), redacted=st.booleans())
def test_a_signature_that_was_packed_is_unpacked_in_either_alphabet(value, origin, redacted):
    packed = pack_signature(value, origin, redacted=redacted)

    if origin != "google" or redacted:
        assert unpack_signature(packed) == (value, origin, redacted)
        assert unpack_signature(packed.replace("+", "-").replace("/", "_").rstrip("=")) == (value, origin, redacted)


@given(st.text())
def test_any_text_can_be_unpacked(signature):
    unpack_signature(signature)
    unpack_signature("dG9sbGdhdGU6" + signature)


# Forms and the rest -------------------------------------------------------------------------------------------------


def test_a_schema_for_the_answer_goes_both_ways():
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}

    sent, dropped = to_gemini({"response_format": format})
    back, _ = from_gemini({"generationConfig": sent["generationConfig"]})

    assert sent["generationConfig"]["responseMimeType"] == "application/json"
    assert sent["generationConfig"]["responseJsonSchema"] == {"title": "x", **SCHEMA}
    assert back["response_format"]["json_schema"]["schema"] == {"title": "x", **SCHEMA}
    assert dropped == ()


def test_json_without_a_schema_can_be_asked_for():
    sent, _ = to_gemini({"response_format": {"type": "json_object"}})
    assert sent["generationConfig"] == {"maxOutputTokens": 4096, "responseMimeType": "application/json"}

    back, _ = from_gemini({"generationConfig": {"responseMimeType": "application/json"}})
    assert back["response_format"] == {"type": "json_object"}


def test_a_schema_beside_tools_is_refused_for_models_before_gemini_3():
    body = {"model": "m", "messages": OPENAI_CONVERSATION, "tools": [OPENAI_TOOL]}
    body["response_format"] = {"type": "json_object"}

    assert cannot_carry("openai", "gemini", body, model=NEWEST) is None
    assert refused("openai", "gemini", body, model=BUDGETED).param == "response_format"


def test_sampling_goes_to_gemini_and_penalties_only_where_they_are_taken():
    body = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "n": 2, "stop": ["END"], "frequency_penalty": 0.5}

    new, dropped = to_gemini(body, model=BUDGETED)
    old, none = to_gemini(body, model=OLD)

    assert new["generationConfig"] == {
        "maxOutputTokens": 4096,
        "temperature": 0.5,
        "topP": 0.9,
        "stopSequences": ["END"],
        "candidateCount": 2,
        "seed": 7,
    }
    assert dropped == ("frequency_penalty",)
    assert old["generationConfig"] == new["generationConfig"] | {"frequencyPenalty": 0.5}
    assert none == ()


def test_what_gemini_cannot_be_told_is_refused_or_named():
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}

    for field, value in {"logit_bias": {"1": 5}, "stop": list("abcdef"), "n": 9}.items():
        assert refused("openai", "gemini", body | {field: value}).param == field
    tools = {"tools": [OPENAI_TOOL], "parallel_tool_calls": False}
    assert refused("openai", "gemini", body | tools).param == "parallel_tool_calls"
    _, dropped = to_gemini({"user": "ann", "verbosity": "low", "seed": 2**40, "service_tier": "auto"})
    assert sorted(dropped) == ["seed", "user", "verbosity"]


def test_a_tier_of_service_goes_to_gemini():
    assert to_gemini({"service_tier": "flex"})[0]["serviceTier"] == "flex"


def test_system_texts_go_to_the_instruction_and_a_conversation_needs_a_user():
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]

    sent, _ = to_gemini({"messages": messages})

    assert sent["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert refused("openai", "gemini", {"model": "m", "messages": messages[:1]}).param == "messages"


def test_empty_texts_are_left_out():
    messages = [{"role": "user", "content": [{"type": "text", "text": ""}, {"type": "text", "text": "Hi"}]}]
    assert to_gemini({"messages": messages})[0]["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]


def test_fields_of_gemini_that_others_do_not_know_are_refused_or_named():
    contents = {"contents": [{"parts": [{"text": "x"}]}]}

    for body, param in (
        ({"cachedContent": "cachedContents/x"}, "cachedContent"),
        ({"generationConfig": {"responseModalities": ["IMAGE"]}}, "generationConfig.responseModalities"),
        ({"generationConfig": {"responseMimeType": "text/x.enum"}}, "generationConfig.responseMimeType"),
    ):
        assert refused("gemini", "openai", contents | body, model="m").param == param
    _, dropped = from_gemini(
        {"safetySettings": [{"category": 7, "threshold": 4}], "generationConfig": {"mediaResolution": "LOW"}}
    )
    assert dropped == ("safetySettings", "generationConfig.mediaResolution")


# What is wrong in itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"contents": None}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": "Hi"}, "contents"),
        ({"contents": ["Hi"]}, "contents[0]"),
        ({"contents": [{"parts": ["Hi"]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"text": 1}]}]}, "contents[0].parts[0].text"),
        ({"tools": ["x"]}, "tools[0]"),
        ({"generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"candidateCount": 9}}, "generationConfig.candidateCount"),
        ({"generationConfig": {"stopSequences": "END"}}, "generationConfig.stopSequences"),
        (
            {"generationConfig": {"thinkingConfig": {"thinkingLevel": "x"}}},
            "generationConfig.thinkingConfig.thinkingLevel",
        ),
    ],
)
def test_what_is_wrong_in_itself_is_refused_by_its_path(change, param):
    body = {"model": "m", "contents": [{"parts": [{"text": "Hi"}]}]} | change

    with pytest.raises(Refusal) as raised:
        gemini.ask(body)
        gemini.read_prompt(body, Losses({}))

    assert (raised.value.status, raised.value.param) == (400, param)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"contents": [{"parts": [{"inlineData": {}}]}]}, "contents[0].parts[0]"),
        ({"contents": [{"parts": [{"functionResponse": {"parts": [{}]}}]}]}, "contents[0].parts[0]"),
        ({"systemInstruction": {"parts": [{"fileData": {}}]}}, "systemInstruction.parts[0]"),
        ({"tools": [{"googleSearch": {}}]}, "tools[0]"),
        ({"cachedContent": "x"}, "cachedContent"),
        ({"serviceTier": "priority"}, "serviceTier"),
        ({"generationConfig": {"responseModalities": ["AUDIO"]}}, "generationConfig.responseModalities"),
        ({"generationConfig": {"speechConfig": {}}}, "generationConfig.speechConfig"),
        ({"of_tomorrow": 1}, "ofTomorrow"),
        ({"generationConfig": {"temperature": 1}, "safetySettings": []}, None),
    ],
)
def test_what_may_change_the_price_or_has_no_bound_is_named(change, field):
    assert gemini.ask({"model": "m", "contents": [{"parts": [{"text": "x"}]}]} | change).unbounded == field


# There and back -----------------------------------------------------------------------------------------------------


prompts = st.builds(
    Prompt,
    turns=conversations(
        results=st.just([]),
        users=texts
        | images.filter(lambda image: image.url is None)
        | files
        | st.builds(Audio, data=base64, format=st.just("wav")),
        assistants=st.lists(texts | calls, min_size=1, max_size=3),
    ),
    format=st.none() | st.just(Format()) | st.just(Format(schema=SCHEMA)),
    thinking=st.none()
    | st.builds(Thinking, effort=st.sampled_from(["low", "high"]), visible=st.just(True))
    | st.just(Thinking(effort="medium", visible=False)),
    n=st.integers(1, 8),
    logprobs=st.booleans(),
    seed=st.none() | st.integers(0, 9),
    top_k=st.none() | st.integers(0, 99),
    max_output_tokens=st.none() | st.integers(1, 9999),
    **{
        **common,
        "tools": st.lists(
            st.builds(Tool, name=names, description=words, schema=st.just(SCHEMA)), min_size=1, max_size=2
        ).map(tuple),
        "service_tier": st.sampled_from([None, "standard", "flex"]),
        "user": st.none(),
        "stream": st.just(False),
    },
).map(chosen)


def plain(prompt):
    """Without what the protocol has no place for."""
    turns = []
    for turn in prompt.turns:
        parts = [replace(part, cache=None) for part in turn.parts]
        parts = [
            replace(part, name=None) if hasattr(part, "media_type") and hasattr(part, "name") else part
            for part in parts
        ]
        turns.append(replace(turn, parts=tuple(parts)))
    return replace(prompt, turns=tuple(turns))


@settings(max_examples=80)
@given(prompts.map(plain))
def test_a_prompt_that_is_written_for_gemini_is_read_back_the_same(prompt):
    losses = Losses({})
    fitted = fit(prompt, gemini.scope(Quirks()), model=NEWEST, losses=losses)
    body = gemini.write_prompt(fitted, model=NEWEST, max_output_tokens=None, quirks=Quirks(), losses=losses)
    validate_gemini_request(body)

    read = without_paths(gemini.read_prompt({**body, "model": "m"}, losses))

    signed = [
        replace(part, signature=None, origin=None) if isinstance(part, ToolCall) else part
        for turn in read.turns
        for part in turn.parts
    ]
    assert signed == [part for turn in prompt.turns for part in turn.parts]
    assert replace(read, turns=()) == replace(prompt, turns=())
    assert losses.names == ()


WHOLE_GEMINI = {
    "model": "m",
    "stream": True,
    "systemInstruction": {"parts": [{"text": "x"}]},
    "tools": [{"functionDeclarations": [DECLARATION, {"name": "f", "parameters": {"type": "OBJECT"}}]}],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["weather"]}},
    "generationConfig": {
        "stopSequences": ["a"],
        "responseMimeType": "application/json",
        "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
        "thinkingConfig": {"thinkingBudget": 9, "includeThoughts": True},
        "responseModalities": ["TEXT"],
        "topK": 4,
    },
    "contents": [
        *CALLED,
        {"role": "model", "parts": [foreign(), {"text": "x", "thoughtSignature": "Zm9v"}]},
        {
            "parts": [
                {"inlineData": {"mimeType": "image/png", "data": PNG}},
                {"fileData": {"mimeType": "image/png", "fileUri": "https://example.com/a.png"}},
            ]
        },
    ],
}


@pytest.mark.parametrize("protocol", ["openai", "anthropic"])
@settings(max_examples=80)
@given(draws=st.data())
def test_a_request_with_wrong_types_is_carried_or_refused(draws, protocol):
    """Never an exception of another kind: a client can send anything."""
    assert cannot_carry("gemini", protocol, WHOLE_GEMINI) is None

    body = draws.draw(wrong_inside(WHOLE_GEMINI, ODD))

    cannot_carry("gemini", protocol, body)
    try:
        gemini.ask(body)
    except Refusal:
        return
    passed_on(body)


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@settings(max_examples=60)
@given(draws=st.data())
def test_a_request_with_wrong_types_goes_to_gemini_or_is_refused(draws, dialect):
    whole = WHOLE[dialect]
    assert cannot_carry(dialect, "gemini", whole, model=NEWEST) is None

    # What a file holds is not looked into: a text that is no base64 is the provider's to refuse.
    odd = ["text" if value in ("x", "base64") else value for value in ODD]
    body = draws.draw(wrong_inside(whole, odd))

    if cannot_carry(dialect, "gemini", body, model=NEWEST) is None:
        exchange = exchange_for(
            dialect, "gemini", body, request_id=REQUEST_ID, model=NEWEST, max_output_tokens=None, headers={}
        )
        validate_gemini_request(orjson.loads(exchange.request.body))


def test_chunks_that_a_client_hands_back_one_by_one_are_one_turn():
    chunks = [
        {"text": "H", "thought": True},
        {"text": "m.", "thought": True},
        foreign(),
        {"text": "Hel"},
        {"text": "lo"},
        {"text": ""},
    ]
    contents = [{"parts": [{"text": "Hi"}]}, *({"role": "model", "parts": [chunk]} for chunk in chunks)]

    sent, _ = from_gemini({"contents": contents}, protocol="anthropic", model="claude-opus-4-6")

    assert sent["messages"][1:] == [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "text", "text": "Hello"},
            ],
        }
    ]


def test_a_result_with_an_id_leaves_the_others_to_their_order():
    call, result = {"name": "f", "args": {}}, {"name": "f", "response": {"output": "x"}}
    calls = [{"functionCall": call | {"id": id} if id else call} for id in (None, "b", None)]
    results = [{"functionResponse": result | {"id": id} if id else result} for id in ("b", None, None, None)]

    sent, _ = from_gemini({"contents": [{"role": "model", "parts": calls}, {"parts": results}]})

    assert [one["id"] for one in sent["messages"][0]["tool_calls"]] == ["call_1", "b", "call_3"]
    assert [one["tool_call_id"] for one in sent["messages"][1:]] == ["b", "call_1", "call_3", "call_4"]
