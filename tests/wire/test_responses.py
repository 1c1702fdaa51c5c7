"""The Responses dialect: what its clients send and get, and what its providers are told."""

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from tests.wire import fixtures_responses as given
from tests.wire.fixtures import (
    CALLED,
    EXTRAS,
    REQUEST_ID,
    ROLE,
    STREAMS,
    TOLD_STREAMS,
    call,
    events,
    payloads,
    start,
    stream,
    unary,
)
from tollgate.errors import ProviderError, Refusal
from tollgate.events import Usage
from tollgate.wire import Quirks, responses
from tollgate.wire.exchange import cannot_carry, exchange_for

EVENT = TypeAdapter(ResponseStreamEvent)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True, "description": "Now."}
PATCH = {
    "type": "custom",
    "name": "apply_patch",
    "description": "Edits files.",
    "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
}
FILES = {"type": "namespace", "name": "files", "description": "A server.", "tools": [{**WEATHER, "name": "read"}]}
SEARCH = {"type": "web_search", "external_web_access": False}

# What Codex sends, as its requests were recorded: no instructions, but a developer's message
CODEX = {
    "model": "m",
    "input": [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "You are Codex."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Say hello."}]},
    ],
    "tools": [WEATHER, PATCH, FILES, SEARCH],
    "tool_choice": "auto",
    "parallel_tool_calls": False,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0198-thread",
    "client_metadata": {"x-codex-installation-id": "1"},
    "text": {"verbosity": "low"},
}


def sent(protocol, body, *, model="gpt-5.4", quirks=None):
    """The provider's request, and what is named as dropped."""
    exchange = exchange_for(
        "responses",
        protocol,
        body,
        request_id=REQUEST_ID,
        model=model,
        max_output_tokens=None,
        headers={},
        quirks=quirks or Quirks(),
    )
    return orjson.loads(exchange.request.body), exchange.dropped


def asked(dialect, body, *, model="gpt-5.4", max_output_tokens=None):
    """A request of another dialect as a provider of this protocol gets it."""
    exchange = exchange_for(
        dialect,
        "responses",
        body,
        request_id=REQUEST_ID,
        model=model,
        max_output_tokens=max_output_tokens,
        headers={},
    )
    return orjson.loads(exchange.request.body), exchange.dropped


# Clients ------------------------------------------------------------------------------------------------------------


def test_what_codex_sends_goes_to_a_chat_model():
    body, dropped = sent("openai", CODEX)

    assert body["messages"] == [
        {"role": "system", "content": "You are Codex."},
        {"role": "user", "content": "Say hello."},
    ]
    weather, patch, read = body["tools"]
    assert weather["function"] == {"name": "weather", "description": "Now.", "parameters": SCHEMA, "strict": True}
    assert patch["function"]["parameters"]["required"] == ["input"]
    assert "start: /.+/" in patch["function"]["description"]
    assert read["function"]["name"] == "files__read"
    assert body["reasoning_effort"] == "medium"
    assert body["parallel_tool_calls"] is False
    assert body["stream_options"] == {"include_usage": True}
    assert set(dropped) == {
        "client_metadata",
        "prompt_cache_key",
        "reasoning.summary",
        "tools[].description",
        "tools[].web_search",
    }


def test_what_codex_sends_goes_to_claude():
    body, dropped = sent("anthropic", CODEX, model="claude-sonnet-4-6")

    assert body["system"] == "You are Codex."
    assert [tool["name"] for tool in body["tools"]] == ["weather", "apply_patch", "files__read"]
    assert body["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert "text.verbosity" in dropped


def test_what_codex_sends_passes_whole_to_a_provider_of_its_own_dialect():
    body, dropped = sent("responses", CODEX)

    assert body == {**CODEX, "model": "gpt-5.4"}
    assert dropped == ()


def test_a_round_of_calls_is_one_message_and_its_results_follow():
    history = [
        {"role": "user", "content": "Weather in Paris and Rome?"},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Two cities."}]},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "I look.", "annotations": []}],
        },
        {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "weather", "arguments": '{"city":"Paris"}'},
        {"type": "function_call", "call_id": "c2", "name": "read", "namespace": "files", "arguments": "{}"},
        {"type": "custom_tool_call", "call_id": "c3", "name": "apply_patch", "input": "*** Begin"},
        {"type": "function_call_output", "call_id": "c1", "output": "Sun"},
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "Rain"}]},
        {"type": "custom_tool_call_output", "call_id": "c3", "output": "Done"},
    ]

    body, dropped = sent("openai", {"model": "m", "input": history, "instructions": "Be brief."})

    system, user, assistant, *results = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == "Weather in Paris and Rome?"
    assert assistant["content"] == "I look."
    assert [(one["id"], one["function"]["name"], one["function"]["arguments"]) for one in assistant["tool_calls"]] == [
        ("c1", "weather", '{"city":"Paris"}'),
        ("c2", "files__read", "{}"),
        ("c3", "apply_patch", '{"input":"*** Begin"}'),
    ]
    assert [(one["tool_call_id"], one["content"]) for one in results] == [("c1", "Sun"), ("c2", "Rain"), ("c3", "Done")]
    assert dropped == ("input[].reasoning",)  # a thought that nobody has sealed


