"""Ollama's own API on both sides: requests as its own SDK's types want them, answers of one line or of many."""

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama._types import ChatRequest

from tests.wire.fixtures import ADDED, DIALECTS, EXTRAS, REQUEST_ID, STREAMS, by_byte, payloads, stream, unary
from tests.wire.said import SAID
from tollgate.errors import ProviderError, Refusal
from tollgate.events import Usage
from tollgate.wire import ollama
from tollgate.wire.exchange import cannot_carry, exchange_for

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}


def sent(body):
    exchange = exchange_for(
        "openai", "ollama", body, request_id=REQUEST_ID, model="llama3.2", max_output_tokens=None, headers={}
    )
    written = orjson.loads(exchange.request.body)
    ChatRequest.model_validate(written)
    return written, exchange


def ask(*messages, **more):
    return {"model": "m", "messages": list(messages), **more}


def test_a_conversation_with_everything_in_it():
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    written, exchange = sent(
        ask(
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What?"}, image]},
            {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
            {"role": "tool", "tool_call_id": "c1", "content": "a wall"},
            tools=[TOOL],
            max_tokens=5,
            temperature=0.5,
            top_k=3,
            seed=7,
            stop=["x"],
            reasoning_effort="medium",
            response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
            user="u",
        )
    )
    assert written["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What?", "images": ["AAAA"]},
        {
            "role": "assistant",
            "content": "",
            "thinking": "hm",
            "tool_calls": [{"function": {"name": "look", "arguments": {"at": 1}}}],
        },
        {"role": "tool", "content": "a wall", "tool_name": "look"},
    ]
    assert written["options"] == {"temperature": 0.5, "top_k": 3, "seed": 7, "num_predict": 5, "stop": ["x"]}
    assert (written["think"], written["format"], written["stream"]) == (
        "medium",
        {"title": "a", "type": "object"},
        False,
    )
    assert exchange.dropped == ("user",)
    assert exchange.request.path == "/api/chat"


