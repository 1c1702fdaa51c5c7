"""Google's dialect at the door: its paths, its keys, its two forms of a stream, and its official SDK."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import uvicorn
from google import genai
from google.genai import errors, types

from tests.ingress.support import Connection, Gateway, Worker, stay_silent
from tests.wire.fixtures import EXTRAS, STREAMS, UNARY
from tests.wire.fixtures_gemini import GEMINI_STREAMS, HELLO
from tollgate.errors import ProviderError
from tollgate.events import Dialect, RequestAccepted
from tollgate.ingress.server import server_config
from tollgate.wire.exchange import exchange_for

# The SDK's own use of aiohttp
pytestmark = pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning")

GENERATE = "/v1beta/models/sandbox:generateContent"
STREAM = "/v1beta/models/sandbox:streamGenerateContent"
BODY = {"contents": [{"parts": [{"text": "the prompt that nobody else may read"}]}]}
STREAM_TYPE = (("content-type", "text/event-stream; charset=utf-8"),)


def served_by(provider: Dialect, answer: bytes, *, breaks: bool = False) -> Any:
    """A worker whose provider says this: the client's request goes through the exchange, as it would in a real one."""

    async def script(worker: Worker, event: RequestAccepted) -> None:
        request = event.request
        exchange = exchange_for(
            request.dialect,
            provider,
            worker.body_of(event),
            request_id=request.request_id,
            model="m",
            max_output_tokens=None,
            headers={},
        )
        if not request.stream:
            exchange.answer(answer)
            worker.reply(event, exchange.final(EXTRAS))
            return
        worker.reply(event, exchange.feed(answer), last=False, headers=STREAM_TYPE)
        if breaks:
            rest = exchange.failure(ProviderError("cut", "x"), request.request_id)
        else:
            exchange.finish()
            rest = exchange.final(EXTRAS)
        worker.reply(event, rest, seq=1)

    return script


# Paths and keys -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v1beta"])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["sandbox", "sandbox/sandbox-tok4"])
async def test_what_the_path_says_is_in_the_body_that_a_worker_reads(
    gateway: Gateway, version: str, stream: bool, model: str
):
    method = "streamGenerateContent" if stream else "generateContent"
    body = BODY | {"model": "another", "stream": not stream}

    await gateway.bearer("acme").request("POST", f"/{version}/models/{model}:{method}", body)

    (event,) = gateway.worker.accepted
    assert gateway.worker.body_of(event) == BODY | {"model": model, "stream": stream}
    assert (event.request.model, event.request.stream, event.request.dialect) == (model, stream, "gemini")
    assert event.request.endpoint == "/v1beta/models/{model}:generateContent"


@pytest.mark.parametrize("header", ["x-goog-api-key", "x-api-key"])
async def test_googles_header_holds_the_key_on_every_path(gateway: Gateway, header: str):
    key = {header: gateway.tokens["acme"]}

    for path, body in (
        (GENERATE, BODY),
        ("/v1/chat/completions", {"model": "sandbox", "messages": [{"role": "user"}]}),
    ):
        assert (await gateway.anonymous.request("POST", path, body, headers=dict(key))).status == 200


async def test_a_key_in_the_url_is_refused_though_another_is_in_a_header(gateway: Gateway):
    client = gateway.bearer("acme")
    content = orjson.dumps(BODY)

    for query in (b"key=AIzaSecret", b"alt=sse&key=", b"%6bey=x"):
        response = await client.call("POST", GENERATE, client.head(content), Connection([content]), query=query)
        error = response.error
        assert (response.status, error["status"]) == (400, "INVALID_ARGUMENT")
        assert "x-goog-api-key" in error["message"]
        assert b"AIzaSecret" not in response.body
    assert not gateway.worker.accepted


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        (GENERATE, {}, 400, "INVALID_ARGUMENT"),
        ("/v1beta/models/sandbox:countTokens", {}, 400, "INVALID_ARGUMENT"),
        (GENERATE, {"contents": [{"parts": [{"text": 1}]}], "generationConfig": 3}, 400, "INVALID_ARGUMENT"),
        ("/v1beta/models/nobody-has-this:generateContent", BODY, 404, "NOT_FOUND"),
        ("/v1beta/models/:generateContent", BODY, 400, "INVALID_ARGUMENT"),
        ("/v1beta/models/sandbox:predict", BODY, 404, "NOT_FOUND"),
        ("/v1beta/cachedContents", BODY, 404, "NOT_FOUND"),
    ],
)
async def test_every_refusal_has_googles_shape(gateway: Gateway, path: str, body: Any, status: int, word: str):
    response = await gateway.bearer("acme").request("POST", path, body)

    assert response.status == status
    assert (response.error["code"], response.error["status"]) == (status, word)
    assert response.error["message"] and response.error["details"]


async def test_a_method_that_google_has_and_we_have_not_is_told_those_there_are(gateway: Gateway):
    response = await gateway.bearer("acme").request("POST", "/v1beta/models/house/llama:8b:foo", BODY)

    assert response.error["message"] == (
        "There is no method 'foo' of models here; there are generateContent, streamGenerateContent, countTokens, "
        "embedContent, batchEmbedContents."
    )


