"""The outermost check lets in what clients send, and nothing that two programs could read in two ways."""

import asyncio

import pytest

from tests.ingress.support import CHAT, OPENAI_BODY, Connection, Gateway, stay_silent
from tollgate.errors import Refusal
from tollgate.ingress import guard
from tollgate.ingress.guard import Load, check_head
from tollgate.ingress.http import CONNECTION, Incoming


def scope(path: str = "/v1/models", headers: tuple[tuple[bytes, bytes], ...] = ((b"host", b"h"),), query: bytes = b""):
    from urllib.parse import unquote

    return {
        "type": "http",
        "method": "GET",
        "path": unquote(path),
        "raw_path": path.encode(),
        "query_string": query,
        "headers": list(headers),
        "http_version": "1.1",
    }


def refused(made) -> tuple[int, str | None]:
    with pytest.raises(Refusal) as caught:
        check_head(made, dict(made["headers"]))
    return caught.value.status, caught.value.code


@pytest.mark.parametrize(
    "path", ["/", "/v1/models", "/v1/models/gpt-4o:free", "/v1/models/a/b", "/v1/models/a%20b", "/v1/chat/completions"]
)
def test_ordinary_paths_pass(path: str):
    made = scope(path)
    check_head(made, dict(made["headers"]))


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin",
        "/v1/./models",
        "/v1/%2e%2e/admin",
        "/v1/..%2fadmin",
        "/v1%2Fmodels",
        "/v1%5cmodels",
        "/v1/models%00",
        "//v1/models",
        "/v1//models",
        "/v1/models/",
        "/v1/models;x=1",
        "/v1\\models",
        "v1/models",
        "@evil/v1/models",
        "",
    ],
)
def test_a_path_that_is_not_in_its_normal_form_does_not_exist(path: str):
    assert refused(scope(path)) == (404, "not_found")


def test_exactly_one_host_is_wanted():
    assert refused(scope(headers=())) == (400, "invalid_header")
    assert refused(scope(headers=((b"host", b"a"), (b"host", b"b")))) == (400, "invalid_header")


def test_a_probe_in_http_1_0_needs_no_host():
    made = scope("/healthz", headers=()) | {"http_version": "1.0"}
    check_head(made, {})


def test_a_body_in_a_transfer_coding_that_is_not_read_is_refused():
    made = scope(headers=((b"host", b"h"), (b"transfer-encoding", b"gzip, chunked")))
    assert refused(made) == (501, "unsupported_transfer_encoding")


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"content-type", b"content-length"])
def test_a_second_header_that_would_leave_open_which_is_meant_is_refused(name: bytes):
    assert refused(scope(headers=((b"host", b"h"), (name, b"1"), (name, b"1")))) == (400, "invalid_header")


def test_other_headers_may_be_there_twice():
    made = scope(headers=((b"host", b"h"), (b"accept", b"a"), (b"accept", b"b")))
    check_head(made, dict(made["headers"]))


def test_heads_have_a_size():
    many = tuple((f"x-{n}".encode(), b"1") for n in range(guard.MAX_HEADERS))
    assert refused(scope(headers=((b"host", b"h"), *many))) == (431, "headers_too_large")
    assert refused(scope(headers=((b"host", b"h"), (b"x", b"1" * guard.MAX_HEADER_BYTES)))) == (
        431,
        "headers_too_large",
    )
    assert refused(scope(query=b"x" * guard.MAX_URL_BYTES)) == (414, "uri_too_long")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"content-type": "application/json"}, 200),
        ({"content-type": "application/json; charset=utf-8"}, 200),
        ({"content-type": 'Application/JSON;charset="UTF-8"'}, 200),
        ({"content-type": "application/json; charset=latin-1"}, 415),
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
        ({"content-type": "application/jsonx"}, 415),
        ({"content-type": None}, 415),
        ({"content-encoding": "identity"}, 200),
        ({"content-encoding": "gzip"}, 415),
    ],
)
async def test_only_plain_json_is_read(gateway: Gateway, headers: dict[str, str | None], status: int):
    response = await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY, headers=headers)
    assert response.status == status


async def test_an_announced_giant_is_refused_unread_and_its_connection_closed(gateway: Gateway):
    connection = Connection([b"x"], sends_on=True)
    client = gateway.bearer("acme")
    call = asyncio.ensure_future(
        client.call("POST", CHAT, client.head(b"x", {"content-length": "99999999"}), connection)
    )
    await connection.started.wait()
    assert connection.response.status == 413
    assert connection.response.headers["connection"] == "close"
    assert connection.response.body == b"".join(connection.response.pieces)
    assert not connection.response.ended  # what the client still sends is read first, or it would see a reset
    connection.hang_up()
    await call


async def test_a_refused_client_that_sends_on_is_not_listened_to_for_ever(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guard, "LINGER_S", 0.01)
    connection = Connection([b"x"], sends_on=True)
    await gateway.anonymous.call("POST", CHAT, gateway.anonymous.head(b"x"), connection)
    assert (connection.response.status, connection.response.ended) == (401, True)


async def test_a_refused_request_without_a_body_keeps_its_connection(gateway: Gateway):
    assert "connection" not in (await gateway.anonymous.request("GET", "/v1/models")).headers


# Bodies --------------------------------------------------------------------------------------------------------------


def incoming(connection: Connection) -> Incoming:
    return Incoming(scope(CHAT) | {"extensions": {CONNECTION: connection}}, connection.receive, connection.send)


async def test_a_body_that_does_not_come_in_time_is_given_up():
    load = Load(max_requests=1, max_body_bytes=100)
    with pytest.raises(Refusal) as caught:
        await load.read_body(incoming(Connection([b"abc"], sends_on=True)), max_bytes=10, deadline_s=0.01)
    assert caught.value.status == 408
    assert "3 bytes" in caught.value.message


async def test_bodies_of_all_requests_together_have_a_bound():
    load = Load(max_requests=10, max_body_bytes=10)
    first, second = incoming(Connection([b"123", b"456"])), incoming(Connection([b"12345"]))
    assert await load.read_body(first, max_bytes=10) == b"123456"
    with pytest.raises(Refusal) as caught:
        await load.read_body(second, max_bytes=10)
    assert (caught.value.status, caught.value.headers) == (503, {"retry-after": "1"})
    load.release_body(first)
    load.release_body(second)
    assert load.body_bytes == 0


async def test_a_request_that_waits_for_its_answer_holds_no_body(gateway: Gateway):
    gateway.worker.script = stay_silent
    connection, call = gateway.bearer("acme").begin(CHAT, OPENAI_BODY)
    await gateway.worker.request_came.wait()
    assert (gateway.app._load.requests, gateway.app._load.body_bytes) == (1, 0)
    connection.hang_up()
    await call
    assert (gateway.app._load.requests, gateway.app._load.body_bytes) == (0, 0)
