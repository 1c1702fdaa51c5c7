"""Completions, embeddings, images, moderations, speech: passed on as they are, and metered on the way back."""

import base64
import struct

import orjson
import pytest
from openai.types import Completion as OpenAICompletion
from openai.types import CreateEmbeddingResponse, ImagesResponse

from tests.wire.fixtures import EXTRAS, REQUEST_ID, by_byte, data, events, payloads
from tollgate.errors import ERROR_CLASSES, ProviderError, Refusal
from tollgate.events import Usage
from tollgate.wire import Quirks
from tollgate.wire.endpoints import ENDPOINTS, SERVED

FILE = {"filename": "a.wav", "content_type": "audio/wav", "data": base64.b64encode(bytes(32_000)).decode()}
BODIES = {
    "/v1/completions": {"model": "m", "prompt": "Once"},
    "/v1/embeddings": {"model": "m", "input": ["a", "b"]},
    "/v1/images/generations": {"model": "m", "prompt": "A cat"},
    "/v1/moderations": {"model": "m", "input": "Hello"},
    "/v1/audio/speech": {"model": "m", "input": "Hello", "voice": "alloy"},
    "/v1/audio/transcriptions": {"model": "m", "file": FILE},
    "/v1/audio/translations": {"model": "m", "file": FILE},
    "/v1/messages/count_tokens": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
    "/v1beta/models/{model}:countTokens": {"model": "m", "contents": [{"parts": [{"text": "Hi"}]}]},
    "/v1beta/models/{model}:embedContent": {"model": "m", "content": {"parts": [{"text": "Hi"}]}},
    "/v1beta/models/{model}:batchEmbedContents": {
        "model": "m",
        "requests": [{"model": "models/m", "content": {"parts": [{"text": "Hi"}]}}],
    },
    "/api/embed": {"model": "m", "input": ["a", "b"]},
    "/api/embeddings": {"model": "m", "prompt": "a"},
}
SERVICES = [path for path, endpoint in ENDPOINTS.items() if endpoint.service is not None]
TEXT_USAGE = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}


def start(path, **change):
    return ENDPOINTS[path].exchange(
        ENDPOINTS[path].dialect,
        BODIES[path] | change,
        request_id=REQUEST_ID,
        model="upstream",
        max_output_tokens=change.get("max_tokens"),
        headers={"anthropic-version": "2026-10-21"},
        quirks=Quirks(),
    )


def told(path, answer, **change):
    """What the client gets of a unary answer, and the meter."""
    exchange = start(path, **change)
    exchange.answer(answer if isinstance(answer, bytes) else orjson.dumps(answer))
    return orjson.loads(exchange.final(EXTRAS)), exchange.meter


def streamed(path, pieces, **change):
    exchange = start(path, **change)
    out = b"".join(exchange.feed(piece) for piece in pieces)
    exchange.finish()
    return out + exchange.final(EXTRAS), exchange


# All of them --------------------------------------------------------------------------------------------------------


def test_every_service_has_an_example_here():
    assert set(BODIES) == set(SERVICES)


def test_every_endpoint_is_served_by_the_protocol_that_it_belongs_to():
    for endpoint in ENDPOINTS.values():
        assert endpoint.name in SERVED[endpoint.dialect]
        assert endpoint.protocol(endpoint.dialect, SERVED[endpoint.dialect]) == endpoint.dialect


@pytest.mark.parametrize("path", SERVICES)
def test_a_service_is_asked_only_of_those_that_serve_it(path):
    assert ENDPOINTS[path].protocol("openai", frozenset()) is None
    assert ENDPOINTS["/v1/responses"].protocol("openai", frozenset()) == "openai"  # a conversation is translated


@pytest.mark.parametrize("path", [path for path in SERVICES if "audio/t" not in path])
def test_what_is_not_known_here_is_passed_on_and_what_speaks_to_the_gateway_is_not(path):
    request = start(path, x_new={"deep": [1]}, routingStrategy="cheapest").request

    sent = orjson.loads(request.body)
    assert sent.get("model") == "upstream" or "/upstream:" in request.path
    assert sent["x_new"] == {"deep": [1]}
    assert "routingStrategy" not in sent
    assert request.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", SERVICES)