async def test_a_wrong_http_method_names_the_path_that_was_asked(gateway: Gateway):
    for method, path, takes in (("GET", GENERATE, "POST"), ("POST", "/v1beta/models/sandbox", "GET, HEAD")):
        response = await gateway.bearer("acme").request(method, path, BODY if method == "POST" else None)
        assert response.status == 405
        assert response.error["message"] == f"'{path}' takes {takes} only."


async def test_a_body_that_is_nested_too_deeply_is_refused(gateway: Gateway):
    raw = b'{"contents": [{"parts": [{"functionCall": {"args": ' + b"[" * 300 + b"]" * 300 + b"}}]}]}"
    response = await gateway.bearer("acme").request("POST", GENERATE, raw=raw)
    assert (response.status, response.error["status"]) == (400, "INVALID_ARGUMENT")


async def test_without_a_key_google_says_unauthenticated(gateway: Gateway):
    response = await gateway.anonymous.request("POST", GENERATE, BODY)
    assert (response.status, response.error["status"]) == (401, "UNAUTHENTICATED")


async def test_models_are_listed_as_google_lists_them(gateway: Gateway):
    client = gateway.bearer("acme")

    listed = await client.request("GET", "/v1beta/models")
    one = await client.request("GET", "/v1beta/models/sandbox")
    by_header = await client.request("GET", "/v1/models", headers={"x-goog-api-key": gateway.tokens["acme"]})

    assert {"models/sandbox"} <= {model["name"] for model in listed.json["models"]}
    assert one.json["name"] == "models/sandbox"
    assert by_header.json == listed.json


# Streams ------------------------------------------------------------------------------------------------------------


async def streamed(gateway: Gateway, query: bytes) -> Any:
    client = gateway.bearer("acme")
    content = orjson.dumps(BODY)
    return await client.call("POST", STREAM, client.head(content), Connection([content]), query=query)


@pytest.mark.parametrize("provider", ["gemini", "openai"])
async def test_a_stream_is_of_events_or_an_array_as_the_query_says(gateway: Gateway, provider: Dialect):
    gateway.worker.script = served_by(provider, STREAMS[provider]["plain"])

    events = await streamed(gateway, b"alt=sse")
    array = await streamed(gateway, b"")

    assert events.headers["content-type"].startswith("text/event-stream")
    assert array.headers["content-type"] == "application/json"
    payloads = [orjson.loads(line[6:]) for line in events.body.split(b"\n") if line.startswith(b"data: ")]
    assert [without_ids(one) for one in array.json] == [without_ids(one) for one in payloads]
    assert "tollgate" in array.json[-1]
    assert len(array.pieces) > 1, "it streams"


def without_ids(payload: Any) -> Any:
    return {field: value for field, value in payload.items() if field != "responseId"}


async def test_an_array_whose_provider_fails_ends_in_the_error(gateway: Gateway):
    gateway.worker.script = served_by("gemini", HELLO, breaks=True)

    first, error = (await streamed(gateway, b"")).json

    assert first["candidates"][0]["content"]["parts"] == [{"text": "Hello"}]
    assert error["error"]["status"] == "UNAVAILABLE"


async def test_a_refusal_of_a_stream_is_one_object_in_either_form(gateway: Gateway):
    async def refuse(worker: Worker, event: RequestAccepted) -> None:
        worker.reply(event, b'{"error":{"code":429}}', status=429)

    gateway.worker.script = refuse

    for query in (b"", b"alt=sse"):
        response = await streamed(gateway, query)
        assert (response.status, response.json) == (429, {"error": {"code": 429}})


# The SDK ------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def url(gateway: Gateway) -> AsyncIterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(gateway.app, host="127.0.0.1", port=0))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


def sdk(url: str, key: str, **options: Any) -> genai.Client:
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url, **options))


@pytest.fixture
async def google(url: str, gateway: Gateway) -> AsyncIterator[Any]:
    client = sdk(url, gateway.tokens["acme"])
    yield client.aio
    await client.aio.aclose()


@pytest.mark.parametrize("provider", ["gemini", "openai", "anthropic", "responses"])
async def test_the_sdk_gets_an_answer_of_any_provider(gateway: Gateway, google: Any, provider: Dialect):
    gateway.worker.script = served_by(provider, orjson.dumps(UNARY[provider]))

    answer = await google.models.generate_content(
        model="sandbox", contents="Hi", config=types.GenerateContentConfig(max_output_tokens=16, temperature=0)
    )

    assert answer.text == "Hello wörld 🌍"
    assert answer.candidates[0].finish_reason is types.FinishReason.STOP
    assert answer.usage_metadata.total_token_count
    (event,) = gateway.worker.accepted
    assert gateway.worker.body_of(event)["generationConfig"] == {"maxOutputTokens": 16, "temperature": 0}


