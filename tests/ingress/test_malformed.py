"""Twelve ways to be wrong, in both dialects: each is a 4xx in the client's own shape that says what and where."""

from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from tests.ingress.support import BODIES, CHAT, MESSAGES, Gateway, Response

BODY_BOUND = 1 << 20


@dataclass
class Wrong:
    """A request that is wrong, how it is refused, and what the refusal must say."""

    status: int
    code: str
    says: list[str]
    param: str | None = None
    raw: bytes | None = None
    body: dict[str, Any] = field(default_factory=dict)
    without: str | None = None
    method: str = "POST"
    path: str | None = None
    headers: dict[str, str | None] = field(default_factory=dict)


WRONG = {
    "oversize": Wrong(413, "request_too_large", ["1048576 bytes"], raw=b'{"model": "' + b"x" * BODY_BOUND + b'"}'),
    "deep": Wrong(400, "json_too_deep", ["254 levels", "at byte"], raw=b'{"model":' + b"[" * 5000 + b"]" * 5000 + b"}"),
    "truncated": Wrong(400, "invalid_json", ["at byte 19 of 19"], raw=b'{"model": "sandbox"'),
    "bad_utf8": Wrong(400, "invalid_utf8", ["byte 11"], raw=b'{"model": "\xc3\x28"}'),
    "wrong_type": Wrong(400, "invalid_type", ["'messages'"], param="messages", body={"messages": "hello"}),
    "duplicate_key": Wrong(
        400, "duplicate_key", ["'model'"], param="model", raw=b'{"model": "sandbox", "model": "other", "messages": []}'
    ),
    "unknown_model": Wrong(
        404, "model_not_found", ["'sandbix'", "Did you mean 'sandbox'"], param="model", body={"model": "sandbix"}
    ),
    "wrong_method": Wrong(405, "method_not_allowed", ["POST"], method="GET"),
    "unknown_path": Wrong(404, "not_found", ["URL"], path="/v1/nothing"),
    "bad_content_type": Wrong(
        415,
        "unsupported_content_type",
        ["text/plain", "application/json"],
        param="content-type",
        headers={"content-type": "text/plain"},
    ),
    "bad_json": Wrong(400, "invalid_json", ["at byte 10"], raw=b'{"model": sandbox}'),
    "missing_auth": Wrong(
        401, "invalid_api_key", ["Authorization: Bearer", "x-api-key"], headers={"authorization": None}
    ),
}


async def send(gateway: Gateway, path: str, wrong: Wrong) -> Response:
    body = BODIES[path] | wrong.body
    headers = dict(wrong.headers)
    if path == MESSAGES:
        headers |= {"anthropic-version": "2023-06-01"}
    return await gateway.bearer("acme").request(
        wrong.method, wrong.path or path, body if wrong.raw is None else None, raw=wrong.raw, headers=headers
    )


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("name", WRONG)
async def test_it_is_refused_in_the_clients_dialect_and_says_what_and_where(make_gateway: Any, path: str, name: str):
    gateway = await make_gateway(max_body_mb=1)
    wrong = WRONG[name]
    response = await send(gateway, path, wrong)
    assert response.status == wrong.status
    assert response.ended
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.body))
    error = response.error
    assert (error["code"], error.get("param")) == (wrong.code, wrong.param)
    assert all(said in error["message"] for said in wrong.says), error["message"]
    request_id = response.headers["x-request-id"]
    if path == CHAT:
        assert set(error) >= {"message", "type", "param", "code"}
        assert "request-id" not in response.headers
    else:
        assert (response.json["type"], response.json["request_id"]) == ("error", request_id)
        assert response.headers["request-id"] == request_id
    assert gateway.worker.accepted == []


@pytest.mark.parametrize("path", ["/v1/v1/messages", "/v1/messages/x", "/v1/nothing", "//v1/models"])
async def test_who_asks_at_a_wrong_url_is_told_the_base_url_of_each_client(gateway: Gateway, path: str):
    response = await gateway.admin.request("POST", path, BODIES[CHAT])
    message = response.error["message"]

    assert response.status == 404
    assert "OpenAI's clients is this gateway's address with /v1 at its end" in message
    assert "Anthropic's, Google's and Ollama's clients is the address alone" in message


async def test_a_wrong_method_is_told_the_right_ones(gateway: Gateway):
    for path, allowed in ((CHAT, "POST"), ("/v1/models", "GET, HEAD"), ("/v1/keys/x", "DELETE, GET, HEAD, PATCH")):
        response = await gateway.admin.request("PUT", path)
        assert (response.status, response.headers["allow"]) == (405, allowed)


async def test_a_wrong_key_is_not_to_be_tried_again(gateway: Gateway):
    response = await gateway.anonymous.request("POST", CHAT, BODIES[CHAT], headers={"authorization": "Bearer nobody"})
    assert (response.status, response.headers["x-should-retry"]) == (401, "false")
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "model",
    ["", "x" * 300, "sandbox\r\nx: y", "sandbox é", "../sandbox", "Sandbox", "openai/sandbox", "sandbox/sandbox-/../x"],
)
async def test_a_name_that_no_model_has_is_a_model_not_found(gateway: Gateway, model: str):
    response = await gateway.bearer("acme").request("POST", CHAT, BODIES[CHAT] | {"model": model})
    assert response.status in (400, 404)
    assert response.error["param"] == "model"
    assert len(response.error["message"]) < 500


async def test_a_model_of_a_named_provider_is_known(gateway: Gateway):
    response = await gateway.bearer("acme").request("POST", CHAT, BODIES[CHAT] | {"model": "sandbox/sandbox-lat5"})
    assert response.status == 200


async def test_the_body_is_parsed_only_after_the_key_was_found_genuine(gateway: Gateway):
    response = await gateway.anonymous.request("POST", CHAT, raw=b"not json")
    assert response.status == 401


async def test_a_body_of_unknown_length_is_counted(make_gateway: Any):
    gateway = await make_gateway(max_body_mb=1)
    raw = orjson.dumps(BODIES[CHAT] | {"padding": "x" * BODY_BOUND})
    headers = {"content-length": None, "transfer-encoding": "chunked"}
    response = await gateway.bearer("acme").request("POST", CHAT, raw=raw, headers=headers)
    assert response.status == 413
