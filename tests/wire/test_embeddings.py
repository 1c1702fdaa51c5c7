"""Embeddings as each dialect asks for them, made by a provider of any protocol that makes them."""

from typing import Any

import orjson
import pytest
from google.genai.types import EmbedContentResponse
from ollama import EmbeddingsResponse, EmbedResponse
from openai.types import CreateEmbeddingResponse

from tests.wire import recordings
from tests.wire.fixtures import EXTRAS, REQUEST_ID
from tollgate.errors import ProviderError, Refusal
from tollgate.events import Usage
from tollgate.wire import Quirks
from tollgate.wire.endpoints import ENDPOINTS, SERVED

VERTEX = Quirks(embeds_by_prediction=True)
GOOGLE = "/v1beta/models/{model}:"
TEXTS = ["one", "two"]
EACH = {"model": "models/m", "outputDimensionality": 2, "taskType": "RETRIEVAL_QUERY"}
ASKED: dict[str, dict[str, Any]] = {
    "/v1/embeddings": {"model": "m", "input": TEXTS, "dimensions": 2, "user": "u"},
    f"{GOOGLE}batchEmbedContents": {
        "model": "m",
        "stream": False,
        "requests": [{"content": {"parts": [{"text": text}]}, **EACH} for text in TEXTS],
    },
    "/api/embed": {"model": "m", "input": TEXTS, "dimensions": 2, "truncate": True, "keep_alive": "5m"},
}
VECTORS = [[0.5, -0.25], [1.0, 0.0]]
# What a provider of each protocol is sent, where, and what it answers
PROVIDERS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "openai": (
        "/embeddings",
        {"model": "up", "input": TEXTS, "encoding_format": "float", "dimensions": 2},
        {
            "object": "list",
            "model": "up-1",
            "data": [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(VECTORS)],
            "usage": {"prompt_tokens": 7, "total_tokens": 7},
        },
    ),
    "gemini": (
        "/models/up:batchEmbedContents",
        {
            "requests": [
                {"content": {"parts": [{"text": text}]}, "model": "models/up", "outputDimensionality": 2}
                for text in TEXTS
            ]
        },
        {"embeddings": [{"values": vector} for vector in VECTORS], "usageMetadata": {"promptTokenCount": 7}},
    ),
    "vertex": (
        "/models/up:predict",
        {"instances": [{"content": text} for text in TEXTS], "parameters": {"outputDimensionality": 2}},
        {
            "predictions": [
                {"embeddings": {"values": vector, "statistics": {"token_count": count, "truncated": False}}}
                for vector, count in zip(VECTORS, (3, 4), strict=True)
            ]
        },
    ),
    "ollama": (
        "/api/embed",
        {"model": "up", "input": TEXTS, "dimensions": 2},
        {"model": "up-1", "embeddings": VECTORS, "prompt_eval_count": 7, "total_duration": 5},
    ),
}


def start(path, provider, **change):
    protocol, quirks = ("gemini", VERTEX) if provider == "vertex" else (provider, Quirks())
    return ENDPOINTS[path].exchange(
        protocol,
        ASKED.get(path, {}) | change,
        request_id=REQUEST_ID,
        model="up",
        max_output_tokens=None,
        headers={},
        quirks=quirks,
    )


def heard(path, told):
    """The vectors, once the client's own SDK has taken the answer."""
    known = {field: value for field, value in told.items() if field not in ("provider", "tollgate")}
    match path:
        case "/v1/embeddings":
            return [item.embedding for item in CreateEmbeddingResponse.model_validate(told).data]
        case "/api/embed":
            return [list(vector) for vector in EmbedResponse.model_validate(told).embeddings]
        case "/api/embeddings":
            return [list(EmbeddingsResponse.model_validate(told).embedding)]
    answered = [known.pop("embedding")] if "embedding" in known else known.pop("embeddings")
    return [one.values for one in EmbedContentResponse.model_validate({"embeddings": answered}).embeddings or []]


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_any_dialect_gets_the_vectors_of_any_provider(path, provider):
    where, sent, answer = PROVIDERS[provider]
    exchange = start(path, provider)

    exchange.answer(orjson.dumps(answer))
    told = orjson.loads(exchange.final(EXTRAS))

    assert heard(path, told) == VECTORS
    assert told["tollgate"]["request_id"] == REQUEST_ID
    assert exchange.meter.usage == Usage(input_tokens=7)
    assert exchange.request.path == where
    written = orjson.loads(exchange.request.body)
    for one in (*written.get("requests", ()), *written.get("instances", ())):
        assert one.pop("taskType", one.pop("task_type", None)) in (None, "RETRIEVAL_QUERY")
    home = {"/v1/embeddings": "openai", f"{GOOGLE}batchEmbedContents": "gemini", "/api/embed": "ollama"}[path]
    if provider != home:
        assert written == sent