def test_a_choice_of_no_tool_sends_none():
    written, _ = sent(ask(USER, tools=[TOOL], tool_choice="none"))
    assert "tools" not in written


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (ask(USER, tools=[TOOL], tool_choice="required"), "tool_choice"),
        (ask(USER, n=2), "n"),
        (
            ask({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a"}}]}),
            "messages",
        ),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_name(body, param):
    refused = cannot_carry("openai", "ollama", body)
    assert refused is not None and refused.param.startswith(param)


def line(message=None, **more):
    said = {} if message is None else {"message": {"role": "assistant", **message}}
    return (
        orjson.dumps({"model": "llama3.2", "created_at": "2026-11-01T00:00:00Z", **said, "done": False, **more}) + b"\n"
    )


CALL = {"function": {"name": "look", "arguments": {"at": 1}}}
COUNTS = {"done": True, "done_reason": "stop", "prompt_eval_count": 9, "eval_count": 4, "total_duration": 5}
STREAM = b"".join(
    [
        line({"content": "", "thinking": "h"}),
        line({"content": "", "thinking": "m"}),
        line({"content": "Hello"}),
        line({"content": " wörld"}),
        line({"content": "", "tool_calls": [CALL]}),
        line({"content": "", "tool_calls": [CALL]}),
        line({"content": ""}, **COUNTS),
    ]
)
ANSWER = line({"content": "Hello wörld", "thinking": "hm", "tool_calls": [CALL, CALL]}, **COUNTS)


@pytest.mark.parametrize("client", DIALECTS)
def test_in_one_line_and_in_many_an_answer_says_and_counts_the_same(client):
    told, whole = unary(client, "ollama", ANSWER)
    out, streamed = stream(client, "ollama", [STREAM])
    expected = ("Hello wörld", "hm", (("look", {"at": 1}), ("look", {"at": 1})))
    assert SAID[client]([told]) == SAID[client](payloads(out)) == expected
    assert whole.meter.usage == streamed.meter.usage == Usage(input_tokens=9, output_tokens=4)
    assert stream(client, "ollama", by_byte(STREAM))[0] == out


def test_an_answer_that_ends_in_calls_says_so_and_its_calls_have_ids():
    told, _ = unary("openai", "ollama", ANSWER)
    assert told["choices"][0]["finish_reason"] == "tool_calls"
    assert len({call["id"] for call in told["choices"][0]["message"]["tool_calls"]}) == 2


def test_a_prompt_that_was_cached_whole_counts_nothing_and_is_not_unknown():
    counts = {"done": True, "done_reason": "stop", "eval_count": 4}
    _, exchange = unary("openai", "ollama", line({"content": "Hi"}, **counts))
    assert exchange.meter.usage == Usage(output_tokens=4)


def test_an_error_among_the_lines_is_one():
    with pytest.raises(ProviderError) as failed:
        stream("openai", "ollama", [line({"content": ""}) + b'{"error": "llama runner terminated"}\n'])
    assert failed.value.error_class == "server_error"


def test_a_stream_without_its_last_line_was_cut():
    with pytest.raises(ProviderError) as failed:
        stream("openai", "ollama", [line({"content": "Hel"})])
    assert failed.value.error_class == "cut"


def test_a_model_that_is_not_there_is_not_found():
    error = ollama.provider_error(404, {}, b'{"error": "model \'x\' not found"}')
    assert error.error_class == "not_found"


@given(st.binary(max_size=200), st.integers(0, len(STREAM)))
def test_whatever_comes_it_is_an_answer_or_the_providers_failure(noise, at):
    with contextlib.suppress(ProviderError):
        stream("openai", "ollama", [STREAM[:at] + noise + STREAM[at:]])


# Clients ------------------------------------------------------------------------------------------------------------


def carried(body, target="openai", **quirks):
    """What a provider is sent of a client's request, and what it is not told."""
    exchange = exchange_for(
        "ollama", target, body, request_id=REQUEST_ID, model="m", max_output_tokens=None, headers={}, **quirks
    )
    return orjson.loads(exchange.request.body), exchange.dropped


PNG = "iVBORw0KGgoAAAANSUhEUg=="
CALLS = {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [CALL, {**CALL, "id": "c9"}]}


def test_a_clients_conversation_with_everything_in_it():
    body = ask(
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What?", "images": [PNG]},
        CALLS,
        {"role": "tool", "content": "a door", "tool_call_id": "c9"},
        {"role": "tool", "content": "a wall", "tool_name": "look"},
        stream=False,
        tools=[TOOL],
        think="low",
        format={"type": "object"},
        logprobs=True,
        top_logprobs=2,
        keep_alive="5m",
        options={"num_predict": 5, "temperature": 0.5, "seed": 7, "stop": ["x"], "num_ctx": 4096, "top_p": 0.9},
    )

    written, dropped = carried(body)

    assert written["messages"] == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What?"},
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": id, "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
                for id in ("call_1", "c9")
            ],
        },
        {"role": "tool", "tool_call_id": "c9", "content": "a door"},
        {"role": "tool", "tool_call_id": "call_1", "content": "a wall"},
    ]
    assert (written["max_tokens"], written["temperature"], written["seed"]) == (5, 0.5, 7)
    assert (written["stop"], written["logprobs"], written["top_logprobs"]) == (["x"], True, 2)
    assert written["reasoning_effort"] == "low"
    assert written["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert written["tools"] == [TOOL]
    assert set(dropped) == {"keep_alive", "options.num_ctx", "messages[].thinking"}


def test_results_that_name_no_tool_belong_to_the_calls_in_their_order():
    other = {"function": {"name": "hear", "arguments": {}}}
    said = [{"role": "assistant", "content": "", "tool_calls": [CALL, other]}]
    results = [{"role": "tool", "content": word} for word in ("first", "second", "of no call")]

    written, _ = carried(ask(USER, *said, *results))

    assert [message.get("tool_call_id") for message in written["messages"][2:]] == ["call_1", "call_2", "call_3"]


def test_a_prompt_is_a_conversation_of_one_turn_unless_the_provider_speaks_the_same():
    body = {"model": "m", "prompt": "Why?", "system": "Be brief.", "images": [], "suffix": "", "raw": False}
    body |= {"template": "", "context": [], "format": "", "options": {}, "keep_alive": None, "stream": False}

    written, dropped = carried(body)
    same = exchange_for("ollama", "ollama", body, request_id=REQUEST_ID, model="x", max_output_tokens=7, headers={})

    assert written["messages"] == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    assert dropped == ()
    assert same.request.path == "/api/generate"
    assert orjson.loads(same.request.body) == body | {"model": "x", "options": {"num_predict": 7}}


@pytest.mark.parametrize(
    "more", [{"suffix": "}"}, {"raw": True}, {"template": "{{ .Prompt }}"}, {"context": [1, 2]}, {"width": 64}]
)
def test_what_only_ollama_can_make_of_a_prompt_is_refused_elsewhere_by_its_name(more):
    refused = cannot_carry("ollama", "openai", {"model": "m", "prompt": "Why?", **more})
    assert refused is not None and refused.param == next(iter(more))


@pytest.mark.parametrize(
    ("think", "effort"), [(True, None), (False, "none"), ("high", "high"), ("false", "none"), (None, None)]
)
def test_thinking_is_yes_no_or_how_much(think, effort):
    written, _ = carried(ask(USER, think=think))
    assert written.get("reasoning_effort") == effort


def test_a_client_of_a_prompt_gets_a_response_and_one_of_a_chat_a_message():
    chunks = STREAMS["openai"]["thoughts"]

    def told(body):
        exchange = exchange_for(
            "ollama", "openai", body, request_id=REQUEST_ID, model="m", max_output_tokens=None, headers={}
        )
        out = exchange.feed(chunks)
        exchange.finish()
        assert exchange.content_type == "application/x-ndjson"
        return payloads(out + exchange.final(EXTRAS))

    *pieces, end = told({"model": "m", "prompt": "Why?", "stream": True})
    assert [(piece.get("thinking"), piece["response"]) for piece in pieces] == [("Hm", ""), (".", ""), (None, "Hello")]
    assert (end["response"], end["done"], end["done_reason"]) == ("", True, "stop")
    assert SAID["ollama"]([*pieces, end]) == SAID["ollama"](told(ask(USER, stream=True))) == ("Hello", "Hm.", ())


def test_the_last_line_counts_and_carries_the_extras_and_no_time_that_nobody_took():
    out, _ = stream("ollama", "anthropic", [STREAMS["anthropic"]["plain"]])

    *lines, end = payloads(out)
    assert all(not line["done"] for line in lines)
    assert (end["prompt_eval_count"], end["eval_count"], end["done_reason"]) == (122, 12, "stop")
    assert {field: end[field] for field in ADDED} == ADDED
    assert not any("duration" in field for field in end)
    assert b'"cost":0.000012345678901234' in out, "every decimal is kept"


def test_a_seal_that_the_dialect_has_no_place_for_is_named():
    out, _ = stream("ollama", "anthropic", [STREAMS["anthropic"]["thinking"]])

    assert payloads(out)[-1]["tollgate"]["dropped"] == ["signature"]


def test_an_error_is_a_text_that_the_sdk_raises_whenever_it_comes():
    refusal = Refusal(429, "QUOTA_EXCEEDED", "The budget is spent.", type="insufficient_quota")

    body, line = ollama.error_body(refusal, REQUEST_ID), ollama.error_event(refusal, REQUEST_ID)

    assert orjson.loads(body) == {
        "error": "The budget is spent.",
        "type": "insufficient_quota",
        "code": "QUOTA_EXCEEDED",
        "request_id": REQUEST_ID,
    }
    assert line == body + b"\n"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "m", "messages": None}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": ["x"]}, "messages[0]"),
        ({"model": "m"}, "prompt"),
        ({"model": "m", "prompt": ""}, "prompt"),
        ({"model": "m", "prompt": 3}, "prompt"),
        (ask(USER, stream="yes"), "stream"),
        (ask(USER, options=[]), "options"),
        (ask(USER, options={"num_predict": "many"}), "options.num_predict"),
        ({"prompt": "Why?"}, "model"),
    ],
)
def test_what_is_wrong_in_itself_is_refused_by_name(body, param):
    with pytest.raises(Refusal) as refused:
        ollama.ask(body)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (ask(USER, think="hard"), "think"),
        (ask(USER, format="xml"), "format"),
        (ask({"role": "user", "content": ["x"]}), "messages[0].content"),
        (ask({"role": "owner", "content": "x"}), "messages[0].role"),
        (ask({"role": "user", "content": "x", "images": [1]}), "messages[0].images[0]"),
        (ask({"role": "assistant", "tool_calls": [{}]}), "messages[0].tool_calls[0].function.name"),
        (ask(USER, tools=[{"type": "web"}]), "tools[0].type"),
        (ask(USER, options={"stop": [1]}), "options.stop[0]"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_where_it_has_to_be_read(body, param):
    refused = cannot_carry("ollama", "openai", body)
    assert refused is not None and (refused.status, refused.param) == (400, param)


@pytest.mark.parametrize(
    ("more", "cap", "unbounded"),
    [
        ({}, None, None),
        ({"options": {"num_predict": 9, "num_ctx": 1, "mirostat": 2}, "keep_alive": -1, "think": True}, 9, None),
        ({"options": {"num_predict": -1}}, None, None),
        ({"something": "new"}, None, "something"),
        ({"messages": [{**USER, "images": [PNG]}]}, None, "messages[0].images"),
    ],
)
def test_what_admission_is_told(more, cap, unbounded):
    told = ollama.ask(ask(USER) | more)
    assert (told.max_output_tokens, told.unbounded) == (cap, unbounded)
    assert told.input_bound_tokens >= len(orjson.dumps(ask(USER) | more))


def test_images_of_a_prompt_cannot_be_bounded():
    assert ollama.ask({"model": "m", "prompt": "Why?", "images": [PNG]}).unbounded == "images"
    assert ollama.ask({"model": "m", "prompt": "Why?", "images": []}).unbounded is None
