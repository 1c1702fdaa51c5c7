"""Anthropic's messages: what is read of a request, what goes to the provider, how usage counts."""

import orjson
import pytest
from anthropic.types import ErrorResponse, ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.fixtures import ANTHROPIC_USAGE, REQUEST_ID
from tollgate.errors import Refusal
from tollgate.events import Usage
from tollgate.wire import Quirks, anthropic, fields
from tollgate.wire.exchange import cannot_carry, exchange_for
from tollgate.wire.neutral import total_input, total_output

USER = {"role": "user", "content": "Hi"}
BODY = {"model": "claude", "max_tokens": 64, "messages": [USER]}


def sent(body, *, to="anthropic", cap=None, quirks=None):
    """The body that the provider gets."""
    exchange = exchange_for(
        "anthropic",
        to,
        body,
        request_id=REQUEST_ID,
        model="upstream",
        max_output_tokens=cap,
        headers={},
        quirks=quirks or Quirks(),
    )
    return orjson.loads(exchange.request.body)


def content(*blocks):
    return {"messages": [{"role": "user", "content": list(blocks)}]}


# Ask ----------------------------------------------------------------------------------------------------------------


def test_a_request_is_asked_what_admission_must_know():
    ask = anthropic.ask(BODY | {"stream": True, "metadata": {"user_id": "ann"}})

    assert (ask.model, ask.stream, ask.max_output_tokens, ask.choices, ask.user) == ("claude", True, 64, 1, "ann")
    assert ask.unbounded is None


def test_no_tokens_may_be_asked_for():
    assert anthropic.ask(BODY | {"max_tokens": 0}).max_output_tokens == 0


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": [[]]}, "messages[0]", "invalid_type"),
        ({"max_tokens": -1}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_type"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"metadata": "ann"}, "metadata", "invalid_type"),
        ({"metadata": {"user_id": 7}}, "metadata.user_id", "invalid_type"),
        ({"tools": {}}, "tools", "invalid_type"),
        ({"output_config": []}, "output_config", "invalid_type"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_by_its_name(change, param, code):
    with pytest.raises(Refusal) as refused:
        anthropic.ask(BODY | change)

    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)


@given(st.text(), st.lists(st.text(), min_size=1, max_size=4))
def test_the_bound_is_never_below_the_bytes_of_all_text(system, texts):
    ask = anthropic.ask({"model": "m", "system": system, "messages": [{"role": "user", "content": t} for t in texts]})

    assert ask.input_bound_tokens >= len(system.encode()) + sum(len(text.encode()) for text in texts)


@pytest.mark.parametrize("change", [{"tools": [{"name": "f"}]}, {"output_config": {"format": {"type": "json_schema"}}}])
def test_the_providers_hidden_prompt_is_allowed_for(change):
    size = len(orjson.dumps(BODY | change))

    assert anthropic.ask(BODY | change).input_bound_tokens - size > 1060
    assert anthropic.ask(BODY).input_bound_tokens - len(orjson.dumps(BODY)) < 100


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (content({"type": "text", "text": "a"}, {"type": "image", "source": {}}), "messages[0].content[1]"),
        (content({"type": "document", "source": {"type": "base64"}}), "messages[0].content[0]"),
        (content({"type": "document", "source": {"type": "text", "data": "a"}}), None),
        (
            content({"type": "document", "source": {"type": "content", "content": [{"type": "image"}]}}),
            "messages[0].content[0].source.content[0]",
        ),
        (
            content({"type": "tool_result", "content": [{"type": "text"}, {"type": "image"}]}),
            "messages[0].content[0].content[1]",
        ),
        (content({"type": "tool_result", "content": "text"}, {"type": "tool_use"}, {"type": "thinking"}), None),
        (content("odd"), "messages[0].content[0]"),
        ({"tools": [{"name": "f"}, {"type": "custom"}, {"type": "web_search_20250305"}]}, "tools[2]"),
        ({"mcp_servers": [{"url": "https://example.com"}]}, "mcp_servers"),
        ({"context_management": {"edits": [{"type": "clear_thinking_20251015"}]}}, None),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "context_management.edits[0]"),
    ],
)
def test_what_bytes_do_not_bound_is_named(change, path):
    assert anthropic.ask(BODY | change).unbounded == path


