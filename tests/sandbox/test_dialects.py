"""Both dialects, judged by the types of the official SDKs and by the SDKs themselves."""

import anthropic
import openai
import pytest
from anthropic.types import Message, ModelInfo, RawMessageStreamEvent
from anthropic.types.shared.error_response import ErrorResponse
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from tollgate.sandbox import Ledger

AnthropicEvent = TypeAdapter(RawMessageStreamEvent)
HELLO = [{"role": "user", "content": "Say hello to me"}]


# OpenAI --------------------------------------------------------------------------------------------------------------


async def test_a_completion_is_what_the_openai_types_say(provider, ledger):
    answer = await provider.chat("sandbox-cached2-reason3", n=2)
    completion = ChatCompletion.model_validate_json(answer.body, strict=True)
    (row,) = ledger.rows()
    assert answer.status == 200
    assert answer.headers["x-request-id"].startswith("req_")
    assert [choice.finish_reason for choice in completion.choices] == ["stop", "stop"]
    words = len(completion.choices[0].message.content.split())
    assert completion.usage.prompt_tokens == 6 == row.input_tokens + row.cached_tokens
    assert completion.usage.prompt_tokens_details.cached_tokens == 2 == row.cached_tokens
    assert completion.usage.completion_tokens == 2 * (words + 3) == row.output_tokens + row.reasoning_tokens
    assert completion.usage.completion_tokens_details.reasoning_tokens == 6 == row.reasoning_tokens
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens


async def test_a_chat_stream_is_role_content_finish_and_done(provider):
    answer = await provider.chat("sandbox-tok4", stream=True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    names, data = zip(*answer.events, strict=True)
    assert set(names) == {None}
    assert data[-1] == "[DONE]"
    chunks = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in data[:-1]]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["", "Count", " these", " words", " and", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 5 + ["stop"]
    assert all("usage" not in chunk for chunk in data[:-1])


async def test_usage_comes_in_a_chunk_without_choices_when_it_is_asked_for(provider):
    answer = await provider.chat("sandbox-tok4", stream=True, stream_options={"include_usage": True})
    *others, last, done = [data for _, data in answer.events]
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in others)
    usage_chunk = ChatCompletionChunk.model_validate(last)
    assert usage_chunk.choices == []
    assert (usage_chunk.usage.prompt_tokens, usage_chunk.usage.completion_tokens) == (6, 4)


async def test_choices_of_a_stream_take_turns(provider, ledger):
    answer = await provider.chat("sandbox-tok3", stream=True, n=2)
    chunks = [ChatCompletionChunk.model_validate(data) for _, data in answer.events[:-1]]
    assert [chunk.choices[0].index for chunk in chunks] == [0, 1] * 5
    assert ledger.rows()[0].output_tokens == 6


@pytest.mark.parametrize("limit", [{"max_tokens": 5}, {"max_completion_tokens": 5, "max_tokens": 9}])
async def test_a_completion_stops_at_the_callers_limit(provider, ledger, limit):
    completion = ChatCompletion.model_validate_json((await provider.chat("sandbox-tok9", **limit)).body)
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 5
    assert ledger.rows()[0].max_tokens == 5


async def test_unknown_fields_are_accepted_and_ignored(provider):
    plain = await provider.chat("sandbox")
    rich = await provider.chat("sandbox", temperature=0.3, seed=1, tools=[], stop=[], unheard_of={"a": 1}, n=None)
    assert rich.json["choices"] == plain.json["choices"]


async def test_the_prompt_is_never_echoed(provider):
    secret = "xylophone-4711"
    for answer in (
        await provider.chat("sandbox-tok300", messages=[{"role": "user", "content": secret}]),
        await provider.chat("sandbox-tok300", messages=[{"role": "user", "content": secret}], max_tokens="1"),
        await provider.message("sandbox-tok300", system=secret, stream=True),
    ):
        assert secret not in answer.body.decode()


# Anthropic -----------------------------------------------------------------------------------------------------------