@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"{}", b'{"data": 3, "choices": 3}'])
def test_a_2xx_that_is_no_answer_is_the_providers_failure(path, body):
    if path == "/v1/audio/speech":
        return  # any bytes may be sound
    with pytest.raises(ProviderError) as raised:
        told(path, body)
    assert raised.value.error_class == "server_error"


@pytest.mark.parametrize("path", [path for path in SERVICES if path != "/v1/audio/speech"])
def test_an_error_in_a_200_is_an_error(path):
    with pytest.raises(ProviderError) as raised:
        told(path, {"error": {"code": 429, "message": "slow down"}})
    assert raised.value.error_class == "rate_limit"


@pytest.mark.parametrize("path", SERVICES)
def test_a_model_is_required(path):
    with pytest.raises(Refusal) as refused:
        ENDPOINTS[path].ask({field: value for field, value in BODIES[path].items() if field != "model"})
    assert (refused.value.status, refused.value.param) == (400, "model")


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        ("/v1/completions", {"prompt": {}}, "prompt"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"n": 0}, "n"),
        ("/v1/embeddings", {"input": None}, "input"),
        ("/v1/embeddings", {"input": 3}, "input"),
        ("/v1/embeddings", {"encoding_format": "hex"}, "encoding_format"),
        ("/v1/images/generations", {"prompt": None}, "prompt"),
        ("/v1/images/generations", {"n": 11}, "n"),
        ("/v1/moderations", {"input": None}, "input"),
        ("/v1/moderations", {"input": 3}, "input"),
        ("/v1/audio/speech", {"input": None}, "input"),
        ("/v1/audio/speech", {"input": 3}, "input"),
        ("/v1/audio/transcriptions", {"file": None}, "file"),
        ("/v1/audio/transcriptions", {"file": {}}, "file"),
        ("/v1/audio/transcriptions", {"file": "a path"}, "file"),
        ("/v1/messages/count_tokens", {"messages": []}, "messages"),
        ("/v1beta/models/{model}:countTokens", {"contents": []}, "contents"),
        ("/v1beta/models/{model}:countTokens", {"generateContentRequest": {"contents": 1}}, "contents"),
    ],
)
def test_what_is_wrong_in_itself_is_refused_by_name(path, change, param):
    with pytest.raises(Refusal) as refused:
        ENDPOINTS[path].ask(BODIES[path] | change)
    assert (refused.value.status, refused.value.param) == (400, param)


@pytest.mark.parametrize(
    ("path", "change", "unbounded"),
    [
        ("/v1/completions", {}, None),
        ("/v1/completions", {"something": "new"}, "something"),
        ("/v1/embeddings", {}, None),
        ("/v1/embeddings", {"input": [{"type": "image_url"}]}, "input[0]"),
        ("/v1/images/generations", {}, None),
        ("/v1/images/generations", {"partial_images": 4}, "partial_images"),
        ("/v1/moderations", {}, None),
        ("/v1/moderations", {"input": [{"type": "image_url", "image_url": {"url": "x"}}]}, "input[0]"),
        ("/v1/audio/speech", {}, None),
        ("/v1/audio/transcriptions", {"language": "en"}, None),
        ("/v1/audio/transcriptions", {"chunking_strategy": "auto"}, "chunking_strategy"),
        ("/v1/messages/count_tokens", {"anything": 1}, None),
    ],
)
def test_what_no_bound_allows_for_is_named(path, change, unbounded):
    assert ENDPOINTS[path].ask(BODIES[path] | change).unbounded == unbounded


