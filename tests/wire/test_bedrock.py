"""Bedrock's Converse: requests as botocore's service model wants them, and answers, whole and frame by frame."""

import contextlib
import json

import botocore.session
import orjson
import pytest
from botocore.validate import ParamValidator
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.fixtures import DIALECTS, REQUEST_ID, by_byte, payloads, stream, unary
from tests.wire.frames import frame, frames
from tests.wire.said import SAID
from tollgate.errors import ProviderError
from tollgate.events import Usage
from tollgate.wire import bedrock
from tollgate.wire.exchange import cannot_carry, exchange_for

MODEL = botocore.session.Session().get_service_model("bedrock-runtime").operation_model("Converse")
CLAUDE = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
TOOL = {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}


def sent(body, *, model=CLAUDE, client="openai"):
    """What Bedrock is sent for a client's request, which botocore finds right."""
    exchange = exchange_for(
        client, "bedrock", body, request_id=REQUEST_ID, model=model, max_output_tokens=None, headers={}
    )
    written = orjson.loads(exchange.request.body)
    report = ParamValidator().validate(_as_parameters({"modelId": model, **written}), MODEL.input_shape)
    assert not report.has_errors(), report.generate_report()
    return written, exchange


def _as_parameters(value):
    """JSON as botocore has it before it writes it: bytes instead of base64."""
    if isinstance(value, dict):
        return {
            name: inner.encode() if name in ("bytes", "redactedContent") else _as_parameters(inner)
            for name, inner in value.items()
        }
    return [_as_parameters(inner) for inner in value] if isinstance(value, list) else value


def ask(*messages, **more):
    return {"model": "m", "messages": list(messages), **more}


USER = {"role": "user", "content": "Hi"}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1}'}}
CALLED = [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}]
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "a wall"}


# Requests -----------------------------------------------------------------------------------------------------------


def test_a_conversation_with_everything_in_it():
    written, exchange = sent(
        ask(
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
                    {"type": "file", "file": {"filename": "a/b.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
                ],
            },
            CALLED[1],
            RESULT,
            {"role": "user", "content": "And now?"},
            tools=[{"type": "function", "function": TOOL}],
            tool_choice="required",
            max_tokens=50,
            temperature=0.5,
            stop=["END", " "],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": {"type": "object"}},
            },
        )
    )
    assert written["system"] == [{"text": "Be brief."}]
    assert [message["role"] for message in written["messages"]] == ["user", "assistant", "user"]
    assert written["messages"][0]["content"][1:] == [
        {"image": {"format": "png", "source": {"bytes": PNG}}},
        {"document": {"format": "pdf", "name": "a-b-pdf", "source": {"bytes": "AAAA"}}},
    ]
    assert written["messages"][1]["content"] == [
        {"toolUse": {"toolUseId": "call_1", "name": "look", "input": {"at": 1}}}
    ]
    assert written["messages"][2]["content"] == [
        {"toolResult": {"toolUseId": "call_1", "content": [{"text": "a wall"}]}},
        {"text": "And now?"},
    ]
    assert written["toolConfig"]["toolChoice"] == {"any": {}}
    assert written["inferenceConfig"] == {"maxTokens": 50, "temperature": 0.5, "stopSequences": ["END"]}
    schema = written["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert (schema["name"], json.loads(schema["schema"])) == ("answer", {"type": "object"})
    assert exchange.request.path == "/model/eu.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse"


def test_without_tools_that_may_be_called_earlier_calls_are_told_as_text():
    written, _ = sent(ask(*CALLED, RESULT, tools=[{"type": "function", "function": TOOL}], tool_choice="none"))
    assert "toolConfig" not in written
    assert written["messages"][1]["content"] == [{"text": '(I called the tool look with {"at": 1}.)'}]
    assert written["messages"][2]["content"] == [{"text": "(The tool look said: a wall)"}]


def test_a_document_has_a_text_beside_it():
    file = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}}
    written, _ = sent(ask({"role": "user", "content": [file]}))
    assert written["messages"][0]["content"][-1] == {"text": "(See the document.)"}


def test_marks_of_the_cache_are_points_behind_what_they_stand_on():
    marked = {"type": "text", "text": "Long.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    written, _ = sent(
        {"model": "m", "max_tokens": 5, "system": [marked], "messages": [{"role": "user", "content": "Hi"}]},
        client="anthropic",
    )
    assert written["system"] == [{"text": "Long."}, {"cachePoint": {"type": "default", "ttl": "1h"}}]


