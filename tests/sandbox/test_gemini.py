"""Google's dialect of the sandbox, judged by the types of the official SDK and by the SDK itself."""

from typing import Any

import orjson
import pytest
from google import genai
from google.genai import errors
from google.genai.types import FinishReason, GenerateContentResponse, HttpOptions

from tollgate.sandbox import Ledger

# The SDK's own use of aiohttp
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")


def path(model: str, *, stream: bool = False) -> str:
    return f"/v1beta/models/{model}:{'streamGenerateContent' if stream else 'generateContent'}"


def body(**settings: Any) -> dict[str, Any]:
    return {"contents": [{"parts": [{"text": "one two three"}]}], "generationConfig": settings}


async def test_an_answer_is_what_googles_types_say(provider, ledger):
    answer = await provider.request("POST", path("sandbox-cached2-reason3"), body(candidateCount=2))
    said = GenerateContentResponse.model_validate_json(answer.body)
    (row,) = ledger.rows()
    assert [candidate.finish_reason for candidate in said.candidates] == [FinishReason.STOP] * 2
    words = len(said.candidates[0].content.parts[0].text.split())
    usage = said.usage_metadata
    assert usage.prompt_token_count == 6 == row.input_tokens + row.cached_tokens
    assert usage.cached_content_token_count == 2 == row.cached_tokens
    assert usage.candidates_token_count == 2 * words == row.output_tokens
    assert usage.thoughts_token_count == 6 == row.reasoning_tokens
    assert (row.dialect, row.model, row.stream) == ("gemini", "sandbox-cached2-reason3", False)


async def test_a_stream_is_of_whole_answers_with_the_usage_so_far(provider, ledger):
    answer = await provider.request("POST", path("sandbox-tok4", stream=True), body(), query="alt=sse")
    events = answer.body.decode().removesuffix("\r\n\r\n").split("\r\n\r\n")
    chunks = [GenerateContentResponse.model_validate_json(event.removeprefix("data: ")) for event in events]
    assert [chunk.text for chunk in chunks] == ["Count", " these", " words", " and", ""]
    assert [chunk.usage_metadata.candidates_token_count for chunk in chunks] == [1, 2, 3, 4, 4]
    assert [chunk.candidates[0].finish_reason for chunk in chunks] == [None] * 4 + [FinishReason.STOP]
    assert ledger.rows()[0].output_tokens == 4


async def test_it_stops_at_the_limit_and_at_a_sequence(provider):
    limited = await provider.request("POST", path("sandbox-tok9"), body(maxOutputTokens=5))
    stopped = await provider.request("POST", path("sandbox-tok9"), body(stopSequences=["words"]))
    assert limited.json["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert stopped.json["candidates"][0]["content"]["parts"] == [{"text": "Count these"}]


@pytest.mark.parametrize(
    ("change", "status", "word"),
    [
        ({"contents": []}, 400, "INVALID_ARGUMENT"),
        ({"contents": ["x"]}, 400, "INVALID_ARGUMENT"),
        ({"generationConfig": 1}, 400, "INVALID_ARGUMENT"),
        ({"generationConfig": {"candidateCount": 9}}, 400, "INVALID_ARGUMENT"),
    ],
)
async def test_a_wrong_field_is_refused_in_googles_shape(provider, change, status, word):
    answer = await provider.request("POST", path("sandbox"), body() | change)
    error = answer.json["error"]
    assert (answer.status, error["code"], error["status"]) == (status, status, word)


async def test_other_methods_of_a_model_are_not_there(provider):
    assert (await provider.request("POST", "/v1beta/models/sandbox:predict", body())).status == 404
    assert (await provider.request("GET", path("sandbox"))).status == 405


async def test_the_google_sdk_works_unchanged(url: str, ledger: Ledger):
    client = genai.Client(api_key="any", http_options=HttpOptions(base_url=url))
    models = client.aio.models
    answer = await models.generate_content(model="sandbox", contents="Say hello to me")
    stream = await models.generate_content_stream(model="sandbox", contents="Say hello to me")
    assert "".join([chunk.text async for chunk in stream]) == answer.text
    assert [model.name async for model in await models.list()] == ["models/sandbox", "models/mock-gpt"]
    with pytest.raises(errors.ClientError, match="RESOURCE_EXHAUSTED"):
        await models.generate_content(model="sandbox-err429", contents="Hi")
    with pytest.raises(errors.ServerError, match="overloaded"):
        async for _ in await models.generate_content_stream(model="sandbox-eband2", contents="Hi"):
            pass
    await client.aio.aclose()
    stranger = genai.Client(api_key="bad-key", http_options=HttpOptions(base_url=url))
    with pytest.raises(errors.ClientError, match="UNAUTHENTICATED"):
        await stranger.aio.models.generate_content(model="sandbox", contents="Hi")
    await stranger.aio.aclose()
    assert [row.outcome for row in ledger.rows()] == ["ok", "ok", "error", "error", "error"]


async def test_the_prompt_is_never_echoed(provider):
    answer = await provider.request("POST", path("sandbox"), body())
    assert b"three" not in orjson.dumps(answer.json)