@pytest.mark.parametrize(
    ("model", "more", "tokens"),
    [
        ("gpt-image-1", {}, 6240),
        ("gpt-image-1", {"size": "auto", "quality": "auto"}, 6240),
        ("gpt-image-1", {"quality": "medium"}, 1584),
        ("gpt-image-1", {"size": "1024x1024"}, 4160),
        ("gpt-image-1-mini", {"quality": "low", "size": "1536x1024"}, 400),
        ("gpt-image-1-2025-04-23", {"quality": "low", "size": "1024x1024", "partial_images": 3}, 572),
        ("gpt-image-1", {"size": "2048x2048"}, None),
        ("gpt-image-1", {"quality": "hd"}, None),
        ("gpt-image-1.5", {}, None),
        ("gpt-image-2", {}, None),
    ],
)
def test_an_image_is_bounded_by_what_its_provider_tabulates(model, more, tokens):
    images = ENDPOINTS["/v1/images/generations"]
    assert images.most_output_tokens({"prompt": "A cat", **more}, model) == tokens


# Completions --------------------------------------------------------------------------------------------------------


def completion(text, finish=None, *, index=0, **more):
    choices = [] if text is None else [{"text": text, "index": index, "logprobs": None, "finish_reason": finish}]
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 1,
        "model": "instruct-1",
        "choices": choices,
        **more,
    }


COMPLETION_STREAM = (
    data(completion(" upon"))
    + data(completion(" a", "stop"))
    + data(completion(None, usage=TEXT_USAGE))
    + b"data: [DONE]\n\n"
)


def test_a_completion_is_metered_and_gets_the_extras():
    answer, meter = told("/v1/completions", completion(" upon", "stop", usage=TEXT_USAGE))

    OpenAICompletion.model_validate(answer)
    assert meter.usage == Usage(input_tokens=20, output_tokens=4)
    assert (meter.served_model, meter.finish_reason, meter.output_bytes) == ("instruct-1", "stop", 5)
    assert answer["tollgate"]["request_id"] == REQUEST_ID


@pytest.mark.parametrize("asked", [{}, {"stream_options": {"include_usage": True}}])
def test_a_stream_of_completions_is_the_same_however_it_is_cut(asked):
    whole, exchange = streamed("/v1/completions", [COMPLETION_STREAM], stream=True, **asked)
    cut, other = streamed("/v1/completions", by_byte(COMPLETION_STREAM), stream=True, **asked)

    assert cut == whole
    assert exchange.meter == other.meter
    assert exchange.meter.usage == Usage(input_tokens=20, output_tokens=4)
    assert events(whole)[-1].data == b"[DONE]"
    assert any(not payload["choices"] for payload in payloads(whole)) == bool(asked)
    assert payloads(whole)[-1]["tollgate"]["request_id"] == REQUEST_ID


def test_usage_is_asked_for_and_the_cap_is_sent():
    sent = orjson.loads(start("/v1/completions", stream=True, max_tokens=9).request.body)

    assert (sent["stream_options"], sent["max_tokens"]) == ({"include_usage": True}, 9)


def test_a_stream_of_several_prompts_goes_on_until_all_are_finished():
    exchange = start("/v1/completions", stream=True, prompt=["Once", "Twice"])

    first = exchange.feed(data(completion(" upon", "stop")))
    second = exchange.feed(data(completion(" is", index=1)))
    held = exchange.feed(data(completion("", "stop", index=1)))

    assert (len(events(first)), len(events(second)), held) == (1, 1, b"")


def test_a_stream_of_completions_that_ends_without_a_finish_is_cut():
    exchange = start("/v1/completions", stream=True)
    exchange.feed(data(completion(" upon")))
    with pytest.raises(ProviderError) as raised:
        exchange.finish()
    assert raised.value.error_class == "cut"
    (error,) = payloads(exchange.failure(raised.value, REQUEST_ID))
    assert error["error"]["code"] == "provider_cut"


@pytest.mark.parametrize(
    ("change", "choices"),
    [
        ({}, 1),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": [1, 2, 3]}, 1),
        ({"prompt": [[1, 2], [3]], "n": 2}, 4),
        ({"best_of": 3}, 3),
        ({"prompt": None}, 1),
    ],
)
def test_every_answer_that_is_made_counts(change, choices):
    assert ENDPOINTS["/v1/completions"].ask(BODIES["/v1/completions"] | change).choices == choices


