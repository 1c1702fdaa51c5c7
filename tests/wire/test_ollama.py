"""Ollama's own API: requests as its own SDK's types want them, and answers of one line or of many."""

import contextlib

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ollama._types import ChatRequest

from tests.wire.fixtures import DIALECTS, REQUEST_ID, by_byte, payloads, stream, unary
from tests.wire.said import SAID
from tollgate.errors import ProviderError
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
    assert (written["think"], written["format"], written["stream"]) == ("medium", {"type": "object"}, False)
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
