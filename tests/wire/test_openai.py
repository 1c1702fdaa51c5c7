"""OpenAI's chat completions: what is read of a request, what goes to the provider, how usage counts."""

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import Model

from tests.wire.fixtures import OPENAI_USAGE, REQUEST_ID
from tollgate.errors import Refusal
from tollgate.events import Usage
from tollgate.wire import Quirks, fields, openai
from tollgate.wire.exchange import cannot_carry, exchange_for
from tollgate.wire.neutral import MAX_TOKENS, total_input, total_output

USER = {"role": "user", "content": "Hi"}
BODY = {"model": "gpt-4o", "messages": [USER]}


def sent(body, *, to="openai", cap=None, quirks=None):
    """The body that the provider gets."""
    exchange = exchange_for(
        "openai",
        to,
        body,
        request_id=REQUEST_ID,
        model="upstream",
        max_output_tokens=cap,
        headers={},
        quirks=quirks or Quirks(),
    )
    return orjson.loads(exchange.request.body)


# Ask ----------------------------------------------------------------------------------------------------------------


def test_a_request_is_asked_what_admission_must_know():
    ask = openai.ask(BODY | {"stream": True, "max_completion_tokens": 50, "max_tokens": 70, "n": 3, "user": "ann"})

    assert (ask.model, ask.stream, ask.max_output_tokens, ask.choices, ask.user) == ("gpt-4o", True, 50, 3, "ann")
    assert ask.unbounded is None


def test_null_is_the_same_as_absent():
    nulls = dict.fromkeys(("stream", "max_tokens", "max_completion_tokens", "n", "user", "tools", "stream_options"))

    ask = openai.ask(BODY | nulls)

    assert (ask.stream, ask.max_output_tokens, ask.choices, ask.user) == (False, None, 1, None)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": ""}, "model", "invalid_value"),
        ({"model": 4}, "model", "invalid_type"),
        ({"model": "x" * 257}, "model", "string_above_max_length"),
        ({"messages": None}, "messages", "missing_required_parameter"),
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": [USER, "Hi"]}, "messages[1]", "invalid_type"),
        ({"messages": [{"content": "Hi"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": 1}]}, "messages[0].role", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": True}, "stream_options", "invalid_type"),
        ({"max_tokens": 0}, "max_tokens", "integer_below_min_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"max_completion_tokens": "9"}, "max_completion_tokens", "invalid_type"),
        ({"n": 0}, "n", "integer_below_min_value"),
        ({"n": 129}, "n", "integer_above_max_value"),
        ({"user": {}}, "user", "invalid_type"),
        ({"tools": {}}, "tools", "invalid_type"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_by_its_name(change, param, code):
    with pytest.raises(Refusal) as refused:
        openai.ask(BODY | change)

    assert (refused.value.status, refused.value.param, refused.value.code) == (400, param, code)
    assert param in refused.value.message


def test_what_cannot_be_written_again_is_refused_before_it_is_accepted():
    deep = {}
    for _ in range(300):
        deep = {"a": deep}

    with pytest.raises(Refusal) as refused:
        openai.ask(BODY | {"tools": [deep]})

    assert refused.value.param == "tools"


@given(st.lists(st.text(), min_size=1, max_size=5), st.lists(st.text(), max_size=3))
def test_the_bound_is_never_below_the_bytes_of_all_text(texts, descriptions):
    tools = [{"type": "function", "function": {"name": "f", "description": text}} for text in descriptions]
    messages = [{"role": "user", "content": text} for text in texts]

    ask = openai.ask({"model": "m", "messages": messages, "tools": tools})

    text_bytes = sum(len(text.encode()) for text in texts + descriptions)
    assert ask.input_bound_tokens >= text_bytes + 3 * len(texts) + 10 * len(descriptions) + 15


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"messages": [USER, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image_url"}]}]}, 1),
        ({"messages": [USER, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "file"}]}]}, 1),
        ({"messages": [USER, {"role": "user", "content": [{"type": "text"}, "odd"]}]}, 1),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "messages[0].audio"),
        ({"tools": [{"type": "function"}, {"type": "web_search"}]}, "tools[1]"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ],
)
def test_what_bytes_do_not_bound_is_named(change, path):
    assert openai.ask(BODY | change).unbounded == (path if isinstance(path, str) else "messages[1].content[1]")


# Same dialect -------------------------------------------------------------------------------------------------------