def test_tokens_are_no_more_than_the_bytes_that_name_them():
    tokens = list(range(1000))
    assert ENDPOINTS["/v1/embeddings"].ask({"model": "m", "input": tokens}).input_bound_tokens >= len(tokens)


# Embeddings ---------------------------------------------------------------------------------------------------------

VECTOR = [0.25, -0.5, 1.0]
PACKED = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()


def embedded(vector, **usage):
    return {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": vector}],
        "model": "embed-1",
        "usage": usage or {"prompt_tokens": 3, "total_tokens": 3},
    }


@pytest.mark.parametrize("given", [VECTOR, PACKED])
@pytest.mark.parametrize(("wanted", "vector"), [("float", VECTOR), ("base64", PACKED), (None, VECTOR)])
def test_a_client_gets_the_form_of_vectors_that_it_asked_for(given, wanted, vector):
    answer, meter = told("/v1/embeddings", embedded(given), encoding_format=wanted)

    assert answer["data"][0]["embedding"] == vector
    assert meter.usage == Usage(input_tokens=3)
    if wanted != "base64":
        CreateEmbeddingResponse.model_validate(answer)


def test_a_vector_that_is_neither_breaks_or_passes():
    with pytest.raises(ProviderError):
        told("/v1/embeddings", embedded("not base64!"))
    assert told("/v1/embeddings", embedded({"int8": [1]}))[0]["data"][0]["embedding"] == {"int8": [1]}


def test_a_total_alone_is_the_input():
    answer, meter = told("/v1/embeddings", embedded(VECTOR, total_tokens=7))

    assert meter.usage == Usage(input_tokens=7)
    assert (answer["usage"]["prompt_tokens"], answer["usage"]["total_tokens"]) == (7, 7)


# Images -------------------------------------------------------------------------------------------------------------


def test_images_are_counted_by_tokens_and_by_the_image():
    usage = {
        "input_tokens": 30,
        "input_tokens_details": {"image_tokens": 10, "text_tokens": 20},
        "output_tokens": 120,
        "output_tokens_details": {"image_tokens": 100, "text_tokens": 20},
        "total_tokens": 150,
    }
    answer, meter = told("/v1/images/generations", {"created": 1, "data": [{"b64_json": "x"}], "usage": usage})

    ImagesResponse.model_validate(answer)
    assert meter.usage == Usage(
        input_tokens=20, input_image_tokens=10, output_tokens=20, output_image_tokens=100, images=1
    )


def test_an_image_without_usage_is_one_image_of_its_size_and_quality():
    answer, meter = told(
        "/v1/images/generations", {"created": 1, "data": [{"url": "x"}] * 2}, size="1024x1792", quality="hd"
    )

    assert meter.usage == Usage(images=2)
    assert meter.price_context == {"size": "1024x1792", "quality": "hd"}
    assert "usage" not in answer
    _, plain = told("/v1/images/generations", {"created": 1, "data": [{"url": "x"}]}, size="auto")
    assert plain.price_context == {"size": "1024x1024", "quality": "standard"}


IMAGE_STREAM = data({"type": "image_generation.partial_image", "b64_json": "x", "partial_image_index": 0}) + data(
    {"type": "image_generation.completed", "b64_json": "y", "usage": {"input_tokens": 3, "output_tokens": 50}}
)


def test_a_stream_of_images_is_metered_at_its_end():
    whole, exchange = streamed("/v1/images/generations", [IMAGE_STREAM], stream=True)

    assert exchange.meter.usage == Usage(input_tokens=3, output_image_tokens=50, images=1)
    assert payloads(whole)[-1]["usage"]["cost"] == float(EXTRAS.cost_usd)
    assert streamed("/v1/images/generations", by_byte(IMAGE_STREAM), stream=True)[0] == whole


# Sound --------------------------------------------------------------------------------------------------------------


