"""One attempt between any two dialects: what the client gets, and what is known of the answer."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.fixtures import (
    ADDED,
    BLOCK_STOP,
    DIALECTS,
    DONE,
    END_TURN,
    EXTRAS,
    HALVES_OF_AN_EMOJI,
    HELLO,
    INVALID_STREAMS,
    MESSAGE_START,
    MESSAGE_STOP,
    OPENAI_UNARY,
    OPENAI_USAGE,
    PING,
    REQUEST_ID,
    ROLE,
    STOP,
    STREAMS,
    TEXT,
    TEXT_START,
    TOLD_STREAMS,
    UNARY,
    USAGE,
    WORLD,
    by_byte,
    by_event,
    came,
    chunk,
    data,
    event,
    events,
    every_stream,
    failure,
    framed,
    message_delta,
    payloads,
    start,
    stream,
    text_delta,
    unary,
)
from tests.wire.fixtures_gemini import HELLO as GEMINI_HELLO
from tests.wire.fixtures_gemini import STOP as GEMINI_STOP
from tests.wire.fixtures_gemini import WORLD as GEMINI_WORLD
from tests.wire.fixtures_ollama import HELLO as OLLAMA_HELLO
from tests.wire.fixtures_ollama import STOP as OLLAMA_STOP
from tests.wire.fixtures_ollama import WORLD as OLLAMA_WORLD
from tests.wire.fixtures_ollama import line as ollama_line
from tests.wire.said import SAID
from tests.wire.sdk import validate
from tests.wire.wrong import wrong_inside
from tollgate.errors import ERROR_CLASSES, ProviderError, Refusal
from tollgate.events import Usage
from tollgate.wire import exchange
from tollgate.wire.exchange import cannot_carry, exchange_for

RESPONSE_EVENTS = by_event(STREAMS["responses"]["plain"])[:-1]
RESPONSE_PIECES = (
    b"".join(RESPONSE_EVENTS[:4]),
    RESPONSE_EVENTS[4],
    RESPONSE_EVENTS[5],
    b"".join(RESPONSE_EVENTS[6:-1]),
    RESPONSE_EVENTS[-1:],
)
ASKED = {"stream_options": {"include_usage": True}}
COST = 0.000012345678901234


def holder(payload):
    """Where an event has its extras and its usage: in Responses it is the response that ends."""
    response = payload.get("response")
    return response if isinstance(response, dict) else payload


# Streams, in general ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "name"), every_stream(STREAMS))
def test_a_stream_passes_the_same_however_it_is_cut(provider, name):
    whole = STREAMS[provider][name]

    at_once, exchange = stream(provider, provider, [whole])

    for pieces in (by_event(whole), by_byte(whole)):
        out, other = stream(provider, provider, pieces)
        assert out == at_once
        assert other.meter == exchange.meter


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize(("provider", "name"), every_stream(TOLD_STREAMS))
def test_a_stream_is_translated_the_same_however_it_is_cut(client, provider, name):
    whole = TOLD_STREAMS[provider][name]

    at_once, exchange = stream(client, provider, [whole])

    for pieces in (by_event(whole), by_byte(whole)):
        out, other = stream(client, provider, pieces)
        assert out == at_once
        assert other.meter == exchange.meter


@pytest.mark.parametrize("asked", [{}, ASKED])
@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize(("provider", "name"), every_stream(TOLD_STREAMS))
def test_what_a_client_gets_satisfies_its_own_sdk(client, provider, name, asked):
    out, _ = stream(client, provider, [TOLD_STREAMS[provider][name]], **(asked if client == "openai" else {}))

    for payload in payloads(out) if client != provider or name not in INVALID_STREAMS else ():
        validate(client, payload, is_stream=True)
    match client:
        case "openai":
            assert events(out)[-1].data == b"[DONE]"
        case "anthropic":
            assert events(out)[-1].data == b'{"type":"message_stop"}'
        case "responses":
            assert events(out)[-1].name in (b"response.completed", b"response.incomplete")
        case "gemini" | "ollama":
            assert "tollgate" in payloads(out)[-1]


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize(("provider", "name"), every_stream(TOLD_STREAMS))
def test_every_stream_carries_the_extras_once(client, provider, name):
    out, _ = stream(client, provider, [TOLD_STREAMS[provider][name]])

    with_extras = [payload for payload in map(holder, payloads(out)) if "tollgate" in payload]
    with_extras[0]["tollgate"].pop("dropped", None)

    assert [{field: payload[field] for field in ADDED} for payload in with_extras] == [ADDED]


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("provider", DIALECTS)
def test_content_leaves_at_once_and_neither_beginning_nor_end_before_its_time(client, provider):
    before, first, second, closing, tail = {
        "openai": (ROLE, HELLO, WORLD, b"", [STOP, USAGE, DONE]),
        "anthropic": (
            MESSAGE_START + TEXT_START + PING,
            text_delta("Hello"),
            text_delta(" x"),
            b"",
            [END_TURN, MESSAGE_STOP],
        ),
        "responses": RESPONSE_PIECES,
        "gemini": (data({"usageMetadata": {"promptTokenCount": 9}}), GEMINI_HELLO, GEMINI_WORLD, b"", [GEMINI_STOP]),
        "ollama": (ollama_line({"content": ""}), OLLAMA_HELLO, OLLAMA_WORLD, b"", [OLLAMA_STOP]),
    }[provider]
    exchange = start(client, provider, stream=True)

    assert exchange.feed(before) == b""
    assert not exchange.meter.content_started
    assert b"Hello" in exchange.feed(first)
    assert exchange.meter.content_started
    assert len(events(exchange.feed(second))) == 1
    exchange.feed(closing)  # a part is over, the answer is not
    assert [exchange.feed(piece) for piece in tail] == [b""] * len(tail)
    assert exchange.meter.complete or provider == "gemini", "only the end of the body is the end of Google's streams"
    exchange.finish()
    assert exchange.final(EXTRAS)


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_what_comes_after_the_end_is_ignored(client, provider):
    whole = STREAMS[provider]["plain"]

    assert stream(client, provider, [whole + whole])[0] == stream(client, provider, [whole])[0]


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("pieces", [[], [b""], [ROLE], [ROLE, HELLO], [ROLE, HELLO, STOP[:-30]]])
def test_a_stream_that_ends_without_a_finish_is_cut(client, pieces):
    _, error = failure(client, "openai", pieces)

    assert error.error_class == "cut"


@pytest.mark.parametrize("pieces", [[MESSAGE_START], [MESSAGE_START, TEXT_START, TEXT], [MESSAGE_START, END_TURN[:60]]])
def test_a_message_that_ends_without_a_delta_is_cut(pieces):
    _, error = failure("anthropic", "anthropic", pieces)

    assert error.error_class == "cut"


@pytest.mark.parametrize(("provider", "end"), [("openai", DONE), ("openai", ROLE + DONE), ("anthropic", MESSAGE_STOP)])
def test_an_end_without_an_answer_is_none(provider, end):
    _, error = failure(provider, provider, [end])

    assert error.error_class == "server_error"


def test_a_finished_answer_is_whole_though_its_usage_never_came():
    out, exchange = stream("openai", "openai", [ROLE + HELLO + STOP])

    assert events(out)[-1].data == b"[DONE]"
    assert exchange.meter.usage is None and exchange.meter.usage_raw is None
    assert exchange.meter.output_bytes == len("Hello")


def test_text_in_the_last_event_counts_though_its_blank_line_never_came():
    last = chunk({"content": " there"}, "stop").rstrip(b"\n")

    out, _ = stream("anthropic", "openai", [ROLE + HELLO + last])

    assert "".join(payload["delta"].get("text", "") for payload in payloads(out) if "delta" in payload) == "Hello there"


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize(
    ("provider", "broken"),
    [
        ("openai", data({"error": {"message": "Overloaded", "type": "overloaded_error", "code": None}})),
        ("openai", b"event: error\n" + data({"error": {"message": "slow", "status_code": 529}})),
        ("openai", chunk({}, None, error={"code": 503, "message": "no capacity"})),
        ("openai", b'{"error": {"message": "Overloaded", "type": "overloaded_error"}}'),
        ("anthropic", event({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}})),
        ("anthropic", b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'),
        ("gemini", data({"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}})),
        ("ollama", b'{"error": "the server is overloaded", "status_code": 503}\n'),
        ("gemini", b'{\n  "error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}\n}\n'),
    ],
)
def test_an_error_inside_a_stream_is_classified_like_one_outside(client, provider, broken):
    content = {
        "openai": ROLE + HELLO,
        "anthropic": MESSAGE_START + TEXT_START + text_delta("Hello"),
        "gemini": GEMINI_HELLO,
        "ollama": OLLAMA_HELLO,
    }[provider]

    before, early = failure(client, provider, [broken])
    after, late = failure(client, provider, [content + broken])

    assert early.error_class == late.error_class == "overloaded"
    assert before == b""
    assert b"Hello" in after, "content that came in the same piece as the error is not lost"


@pytest.mark.parametrize(
    "broken",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: \xff\n\n",
        data({"choices": {"a": 1}}),
        data({"choices": ["x"]}),
        chunk({}, "error"),
    ],
)
def test_a_stream_that_breaks_its_protocol_is_the_providers_failure(broken):
    _, error = failure("openai", "openai", [ROLE, broken, STOP])

    assert error.error_class == "server_error"


@pytest.mark.parametrize("provider", DIALECTS)
def test_what_is_held_back_is_bounded(provider, monkeypatch):
    monkeypatch.setattr(exchange, "MAX_HELD_BYTES", 10_000)
    padding = {
        "openai": ROLE,
        "anthropic": PING,
        "responses": RESPONSE_EVENTS[0],
        "gemini": data({"usageMetadata": {"promptTokenCount": 9}}),
        "ollama": ollama_line({"content": ""}),
    }[provider]

    _, error = failure(provider, provider, [padding] * 1000)

    assert error.error_class == "server_error"
    assert "10000 bytes" in error.message


@st.composite
def mutated(draw):
    provider = draw(st.sampled_from(DIALECTS))
    whole = bytearray(draw(st.sampled_from(list(STREAMS[provider].values()))))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(whole) - 1))
        match draw(st.sampled_from(["flip", "drop", "copy", "insert", "swap"])):
            case "flip":
                whole[at] = draw(st.integers(0, 255))
            case "drop":
                del whole[at : at + draw(st.integers(1, 40))]
            case "copy":
                whole[at:at] = whole[at : at + 80]
            case "insert":
                whole[at:at] = draw(
                    st.sampled_from([b"null", b"[]", b"{}", b"-1", b'"', b"\n\n", b"\r", b"true", b"1e999"])
                )
            case "swap":
                word = draw(
                    st.sampled_from(
                        [
                            b"null",
                            b'"stop"',
                            b"[",
                            b'"index":0',
                            b'"content"',
                            b'"usage":',
                            b'"type":',
                            b'"parts":',
                            b"{",
                        ]
                    )
                )
                whole = whole.replace(word, draw(st.sampled_from([b"{}", b"[1]", b"7", b'"x":', b'"type":'])))
        if not whole:
            break
    return provider, bytes(whole), draw(st.integers(1, 200))


@settings(max_examples=400)
@given(mutated(), st.sampled_from(DIALECTS))
def test_a_damaged_stream_raises_a_provider_error_or_nothing(damaged, client):
    provider, whole, step = damaged
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]

    try:
        out, _ = stream(client, provider, pieces)
    except ProviderError as error:
        assert error.error_class in ERROR_CLASSES
    else:
        assert events(out)


ODD = [None, True, 0, -1, 2**63, 1e300, "", "x", "stop", "error", [], [None], {}, {"a": 1}, {"type": "text"}]


@settings(max_examples=200)
@given(st.data(), st.sampled_from(DIALECTS), st.sampled_from(DIALECTS))
def test_an_answer_with_wrong_types_raises_a_provider_error_or_nothing(draws, client, provider):
    body, *_ = [*draws.draw(wrong_inside([UNARY[provider]], ODD)), None]
    sent = draws.draw(wrong_inside(payloads(STREAMS[provider]["plain"]), ODD))

    for run in (
        lambda: unary(client, provider, body),
        lambda: stream(client, provider, [framed(provider, payload) for payload in sent]),
    ):
        try:
            run()
        except ProviderError as error:
            assert error.error_class in ERROR_CLASSES


# Streams of the same dialect ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("provider", "name"), every_stream(STREAMS))
def test_what_passes_through_is_the_providers_bytes_but_for_one_event(provider, name):
    whole = STREAMS[provider][name]

    out, _ = stream(provider, provider, [whole], **(ASKED if provider == "openai" else {}))

    sent, got = came(whole), payloads(out)
    if provider == "anthropic" and got[-1] == {"type": "message_stop"} != sent[-1]:
        sent.append({"type": "message_stop"})
    for payload in map(holder, got):
        for field in ADDED:
            payload.pop(field, None)
        if payload.get("usage"):
            payload["usage"].pop("cost", None)
    assert got == sent


def test_a_letter_cut_in_half_passes_and_is_marked_as_lost_between_dialects():
    whole = b"".join([HELLO, *HALVES_OF_AN_EMOJI, STOP, DONE])

    passed, exchange = stream("openai", "openai", [whole])
    translated, _ = stream("anthropic", "openai", [whole])

    assert rb"\ud83d" in passed and rb"\ude00" in passed
    assert exchange.meter.output_bytes == len("Hello\ufffd\ufffd".encode())
    assert [payload["delta"]["text"] for payload in payloads(translated)[2:5]] == ["Hello", "\ufffd", "\ufffd"]


def test_events_of_content_are_not_written_anew():
    odd = b'data:   {"choices" : [{"index":0,"delta":{"content":"a"},"x":1.50}],"y":[ ]}\r\n\r\n'

    out, _ = stream("openai", "openai", [odd + STOP])

    assert out.startswith(odd)


def test_a_client_that_asked_gets_the_usage_chunk_with_cost():
    out, _ = stream("openai", "openai", [ROLE + HELLO + STOP + USAGE + DONE], **ASKED)

    *_, finish, usage = payloads(out)
    assert finish["choices"][0]["finish_reason"] == "stop" and "tollgate" not in finish
    assert usage["choices"] == []
    assert usage["usage"] == OPENAI_USAGE | {"cost": COST}
    assert b'"cost":0.000012345678901234' in out, "every decimal is kept"


def test_a_client_that_did_not_ask_never_sees_the_usage_chunk():
    out, exchange = stream("openai", "openai", [ROLE + HELLO + STOP + USAGE + DONE])

    assert all(payload["choices"] for payload in payloads(out))
    assert payloads(out)[-1]["tollgate"] == ADDED["tollgate"]
    assert exchange.meter.usage == Usage(input_tokens=12, cache_read_tokens=8, output_tokens=7, reasoning_tokens=5)


def test_usage_that_a_provider_puts_on_the_finish_chunk_stays_there():
    out, exchange = stream("openai", "openai", [ROLE + HELLO + chunk({}, "stop", usage=OPENAI_USAGE) + DONE])

    assert payloads(out)[-1]["usage"]["cost"] == COST
    assert exchange.meter.usage is not None


def test_one_choice_of_several_may_finish_while_the_others_go_on():
    exchange = start("openai", "openai", stream=True, n=2)
    exchange.feed(chunk({"content": "a"}, index=0))

    first = exchange.feed(chunk({}, "stop", index=0))
    rest = exchange.feed(chunk({"content": "b"}, index=1))
    last = exchange.feed(chunk({}, "stop", index=1))

    assert (len(events(first)), len(events(rest)), last) == (1, 1, b"")


def test_the_last_message_delta_carries_the_cost_and_a_stop_ends_every_message():
    out, _ = stream("anthropic", "anthropic", [STREAMS["anthropic"]["without message_stop"]])

    delta, stop = payloads(out)[-2:]
    assert delta["usage"]["cost"] == COST
    assert delta["usage"]["output_tokens"] == 12
    assert stop == {"type": "message_stop"}
    assert [event.name for event in events(out)][-2:] == [b"message_delta", b"message_stop"]


def test_a_later_message_delta_overrides_what_the_start_said():
    _, exchange = stream("anthropic", "anthropic", [STREAMS["anthropic"]["plain"]])

    assert exchange.meter.usage == Usage(
        input_tokens=14,
        cache_read_tokens=8,
        cache_write_5m_tokens=30,
        cache_write_1h_tokens=70,
        output_tokens=7,
        reasoning_tokens=5,
    )
    assert exchange.meter.served_model == "claude-sonnet-4-5-20250929"
    assert exchange.meter.finish_reason == "end_turn"


def test_an_explicit_zero_is_an_answer_and_null_is_none():
    start = MESSAGE_START
    delta = message_delta("end_turn", input_tokens=0, cache_read_input_tokens=None, output_tokens=0)

    _, exchange = stream("anthropic", "anthropic", [start + delta + MESSAGE_STOP])

    assert exchange.meter.usage == Usage(cache_read_tokens=8, cache_write_5m_tokens=30, cache_write_1h_tokens=70)


@pytest.mark.parametrize(
    ("provider", "name", "output_bytes"),
    [
        ("openai", "plain", len("Hello wörld 🌍".encode())),
        ("openai", "tool call", len('weather{"city":"Paris"}')),
        ("anthropic", "plain", len("Hello wörld 🌍".encode())),
        ("anthropic", "tool use", len('{"city":"Paris"}')),
        ("anthropic", "thinking", len("Hm.Hello wörld 🌍".encode())),
        ("gemini", "plain", len("Hello wörld 🌍".encode())),
        ("gemini", "tool call", len("weatherParis")),
        ("gemini", "signed thoughts", len("Hm.Hello wörld 🌍".encode())),
    ],
)
def test_bytes_of_output_are_counted_to_estimate_by(provider, name, output_bytes):
    _, exchange = stream(provider, provider, [STREAMS[provider][name]])

    assert exchange.meter.output_bytes == output_bytes


# Streams between dialects -------------------------------------------------------------------------------------------


def test_chunks_become_events():
    out, _ = stream("anthropic", "openai", [STREAMS["openai"]["plain"]])

    usage = {"input_tokens": 12, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 8, "output_tokens": 12}
    zero = dict.fromkeys(usage, 0)
    usage["output_tokens_details"] = {"thinking_tokens": 5}
    assert payloads(out) == [
        {
            "type": "message_start",
            "message": {
                "id": f"msg_{REQUEST_ID.replace('-', '')}",
                "type": "message",
                "role": "assistant",
                "model": "gpt-4o-2024-08-06",
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": zero,
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " wörld 🌍"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": usage | {"cost": COST},
            **ADDED,
        },
        {"type": "message_stop"},
    ]
    assert all(
        event.name.decode() == payload["type"] for event, payload in zip(events(out), payloads(out), strict=True)
    )


def test_events_become_chunks():
    out, _ = stream("openai", "anthropic", [STREAMS["anthropic"]["plain"]], **ASKED)

    head = {
        "id": f"chatcmpl-{REQUEST_ID}",
        "object": "chat.completion.chunk",
        "created": int(REQUEST_ID.replace("-", "")[:12], 16) // 1000,
        "model": "claude-sonnet-4-5-20250929",
    }

    def one(delta, finish=None):
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    assert payloads(out) == [
        one({"role": "assistant", "content": ""}),
        one({"content": "Hello"}),
        one({"content": " wörld 🌍"}),
        one({}, "stop"),
        {
            **head,
            "choices": [],
            "usage": {
                "prompt_tokens": 122,
                "completion_tokens": 12,
                "total_tokens": 134,
                "prompt_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 100, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 5, "audio_tokens": 0},
                "cost": COST,
            },
            **ADDED,
        },
    ]


@pytest.mark.parametrize(
    ("reason", "becomes"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "content_filter"),
        ("a_word_of_tomorrow", "stop"),
    ],
)
def test_anthropics_reasons_become_openais(reason, becomes):
    out, _ = stream(
        "openai",
        "anthropic",
        [MESSAGE_START + TEXT_START + TEXT + message_delta(reason, output_tokens=1) + MESSAGE_STOP],
    )

    assert payloads(out)[-1]["choices"][0]["finish_reason"] == becomes


@pytest.mark.parametrize(
    ("reason", "becomes"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("eos", "end_turn")],
)
def test_openais_reasons_become_anthropics(reason, becomes):
    out, _ = stream("anthropic", "openai", [HELLO + chunk({}, reason) + DONE])

    assert payloads(out)[-2]["delta"]["stop_reason"] == becomes


# Unary --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize("provider", DIALECTS)
def test_a_unary_answer_satisfies_the_sdk_and_carries_the_extras(client, provider):
    answer, exchange = unary(client, provider, UNARY[provider])

    validate(client, answer, is_stream=False)
    assert {field: answer[field] for field in ADDED} == ADDED
    assert client in ("gemini", "ollama") or answer["usage"]["cost"] == COST
    served = UNARY[provider].get("model") or UNARY[provider]["modelVersion"]
    assert (answer.get("model") or answer["modelVersion"]) == served == exchange.meter.served_model
    assert exchange.meter.output_bytes == len("Hello wörld 🌍".encode())
    assert SAID[client]([answer]).text == "Hello wörld 🌍"


@pytest.mark.parametrize("provider", DIALECTS)
def test_streamed_and_unary_forms_of_an_answer_are_metered_alike(provider):
    _, one = unary(provider, provider, UNARY[provider])
    whole = {
        "openai": ROLE + HELLO + WORLD + STOP + USAGE + DONE,
        "anthropic": MESSAGE_START
        + TEXT_START
        + TEXT
        + BLOCK_STOP
        + message_delta("end_turn", output_tokens=12)
        + MESSAGE_STOP,
        "responses": STREAMS["responses"]["plain"],
        "gemini": GEMINI_HELLO + GEMINI_WORLD + GEMINI_STOP,
        "ollama": STREAMS["ollama"]["plain"],
    }[provider]
    _, other = stream(provider, provider, [whole])

    other.meter.events = 0
    assert one.meter == other.meter


def test_an_answer_without_usage_gets_none_invented():
    without = {field: value for field, value in OPENAI_UNARY.items() if field != "usage"}

    answer, exchange = unary("openai", "openai", without)

    assert "usage" not in answer
    assert answer["tollgate"]["cost"] == COST
    assert exchange.meter.usage is None


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
unknown_fields = st.dictionaries(st.text(min_size=1).map(lambda name: f"x_{name}"), json_values, max_size=4)


@pytest.mark.parametrize("provider", DIALECTS)
@given(unknown=unknown_fields)
def test_unknown_fields_of_request_and_answer_survive_the_same_dialect(provider, unknown):
    exchange = start(provider, provider, **unknown)
    sent = orjson.loads(exchange.request.body)
    assert {field: sent[field] for field in unknown} == unknown

    answer, _ = unary(provider, provider, UNARY[provider] | unknown)
    cost = {"usage": UNARY[provider]["usage"] | {"cost": COST}} if "usage" in UNARY[provider] else {}
    assert answer == UNARY[provider] | unknown | ADDED | cost


@pytest.mark.parametrize("provider", DIALECTS)
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", b"<html>", b"{}", b'{"choices": 3, "content": 4, "candidates": 5}', b"\xff"]
)
def test_a_2xx_that_is_no_answer_is_the_providers_failure(provider, body):
    with pytest.raises(ProviderError) as raised:
        unary(provider, provider, body)

    assert raised.value.error_class == "server_error"


@pytest.mark.parametrize("provider", DIALECTS)
def test_an_error_in_a_200_is_an_error(provider):
    with pytest.raises(ProviderError) as raised:
        unary(provider, provider, {"error": {"code": 429, "message": "slow down"}})

    assert raised.value.error_class == "rate_limit"
    assert raised.value.status == 429


def test_an_answer_that_a_filter_left_empty_is_an_answer():
    answer = OPENAI_UNARY | {"choices": [{"index": 0, "finish_reason": "content_filter"}]}

    message, _ = unary("anthropic", "openai", answer)

    assert (message["content"], message["stop_reason"]) == ([], "refusal")


# Requests -----------------------------------------------------------------------------------------------------------


def test_the_call_says_what_it_is():
    chat = start("openai", "openai").request
    messages = exchange_for(
        "anthropic",
        "anthropic",
        {"model": "m", "max_tokens": 9, "messages": [], "stream": True},
        request_id=REQUEST_ID,
        model="claude",
        max_output_tokens=None,
        headers={"anthropic-version": "2026-10-21", "anthropic-beta": "a,b", "cookie": "never"},
    ).request

    assert (chat.method, chat.path, chat.stream) == ("POST", "/chat/completions", False)
    assert chat.headers == {"content-type": "application/json", "accept": "application/json"}
    assert (messages.path, messages.stream) == ("/v1/messages", True)
    assert messages.headers == {
        "content-type": "application/json",
        "accept": "text/event-stream",
        "anthropic-version": "2026-10-21",
        "anthropic-beta": "a,b",
    }


def test_a_translated_request_speaks_the_version_that_it_was_written_for():
    request = exchange_for(
        "openai",
        "anthropic",
        {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        request_id=REQUEST_ID,
        model="claude",
        max_output_tokens=None,
        headers={"anthropic-beta": "a"},
    ).request

    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "anthropic-beta" not in request.headers


@pytest.mark.parametrize("dialect", DIALECTS)
def test_everything_can_be_carried_to_its_own_dialect(dialect):
    assert cannot_carry(dialect, dialect, {"anything": object()}) is None


def test_what_cannot_be_carried_is_named_with_the_way_out():
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "response_format": {"type": "json_object"}}

    refused = cannot_carry("openai", "anthropic", body)

    assert refused is not None
    assert (refused.status, refused.param, refused.code) == (400, "response_format", "unsupported_parameter")
    assert refused.message == (
        "'response_format' asks for JSON without a schema, which the Anthropic protocol cannot be asked for; "
        "use a model served by a provider of the OpenAI protocol, or leave the field out"
    )
    with pytest.raises(Refusal):
        start("openai", "anthropic", response_format={"type": "json_object"})


# The end of a broken stream -----------------------------------------------------------------------------------------


def test_a_broken_stream_ends_with_the_dialects_own_error():
    cut = ProviderError("cut", "the connection ended before the answer did")

    chat = start("openai", "anthropic", stream=True).failure(cut, REQUEST_ID)
    messages = start("anthropic", "openai", stream=True).failure(Refusal(503, "draining", "Restarting"), REQUEST_ID)

    assert chat == data(
        {
            "error": {
                "message": "the connection ended in the middle of an answer",
                "type": "server_error",
                "param": None,
                "code": "provider_cut",
            }
        }
    )
    assert messages == event(
        {
            "type": "error",
            "error": {"type": "overloaded_error", "message": "Restarting", "code": "draining"},
            "request_id": REQUEST_ID,
        }
    )
