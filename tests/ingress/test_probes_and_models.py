"""What machines and clients look at first."""

from typing import Any

import pytest

from tests.ingress.support import BODIES, CHAT, OPENAI_BODY, Gateway


@pytest.mark.parametrize("path", ["/", "/health", "/healthz", "/readyz", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_anybody_may_look_whether_the_gateway_lives(gateway: Gateway, method: str, path: str):
    assert (await gateway.anonymous.request(method, path)).status == 200


async def test_a_gateway_that_is_not_ready_says_what_for(make_gateway: Any):
    missing = ["the log is being read"]
    gateway = await make_gateway(not_ready=lambda: missing)
    response = await gateway.anonymous.request("GET", "/readyz")
    assert (response.status, response.json["waiting_for"]) == (503, ["the log is being read"])
    assert (await gateway.anonymous.request("GET", "/healthz")).status == 200
    missing.clear()
    assert (await gateway.anonymous.request("GET", "/readyz")).status == 200


async def test_a_gateway_that_does_not_know_its_keys_yet_calls_none_of_them_wrong(make_gateway: Any):
    missing = ["the log is being read"]
    gateway = await make_gateway(not_ready=lambda: missing)
    for client in (gateway.bearer("acme"), gateway.anonymous):
        response = await client.request("POST", CHAT, OPENAI_BODY)
        assert (response.status, response.headers["retry-after"]) == (503, "1")
    missing.clear()
    assert (await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY)).status == 200


@pytest.mark.parametrize("path", BODIES)
async def test_while_the_log_does_not_answer_a_request_is_refused_in_its_dialect_before_its_body_is_read(
    make_gateway: Any, path: str
):
    missing = ["the log: it has not answered for 3 s"]
    gateway = await make_gateway(not_ready=lambda: missing)
    connection, call = gateway.bearer("acme").begin(path, BODIES[path], comes=False)
    await connection.started.wait()
    assert gateway.worker.accepted == []
    connection.hang_up()
    response = await call
    assert (response.status, response.headers["retry-after"]) == (503, "1")
    assert response.error["message"].startswith("The gateway takes no requests at the moment")


async def test_metrics_count_by_route_and_name_nobody(gateway: Gateway):
    await gateway.bearer("acme").request("POST", CHAT, OPENAI_BODY)
    await gateway.admin.request("GET", "/v1/keys/secretive")
    for path in ("/a", "/b", "/v1/models/x"):
        await gateway.anonymous.request("GET", path)
    text = (await gateway.anonymous.request("GET", "/metrics")).body.decode()
    assert f'tollgate_http_requests_total{{route="{CHAT}",status="200"}} 1.0' in text
    assert 'tollgate_http_requests_total{route="unmatched",status="404"} 2.0' in text
    assert "tollgate_http_in_flight 0.0" in text
    key_id = gateway.worker.accepted[0].request.key_id
    assert not any(word in text for word in (key_id, "acme", "secretive", "sandbox"))


async def test_models_are_listed_as_each_dialect_does(gateway: Gateway):
    openai = (await gateway.bearer("acme").request("GET", "/v1/models")).json
    assert openai["object"] == "list"
    assert [model["id"] for model in openai["data"]] == ["sandbox"]
    version = {"anthropic-version": "2023-06-01"}
    anthropic = (await gateway.bearer("acme").request("GET", "/v1/models", headers=version)).json
    assert anthropic["data"][0]["type"] == "model"
    assert anthropic["has_more"] is False


@pytest.mark.parametrize("model", ["sandbox", "sandbox-lat50", "sandbox/sandbox-x"])
async def test_one_model_is_shown_even_if_only_a_pattern_covers_it(gateway: Gateway, model: str):
    response = await gateway.bearer("acme").request("GET", f"/v1/models/{model}")
    assert (response.status, response.json["id"], response.json["owned_by"]) == (200, model, "sandbox")


async def test_a_model_that_is_not_served_is_not_found(gateway: Gateway):
    response = await gateway.bearer("acme").request("GET", "/v1/models/gpt-99")
    assert (response.status, response.error["code"]) == (404, "model_not_found")


async def test_models_are_for_those_with_a_key(gateway: Gateway):
    assert (await gateway.anonymous.request("GET", "/v1/models")).status == 401