async def test_a_message_is_what_the_anthropic_types_say(provider, ledger):
    answer = await provider.message("sandbox-cached2-reason3", system=[{"type": "text", "text": "be brief"}])
    message = Message.model_validate_json(answer.body)
    (row,) = ledger.rows()
    assert answer.headers["request-id"].startswith("req_")
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    words = len(message.content[0].text.split())
    assert message.usage.input_tokens == 6 == row.input_tokens
    assert message.usage.cache_read_input_tokens == 2 == row.cached_tokens
    assert message.usage.output_tokens == words + 3 == row.output_tokens + row.reasoning_tokens
    assert message.usage.output_tokens_details.thinking_tokens == 3 == row.reasoning_tokens


async def test_a_message_stream_has_the_documented_events(provider):
    answer = await provider.message("sandbox-tok4-cached1", stream=True)
    names = [name for name, _ in answer.events]
    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * 4,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(data["type"] == name for name, data in answer.events)
    events = [AnthropicEvent.validate_python(data) for name, data in answer.events if name != "ping"]
    start, last = events[0].message, events[-2]
    assert (start.content, start.stop_reason) == ([], None)
    assert (start.usage.input_tokens, start.usage.cache_read_input_tokens, start.usage.output_tokens) == (5, 1, 0)
    assert last.delta.stop_reason == "end_turn"
    assert (last.usage.input_tokens, last.usage.cache_read_input_tokens, last.usage.output_tokens) == (5, 1, 4)


async def test_stop_sequences_are_named(provider):
    message = Message.model_validate_json((await provider.message("sandbox-tok4", stop_sequences=["words"])).body)
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "words")
    assert message.content[0].text == "Count these"
    assert message.usage.output_tokens == 2


async def test_a_message_stops_at_the_callers_limit(provider):
    message = Message.model_validate_json((await provider.message("sandbox-tok9", max_tokens=5)).body)
    assert (message.stop_reason, message.usage.output_tokens) == ("max_tokens", 5)


# Errors --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages[0]"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": 1.5}, "max_completion_tokens"),
        ({"n": 129}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stop": [1]}, "stop"),
        ({"stream_options": "usage"}, "stream_options"),
    ],
)
async def test_a_wrong_field_is_a_400_that_names_it(provider, ledger, fields, param):
    answer = await provider.chat(**{"model": "sandbox"} | fields)
    assert answer.status == 400
    assert answer.json["error"]["param"] == param
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert [(row.status, row.outcome) for row in ledger.rows()] == [(400, "error")]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"a": NaN}'])
async def test_a_body_that_is_no_json_object_is_a_400(provider, body):
    for path in ("/v1/chat/completions", "/v1/messages"):
        answer = await provider.request("POST", path, raw=[body])
        assert answer.status == 400


async def test_a_body_may_come_in_parts(provider):
    parts = [b'{"model":"sandbox",', b'"messages":[{"role":"user",', b'"content":"hi"}]}']
    assert (await provider.request("POST", "/v1/chat/completions", raw=parts)).status == 200


async def test_anthropic_needs_a_limit_and_a_version(provider):
    answer = await provider.message("sandbox", max_tokens=None)
    error = ErrorResponse.model_validate_json(answer.body).error
    assert (answer.status, error.type, error.message) == (400, "invalid_request_error", "max_tokens: Field required")
    answer = await provider.message("sandbox", headers={"anthropic-version": None})
    error = ErrorResponse.model_validate_json(answer.body).error
    assert (answer.status, error.message) == (400, "anthropic-version: header is required")


@pytest.mark.parametrize("header", [{"authorization": "Bearer bad-key"}, {"x-api-key": "bad-key"}])
async def test_one_key_is_refused(provider, ledger, header):
    chat = await provider.chat("sandbox", headers=header)
    message = await provider.message("sandbox", headers=header)
    assert (chat.status, chat.json["error"]["code"]) == (401, "invalid_api_key")
    assert message.status == 401
    assert ErrorResponse.model_validate_json(message.body).error.type == "authentication_error"
    assert [(row.status, row.outcome, row.input_tokens) for row in ledger.rows()] == [(401, "error", 0)] * 2