@pytest.mark.parametrize(
    ("model", "more", "additional"),
    [
        (
            CLAUDE,
            {"reasoning_effort": "low", "max_tokens": 8000},
            {"thinking": {"type": "enabled", "budget_tokens": 1600}},
        ),
        (
            "anthropic.claude-opus-4-7-v1",
            {"reasoning_effort": "low"},
            {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}},
        ),
        (
            "amazon.nova-2-lite-v1:0",
            {"reasoning_effort": "low"},
            {"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "low"}},
        ),
        ("openai.gpt-oss-120b-1:0", {"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ("amazon.nova-pro-v1:0", {"top_k": 5}, {"inferenceConfig": {"topK": 5}}),
        ("anthropic.claude-3-haiku-20240307-v1:0", {"top_k": 5}, {"top_k": 5}),
    ],
)
def test_what_only_some_makers_take_is_said_in_their_words(model, more, additional):
    written, exchange = sent(ask(USER, **more), model=model)
    assert written["additionalModelRequestFields"] == additional
    assert exchange.dropped == ()


def test_what_a_model_does_not_take_is_dropped_by_name():
    written, exchange = sent(
        ask(USER, reasoning_effort="low", top_k=5, user="u"), model="meta.llama3-1-8b-instruct-v1:0"
    )
    assert "additionalModelRequestFields" not in written
    assert exchange.dropped == ("reasoning_effort", "top_k", "user")


def test_thoughts_go_back_to_claude_and_only_those_of_claude():
    def turn(signature):
        thought = {"type": "thinking", "thinking": "hm", "signature": signature}
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes"}]},
            {"role": "user", "content": "Why?"},
        ]
        return {"model": "m", "max_tokens": 5, "messages": messages}

    written, _ = sent(turn("sig"), client="anthropic")
    assert written["messages"][1]["content"][0] == {
        "reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}
    }
    written, exchange = sent(turn("tollgate:google:sig"), client="anthropic")
    assert written["messages"][1]["content"] == [{"text": "Yes"}]
    assert exchange.dropped == ("messages[].content[].thinking",)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (
            ask({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x.test/a.png"}}]}),
            "messages[0].content[0]",
        ),
        (ask(USER, n=2), "n"),
        (ask(USER, logprobs=True), "logprobs"),
        (ask(USER, parallel_tool_calls=False, tools=[{"type": "function", "function": TOOL}]), "parallel_tool_calls"),
        (ask(USER, response_format={"type": "json_object"}), "response_format"),
        (ask({"role": "user", "content": " "}), "messages"),
    ],
)
def test_what_cannot_be_said_is_refused_by_its_name(body, param):
    refused = cannot_carry("openai", "bedrock", body, model=CLAUDE)
    assert refused is not None and refused.code == "unsupported_parameter"
    assert param in refused.param


# Answers ------------------------------------------------------------------------------------------------------------

USAGE = {
    "inputTokens": 10,
    "outputTokens": 7,
    "totalTokens": 57,
    "cacheReadInputTokens": 20,
    "cacheReadInputTokenCount": 20,
    "cacheWriteInputTokens": 20,
    "cacheWriteInputTokenCount": 20,
    "cacheDetails": [{"inputTokens": 5, "ttl": "1h"}, {"inputTokens": 15, "ttl": "5m"}],
}
READ = Usage(input_tokens=10, cache_read_tokens=20, cache_write_5m_tokens=15, cache_write_1h_tokens=5, output_tokens=7)
CONTENT = [
    {"reasoningContent": {"reasoningText": {"text": "hm", "signature": "sig"}}},
    {"text": "Hello wörld"},
    {"toolUse": {"toolUseId": "t1", "name": "look", "input": {"at": 1}}},
    {"toolUse": {"toolUseId": "t2", "name": "look", "input": {}}},
]
ANSWER = orjson.dumps(
    {
        "metrics": {"latencyMs": 5},
        "output": {"message": {"role": "assistant", "content": CONTENT}},
        "stopReason": "tool_use",
        "usage": USAGE,
    }
)


def block(index, kind, **payload):
    return {kind: {"contentBlockIndex": index, **payload}}


STREAM = frames(
    {"messageStart": {"role": "assistant", "p": "abc"}},
    block(0, "contentBlockDelta", delta={"reasoningContent": {"text": "h"}}),
    block(0, "contentBlockDelta", delta={"reasoningContent": {"text": "m"}}),
    block(0, "contentBlockDelta", delta={"reasoningContent": {"signature": "sig"}}),
    block(0, "contentBlockStop"),
    block(1, "contentBlockDelta", delta={"text": "Hello"}, p="abcd"),
    block(1, "contentBlockDelta", delta={"text": " wörld"}),
    block(1, "contentBlockStop"),
    block(2, "contentBlockStart", start={"toolUse": {"toolUseId": "t1", "name": "look"}}),
    block(2, "contentBlockDelta", delta={"toolUse": {"input": '{"at"'}}),
    block(2, "contentBlockDelta", delta={"toolUse": {"input": ": 1}"}}),
    block(2, "contentBlockStop"),
    block(3, "contentBlockStart", start={"toolUse": {"toolUseId": "t2", "name": "look"}}),
    block(3, "contentBlockDelta", delta={"toolUse": {"input": ""}}),
    block(3, "contentBlockStop"),
    {"messageStop": {"stopReason": "tool_use"}},
    {"metadata": {"usage": USAGE, "metrics": {"latencyMs": 5}}},
)


@pytest.mark.parametrize("client", DIALECTS)
def test_whole_and_in_frames_an_answer_says_and_counts_the_same(client):
    answer, whole = unary(client, "bedrock", ANSWER)
    out, streamed = stream(client, "bedrock", [STREAM])
    assert SAID[client]([answer]) == SAID[client](payloads(out))
    assert SAID[client]([answer]).calls == (("look", {"at": 1}), ("look", {}))
    assert SAID[client]([answer]).text == "Hello wörld"
    assert whole.meter.usage == streamed.meter.usage == READ
    assert whole.meter.finish_reason == streamed.meter.finish_reason == "tool_use"


@pytest.mark.parametrize("client", DIALECTS)
def test_a_stream_says_the_same_however_it_is_cut(client):
    whole, _ = stream(client, "bedrock", [STREAM])
    assert stream(client, "bedrock", by_byte(STREAM))[0] == whole


def test_the_thoughts_of_claude_come_with_their_signature():
    message, _ = unary("anthropic", "bedrock", ANSWER)
    assert message["content"][0] == {"type": "thinking", "thinking": "hm", "signature": "sig"}


def test_tools_that_the_provider_runs_itself_are_no_calls_for_the_client():
    content = [
        {"toolUse": {"type": "server_tool_use", "toolUseId": "s", "name": "code", "input": {}}},
        {"toolResult": {"toolUseId": "s", "content": []}},
        {"citationsContent": {"content": [{"text": "So."}], "citations": [{"location": {"documentChar": {}}}]}},
    ]
    body = {"output": {"message": {"content": content}}, "stopReason": "end_turn", "usage": USAGE}
    answer, exchange = unary("openai", "bedrock", orjson.dumps(body))
    assert SAID["openai"]([answer]) == ("So.", "", ())
    assert exchange.meter.dropped == {"content[].toolUse", "content[].toolResult", "citations"}


@pytest.mark.parametrize(
    ("kind", "error_class"),
    [
        ("throttlingException", "rate_limit"),
        ("validationException", "bad_request"),
        ("serviceUnavailableException", "overloaded"),
        ("modelTimeoutException", "timeout"),
        ("modelStreamErrorException", "server_error"),
        ("internalServerException", "server_error"),
    ],
)
def test_an_exception_in_the_stream_is_the_error_that_it_names(kind, error_class):
    broken = frame({"messageStart": {}}, "messageStart") + frame({"message": "no"}, kind, message="exception")
    with pytest.raises(ProviderError) as failed:
        stream("openai", "bedrock", [broken])
    assert failed.value.error_class == error_class


@pytest.mark.parametrize(
    ("status", "kind", "body", "error_class"),
    [
        (429, "ThrottlingException:http://internal.amazon.com/", b'{"message": "slow down"}', "rate_limit"),
        (403, "UnrecognizedClientException", b'{"message": "token"}', "auth"),
        (400, "ValidationException", b'{"message": "Input is too long for requested model."}', "context_window"),
        (400, "ServiceQuotaExceededException", b"{}", "quota"),
        (404, "ResourceNotFoundException", b'{"Message": "no model"}', "not_found"),
        (408, "ModelTimeoutException", b"{}", "timeout"),
        (424, "ModelErrorException", b"{}", "server_error"),
        (503, "ServiceUnavailableException", b"not json", "overloaded"),
        (400, "", b'{"__type": "com.amazon#AccessDeniedException", "message": "no access"}', "auth"),
    ],
)
def test_errors_are_told_apart_by_the_header_that_names_them(status, kind, body, error_class):
    error = bedrock.provider_error(status, {"x-amzn-ErrorType": kind}, body)
    assert error.error_class == error_class


def test_an_answer_that_the_model_has_broken_is_the_providers_failure():
    body = {"output": {"message": {"content": []}}, "stopReason": "malformed_tool_use", "usage": USAGE}
    with pytest.raises(ProviderError, match="not well formed"):
        unary("openai", "bedrock", orjson.dumps(body))


def test_a_frame_whose_checksum_is_wrong_is_not_believed():
    damaged = bytearray(STREAM)
    damaged[20] ^= 1
    with pytest.raises(ProviderError, match="damaged"):
        stream("openai", "bedrock", [bytes(damaged)])


def test_a_stream_that_ends_within_a_frame_was_cut():
    with pytest.raises(ProviderError) as failed:
        stream("openai", "bedrock", [STREAM[: len(STREAM) // 2]])
    assert failed.value.error_class == "cut"


def test_an_answer_without_its_usage_is_whole_all_the_same():
    out, exchange = stream("openai", "bedrock", [STREAM[:-200]])
    assert SAID["openai"](payloads(out)).text == "Hello wörld"
    assert exchange.meter.usage is None


@given(st.binary(max_size=400), st.integers(0, len(STREAM)))
def test_whatever_comes_it_is_an_answer_or_the_providers_failure(noise, at):
    for damaged in (noise, STREAM[:at] + noise + STREAM[at:]):
        with contextlib.suppress(ProviderError):
            stream("openai", "bedrock", [damaged])