@pytest.mark.parametrize("provider", ["gemini", "openai", "anthropic", "responses"])
async def test_the_sdk_reads_a_stream_of_any_provider(gateway: Gateway, google: Any, provider: Dialect):
    gateway.worker.script = served_by(provider, STREAMS[provider]["plain"])

    chunks = [chunk async for chunk in await google.models.generate_content_stream(model="sandbox", contents="Hi")]

    assert "".join(chunk.text or "" for chunk in chunks) == "Hello wörld 🌍"
    assert chunks[-1].candidates[0].finish_reason is types.FinishReason.STOP
    assert chunks[-1].usage_metadata.total_token_count


def weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: Its name.
    """
    return f"18 °C in {city}"


async def test_the_sdk_calls_tools_and_hands_their_results_and_signatures_back(gateway: Gateway, google: Any):
    signed = b"".join(GEMINI_STREAMS["call with a signature"].split(b"\n\n")[0:1]).removeprefix(b"data: ")
    answers = [served_by("gemini", signed), served_by("gemini", orjson.dumps(UNARY["gemini"]))]

    async def script(worker: Worker, event: RequestAccepted) -> None:
        await answers.pop(0)(worker, event)

    gateway.worker.script = script

    answer = await google.models.generate_content(
        model="sandbox", contents="Weather?", config=types.GenerateContentConfig(tools=[weather])
    )

    assert answer.text == "Hello wörld 🌍"
    first, second = (gateway.worker.body_of(event) for event in gateway.worker.accepted)
    assert first["tools"][0]["functionDeclarations"][0]["name"] == "weather"
    called, results = second["contents"][1:]
    assert called["parts"][0]["thoughtSignature"] == "Zm9v", "as the provider has written it"
    assert [part["functionResponse"]["response"] for part in results["parts"]] == [
        {"result": "18 °C in Paris"},
        {"result": "18 °C in Rome"},
    ]


async def test_the_sdk_calls_tools_of_other_providers(gateway: Gateway, google: Any):
    gateway.worker.script = served_by("openai", STREAMS["openai"]["text and two calls"])
    tool = types.Tool(function_declarations=[types.FunctionDeclaration(name="weather")])
    config = types.GenerateContentConfig(
        tools=[tool], automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True)
    )

    stream = await google.models.generate_content_stream(model="sandbox", contents="Hi", config=config)

    calls = [call for chunk in [chunk async for chunk in stream] for call in chunk.function_calls or ()]
    assert [(call.id, call.name, call.args) for call in calls] == [
        ("call_1", "weather", {"city": "Paris"}),
        ("call_2", "weather", {"city": "Rome"}),
    ]


async def test_claudes_signature_survives_the_sdk(gateway: Gateway, google: Any):
    gateway.worker.script = served_by("anthropic", STREAMS["anthropic"]["thinking"])
    chat = google.chats.create(model="sandbox")
    async for _ in await chat.send_message_stream("Hi"):
        pass

    gateway.worker.script = stay_silent
    task = asyncio.ensure_future(chat.send_message("And?"))
    while len(gateway.worker.accepted) < 2:
        await asyncio.sleep(0.01)
    task.cancel()

    body = gateway.worker.body_of(gateway.worker.accepted[1])
    exchange = exchange_for(
        "gemini", "anthropic", body, request_id="0198b4f0-1234-7000-8000-000000000001", model="claude-opus-4-6",
        max_output_tokens=None, headers={},
    )  # fmt: skip
    thought = orjson.loads(exchange.request.body)["messages"][1]["content"][0]
    assert thought == {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}


async def test_the_sdk_shows_our_message(gateway: Gateway, url: str, google: Any):
    with pytest.raises(errors.ClientError) as unknown:
        await google.models.generate_content(model="nobody-has-this", contents="Hi")
    assert (unknown.value.code, unknown.value.status) == (404, "NOT_FOUND")
    assert "nobody-has-this" in unknown.value.message

    other = sdk(url, "wrong")
    with pytest.raises(errors.ClientError, match="not known here") as refused:
        await other.aio.models.generate_content(model="sandbox", contents="Hi")
    assert (refused.value.code, refused.value.status) == (401, "UNAUTHENTICATED")
    await other.aio.aclose()


async def test_the_sdk_raises_when_a_stream_breaks(gateway: Gateway, google: Any):
    gateway.worker.script = served_by("gemini", HELLO, breaks=True)
    seen = []

    with pytest.raises(errors.APIError) as broken:
        async for chunk in await google.models.generate_content_stream(model="sandbox", contents="Hi"):
            seen.append(chunk.text)

    assert seen == ["Hello"]
    assert broken.value.code == 502


@pytest.mark.parametrize("version", ["v1", "v1beta"])
async def test_the_sdk_lists_the_models_of_either_version(gateway: Gateway, url: str, version: str):
    client = sdk(url, gateway.tokens["acme"], api_version=version)

    names = [model.name async for model in await client.aio.models.list()]
    one = await client.aio.models.get(model="sandbox")

    assert one.name == "models/sandbox"
    assert one.name in names
    await client.aio.aclose()