async def test_an_unknown_model_is_not_found_in_either_dialect(provider):
    chat = await provider.chat("gpt-4o")
    message = await provider.message("sandbox-foo7")
    assert (chat.status, chat.json["error"]["code"]) == (404, "model_not_found")
    assert message.status == 404
    error = ErrorResponse.model_validate_json(message.body).error
    assert error.type == "not_found_error"
    assert "unknown knob 'foo7'" in error.message


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v1/chat/completions", 405), ("GET", "/v1/nothing", 404), ("POST", "/", 405)],
)
async def test_other_paths_and_methods_are_refused_in_openais_shape(provider, ledger, method, path, status):
    answer = await provider.request(method, path)
    assert answer.status == status
    assert set(answer.json["error"]) == {"message", "type", "param", "code"}
    assert ("allow" in answer.headers) == (status == 405)
    assert ledger.rows() == []


# The real clients ----------------------------------------------------------------------------------------------------


async def test_the_openai_sdk_works_unchanged(url: str, ledger: Ledger):
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        completion = await client.chat.completions.create(model="sandbox", messages=HELLO)
        stream = await client.chat.completions.create(
            model="sandbox", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == completion.choices[0].message.content
        assert chunks[-1].usage == completion.usage
        models = [Model.model_validate(model.model_dump()).id async for model in client.models.list()]
        assert models == ["sandbox", "mock-gpt"]
        with pytest.raises(openai.RateLimitError) as limited:
            await client.chat.completions.create(model="sandbox-err429", messages=HELLO)
        assert limited.value.response.headers["retry-after"] == "1"
        with pytest.raises(openai.NotFoundError, match="gpt-9"):
            await client.chat.completions.create(model="gpt-9", messages=HELLO)
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="bad-key").chat.completions.create(model="sandbox", messages=HELLO)
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="sandbox-err503", messages=HELLO)
    assert [row.outcome for row in ledger.rows()] == ["ok", "ok", "error", "error", "error", "error"]


async def test_the_openai_sdk_sees_an_error_inside_a_stream(url: str):
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        stream = await client.chat.completions.create(model="sandbox-eband2", messages=HELLO, stream=True)
        texts = []
        with pytest.raises(openai.APIError, match="The server had an error"):
            async for chunk in stream:
                texts.append(chunk.choices[0].delta.content)
        assert len(texts) == 3


async def test_the_anthropic_sdk_works_unchanged(url: str, ledger: Ledger):
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as client:
        message = await client.messages.create(model="sandbox", max_tokens=100, messages=HELLO)
        async with client.messages.stream(model="sandbox", max_tokens=100, messages=HELLO) as stream:
            streamed = await stream.get_final_message()
        assert streamed.content[0].text == message.content[0].text
        assert streamed.stop_reason == message.stop_reason == "end_turn"
        assert streamed.usage.input_tokens == message.usage.input_tokens
        assert streamed.usage.output_tokens == message.usage.output_tokens
        models = [ModelInfo.model_validate(model.model_dump()).id async for model in client.models.list()]
        assert models == ["sandbox", "mock-gpt"]
        with pytest.raises(anthropic.RateLimitError) as limited:
            await client.messages.create(model="sandbox-err429", max_tokens=9, messages=HELLO)
        assert limited.value.response.headers["retry-after"] == "1"
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            await client.messages.create(model="sandbox-err529", max_tokens=9, messages=HELLO)
        assert overloaded.value.body["error"]["type"] == "overloaded_error"
        with pytest.raises(anthropic.NotFoundError, match="claude-9"):
            await client.messages.create(model="claude-9", max_tokens=9, messages=HELLO)
        with pytest.raises(anthropic.AuthenticationError):
            await client.with_options(api_key="bad-key").messages.create(model="sandbox", max_tokens=9, messages=HELLO)
    assert [row.outcome for row in ledger.rows()] == ["ok", "ok", "error", "error", "error", "error"]


async def test_the_anthropic_sdk_sees_an_error_inside_a_stream(url: str):
    async with anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as client:
        with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
            async with client.messages.stream(model="sandbox-eband1", max_tokens=9, messages=HELLO) as stream:
                async for _ in stream:
                    pass
