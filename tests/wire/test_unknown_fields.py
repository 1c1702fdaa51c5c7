"""The same dialect on both sides: what nobody here knows passes whole, in every object, there and back.

A field is put into every object of every request, answer and event. What comes out equals what went in, but for what
tollgate itself sets and adds.
"""

from typing import Any

import orjson
import pytest

from tests.wire import requests
from tests.wire.fixtures import DIALECTS, STREAMS, UNARY, events, every_stream, payloads, stream, unary
from tollgate.wire.exchange import exchange_for

NEW = {"x_new": {"deep": [1, None, 0.25, "wörld 🌍", {"more": False}]}}
OUR_OWN = frozenset({"provider", "tollgate"})


def widened(value: Any) -> Any:
    """With the field in every object."""
    if isinstance(value, list):
        return [widened(inner) for inner in value]
    if isinstance(value, dict):
        return {field: widened(inner) for field, inner in value.items()} | NEW
    return value


def bare(value: Any) -> Any:
    """Without what tollgate adds."""
    if isinstance(value, list):
        return [bare(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    return {
        field: bare(
            {name: one for name, one in inner.items() if name != "cost"} if field == "usage" and inner else inner
        )
        for field, inner in value.items()
        if field not in OUR_OWN
    }


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_provider_gets_every_unknown_field(dialect):
    for title, asked in requests.REQUESTS[dialect].items():
        body = widened(asked)
        exchange = exchange_for(
            dialect, dialect, body, request_id="r", model="theirs", max_output_tokens=None, headers={}
        )
        sent = orjson.loads(exchange.request.body)
        if title == "thoughts" and exchange.dropped:  # of other families' models, which would be refused
            continue
        assert exchange.dropped == ()
        expected = {**body, "model": "theirs"}
        if dialect == "gemini":  # the path says them
            del expected["model"], expected["stream"]
        if dialect == "openai" and body.get("stream"):
            expected["stream_options"] = {**body["stream_options"], "include_usage": True}
        assert sent == expected, title


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_client_gets_every_unknown_field_of_an_answer(dialect):
    answer = widened(UNARY[dialect])
    told, _ = unary(dialect, dialect, answer)
    assert bare(told) == answer


def closed(told: list[Any]) -> list[Any]:
    """With the end of a message, which a client gets also where a server has forgotten it."""
    is_open = told[0].get("type") == "message_start" and told[-1]["type"] != "message_stop"
    return [*told, {"type": "message_stop"}] if is_open else told


@pytest.mark.parametrize(
    ("dialect", "name"),
    [(dialect, name) for dialect, name in every_stream(STREAMS) if not STREAMS[dialect][name].startswith(b"[")],
)
def test_a_client_gets_every_unknown_field_of_a_stream(dialect, name):
    whole = STREAMS[dialect][name].rstrip(b"\r\n") + b"\n\n"
    pieces = []
    for event in events(whole):
        said = orjson.loads(event.data) if event.data.startswith(b"{") else None
        pieces.append(event.raw if said is None else event.raw.replace(event.data, orjson.dumps(widened(said))))
    wide = b"".join(pieces)
    options = {"stream_options": {"include_usage": True}} if dialect == "openai" else {}
    told, _ = stream(dialect, dialect, [wide], **options)
    assert [bare(payload) for payload in payloads(told)] == closed(payloads(wide))
