"""A request becomes one sealed event, and what comes back goes to its client as it is."""

import asyncio
import logging
from pathlib import Path

import orjson
import pytest

from tests.ingress.support import (
    BODIES,
    CHAT,
    MESSAGES,
    OPENAI_BODY,
    PROMPT,
    Gateway,
    Worker,
    begin_to_stream,
    stay_silent,
)
from tollgate.events import RequestAccepted
from tollgate.ids import is_request_id

both = pytest.mark.parametrize("path", BODIES)


@both
async def test_the_answer_of_the_worker_is_the_answer_of_the_client(gateway: Gateway, path: str):
    response = await gateway.bearer("acme").request("POST", path, BODIES[path])
    assert (response.status, response.json, response.ended) == (200, {"answer": 1}, True)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == "13"
    assert response.headers["x-tollgate-provider"] == "sandbox"
    assert response.headers["x-tollgate-cost-usd"] == "0.5"


@both
async def test_the_event_says_who_asks_for_what_and_until_when(gateway: Gateway, path: str):
    before_ms = gateway.door.now_ms()
    body = BODIES[path] | {"stream": True}
    response = await gateway.bearer("acme").request("POST", path, body)
    (event,) = gateway.worker.accepted
    request = event.request
    assert (request.org_id, request.endpoint, request.model, request.stream) == ("acme", path, "sandbox", True)
    assert request.dialect == ("openai" if path == CHAT else "anthropic")
    assert request.request_id == response.headers["x-request-id"]
    assert before_ms <= request.accepted_ms <= gateway.door.now_ms()
    assert request.deadline_ms - request.accepted_ms == 600_000
    assert request.reply_to == "ingress-1"
    assert request.body_bytes == len(orjson.dumps(body))
    assert event.control_offset == gateway.control.offset


@both
async def test_the_body_travels_sealed_and_whole(gateway: Gateway, path: str, tmp_path: Path):
    body = BODIES[path] | {"some_field_of_tomorrow": [1, {"x": None}]}
    await gateway.bearer("acme").request("POST", path, body)
    (event,) = gateway.worker.accepted
    assert gateway.worker.body_of(event) == body
    on_disk = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert event.request.request_id.encode() in on_disk
    assert PROMPT.encode() not in on_disk


async def test_the_admin_key_asks_as_itself_for_the_default_organisation(gateway: Gateway):
    await gateway.admin.request("POST", CHAT, OPENAI_BODY)
    request = gateway.worker.accepted[0].request
    assert (request.key_id, request.org_id) == ("admin", "default")


async def test_either_auth_header_is_taken_in_either_dialect(gateway: Gateway):
    token = gateway.tokens["acme"]
    for path in BODIES:
        for header in ({"authorization": f"bearer {token}"}, {"x-api-key": token}):
            response = await gateway.anonymous.request("POST", path, BODIES[path], headers=header)
            assert response.status == 200


async def test_a_provider_gets_the_headers_of_its_dialect_and_no_others(gateway: Gateway):
    headers = {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b", "cookie": "c", "x-forwarded-for": "d"}
    await gateway.bearer("acme").request("POST", MESSAGES, BODIES[MESSAGES], headers=headers)
    assert gateway.worker.accepted[0].headers == {"anthropic-version": "2026-10-21", "anthropic-beta": "a,b"}


async def test_the_users_name_and_tags_are_what_costs_can_be_grouped_by(gateway: Gateway):
    body = OPENAI_BODY | {"user": "u1", "metadata": {"team": "web", "job": "7", "n": 3, "long": "x" * 600}}
    await gateway.bearer("acme").request("POST", CHAT, body, headers={"x-tollgate-tags": "job=8, stage=test"})
    request = gateway.worker.accepted[0].request
    assert request.user_id == "u1"
    assert request.tags == {"team": "web", "job": "8", "stage": "test"}


async def test_anthropics_user_is_the_user_and_no_tag(gateway: Gateway):
    await gateway.bearer("acme").request("POST", MESSAGES, BODIES[MESSAGES] | {"metadata": {"user_id": "u2"}})
    request = gateway.worker.accepted[0].request
    assert (request.user_id, request.tags) == ("u2", {})


@pytest.mark.parametrize("tags", ["web", "=x", "a=b=c", "a b=c", ",", ",".join(f"t{n}=1" for n in range(17))])
async def test_tags_that_cannot_be_read_are_refused(gateway: Gateway, tags: str):
    response = await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY, headers={"x-tollgate-tags": tags})
    assert (response.status, response.error["param"]) == (400, "x-tollgate-tags")