def test_parts_of_a_message_are_carried():
    parts = [
        {"type": "input_text", "text": "Look"},
        {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"},
        {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "auto"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0xLjQ="},
    ]

    chat, _ = sent("openai", {"model": "m", "input": [{"role": "user", "content": parts}]})
    messages, _ = sent("anthropic", {"model": "m", "input": [{"role": "user", "content": parts}]})

    assert [part["type"] for part in chat["messages"][0]["content"]] == ["text", "image_url", "image_url", "file"]
    assert chat["messages"][0]["content"][1]["image_url"]["detail"] == "low"
    assert [block["type"] for block in messages["messages"][0]["content"]] == ["text", "image", "image", "document"]


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ({"format": {"type": "text"}}, None),
        ({"format": {"type": "json_object"}}, {"type": "json_object"}),
        (
            {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": True}},
            {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA, "strict": True}},
        ),
    ],
)
def test_the_form_of_the_answer_is_carried(text, format):
    body, _ = sent("openai", {"model": "m", "input": "Hi", "text": text})

    assert body.get("response_format") == format


@pytest.mark.parametrize(
    ("choice", "chat"),
    [
        ("required", "required"),
        ({"type": "function", "name": "weather"}, {"type": "function", "function": {"name": "weather"}}),
        ({"type": "custom", "name": "apply_patch"}, {"type": "function", "function": {"name": "apply_patch"}}),
    ],
)
def test_the_choice_of_a_tool_is_carried(choice, chat):
    body, _ = sent("openai", {"model": "m", "input": "Hi", "tools": [WEATHER, PATCH], "tool_choice": choice})

    assert body["tool_choice"] == chat


def test_allowed_tools_are_the_only_ones_that_are_offered():
    allowed = {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "weather"}]}

    body, _ = sent("openai", {"model": "m", "input": "Hi", "tools": [WEATHER, PATCH], "tool_choice": allowed})

    assert [tool["function"]["name"] for tool in body["tools"]] == ["weather"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
        ({"input": [{"type": "compaction", "encrypted_content": "x"}]}, "input[0].type"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]}]},
            "input[0].content[0]",
        ),
        ({"input": [{"role": "narrator", "content": "x"}]}, "input[0].role"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]}, "tools[0].type"),
        ({"tools": [WEATHER], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
    ],
)
def test_what_only_its_own_providers_know_is_refused_by_name(body, param):
    body = {"model": "m", "input": "Hi", **body}

    for protocol in ("openai", "anthropic"):
        refused = cannot_carry("responses", protocol, body)
        assert refused is not None
        assert refused.param is not None and refused.param.startswith(param)
        assert (refused.status, refused.code) == (400, "unsupported_parameter")
        assert "OpenAI Responses protocol" in refused.message
    assert cannot_carry("responses", "responses", body) is None


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": []}, "input"),
        ({"input": 3}, "input"),
        ({"input": ["x"]}, "input[0]"),
        ({"input": "x", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "x", "stream": "yes"}, "stream"),
        ({"input": "x", "tools": {}}, "tools"),
        ({"input": "x", "background": True}, "background"),
    ],
)
def test_what_is_wrong_in_itself_is_refused_by_name(body, param):
    with pytest.raises(Refusal) as refused:
        responses.ask({"model": "m", **body})

    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("item", "param"),
    [
        ({"role": 3, "content": "x"}, "input[0].role"),
        ({"content": "x"}, "input[0].type"),
        ({"type": "function_call", "name": "a"}, "input[0].call_id"),
        ({"type": "function_call_output", "output": "a"}, "input[0].call_id"),
        ({"type": "reasoning", "summary": "x"}, "input[0].summary"),
        ({"type": "reasoning", "summary": ["x"]}, "input[0].summary[0]"),
        ({"role": "user", "content": 3}, "input[0].content"),
        ({"role": "user", "content": ["x"]}, "input[0].content[0]"),
        ({"role": "user", "content": [{"type": "input_text"}]}, "input[0].content[0].text"),
    ],
)
def test_an_item_that_is_wrong_in_itself_is_named(item, param):
    refused = cannot_carry("responses", "openai", {"model": "m", "input": [item]})

    assert refused is not None
    assert (refused.status, refused.param) == (400, param)