# Same dialect -------------------------------------------------------------------------------------------------------


def test_all_fields_pass_but_for_model_and_our_own():
    native = {"metadata": {"user_id": "a"}, "thinking": {"type": "adaptive"}, "tools": [{"x": 1.5}], "x_new": [None]}
    own = dict.fromkeys(fields.EXTENSION_FIELDS, "ours")

    assert sent(BODY | native | own) == BODY | native | {"model": "upstream"}
    assert sent(BODY, cap=8)["max_tokens"] == 8


# To OpenAI ----------------------------------------------------------------------------------------------------------


def test_a_request_is_carried_to_openai():
    body = {
        "model": "gpt",
        "max_tokens": 64,
        "system": [
            {"type": "text", "text": "Be brief.", "cache_control": None},
            {"type": "text", "text": "In French."},
        ],
        "messages": [
            USER,
            {"role": "system", "content": "And kind."},
            {"role": "assistant", "content": [{"type": "text", "text": "Yes?", "citations": None}]},
            {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
        ],
        "stop_sequences": ["END"],
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "metadata": {"user_id": "ann"},
        "tools": [],
        "thinking": {"type": "disabled"},
    }

    assert sent(body, to="openai", cap=50) == {
        "model": "upstream",
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": t} for t in ("Be brief.", "In French.")]},
            {"role": "user", "content": "Hi"},
            {"role": "system", "content": "And kind."},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": [{"type": "text", "text": t} for t in ("One.", "Two.")]},
        ],
        "max_tokens": 50,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "user": "ann",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_cap_is_named_as_the_provider_knows_it():
    body = sent(BODY, to="openai", quirks=Quirks(cap_field="max_completion_tokens"))

    assert body["max_completion_tokens"] == 64 and "max_tokens" not in body


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"stop_sequences": list("abcde")}, "stop_sequences"),
        ({"mcp_servers": [{"url": "https://example.com"}]}, "mcp_servers"),
        ({"inference_geo": "us"}, "inference_geo"),
        (content({"type": "image", "source": {"type": "file", "file_id": "f"}}), "messages[0].content[0].source.type"),
        (
            content({"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}),
            "messages[0].content[0]",
        ),
        (content({"type": "container_upload", "file_id": "f"}), "messages[0].content[0].type"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
    ],
)
def test_what_openai_cannot_be_told_is_refused_by_its_path(change, param):
    refused = cannot_carry("anthropic", "openai", BODY | change)

    assert refused is not None
    assert (refused.status, refused.code, refused.param) == (400, "unsupported_parameter", param)
    assert "use a model served by a provider of the Anthropic protocol" in refused.message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"system": 3}, "system"),
        ({"stop_sequences": "END"}, "stop_sequences"),
        ({"stop_sequences": [1]}, "stop_sequences[0]"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_k": 1.5}, "top_k"),
        (content("a"), "messages[0].content[0]"),
        (content({"type": "text"}), "messages[0].content[0].text"),
    ],
)
def test_a_wrong_type_is_told_from_what_is_not_carried(change, param):
    refused = cannot_carry("anthropic", "openai", BODY | change)

    assert refused is not None
    assert refused.param == param and refused.code in ("invalid_type", "missing_required_parameter")


# Usage --------------------------------------------------------------------------------------------------------------


def iteration(kind, **counts):
    return {"type": kind, **counts}