def test_all_fields_pass_but_for_model_and_our_own():
    native = {
        "temperature": 1.7,
        "metadata": {"tag": "a"},
        "user": "ann",
        "tools": [],
        "x_vendor": {"deep": [None, 1.5]},
    }
    own = dict.fromkeys(fields.EXTENSION_FIELDS, "ours")

    assert sent(BODY | native | own) == BODY | native | {"model": "upstream"}


def test_a_stream_always_asks_for_usage():
    options = {"include_usage": False, "include_obfuscation": False}

    assert sent(BODY | {"stream": True})["stream_options"] == {"include_usage": True}
    assert sent(BODY | {"stream": True, "stream_options": options})["stream_options"] == options | {
        "include_usage": True
    }
    assert "stream_options" not in sent(BODY | {"stream": False})


@pytest.mark.parametrize(
    ("given_caps", "quirks", "caps"),
    [
        ({}, Quirks(), {"max_tokens": 8}),
        ({}, Quirks(cap_field="max_completion_tokens"), {"max_completion_tokens": 8}),
        ({"max_tokens": 9}, Quirks(cap_field="max_completion_tokens"), {"max_tokens": 8}),
        ({"max_completion_tokens": 9, "max_tokens": None}, Quirks(), {"max_completion_tokens": 8, "max_tokens": None}),
        ({"max_completion_tokens": 9, "max_tokens": 10}, Quirks(), {"max_completion_tokens": 8, "max_tokens": 8}),
    ],
)
def test_the_cap_goes_where_the_client_put_its_own(given_caps, quirks, caps):
    body = sent(BODY | given_caps, cap=8, quirks=quirks)

    assert {field: body[field] for field in body if field in openai.CAP_FIELDS} == caps


def test_without_a_cap_the_clients_own_stands():
    assert sent(BODY | {"max_tokens": 9})["max_tokens"] == 9
    assert "max_tokens" not in sent(BODY)


# To Anthropic -------------------------------------------------------------------------------------------------------


def test_a_request_is_carried_to_anthropic():
    body = {
        "model": "claude",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]},
            {"role": "user", "content": "Three."},
            {"role": "assistant", "content": "", "refusal": None, "tool_calls": None, "annotations": []},
            {"role": "assistant", "content": "Yes?"},
            {"role": "system", "content": "In French."},
            {"role": "user", "content": "Four."},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 100,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": "END",
        "n": 1,
        "user": "ann",
        "metadata": {"project": "x"},
        "tools": [],
        "presence_penalty": 0,
        "response_format": {"type": "text"},
        "seed": None,
        "routing_strategy": "cheapest",
    }

    assert sent(body, to="anthropic", cap=80) == {
        "model": "upstream",
        "max_tokens": 80,
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "In French."}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": text} for text in ("One.", "Two.", "Three.")]},
            {"role": "assistant", "content": "Yes?"},
            {"role": "user", "content": "Four."},
        ],
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "ann"},
        "stream": True,
    }


def test_anthropic_gets_a_cap_even_when_nobody_has_set_one():
    assert sent(BODY, to="anthropic")["max_tokens"] == 4096
    assert sent(BODY | {"max_tokens": 7}, to="anthropic")["max_tokens"] == 7


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"tools": [{"type": "custom", "custom": {"name": "f"}}]}, "tools[0].type"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logprobs": True}, "logprobs"),
        ({"n": 2}, "n"),
        ({"logit_bias": {"50256": -100}}, "logit_bias"),
        ({"temperature": 1.2}, "temperature"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {"voice": "x"}}, "audio"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role"),
        ({"messages": [USER, {"role": "assistant", "audio": {"id": "a"}}]}, "messages[1].audio"),
        ({"messages": [{"role": "user", "content": [{"type": "x_new"}]}]}, "messages[0].content[0].type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]},
            "messages[0].content[0].file.file_id",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
        ({"messages": [{"role": "system", "content": "only"}]}, "messages"),
    ],
)
def test_what_anthropic_cannot_be_told_is_refused_by_its_path(change, param):
    refused = cannot_carry("openai", "anthropic", BODY | change)

    assert refused is not None
    assert (refused.status, refused.code, refused.param) == (400, "unsupported_parameter", param)
    assert "use a model served by a provider of the OpenAI protocol" in refused.message


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": True}, "top_p"),
        ({"stop": 3}, "stop"),
        ({"stop": ["a", 3]}, "stop[1]"),
        ({"messages": [{"role": "user", "content": 3}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, "messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 3}]}]}, "messages[0].content[0].text"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text"),
    ],
)
def test_a_wrong_type_is_told_from_what_is_not_carried(change, param):
    refused = cannot_carry("openai", "anthropic", BODY | change)

    assert refused is not None
    assert refused.param == param and refused.code in ("invalid_type", "missing_required_parameter")