def test_speech_is_bytes_in_the_form_that_was_asked_for():
    whole, exchange = streamed("/v1/audio/speech", [b"RIFF", b"", b"\x00\xff"], response_format="wav")

    assert whole == b"RIFF\x00\xff"
    assert exchange.content_type == "audio/wav"
    assert exchange.meter.usage == Usage(characters=5)
    assert exchange.meter.estimate == Usage(characters=5, output_audio_tokens=7)


def test_speech_leaves_as_it_comes_but_for_the_last_byte_which_waits_for_the_books():
    exchange = start("/v1/audio/speech")

    assert [exchange.feed(piece) for piece in by_byte(b"abc")] == [b"", b"a", b"b"]
    assert exchange.feed(b"def") == b"cde"
    exchange.finish()
    assert exchange.final(EXTRAS) == b"f"


def test_speech_that_is_empty_is_none_and_one_that_breaks_off_says_nothing():
    exchange = start("/v1/audio/speech")
    with pytest.raises(ProviderError) as raised:
        exchange.finish()
    assert raised.value.error_class == "server_error"
    assert exchange.failure(raised.value, REQUEST_ID) == b""


@pytest.mark.parametrize("form", [{}, {"stream_format": "sse"}])
def test_speech_that_was_heard_in_part_is_estimated_as_if_it_had_been_whole(form):
    exchange = start("/v1/audio/speech", **form)
    assert exchange.meter.estimate == Usage(characters=5, output_audio_tokens=7)


def test_speech_as_events_counts_its_tokens():
    stream = data({"type": "speech.audio.delta", "audio": "x"}) + data(
        {"type": "speech.audio.done", "usage": {"input_tokens": 4, "output_tokens": 90, "total_tokens": 94}}
    )
    whole, exchange = streamed("/v1/audio/speech", [stream], stream_format="sse")

    assert exchange.meter.usage == Usage(input_tokens=4, output_audio_tokens=90, characters=5)
    assert exchange.meter.estimate is None
    assert payloads(whole)[-1]["tollgate"]["request_id"] == REQUEST_ID


@pytest.mark.parametrize(
    ("answer", "usage"),
    [
        ({"text": "Hi", "usage": {"type": "duration", "seconds": 7}}, Usage(audio_ms=7000)),
        ({"text": "Hi", "duration": "1.48"}, Usage(audio_ms=1480)),
        (
            {
                "text": "Hi",
                "usage": {
                    "type": "tokens",
                    "input_tokens": 14,
                    "input_token_details": {"text_tokens": 4, "audio_tokens": 10},
                    "output_tokens": 45,
                },
            },
            Usage(input_tokens=4, input_audio_tokens=10, output_tokens=45),
        ),
        ({"text": "Hi"}, None),
        ({"text": "Hi", "usage": {"type": "duration", "seconds": -1}}, None),
    ],
)
def test_a_transcription_is_counted_by_seconds_or_tokens(answer, usage):
    got, meter = told("/v1/audio/transcriptions", answer)

    assert meter.usage == usage
    assert meter.estimate == Usage(audio_ms=2000)  # 32,000 bytes at 128 kbit/s
    assert got["text"] == "Hi"


@pytest.mark.parametrize(
    ("kind", "text", "length_ms"),
    [
        ("srt", b"1\n00:00:00,000 --> 00:00:02,500\nHi\n\n2\n00:00:02,500 --> 01:00:03,250\nthere\n", 3_603_250),
        ("vtt", b"WEBVTT\n\n00:00.000 --> 00:02.500\nHi\n", 2_500),
        ("text", b"Hi\n", 2_000),
    ],
)
def test_a_transcript_that_is_text_leaves_as_it_is_and_its_last_stamp_says_how_long(kind, text, length_ms):
    exchange = start("/v1/audio/transcriptions", response_format=kind)
    exchange.answer(text)

    assert exchange.final(EXTRAS) == text
    assert exchange.content_type.startswith("text/")
    assert exchange.meter.estimate == Usage(audio_ms=length_ms)