# What a client gets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "name"),
    [(provider, name) for provider, found in TOLD_STREAMS.items() if provider != "responses" for name in found],
)
def test_events_follow_the_grammar(provider, name):
    """Numbers rise by one; every item and part is begun, told in pieces, and told whole at its end."""
    out, _ = stream("responses", provider, [TOLD_STREAMS[provider][name]])

    told = payloads(out)
    assert [event.name.decode() for event in events(out)] == [payload["type"] for payload in told]
    assert [payload["sequence_number"] for payload in told] == list(range(len(told)))
    first, second, *middle, last = told
    assert (first["type"], second["type"]) == ("response.created", "response.in_progress")
    assert last["type"] in ("response.completed", "response.incomplete")
    assert first["response"]["id"] == last["response"]["id"]
    done = []
    open_item = open_part = None
    text = ""
    for payload in middle:
        kind = payload["type"]
        if kind == "response.output_item.added":
            assert open_item is None
            assert payload["output_index"] == len(done)
            open_item = payload["item"]
            continue
        assert open_item is not None
        assert payload["output_index"] == len(done)
        if kind == "response.output_item.done":
            assert payload["item"]["id"] == open_item["id"]
            done.append(payload["item"])
            open_item = None
            continue
        assert payload["item_id"] == open_item["id"]
        if kind in ("response.content_part.added", "response.reasoning_summary_part.added"):
            assert open_part is None
            open_part, text = payload["part"], ""
        elif kind.endswith(".delta"):
            text = text + payload["delta"] if open_part is not None else text
        elif kind in ("response.content_part.done", "response.reasoning_summary_part.done"):
            assert (payload["part"].get("text") or payload["part"].get("refusal") or "") == text
            open_part = None
    assert open_item is None
    assert done == last["response"]["output"]
    ids = [item["id"] for item in done]
    assert len(set(ids)) == len(ids)


def test_a_custom_tool_is_called_by_what_it_takes():
    fragments = call(0, "", id="call_1", type="function", name="apply_patch"), call(0, '{"in'), call(0, 'put":"a\\nb"}')

    out, _ = stream("responses", "openai", [ROLE + b"".join(fragments) + CALLED], tools=[PATCH])
    answer, _ = unary("responses", "openai", _calling("apply_patch", '{"input":"a\\nb"}'), tools=[PATCH])

    told = payloads(out)
    for payload in told:
        EVENT.validate_python(payload)
    (item,) = told[-1]["response"]["output"]
    assert (item["type"], item["name"], item["input"], item["call_id"]) == (
        "custom_tool_call",
        "apply_patch",
        "a\nb",
        "call_1",
    )
    assert [one["delta"] for one in told if one["type"] == "response.custom_tool_call_input.delta"] == ["a\nb"]
    assert not [one for one in told if "function_call" in one["type"]]
    (whole,) = answer["output"]
    Response.model_validate(answer)
    assert (whole["type"], whole["input"]) == ("custom_tool_call", "a\nb")


def test_a_custom_tool_that_was_called_wrongly_gets_what_was_said():
    answer, _ = unary("responses", "openai", _calling("apply_patch", '{"patch":"x"}'), tools=[PATCH])

    assert answer["output"][0]["input"] == '{"patch":"x"}'


def test_a_tool_of_a_namespace_comes_back_by_its_own_name():
    answer, _ = unary("responses", "openai", _calling("files__read", "{}"), tools=[FILES])

    (item,) = answer["output"]
    assert (item["type"], item["namespace"], item["name"]) == ("function_call", "files", "read")
    Response.model_validate(answer)


def _calling(name, arguments):
    calls = [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}]
    choice = {"index": 0, "message": {"role": "assistant", "content": None, "tool_calls": calls}}
    return {"model": "m", "choices": [{**choice, "finish_reason": "tool_calls"}]}


