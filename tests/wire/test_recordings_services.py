"""Every recorded answer of a service, passed on to a client and judged by the types of its own SDK.

Prints a table: file, and passed of tried. Files of other providers that speak the same protocol are among them.
"""

import orjson
import pytest
from anthropic.types import MessageTokensCount
from google.genai.types import CountTokensResponse
from openai.types import Completion, CreateEmbeddingResponse, ImagesResponse, ModerationCreateResponse
from openai.types.audio import Transcription
from pydantic import BaseModel, ValidationError

from tests.conftest import SUMMARY
from tests.wire import recordings
from tests.wire.fixtures import EXTRAS, REQUEST_ID, by_byte
from tests.wire.recordings import Recording, Table
from tests.wire.test_services import BODIES
from tollgate.errors import ERROR_CLASSES
from tollgate.wire import Quirks
from tollgate.wire.endpoints import ENDPOINTS
from tollgate.wire.exchange import PROTOCOLS

if not recordings.exists():
    pytest.skip(recordings.MISSING, allow_module_level=True)


class GoogleCount(CountTokensResponse, extra="ignore"):
    """The SDK drops what it does not know before its types, which forbid it, see the answer."""


# Which endpoint the exchanges of a file are of, and what judges its answers
FILES: dict[str, tuple[str, type[BaseModel]]] = {
    "anthropic.count_tokens": ("/v1/messages/count_tokens", MessageTokensCount),
    "google.countTokens": ("/v1beta/models/{model}:countTokens", GoogleCount),
    "vertex.countTokens": ("/v1beta/models/{model}:countTokens", GoogleCount),
    "azure.completions": ("/v1/completions", Completion),
    "azure.embeddings": ("/v1/embeddings", CreateEmbeddingResponse),
    "mistral.embeddings": ("/v1/embeddings", CreateEmbeddingResponse),
    "openai.audio": ("/v1/audio/transcriptions", Transcription),
    "openai.completions": ("/v1/completions", Completion),
    "openai.embeddings": ("/v1/embeddings", CreateEmbeddingResponse),
    "openai.images": ("/v1/images/generations", ImagesResponse),
    "openai.moderations": ("/v1/moderations", ModerationCreateResponse),
    "openrouter.embeddings": ("/v1/embeddings", CreateEmbeddingResponse),
    "voyage.embeddings": ("/v1/embeddings", CreateEmbeddingResponse),
}

# What is not of the endpoint: the administration's own reports of usage
_REPORT = "a report of the provider's books, which is another endpoint"
EXCEPTIONS = {"8271549b27ca654b": _REPORT, "70d28ac9fc13c49b": _REPORT, "a6e69c0bac64de81": _REPORT}


def told(path: str, recording: Recording, pieces: list[bytes]) -> bytes:
    exchange = ENDPOINTS[path].exchange(
        "openai",
        _request(path, recording),
        request_id=REQUEST_ID,
        model="m",
        max_output_tokens=None,
        headers={},
        quirks=Quirks(),
    )
    if not recording.is_stream:
        exchange.answer(recording.body)
        return exchange.final(EXTRAS)
    out = b"".join(exchange.feed(piece) for piece in pieces)
    exchange.finish()
    return out + exchange.final(EXTRAS)


def _request(path: str, recording: Recording) -> dict:
    """What was asked, with vectors as numbers, which is how the types judge them."""
    asked = {**BODIES[path], **(recording.request or {})}
    if path == "/v1/embeddings":
        asked["encoding_format"] = "float"
    return asked | {"stream": recording.is_stream}


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_answer_is_passed_on(name, record_property):
    path, judge = FILES[name]
    table = Table(name, EXCEPTIONS)
    for recording in recordings.recordings(name):
        if recording.status >= 300:
            continue

        def tell(recording=recording):
            out = told(path, recording, [recording.body])
            if recording.is_stream:
                assert told(path, recording, by_byte(recording.body)) == out
                return
            answer = orjson.loads(out)
            assert answer["tollgate"]["request_id"] == REQUEST_ID
            came = orjson.loads(recording.body)
            assert set(came) <= set(answer)
            if is_valid(judge, came):
                judge.model_validate(answer)

        table.check("passed on", recording, tell)
    record_property(SUMMARY, str(table))
    assert not table.failures, "\n" + "\n".join(table.failures)


def is_valid(judge: type[BaseModel], came: object) -> bool:
    try:
        judge.model_validate(came)
    except ValidationError:
        return False
    return True


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_request_can_be_admitted(name, record_property):
    path, _ = FILES[name]
    table = Table(name, EXCEPTIONS)
    for recording in recordings.recordings(name):
        if recording.request is None or recording.status >= 300:
            continue
        body = {"model": "m", **recording.request}
        table.check("asked", recording, lambda body=body: ENDPOINTS[path].ask(body))
    record_property(SUMMARY, str(table))
    assert not table.failures, "\n" + "\n".join(table.failures)


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_error_is_classified(name):
    wire = PROTOCOLS["anthropic" if name.startswith("anthropic") else "openai"]
    for recording in recordings.recordings(name):
        if recording.status >= 300:
            error = wire.provider_error(recording.status, recording.headers, recording.body)
            assert error.error_class in ERROR_CLASSES, recording.id