async def test_both_sides_can_tell_a_request_by_their_own_id(gateway: Gateway):
    response = await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY, headers={"x-request-id": "mine-1"})
    assert is_request_id(response.headers["x-request-id"])
    assert response.headers["x-client-request-id"] == "mine-1"
    assert "request-id" not in response.headers


async def test_anthropics_clients_find_the_id_where_they_look(gateway: Gateway):
    response = await gateway.bearer("acme").request("POST", MESSAGES, BODIES[MESSAGES])
    assert response.headers["request-id"] == response.headers["x-request-id"]


@pytest.mark.parametrize("given", ["a b", "x" * 129, "é", ""])
async def test_a_client_id_that_is_none_is_not_given_back(gateway: Gateway, given: str):
    response = await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY, headers={"x-request-id": given})
    assert response.status == 200
    assert "x-client-request-id" not in response.headers


async def test_overhead_is_what_was_waited_for_beyond_the_provider(gateway: Gateway):
    async def after_a_second_at_the_provider(worker: Worker, event: RequestAccepted) -> None:
        worker.reply(event, b"{}", upstream_us=1_000_000_000)

    gateway.worker.script = after_a_second_at_the_provider
    response = await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY)
    assert response.headers["x-tollgate-overhead-ms"] == "0.0"


async def test_a_stream_leaves_piece_by_piece_and_is_not_to_be_buffered(gateway: Gateway):
    gateway.worker.script = begin_to_stream
    connection, call = gateway.bearer("acme").begin(CHAT, OPENAI_BODY | {"stream": True})
    await connection.started.wait()
    (event,) = gateway.worker.accepted
    assert connection.response.pieces == [b"data: one\n\n"]
    gateway.worker.reply(event, b"data: two\n\n", seq=1, last=False)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert connection.response.pieces[1:] == [b"data: two\n\n"]
    gateway.worker.reply(event, b"data: [DONE]\n\n", seq=2)
    response = await call
    assert response.body == b"data: one\n\ndata: two\n\ndata: [DONE]\n\n"
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers


async def test_a_refusal_of_the_worker_reaches_the_client_of_a_stream_as_json(gateway: Gateway):
    async def refuse(worker: Worker, event: RequestAccepted) -> None:
        worker.reply(event, b'{"error": {}}', status=429, headers=(("x-should-retry", "false"),))

    gateway.worker.script = refuse
    response = await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY | {"stream": True})
    assert (response.status, response.headers["content-type"]) == (429, "application/json")
    assert response.headers["x-should-retry"] == "false"
    assert "cache-control" not in response.headers


async def test_a_large_answer_is_sent_in_slices_and_arrives_whole(gateway: Gateway):
    large = bytes(range(256)) * 10_000

    async def answer(worker: Worker, event: RequestAccepted) -> None:
        worker.reply(event, large)

    gateway.worker.script = answer
    response = await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY)
    assert response.body == large
    assert response.headers["content-length"] == str(len(large))
    assert max(map(len, response.pieces)) == 256 << 10


async def test_no_more_requests_are_let_in_than_the_bound(make_gateway):
    gateway = await make_gateway(max_in_flight=2)
    gateway.worker.script = stay_silent
    client = gateway.bearer("acme")
    waiting = [client.begin(CHAT, OPENAI_BODY) for _ in range(2)]
    await asyncio.sleep(0)
    response = await client.request("POST", CHAT, OPENAI_BODY)
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert (await client.request("GET", "/healthz")).status == 200
    for connection, call in waiting:
        connection.hang_up()
        await call
    gateway.worker.script = begin_to_stream
    connection, call = client.begin(CHAT, OPENAI_BODY)
    await connection.started.wait()
    connection.hang_up()
    await call


async def test_an_error_of_our_own_is_a_500_that_says_where_and_never_what(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*args: object) -> None:
        raise ValueError(PROMPT)

    monkeypatch.setattr(gateway.door.sealer, "seal", fail)
    with caplog.at_level(logging.DEBUG):
        response = await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY)
    assert (response.status, response.error["code"]) == (500, "internal_error")
    assert "ValueError" in caplog.text
    assert "test_chat.py" in caplog.text
    assert PROMPT not in caplog.text + response.body.decode()
    assert (await gateway.bearer("acme").request("GET", "/v1/models")).status == 200