def test_an_answer_that_was_cut_short_is_incomplete():
    answer, _ = unary(
        "responses",
        "openai",
        {"model": "m", "choices": [{"index": 0, "message": {"content": "He"}, "finish_reason": "length"}]},
    )

    assert (answer["status"], answer["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


def test_what_was_asked_for_is_repeated():
    answer, _ = unary(
        "responses",
        "openai",
        _calling("weather", "{}"),
        tools=[{"type": "function", "name": "weather", "parameters": SCHEMA}],
        temperature=0.5,
        metadata={"team": "web"},
        instructions="Be brief.",
    )

    Response.model_validate(answer)
    assert answer["tools"][0]["strict"] is None
    assert (answer["temperature"], answer["instructions"], answer["metadata"]) == (0.5, "Be brief.", {"team": "web"})


def test_thoughts_come_back_to_the_family_that_had_them():
    """Claude's signed thought goes to a client of this dialect and returns as it was."""
    whole = next(found for found in STREAMS["anthropic"].values() if b"signature_delta" in found)

    out, _ = stream("responses", "anthropic", [whole])
    output = payloads(out)[-1]["response"]["output"]
    thought = next(item for item in output if item["type"] == "reasoning")
    assert thought["encrypted_content"].startswith("tollgate:anthropic:")

    back, dropped = sent("anthropic", {"model": "m", "input": [{"role": "user", "content": "Hi"}, *output]})
    blocks = [block for block in back["messages"][1]["content"] if block["type"] == "thinking"]
    signature = thought["encrypted_content"].removeprefix("tollgate:anthropic:signature:")
    assert blocks == [{"type": "thinking", "thinking": thought["summary"][0]["text"], "signature": signature}]
    assert dropped == ()

    home, left_out = sent("responses", {"model": "m", "input": [{"role": "user", "content": "Hi"}, *output]})
    assert not [item for item in home["input"] if item.get("type") == "reasoning"]
    assert left_out == ("input[].reasoning",)


def test_a_redacted_thought_comes_back_too():
    whole = {
        "model": "claude",
        "content": [{"type": "redacted_thinking", "data": "ZW5j"}, {"type": "text", "text": "Hi"}],
        "stop_reason": "end_turn",
    }

    answer, _ = unary("responses", "anthropic", whole)
    Response.model_validate(answer)
    back, _ = sent("anthropic", {"model": "m", "input": [{"role": "user", "content": "Hi"}, *answer["output"]]})

    assert back["messages"][1]["content"][0] == {"type": "redacted_thinking", "data": "ZW5j"}


def test_the_signature_of_a_call_comes_back_with_it():
    whole = STREAMS["openai"]["call with a signature"]

    out, _ = stream("responses", "openai", [whole])
    output = payloads(out)[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "function_call"]
    question = {"role": "user", "content": "Hi"}
    back, _ = sent("openai", {"model": "m", "input": [question, *output]}, quirks=Quirks(origins=frozenset({"google"})))

    (called,) = back["messages"][1]["tool_calls"]
    assert called["extra_content"] == {"google": {"thought_signature": "Zm9v"}}


def test_a_sealed_thought_of_openai_comes_back_through_every_dialect():
    for client in ("openai", "anthropic"):
        answer, _ = unary(client, "responses", given.response(output=[given.SEALED, given.said("Hello")]))
        message = answer["choices"][0]["message"] if client == "openai" else answer
        history = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": message["content"]}]
        if client == "openai":
            history[1]["reasoning_details"] = message["reasoning_details"]
        body, dropped = asked(client, {"model": "m", "max_tokens": 99, "messages": history})
        assert body["input"][1] == {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Hm."}],
            "encrypted_content": "c2VhbGVk",
        }
        assert dropped == ()


def test_a_broken_stream_ends_with_both_events_that_clients_look_for():
    exchange = start("responses", "openai", stream=True)
    begun = exchange.feed(ROLE + STREAMS["openai"]["plain"][len(ROLE) : -60])
    end = exchange.failure(ProviderError("cut", "gone"), REQUEST_ID)

    error, failed = payloads(end)
    for payload in (error, failed):
        EVENT.validate_python(payload)
    assert (error["type"], error["code"], error["error"]["code"]) == ("error", "provider_cut", "provider_cut")
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert error["sequence_number"] == len(events(begun))
    assert failed["sequence_number"] == error["sequence_number"] + 1
    assert failed["response"]["id"] == payloads(begun)[0]["response"]["id"]


def test_a_broken_stream_that_was_passed_on_is_numbered_on():
    exchange = start("responses", "responses", stream=True)
    exchange.feed(b"".join(event.raw for event in events(STREAMS["responses"]["plain"])[:6]))

    error, _ = payloads(exchange.failure(ProviderError("cut", "gone"), REQUEST_ID))

    assert error["sequence_number"] == 6


# Providers ----------------------------------------------------------------------------------------------------------


def test_a_chat_request_becomes_one_of_responses():
    body, dropped = asked(
        "openai",
        {
            "model": "m",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "Look"},
                        {"type": "image_url", "image_url": {"url": "https://a/b.png"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": "I look.",
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "Sun"},
            ],
            "tools": [{"type": "function", "function": {"name": "weather", "parameters": SCHEMA}}],
            "tool_choice": {"type": "function", "function": {"name": "weather"}},
            "response_format": {"type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}},
            "reasoning_effort": "low",
            "max_completion_tokens": 99,
            "seed": 1,
            "stream": True,
        },
    )

    assert body == {
        "model": "gpt-5.4",
        "input": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look"},
                    {"type": "input_image", "image_url": "https://a/b.png", "detail": "auto"},
                ],
            },
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "Sun"},
        ],
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "max_output_tokens": 99,
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}],
        "tool_choice": {"type": "function", "name": "weather"},
        "text": {"format": {"type": "json_schema", "name": "city", "schema": SCHEMA, "strict": False}},
        "reasoning": {"effort": "low", "summary": "auto"},
        "stream": True,
    }
    assert dropped == ("seed",)


