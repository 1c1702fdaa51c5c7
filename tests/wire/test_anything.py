"""Whatever is sent, by a client or by a provider, is read, or refused as what it is: nothing else is raised."""

from contextlib import suppress
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.fixtures import DIALECTS, REQUEST_ID, STREAMS, UNARY, by_event, every_stream, stream, unary
from tests.wire.requests import MODELS, REQUESTS
from tollgate.errors import ProviderError, Refusal
from tollgate.wire.exchange import WIRES, exchange_for
from tollgate.wire.logprobs import read_logprobs

ODD: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**53, 2**64 - 1, 1.5, 1e308, -1e308, "", "x", "\x00", "9" * 30, "{}", "[", "data:,", "tool"),
    *([], {}, [[]], [None], [{}], ["x"], {"": None}, {"type": "x"}, {"type": "text"}, {"type": []}),
)


def copied(value: Any) -> Any:
    return orjson.loads(orjson.dumps(value))


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (holder, name or index) in a JSON value, however deep."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for at, found in inner for place in ((value, at), *places(found))]


@st.composite
def spoilt(draw: st.DrawFn, wholes: list[Any]) -> Any:
    """One of the values with something odd in the place of something, once or twice, or something taken out."""
    value = copied(draw(st.sampled_from(wholes)))
    for _ in range(draw(st.integers(1, 2))):
        found = places(value)
        if found:
            holder, at = draw(st.sampled_from(found))
            if draw(st.integers(0, 3)):
                holder[at] = copied(draw(st.sampled_from(ODD)))
            else:
                del holder[at]
    return value


@settings(max_examples=150)
@given(st.sampled_from(list(REQUESTS)), st.sampled_from(list(MODELS)), st.data())
def test_any_request_goes_to_any_provider_or_is_refused(dialect: Any, protocol: Any, data: st.DataObject):
    body = data.draw(spoilt(list(REQUESTS[dialect].values())))
    try:
        WIRES[dialect].ask(body)
        exchange_for(
            dialect,
            protocol,
            body,
            request_id=REQUEST_ID,
            model=data.draw(st.sampled_from(MODELS[protocol])),
            max_output_tokens=data.draw(st.sampled_from([None, 5])),
            headers={},
        )
    except Refusal as refusal:
        assert 400 <= refusal.status < 500


@settings(max_examples=80)
@given(st.sampled_from(list(DIALECTS)), st.sampled_from(list(UNARY)), st.data())
def test_any_answer_is_given_to_any_client_or_is_the_providers_failure(client: Any, provider: Any, data: st.DataObject):
    with suppress(ProviderError, Refusal):
        unary(client, provider, data.draw(spoilt([UNARY[provider]])))


@settings(max_examples=80)
@given(st.sampled_from(list(DIALECTS)), st.data())
def test_any_event_of_a_stream_is_read_or_is_the_providers_failure(client: Any, data: st.DataObject):
    provider, name = data.draw(st.sampled_from(every_stream(STREAMS)))
    events = by_event(STREAMS[provider][name])
    at = data.draw(st.sampled_from(range(len(events))))
    head, brace, rest = events[at].partition(b"{")
    with suppress(orjson.JSONDecodeError):  # of what is framed in another way, or has no payload
        payload = data.draw(spoilt([orjson.loads(brace + rest)]))
        events[at] = head + orjson.dumps(payload) + (b"\n" if provider == "ollama" else b"\n\n")
    with suppress(ProviderError, Refusal):
        stream(client, provider, events)


def test_a_type_that_is_no_text_is_of_no_kind_that_is_known():
    messages = [{"role": "user", "content": [{"type": [], "text": "Hi"}]}]
    for dialect in ("openai", "anthropic"):
        ask = WIRES[dialect].ask({"model": "m", "max_tokens": 5, "messages": messages})
        assert ask.unbounded == "messages[0].content[0]"


def test_a_number_beyond_all_others_is_the_largest_that_can_be_sent():
    body = REQUESTS["gemini"]["stream"] | {"generationConfig": {"topK": 1e308}}
    sent = exchange_for(
        "gemini", "anthropic", body, request_id=REQUEST_ID, model="m", max_output_tokens=5, headers={}
    ).request
    assert orjson.loads(sent.body)["top_k"] == 2**53


def test_alternatives_of_a_token_that_are_none_are_left_out():
    good = {"token": "a", "top_logprobs": [{"token": "b"}]}
    assert read_logprobs([good, "x", {"token": "c", "top_logprobs": ["b"]}, {"token": "d", "top_logprobs": 1}]) == (
        good,
        {"token": "c", "top_logprobs": []},
        {"token": "d", "top_logprobs": []},
    )
    assert read_logprobs("x") == ()
