"""Mistral: requests as its own SDK's types want them, and what its answers have of their own."""

import orjson
import pytest
from mistralai.client.models import ChatCompletionRequest, ChatCompletionStreamRequest

from tests.wire.fixtures import DIALECTS, REQUEST_ID, payloads, stream, unary
from tests.wire.said import SAID
from tollgate.errors import ProviderError
from tollgate.events import Usage
from tollgate.wire import mistral
from tollgate.wire.exchange import cannot_carry, exchange_for

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
LONG_ID = "toolu_01A09q90qw90lq917835lq9"


def sent(body, *, model="mistral-large-latest", client="openai"):
    exchange = exchange_for(
        client, "mistral", body, request_id=REQUEST_ID, model=model, max_output_tokens=None, headers={}
    )
    written = orjson.loads(exchange.request.body)
    shape = ChatCompletionStreamRequest if body.get("stream") else ChatCompletionRequest
    assert set(written) <= {field.alias or name for name, field in shape.model_fields.items()}
    shape.model_validate(written)
    return written, exchange


def ask(*messages, **more):
    return {"model": "m", "messages": list(messages), **more}


def test_fields_have_mistrals_names():
    written, exchange = sent(
        ask(USER, seed=7, max_tokens=5, tools=[TOOL], tool_choice="required", stream=True, user="u", stop="x")
    )
    assert (written["random_seed"], written["max_tokens"], written["tool_choice"]) == (7, 5, "any")
    assert written["stream"] is True
    assert "stream_options" not in written  # it is refused, and not needed
    assert exchange.dropped == ("user",)


def test_ids_of_calls_are_nine_characters_and_the_same_in_the_result():
    call = {"id": LONG_ID, "type": "function", "function": {"name": "look", "arguments": "{}"}}
    short = {**call, "id": "abcDEF123"}
    written, _ = sent(
        ask(
            USER,
            {"role": "assistant", "content": None, "tool_calls": [call, short]},
            {"role": "tool", "tool_call_id": LONG_ID, "content": "a wall"},
            {"role": "tool", "tool_call_id": "abcDEF123", "content": "a door"},
        )
    )
    _, assistant, first, second = written["messages"]
    ids = [one["id"] for one in assistant["tool_calls"]]
    assert len(ids[0]) == 9 and ids[0].isalnum() and ids[1] == "abcDEF123"
    assert [first["tool_call_id"], second["tool_call_id"]] == ids
    assert first["name"] == "look"


def test_images_documents_and_sounds_have_mistrals_parts():
    written, _ = sent(
        ask(
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": "https://x.test/a.png"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                ],
            }
        )
    )
    assert written["messages"][0]["content"][1:] == [
        {"type": "image_url", "image_url": "https://x.test/a.png"},
        {"type": "document_url", "document_url": "data:application/pdf;base64,AAAA", "document_name": "a.pdf"},
        {"type": "input_audio", "input_audio": "AAAA"},
    ]


@pytest.mark.parametrize(
    ("model", "effort", "fields"),
    [
        ("magistral-medium-latest", "low", {"prompt_mode": "reasoning"}),
        ("magistral-medium-latest", "none", {}),
        ("mistral-small-latest", "low", {"reasoning_effort": "high"}),
        ("mistral-small-latest", "none", {"reasoning_effort": "none"}),
    ],
)
def test_thinking_is_asked_for_as_the_model_wants_it(model, effort, fields):
    written, _ = sent(ask(USER, reasoning_effort=effort), model=model)
    assert {name: written[name] for name in ("prompt_mode", "reasoning_effort") if name in written} == fields


@pytest.mark.parametrize("more", [{"logprobs": True}, {"logit_bias": {"1": 1}}, {"temperature": 1.8}])
def test_what_cannot_be_said_is_refused_by_its_name(more):
    refused = cannot_carry("openai", "mistral", ask(USER, **more))
    assert refused is not None and refused.param == next(iter(more))


CONTENT = [
    {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True},
    {"type": "text", "text": "Yes"},
]
USAGE = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13, "num_cached_tokens": 3}


def chunk(delta, finish=None, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"id": "c", "model": "mistral-large-2512", "choices": [choice], **more}) + b"\n\n"


@pytest.mark.parametrize("client", DIALECTS)
def test_thoughts_in_the_content_and_calls_without_index_are_told(client):
    call = {"id": "abcDEF123", "function": {"name": "look", "arguments": '{"at": 1}'}}
    answer = {
        "id": "c",
        "model": "mistral-large-2512",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": CONTENT, "tool_calls": [call]},
                "finish_reason": "tool_calls",
            }
        ],
        "usage": USAGE,
    }
    told, whole = unary(client, "mistral", orjson.dumps(answer))
    pieces = [
        chunk({"role": "assistant", "content": CONTENT[:1]}),
        chunk({"content": "Yes"}),
        chunk({"content": "", "tool_calls": [call]}, "tool_calls", usage=USAGE),
        b"data: [DONE]\n\n",
    ]
    out, streamed = stream(client, "mistral", pieces)
    assert SAID[client]([told]) == SAID[client](payloads(out)) == ("Yes", "hm", (("look", {"at": 1}),))
    assert whole.meter.usage == streamed.meter.usage == Usage(input_tokens=6, cache_read_tokens=3, output_tokens=4)
    assert whole.meter.served_model == "mistral-large-2512"


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        (401, b'{"detail": "Invalid API Key"}', "auth"),
        (422, b'{"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"], "msg": "no"}]}', "bad_request"),
        (429, b'{"object": "error", "message": "Rate limit exceeded", "type": "rate_limited"}', "rate_limit"),
    ],
)
def test_errors_in_mistrals_shapes_are_told_apart(status, body, error_class):
    assert mistral.provider_error(status, {}, body).error_class == error_class


def test_a_word_for_an_error_is_one():
    answer = {"choices": [{"index": 0, "message": {"content": ""}, "finish_reason": "error"}]}
    with pytest.raises(ProviderError):
        unary("openai", "mistral", orjson.dumps(answer))