# Usage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "usage"),
    [
        (OPENAI_USAGE, Usage(input_tokens=12, cache_read_tokens=8, output_tokens=7, reasoning_tokens=5)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage()),
        ({"prompt_tokens": 7}, Usage(input_tokens=7)),
        ({}, None),
        ({"prompt_tokens": None, "completion_tokens": "3"}, None),
        (
            {
                "prompt_tokens": 100,
                "completion_tokens": 50,
                "prompt_tokens_details": {"cached_tokens": 40, "cache_write_tokens": 20, "audio_tokens": 10},
                "completion_tokens_details": {"reasoning_tokens": 10, "audio_tokens": 15},
            },
            Usage(
                input_tokens=30,
                cache_read_tokens=40,
                cache_write_tokens=20,
                input_audio_tokens=10,
                output_tokens=25,
                reasoning_tokens=10,
                output_audio_tokens=15,
            ),
        ),
        # Grok at Azure: more cached than there were, so they are counted beside the prompt
        (
            {"prompt_tokens": 10, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 161}},
            Usage(input_tokens=10, cache_read_tokens=161, output_tokens=3),
        ),
        # Grok at xAI: thoughts beside the completion
        (
            {
                "prompt_tokens": 12,
                "completion_tokens": 1,
                "total_tokens": 241,
                "completion_tokens_details": {"reasoning_tokens": 228},
                "server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 1},
            },
            Usage(input_tokens=12, output_tokens=1, reasoning_tokens=228, web_searches=3),
        ),
        # Mistral: audio beside the prompt
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 248,
                "total_tokens": 632,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 375},
            },
            Usage(input_tokens=9, input_audio_tokens=375, output_tokens=248),
        ),
        # Gemini at OpenRouter: what was written to the cache was read from it at once
        (
            {
                "prompt_tokens": 2168,
                "completion_tokens": 5,
                "prompt_tokens_details": {"cached_tokens": 2161, "cache_write_tokens": 2161},
            },
            Usage(input_tokens=7, cache_read_tokens=2161, cache_write_tokens=2161, output_tokens=5),
        ),
        # Together and Moonshot, then DeepSeek
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "cached_tokens": 4},
            Usage(input_tokens=6, cache_read_tokens=4, output_tokens=1),
        ),
        (
            {"prompt_tokens": 10, "completion_tokens": 1, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 6},
            Usage(input_tokens=6, cache_read_tokens=4, output_tokens=1),
        ),
    ],
)
def test_inclusive_usage_becomes_disjoint(block, usage):
    assert openai.read_usage(block) == usage


counts = st.integers(0, 1000)


@given(counts, counts, counts, counts)
def test_disjoint_classes_add_up_to_what_the_provider_counted(uncached, cached, text, reasoning):
    block = {
        "prompt_tokens": uncached + cached,
        "completion_tokens": text + reasoning,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }

    usage = openai.read_usage(block)

    assert usage is not None
    assert (total_input(usage), total_output(usage)) == (uncached + cached, text + reasoning)
    assert openai.read_usage(openai.write_usage(usage)) == usage


anything = st.none() | st.text() | st.booleans() | st.integers()
details = anything | st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens", "audio_tokens"]), anything)


@given(st.dictionaries(st.sampled_from(list(OPENAI_USAGE)), details))
def test_no_block_counts_below_zero_or_beyond_reason(block):
    usage = openai.read_usage(block)

    if usage is not None:
        assert all(0 <= count <= MAX_TOKENS for count in msgspec.structs.astuple(usage))


# Errors and models --------------------------------------------------------------------------------------------------


def test_a_refusal_has_openais_shape():
    refusal = Refusal(429, "QUOTA_EXCEEDED", "Spent.", type="insufficient_quota")

    assert orjson.loads(openai.error_body(refusal, REQUEST_ID)) == {
        "error": {"message": "Spent.", "type": "insufficient_quota", "param": None, "code": "QUOTA_EXCEEDED"}
    }


def test_models_are_listed_as_the_sdk_reads_them():
    listed = orjson.loads(openai.models_body([("gpt-4o", "openai", 1741570283)]))

    assert listed["object"] == "list"
    assert Model.model_validate(listed["data"][0]).owned_by == "openai"


def test_the_credential_is_a_bearer_token():
    assert openai.auth_headers("sk-1") == {"authorization": "Bearer sk-1"}