def test_a_form_is_written_as_it_was_read():
    fields = {
        "model": "m",
        "timestamp_granularities[]": ["word", "segment"],
        "file": FILE | {"filename": 'a"\r\nb.wav'},
    }

    request = start("/v1/audio/transcriptions", **fields).request

    assert request.headers["content-type"] == f"multipart/form-data; boundary=tollgate-{REQUEST_ID}"
    assert request.body.count(b'name="timestamp_granularities[]"') == 2
    assert b'filename="a%22%0D%0Ab.wav"\r\ncontent-type: audio/wav\r\n\r\n' + bytes(32_000) in request.body
    assert b'name="model"\r\n\r\nupstream\r\n' in request.body


def test_a_stream_of_a_transcript_is_metered_at_its_end():
    stream = data({"type": "transcript.text.delta", "delta": "Hi"}) + data(
        {"type": "transcript.text.done", "text": "Hi", "usage": {"type": "duration", "seconds": 1}}
    )
    whole, exchange = streamed("/v1/audio/transcriptions", by_byte(stream), stream="true")

    assert exchange.meter.usage == Usage(audio_ms=1000)
    assert [payload["type"] for payload in payloads(whole)] == ["transcript.text.delta", "transcript.text.done"]


# Counts and moderations ---------------------------------------------------------------------------------------------


def test_a_count_costs_nothing_and_is_told_in_anthropics_words():
    answer, meter = told("/v1/messages/count_tokens", {"input_tokens": 14})

    assert answer["input_tokens"] == 14
    assert meter.usage == Usage()
    assert ENDPOINTS["/v1/messages/count_tokens"].ask(BODIES["/v1/messages/count_tokens"]).free
    assert start("/v1/messages/count_tokens").request.headers["anthropic-version"] == "2026-10-21"


COUNT = "/v1beta/models/{model}:countTokens"


def test_a_count_of_googles_is_told_in_its_words():
    answer, meter = told(COUNT, {"totalTokens": 14, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 14}]})

    assert answer["totalTokens"] == 14
    assert "tollgate" in answer
    assert meter.usage == Usage()
    assert ENDPOINTS[COUNT].ask(BODIES[COUNT]).free


@pytest.mark.parametrize("field", ["generateContentRequest", "generate_content_request"])
def test_a_whole_request_that_is_counted_names_the_providers_model(field):
    contents = BODIES[COUNT]["contents"]
    exchange = ENDPOINTS[COUNT].exchange(
        "gemini",
        {"model": "m", "stream": False, field: {"model": "models/m", "contents": contents}},
        request_id=REQUEST_ID,
        model="gemini-x",
        max_output_tokens=None,
        headers={},
        quirks=Quirks(),
    )

    assert exchange.request.path == "/models/gemini-x:countTokens"
    assert orjson.loads(exchange.request.body) == {field: {"model": "models/gemini-x", "contents": contents}}


def test_a_moderation_without_usage_counts_as_nothing_however_it_ends():
    assert start("/v1/moderations").meter.estimate == Usage()
    answer, meter = told("/v1/moderations", {"id": "modr-1", "model": "omni", "results": [{"flagged": False}]})

    assert answer["results"] == [{"flagged": False}]
    assert (meter.usage, meter.estimate) == (None, Usage())


def test_a_moderation_is_metered_by_the_usage_that_its_provider_states():
    usage = {"prompt_tokens": 9, "completion_tokens": 0, "total_tokens": 9}
    _, meter = told("/v1/moderations", {"results": [], "usage": usage})

    assert (meter.usage, meter.estimate) == (Usage(input_tokens=9), None)


@pytest.mark.parametrize(
    ("path", "stream"), [("/v1/completions", COMPLETION_STREAM), ("/v1/images/generations", IMAGE_STREAM)]
)
@pytest.mark.parametrize("broken", [b"data: {\n\n", b"data: []\n\n", data({"error": {"message": "no"}})])
def test_a_stream_that_breaks_is_the_providers_failure(path, stream, broken):
    with pytest.raises(ProviderError) as raised:
        streamed(path, [broken], stream=True)
    assert raised.value.error_class in ERROR_CLASSES