def test_one_vector_is_asked_for_and_given_in_the_forms_that_know_one():
    google = start(f"{GOOGLE}embedContent", "openai", model="m", content={"parts": [{"text": "one"}]}, title="T")
    ollama = start("/api/embeddings", "gemini", model="m", prompt="one")
    at_home = start("/api/embeddings", "ollama", model="m", prompt="one", options={"a": 1})

    google.answer(orjson.dumps({"data": [{"embedding": [0.5]}]}))
    ollama.answer(orjson.dumps({"embeddings": [{"values": [0.5]}]}))
    at_home.answer(orjson.dumps({"embedding": [0.5]}))

    told = orjson.loads(google.final(EXTRAS))
    assert heard(f"{GOOGLE}embedContent", told) == [[0.5]] and "usageMetadata" not in told
    assert (google.dropped, told["tollgate"]["dropped"]) == (("title",), ["title"])
    assert google.meter.usage is None, "it is estimated, where nobody has counted"
    assert heard("/api/embeddings", orjson.loads(ollama.final(EXTRAS))) == [[0.5]]
    assert at_home.request.path == "/api/embeddings"
    assert orjson.loads(at_home.request.body) == {"model": "up", "prompt": "one", "options": {"a": 1}}


@pytest.mark.parametrize(("quirks", "cost"), [(Quirks(states_cost=True), 10**10), (Quirks(), None)])
def test_a_cost_that_the_provider_states_is_known_whoever_asked(quirks, cost):
    exchange = ENDPOINTS["/api/embed"].exchange(
        "openai",
        ASKED["/api/embed"],
        request_id=REQUEST_ID,
        model="up",
        max_output_tokens=None,
        headers={},
        quirks=quirks,
    )
    answer = PROVIDERS["openai"][2]
    exchange.answer(orjson.dumps(answer | {"usage": answer["usage"] | {"cost": 0.01}}))
    assert exchange.meter.stated_cost_pusd == cost


def test_a_client_of_openais_gets_base64_of_any_provider():
    exchange = start("/v1/embeddings", "ollama", encoding_format="base64")
    exchange.answer(orjson.dumps(PROVIDERS["ollama"][2]))
    assert orjson.loads(exchange.final(EXTRAS))["data"][0]["embedding"] == "AAAAPwAAgL4="