def test_what_the_protocol_cannot_say_is_refused_in_the_clients_words():
    for field, value in {"stop": ["x"], "n": 2, "logit_bias": {"1": 1}}.items():
        body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], field: value}
        refused = cannot_carry("openai", "responses", body, model="gpt-4o")
        assert refused is not None and refused.param == field


def test_sound_is_not_carried_because_the_api_takes_none():
    sound = {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}}
    refused = cannot_carry("openai", "responses", {"model": "m", "messages": [{"role": "user", "content": [sound]}]})

    assert refused is not None and refused.param == "messages[0].content[0]"


def test_logprobs_go_both_ways():
    asked_for, _ = asked(
        "openai",
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "logprobs": True, "top_logprobs": 1},
        model="gpt-4o",
    )
    assert (asked_for["include"], asked_for["top_logprobs"]) == (["message.output_text.logprobs"], 1)

    entry = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    said = given.said("Hi")
    said["content"][0]["logprobs"] = [entry]
    chat, _ = unary("openai", "responses", given.response(output=[said]))
    assert chat["choices"][0]["logprobs"] == {"content": [entry], "refusal": None}

    back, _ = unary("responses", "openai", {**chat, "tollgate": None}, include=["message.output_text.logprobs"])
    assert back["output"][0]["content"][0]["logprobs"] == [entry]
    Response.model_validate(back)


def test_a_failed_answer_is_the_providers_error():
    failed = given.response("failed", error={"code": "rate_limit_exceeded", "message": "slow down"}, usage=given.USAGE)

    with pytest.raises(ProviderError) as raised:
        unary("responses", "responses", failed)
    assert raised.value.error_class == "rate_limit"

    with pytest.raises(ProviderError) as raised:
        unary("responses", "responses", given.response("queued"))
    assert raised.value.error_class == "server_error"


def test_searches_are_metered_apart():
    opened = {**given.SEARCH, "action": {"type": "open_page", "url": "https://example.com"}}

    _, exchange = unary("responses", "responses", given.response(output=[given.SEARCH, opened, given.said("Hello")]))

    assert exchange.meter.usage == Usage(
        input_tokens=12, cache_read_tokens=8, output_tokens=7, reasoning_tokens=5, web_searches=1
    )


def test_the_extras_are_in_the_response_of_the_last_event():
    out, _ = stream("responses", "responses", [STREAMS["responses"]["plain"]])

    response = payloads(out)[-1]["response"]
    assert response["tollgate"]["request_id"] == EXTRAS.request_id
    assert response["usage"]["cost"] == float(EXTRAS.cost_usd)


def test_a_search_is_unbounded_only_where_it_is_offered():
    """Another protocol is not told of it, so there the bytes bound the cost."""
    found = responses.ask({**CODEX})

    assert (found.unbounded, found.unbounded_at_home) == (None, "tools[3]")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0]"),
        ({"tools": [{"type": []}]}, "tools[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input[0].content[0]"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
        ({"something": "of tomorrow"}, "something"),
    ],
)
def test_what_no_count_of_bytes_bounds_is_named(change, param):
    assert responses.ask({"model": "m", "input": "Hi", **change}).unbounded == param
