"""Answers of Google's protocol: usage, ends, sources, signatures, both forms of a stream, and what its clients get."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire import fixtures_gemini as google
from tests.wire.fixtures import (
    ADDED,
    EXTRAS,
    REQUEST_ID,
    TOLD_STREAMS,
    by_byte,
    data,
    failure,
    payloads,
    start,
    stream,
    unary,
)
from tests.wire.fixtures_gemini import HELLO, PARIS, ROME, STOP, answer, candidate
from tollgate.errors import ProviderError
from tollgate.events import Usage
from tollgate.wire import gemini
from tollgate.wire.gemini.array import ArrayWriter, Splitter
from tollgate.wire.gemini.usage import searches_of

# Usage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "usage"),
    [
        (google.USAGE, Usage(input_tokens=12, cache_read_tokens=8, output_tokens=7, reasoning_tokens=5)),
        ({"promptTokenCount": 9}, Usage(input_tokens=9)),
        ({"candidatesTokenCount": 9}, Usage(output_tokens=9)),
        (
            {"promptTokenCount": 9, "toolUsePromptTokenCount": 100, "candidatesTokenCount": 1},
            Usage(input_tokens=109, output_tokens=1),
        ),
        (
            {"promptTokenCount": 263, "candidatesTokenCount": 35, "totalTokenCount": 35},
            Usage(input_tokens=263, output_tokens=35),
        ),
        (
            {
                "promptTokenCount": 100,
                "cachedContentTokenCount": 40,
                "promptTokensDetails": [
                    {"modality": "TEXT", "tokenCount": 10},
                    {"modality": "AUDIO", "tokenCount": 50},
                    {"modality": 2, "tokenCount": 40},
                ],
                "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 40}],
            },
            Usage(input_tokens=10, cache_read_tokens=40, input_audio_tokens=10, input_image_tokens=40),
        ),
        (
            {
                "promptTokenCount": 5,
                "candidatesTokenCount": 1300,
                "candidatesTokensDetails": [{"modality": "IMAGE", "tokenCount": 1290}],
            },
            Usage(input_tokens=5, output_tokens=10, output_image_tokens=1290),
        ),
        ({"promptTokenCount": 5, "cachedContentTokenCount": 9}, Usage(cache_read_tokens=5)),
        (
            {"promptTokenCount": 5, "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 9}]},
            Usage(input_audio_tokens=5),
        ),
        ({"promptTokenCount": 5, "promptTokensDetails": "x"}, Usage(input_tokens=5)),
        ({"trafficType": "ON_DEMAND"}, None),
        ({"totalTokenCount": 88759}, None),
    ],
)
def test_usage_is_read_into_disjoint_classes(block, usage):
    assert gemini.read_usage(block) == usage


counts = st.integers(0, 10**6)


@given(st.builds(Usage, *[counts] * 11))
def test_usage_that_is_written_for_clients_keeps_its_sums(usage):
    block = gemini.write_usage(usage)
    read = gemini.read_usage(block)

    assert read is not None
    assert read.reasoning_tokens == usage.reasoning_tokens
    assert read.cache_read_tokens == usage.cache_read_tokens
    total = sum(getattr(usage, field) for field in Usage.__struct_fields__ if field != "web_searches")
    assert block["totalTokenCount"] == total


def test_the_last_block_of_usage_counts():
    _, exchange = stream("gemini", "gemini", [TOLD_STREAMS["gemini"]["usage after the finish"]])

    assert exchange.meter.usage == Usage(input_tokens=12, cache_read_tokens=8, output_tokens=7, reasoning_tokens=5)
    assert orjson.loads(exchange.meter.usage_raw) == google.USAGE


@pytest.mark.parametrize(("model", "searches"), [("gemini-2.5-flash", 1), ("gemini-3-pro-preview", 2)])
def test_searches_are_charged_by_answer_before_gemini_3_and_by_query_since(model, searches):
    assert searches_of({"webSearchQueries": ["a", "b"]}, model) == searches
    assert searches_of({"webSearchQueries": []}, model) == searches_of(None, model) == 0


@pytest.mark.parametrize("form", ["stream", "unary"])
def test_a_grounded_answer_counts_its_search(form):
    whole = answer({"text": "Hello"}, finish="STOP", more=google.GROUNDING)
    later = data({"usageMetadata": google.USAGE})

    _, exchange = (
        stream("gemini", "gemini", [data(whole) + later]) if form == "stream" else unary("gemini", "gemini", whole)
    )

    assert exchange.meter.usage.web_searches == 1


@pytest.mark.parametrize(
    ("block", "context"),
    [
        ({"serviceTier": "priority"}, {"service_tier": "priority"}),
        ({"serviceTier": "standard", "trafficType": "ON_DEMAND"}, {}),
        ({"trafficType": "ON_DEMAND_FLEX"}, {"service_tier": "flex"}),
        ({"trafficType": 3, "serviceTier": []}, {}),
    ],
)
def test_how_a_call_was_served_chooses_its_price(block, context):
    _, exchange = unary("gemini", "gemini", answer({"text": "x"}, finish="STOP", usage={"promptTokenCount": 1} | block))
    assert exchange.meter.price_context == context


# Ends ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "chat", "message", "dropped"),
    [
        ("STOP", "stop", "end_turn", False),
        ("MAX_TOKENS", "length", "max_tokens", False),
        ("SAFETY", "content_filter", "refusal", False),
        ("RECITATION", "content_filter", "refusal", False),
        ("MODEL_ARMOR", "content_filter", "refusal", False),
        (3, "content_filter", "refusal", False),
        (77, "stop", "end_turn", True),
        ("MALFORMED_FUNCTION_CALL", "stop", "end_turn", True),
        ("UNEXPECTED_TOOL_CALL", "stop", "end_turn", True),
        ("A_WORD_OF_TOMORROW", "stop", "end_turn", True),
    ],
)
def test_googles_reasons_become_those_of_others(reason, chat, message, dropped):
    whole = candidate({"text": "Hello"}, finish=reason)

    streamed, _ = stream("openai", "gemini", [whole])
    unstreamed, _ = unary("anthropic", "gemini", answer({"text": "Hello"}, finish=reason))

    last = payloads(streamed)[-1]
    assert (last["choices"][0]["finish_reason"], unstreamed["stop_reason"]) == (chat, message)
    named = ["candidates[].finishReason"] if dropped else None
    assert last["tollgate"].get("dropped") == unstreamed["tollgate"].get("dropped") == named


def test_an_answer_with_calls_ends_in_the_word_for_calls():
    whole = candidate(PARIS, finish="STOP")

    chat, _ = stream("openai", "gemini", [whole])
    message, _ = unary("anthropic", "gemini", answer(PARIS, ROME, finish="STOP"))

    assert payloads(chat)[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert message["stop_reason"] == "tool_use"
    assert [block["id"] for block in message["content"]] == [
        f"call_{REQUEST_ID.replace('-', '')}_1",
        f"call_{REQUEST_ID.replace('-', '')}_2",
    ]


@pytest.mark.parametrize(
    "feedback", [{"blockReason": "SAFETY"}, {"blockReason": "OTHER"}, {"blockReasonMessage": "No."}]
)
def test_a_prompt_that_was_blocked_is_an_answer_without_content(feedback):
    blocked = {"promptFeedback": feedback, "usageMetadata": {"promptTokenCount": 9}}

    chat, one = stream("openai", "gemini", [data(blocked)])
    message, other = unary("anthropic", "gemini", blocked)
    own, _ = unary("gemini", "gemini", blocked)

    assert payloads(chat)[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert (message["content"], message["stop_reason"]) == ([], "refusal")
    assert one.meter.usage == other.meter.usage == Usage(input_tokens=9)
    assert own == blocked | ADDED


def test_a_prompt_that_is_blocked_while_it_is_answered_ends_the_answer():
    out, exchange = stream(
        "openai", "gemini", [HELLO + data({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}})]
    )

    assert payloads(out)[-1]["choices"][0]["finish_reason"] == "content_filter"
    assert exchange.meter.finish_reason == "PROHIBITED_CONTENT"


def test_a_stream_that_ends_before_its_finish_is_cut():
    for pieces in ([HELLO], [HELLO, STOP[:-30]], [google.as_array(HELLO + STOP)[:-60]], []):
        assert failure("openai", "gemini", pieces)[1].error_class == "cut"


@pytest.mark.parametrize(
    "form",
    [lambda broken: data(broken), lambda broken: google.as_array(HELLO)[:-2] + b"," + orjson.dumps(broken) + b"]"],
)
def test_an_error_inside_either_form_of_a_stream_is_one(form):
    out, error = failure("openai", "gemini", [form({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}})])

    assert error.error_class == "rate_limit"
    assert (b"Hello" in out) == (form({}) != data({}))


@pytest.mark.parametrize(
    "broken",
    [
        {"candidates": 1},
        {"candidates": [1]},
        {"candidates": [{"content": {"parts": [1]}}]},
        {"candidates": [{"content": {"parts": [{"functionCall": {}}]}}]},
    ],
)
def test_what_breaks_the_protocol_is_the_providers_failure(broken):
    for run in (lambda: unary("openai", "gemini", broken), lambda: stream("openai", "gemini", [data(broken) + STOP])):
        with pytest.raises(ProviderError) as raised:
            run()
        assert raised.value.error_class == "server_error"


# Content ------------------------------------------------------------------------------------------------------------


def test_calls_are_whole_and_numbered_among_themselves():
    out, _ = stream("openai", "gemini", [candidate(PARIS) + candidate(ROME) + STOP])

    calls = [payload["choices"][0]["delta"]["tool_calls"][0] for payload in payloads(out)[1:5]]
    assert [(call["index"], call["function"]["arguments"]) for call in calls] == [
        (0, ""),
        (0, '{"city":"Paris"}'),
        (1, ""),
        (1, '{"city":"Rome"}'),
    ]


def test_a_signature_of_a_call_reaches_clients_of_either_dialect():
    whole = candidate(PARIS | {"thoughtSignature": "Zm9v"}, ROME, finish="STOP")

    chat, _ = stream("openai", "gemini", [whole])
    message, _ = stream("anthropic", "gemini", [whole])

    signed = payloads(chat)[1]["choices"][0]["delta"]["tool_calls"][0]
    assert signed["extra_content"] == {"google": {"thought_signature": "Zm9v"}}
    assert payloads(message)[1]["content_block"] == {"type": "redacted_thinking", "data": "tollgate:google:call:Zm9v"}


def test_a_signature_of_a_text_is_kept_as_a_thought_without_words():
    whole = answer({"text": "Hello", "thoughtSignature": "Zm9v"}, finish="STOP")

    chat, _ = unary("openai", "gemini", whole)
    message, _ = unary("anthropic", "gemini", whole)

    assert chat["choices"][0]["message"]["reasoning_details"][0]["signature"] == "Zm9v"
    assert message["content"] == [
        {"type": "text", "text": "Hello"},
        {"type": "thinking", "thinking": "", "signature": "tollgate:google:Zm9v"},
    ]


@pytest.mark.parametrize("form", ["stream", "unary"])
def test_sources_are_told_with_their_place_in_characters(form):
    text = "Schön: hello."
    support = {"segment": {"startIndex": 8, "endIndex": 13}, "groundingChunkIndices": [0, 7]}
    grounding = {
        "groundingMetadata": {
            "groundingChunks": [{"web": {"uri": "https://example.com", "title": "X"}}, {"maps": {}}],
            "groundingSupports": [support],
        }
    }
    if form == "unary":
        told, exchange = unary("openai", "gemini", answer({"text": text}, finish="STOP", more=grounding))
        annotations = told["choices"][0]["message"]["annotations"]
    else:
        whole = candidate({"text": text[:7]}) + candidate({"text": text[7:]}, finish="STOP", more=grounding)
        told, exchange = stream("openai", "gemini", [whole])
        annotations = [
            one for payload in payloads(told) for one in payload["choices"][0]["delta"].get("annotations", ())
        ]

    (found,) = annotations
    place = found["url_citation"]
    assert (place["url"], place["title"]) == ("https://example.com", "X")
    assert text[place["start_index"] : place["end_index"]] == "hello"
    assert exchange.meter.dropped == {"candidates[].groundingMetadata.groundingChunks"}


def test_what_others_cannot_be_told_is_named():
    out, exchange = stream("openai", "gemini", [TOLD_STREAMS["gemini"]["code that was run"]])

    named = [f"candidates[].content.parts[].{field}" for field in ("codeExecutionResult", "executableCode")]
    assert sorted(exchange.meter.dropped) == named == payloads(out)[-1]["tollgate"]["dropped"]


@pytest.mark.parametrize("form", ["stream", "unary"])
def test_log_probabilities_go_to_openai_and_back(form):
    result = {
        "logprobsResult": {
            "chosenCandidates": [{"token": "Hi", "logProbability": -0.5, "tokenId": 3}],
            "topCandidates": [{"candidates": [{"token": "Ho", "logProbability": -1.5}]}],
        }
    }
    whole = answer({"text": "Hi"}, finish="STOP", more=result)
    if form == "stream":
        out, _ = stream("openai", "gemini", [data(whole)])
        choice = payloads(out)[1]["choices"][0]
    else:
        choice = unary("openai", "gemini", whole)[0]["choices"][0]

    entry = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}
    other = {"token": "Ho", "logprob": -1.5, "bytes": [72, 111]}
    assert choice["logprobs"]["content"] == [entry | {"top_logprobs": [other]}]

    back, _ = unary("gemini", "openai", {"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"} | choice]})
    assert back["candidates"][0]["logprobsResult"] == {
        "chosenCandidates": [{"token": "Hi", "logProbability": -0.5}],
        "topCandidates": [{"candidates": [{"token": "Ho", "logProbability": -1.5}]}],
    }


def test_candidates_are_choices():
    fields = {"generationConfig": {"candidateCount": 2}}
    whole = candidate({"text": "a"}) + candidate({"text": "b"}, index=1) + candidate(finish="STOP")

    out, exchange = stream("openai", "gemini", [whole + candidate(finish="MAX_TOKENS", index=1)], n=2)
    own, _ = stream("gemini", "gemini", [whole + candidate(finish="STOP", index=1)], **fields)

    ends = [payload["choices"][0] for payload in payloads(out)[-2:]]
    assert [(end["index"], end["finish_reason"]) for end in ends] == [(0, "stop"), (1, "length")]
    assert len(payloads(own)) == 4
    assert exchange.meter.finish_reason == "MAX_TOKENS"


# What clients of this dialect get -----------------------------------------------------------------------------------


def test_chunks_of_openai_become_chunks_of_gemini():
    out, _ = stream("gemini", "openai", [TOLD_STREAMS["openai"]["text and two calls"]])

    head = {"modelVersion": "gpt-4o-2024-08-06", "responseId": REQUEST_ID}

    def one(part, **more):
        return {"candidates": [{"content": {"parts": [part], "role": "model"}, "index": 0, **more}], **head}

    def call(number, city):
        return {"functionCall": {"id": f"call_{number}", "name": "weather", "args": {"city": city}}}

    assert payloads(out) == [
        one({"text": "Hello"}),
        one(call(1, "Paris")),
        one(call(2, "Rome")),
        one({"text": ""}, finishReason="STOP")
        | {
            "usageMetadata": {
                "promptTokenCount": 20,
                "candidatesTokenCount": 7,
                "totalTokenCount": 32,
                "thoughtsTokenCount": 5,
                "cachedContentTokenCount": 8,
            }
        }
        | ADDED,
    ]


def test_claudes_thoughts_reach_gemini_clients_with_their_origin():
    out, _ = stream("gemini", "anthropic", [TOLD_STREAMS["anthropic"]["thinking"]])
    hidden, _ = stream("gemini", "anthropic", [TOLD_STREAMS["anthropic"]["redacted thinking"]])

    parts = [payload["candidates"][0]["content"]["parts"][0] for payload in payloads(out)]
    assert parts[0] == {"text": "Hm.", "thought": True}
    assert (parts[1]["text"], parts[1]["thought"]) == ("", True)
    assert gemini.words.unpack_signature(parts[1]["thoughtSignature"]) == ("c2ln", "anthropic", False)
    redacted = payloads(hidden)[0]["candidates"][0]["content"]["parts"][0]
    assert gemini.words.unpack_signature(redacted["thoughtSignature"]) == ("ZW5j", "anthropic", True)


@pytest.mark.parametrize(
    ("provider", "name"), [("openai", "citations"), ("anthropic", "search and citations"), ("gemini", "grounding")]
)
def test_sources_reach_gemini_clients_as_grounding(provider, name):
    out, _ = stream("gemini", provider, [TOLD_STREAMS[provider][name]])

    grounding = payloads(out)[-1]["candidates"][0]["groundingMetadata"]
    assert grounding["groundingChunks"] == [{"web": {"uri": "https://example.com", "title": "X"}}]
    place = grounding["groundingSupports"][0]["segment"]
    assert b"Hello"[place.get("startIndex", 0) : place["endIndex"]] == b"Hello"


def test_the_last_chunk_of_a_stream_that_passes_carries_the_extras():
    out, _ = stream("gemini", "gemini", [TOLD_STREAMS["gemini"]["usage after the finish"]])

    *before, last = payloads(out)
    assert last == {"usageMetadata": google.USAGE} | ADDED
    assert all("tollgate" not in payload for payload in before)


def test_models_are_listed_by_their_resource():
    listed = orjson.loads(gemini.models_body([("gpt-4o", "openai", 0)]))["models"]

    assert [model["name"] for model in listed] == ["models/gpt-4o"]
    assert "generateContent" in listed[0]["supportedGenerationMethods"]


def test_an_error_event_has_the_error_first_as_the_sdk_looks_for_it():
    event = start("gemini", "openai", stream=True).failure(ProviderError("cut", "x"), REQUEST_ID)

    assert event.startswith(b'data: {"error":{"code":502,')


# A stream as an array -----------------------------------------------------------------------------------------------

ODD = [{"a": 'x"}\\'}, {"b": "{["}, {"c": {"d": [{}]}}, {"e": "\\\\"}, {}]


@given(st.lists(st.integers(1, 30), max_size=40), st.sampled_from([b",", b"\n,\r\n", b" , "]))
def test_elements_of_an_array_are_found_however_it_is_cut(sizes, comma):
    whole = b"[" + comma.join(orjson.dumps(one) for one in ODD) + b"]\n"
    splitter, found = Splitter(), []

    for size in [*sizes, len(whole)]:
        found += splitter.feed(whole[:size])
        whole = whole[size:]

    assert [orjson.loads(event.data) for event in found] == ODD
    assert splitter.close() is None


@pytest.mark.parametrize("name", ["plain", "tool call", "comments", "CRLF"])
def test_events_become_elements_of_an_array(name):
    whole = TOLD_STREAMS["gemini"][name]
    at_once, by_bytes = ArrayWriter(), ArrayWriter()

    array = at_once.feed(whole, last=True)

    assert orjson.loads(array) == payloads(whole)
    assert (
        b"".join([*(by_bytes.feed(piece, last=False) for piece in by_byte(whole)), by_bytes.feed(b"", last=True)])
        == array
    )


def test_an_array_without_events_is_empty():
    assert ArrayWriter().feed(b"", last=True) == b"[]"


def test_an_array_is_passed_on_as_events():
    out, _ = stream("gemini", "gemini", by_byte(TOLD_STREAMS["gemini"]["as an array"]))
    assert payloads(out)[0] == payloads(HELLO)[0]


@pytest.mark.parametrize("client", ["openai", "anthropic", "gemini"])
def test_the_end_of_the_body_is_the_end_of_the_answer(client):
    exchange = start(client, "gemini", stream=True)
    exchange.feed(HELLO + STOP)

    assert not exchange.meter.complete
    exchange.finish()
    assert exchange.final(EXTRAS)