def test_at_home_a_batch_keeps_all_but_the_models_name():
    requests = [{"content": {"parts": [{"inlineData": {}}]}, "model": "models/m", "x_new": 1}]
    exchange = start(f"{GOOGLE}batchEmbedContents", "gemini", requests=requests)
    assert orjson.loads(exchange.request.body) == {"requests": [requests[0] | {"model": "models/up"}]}


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/v1/embeddings", {"input": [1, 2]}, "input"),
        ("/v1/embeddings", {"input": [{"type": "image_url"}]}, "input"),
        (f"{GOOGLE}embedContent", {"content": {"parts": [{"inlineData": {}}]}}, "content.parts[0]"),
        (
            f"{GOOGLE}batchEmbedContents",
            {"requests": [{"content": {"parts": [{"text": "a"}]}, "title": word} for word in ("x", "y")]},
            "requests",
        ),
    ],
)
def test_what_only_a_provider_of_the_same_dialect_takes_is_refused_elsewhere(path, change, param):
    endpoint = ENDPOINTS[path]
    other = "ollama" if endpoint.dialect != "ollama" else "openai"
    body = ASKED.get(path, {}) | change
    refused = endpoint.cannot_carry(other, body, model="up", quirks=Quirks())
    assert refused is not None and (refused.code, refused.param) == ("unsupported_parameter", param)
    assert endpoint.cannot_carry(endpoint.dialect, body, model="up", quirks=Quirks()) is None


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (f"{GOOGLE}embedContent", {"model": "m"}, "content"),
        (f"{GOOGLE}batchEmbedContents", {"model": "m", "requests": []}, "requests"),
        (f"{GOOGLE}batchEmbedContents", {"model": "m", "requests": ["x"]}, "requests[0]"),
        ("/api/embed", {"model": "m"}, "input"),
        ("/api/embed", {"model": "m", "input": [3]}, "input[0]"),
        ("/api/embeddings", {"model": "m", "prompt": ["x", 1]}, "prompt[1]"),
    ],
)
def test_what_is_wrong_in_itself_is_refused_by_name(path, body, param):
    with pytest.raises(Refusal) as refused:
        ENDPOINTS[path].ask(body)
    assert (refused.value.status, refused.value.param) == (400, param)


def test_what_no_bound_allows_for_is_named():
    image = {"model": "m", "content": {"parts": [{"inlineData": {}}]}}
    assert ENDPOINTS[f"{GOOGLE}embedContent"].ask(image).unbounded == "content.parts"
    assert ENDPOINTS["/api/embed"].ask({"model": "m", "input": "a", "x_new": 1}).unbounded == "x_new"
    for path, body in ASKED.items():
        assert ENDPOINTS[path].ask(body).unbounded is None


@pytest.mark.parametrize("answer", [b"{}", b'{"data": [{"embedding": "x"}]}', b'{"data": [{"embedding": [1]}]}'])
def test_an_answer_that_has_not_a_vector_for_each_text_is_the_providers_failure(answer):
    with pytest.raises(ProviderError) as raised:
        start("/api/embed", "openai").answer(answer)
    assert raised.value.error_class == "server_error"


def test_a_provider_makes_embeddings_for_every_dialect_if_it_does_for_one():
    for path, name in (("/v1/embeddings", "openai"), (f"{GOOGLE}embedContent", "gemini"), ("/api/embed", "ollama")):
        for protocol in ("openai", "gemini", "ollama"):
            assert ENDPOINTS[path].protocol(protocol, SERVED[protocol]) == protocol
        assert ENDPOINTS[path].protocol(name, frozenset({"chat"})) is None


@pytest.mark.skipif(not recordings.exists(), reason=recordings.MISSING)
@pytest.mark.parametrize(
    ("name", "provider"),
    [
        ("google.embedContent", "gemini"),
        ("google.batchEmbedContents", "gemini"),
        ("vertex.predict", "vertex"),
        ("ollama.embed", "ollama"),
        ("openrouter.embeddings", "openai"),
    ],
)
def test_every_recorded_answer_is_told_in_every_dialect(name, provider):
    for recording in recordings.recordings(name):
        if recording.status >= 300:
            continue
        for path in ASKED:
            answer = orjson.loads(recording.body)
            count = len(answer.get("embeddings") or answer.get("predictions") or answer.get("data") or [1])
            texts = [f"text {at}" for at in range(count)]
            if path in ("/v1/embeddings", "/api/embed"):
                exchange = start(path, provider, input=texts)
            else:
                requests = [{"content": {"parts": [{"text": text}]}} for text in texts]
                exchange = start(path, provider, requests=requests)
            exchange.answer(recording.body)
            told = orjson.loads(exchange.final(EXTRAS))
            if path == "/v1/embeddings" and "usage" not in told:
                told["usage"] = {"prompt_tokens": 0, "total_tokens": 0}
            if provider == "gemini" and "embedding" in answer and path.endswith("batchEmbedContents"):
                continue  # at home it is what it was
            assert len(heard(path, told)) == count