@pytest.mark.parametrize(
    ("block", "usage"),
    [
        (
            ANTHROPIC_USAGE,
            Usage(
                input_tokens=12,
                cache_read_tokens=8,
                cache_write_5m_tokens=30,
                cache_write_1h_tokens=70,
                output_tokens=12,
            ),
        ),
        ({"input_tokens": 0, "output_tokens": 0}, Usage()),
        ({}, None),
        ({"input_tokens": None, "output_tokens": None}, None),
        # no split, and a split that explains only a part
        ({"output_tokens": 1, "cache_creation_input_tokens": 9}, Usage(cache_write_5m_tokens=9, output_tokens=1)),
        (
            {
                "output_tokens": 1,
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 5},
            },
            Usage(cache_write_5m_tokens=4, cache_write_1h_tokens=5, output_tokens=1),
        ),
        # thinking is part of the output
        (
            {"input_tokens": 3, "output_tokens": 20, "output_tokens_details": {"thinking_tokens": 15}},
            Usage(input_tokens=3, output_tokens=5, reasoning_tokens=15),
        ),
        (
            {"input_tokens": 3, "output_tokens": 2, "server_tool_use": {"web_search_requests": 2}},
            Usage(input_tokens=3, output_tokens=2, web_searches=2),
        ),
        # a compaction that the top level leaves out
        (
            {
                "input_tokens": 162,
                "output_tokens": 10,
                "iterations": [
                    iteration("compaction", input_tokens=99_000, output_tokens=300),
                    iteration("message", input_tokens=162, output_tokens=10, cache_read_input_tokens=5),
                ],
            },
            Usage(input_tokens=99_162, cache_read_tokens=5, output_tokens=310),
        ),
        # a model that declined, and the one that answered in its stead
        (
            {
                "input_tokens": 412,
                "output_tokens": 264,
                "iterations": [
                    iteration("message", input_tokens=408, output_tokens=0),
                    iteration("fallback_message", input_tokens=412, output_tokens=264),
                ],
            },
            Usage(input_tokens=412, output_tokens=264),
        ),
        ({"input_tokens": 1, "output_tokens": 2, "iterations": "odd"}, Usage(input_tokens=1, output_tokens=2)),
    ],
)
def test_exclusive_usage_becomes_disjoint(block, usage):
    assert anthropic.read_usage(block) == usage


counts = st.integers(0, 1000)


@given(
    st.builds(Usage, input_tokens=counts, cache_read_tokens=counts, cache_write_5m_tokens=counts, output_tokens=counts)
)
def test_usage_that_is_written_is_read_back_the_same(usage):
    block = anthropic.write_usage(usage)

    assert anthropic.read_usage(block) == usage
    total = block["input_tokens"] + block["cache_read_input_tokens"] + block["cache_creation_input_tokens"]
    assert (total, block["output_tokens"]) == (total_input(usage), total_output(usage))


# Errors and models --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "type"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_a_refusal_has_anthropics_shape_and_words(status, type):
    refusal = Refusal(status, "some_code", "No.", param="messages")

    body = orjson.loads(anthropic.error_body(refusal, REQUEST_ID))

    assert body == {
        "type": "error",
        "error": {"type": type, "message": "No.", "code": "some_code", "param": "messages"},
        "request_id": REQUEST_ID,
    }
    if type != "request_too_large":
        ErrorResponse.model_validate(body)


def test_what_a_refusal_does_not_say_is_left_out():
    error = orjson.loads(anthropic.error_body(Refusal(401, None, "Who are you?"), REQUEST_ID))["error"]

    assert error == {"type": "authentication_error", "message": "Who are you?"}


def test_models_are_listed_as_the_sdk_reads_them():
    listed = orjson.loads(anthropic.models_body([("a", "x", 1741570283), ("b", "x", 0)]))

    assert ModelInfo.model_validate(listed["data"][0]).created_at.isoformat() == "2025-03-10T01:31:23+00:00"
    assert (listed["first_id"], listed["last_id"], listed["has_more"]) == ("a", "b", False)
    assert orjson.loads(anthropic.models_body([]))["first_id"] is None


def test_the_credential_is_an_api_key_header():
    assert anthropic.auth_headers("k") == {"x-api-key": "k"}
