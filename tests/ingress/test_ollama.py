"""Ollama's dialect at the door: its paths, streams unless told not to, errors that are a text, and models listed."""

from typing import Any

import orjson
import pytest
from ollama import ListResponse, ShowResponse

from tests.ingress.support import Gateway
from tests.ingress.test_gemini import served_by
from tests.wire.fixtures import STREAMS, payloads
from tests.wire.fixtures_ollama import HELLO

CHAT, GENERATE = "/api/chat", "/api/generate"
MESSAGES = [{"role": "user", "content": "the prompt that nobody else may read"}]
BODY = {"model": "sandbox", "messages": MESSAGES}
BODIES = {CHAT: BODY, GENERATE: {"model": "sandbox", "prompt": "the prompt that nobody else may read"}}


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize(("said", "streams"), [({}, True), ({"stream": None}, True), ({"stream": False}, False)])
async def test_an_answer_streams_unless_the_request_says_otherwise(
    gateway: Gateway, path: str, said: Any, streams: bool
):
    await gateway.bearer("acme").request("POST", path, BODIES[path] | said)

    (event,) = gateway.worker.accepted
    assert (event.request.stream, event.request.dialect, event.request.endpoint) == (streams, "ollama", path)
    assert gateway.worker.body_of(event) == BODIES[path] | {"stream": streams}


async def test_each_path_reads_its_own_fields(gateway: Gateway):
    both = BODY | {"prompt": "x", "stream": False}
    for path in (CHAT, GENERATE):
        await gateway.bearer("acme").request("POST", path, both)

    chat, generate = (gateway.worker.body_of(event) for event in gateway.worker.accepted)
    assert "prompt" not in chat and "messages" not in generate


async def test_a_stream_is_lines_and_ends_in_a_line_with_the_error_when_it_breaks(gateway: Gateway):
    gateway.worker.script = served_by("openai", STREAMS["openai"]["plain"])
    whole = await gateway.bearer("acme").request("POST", CHAT, BODY)
    gateway.worker.script = served_by("ollama", HELLO, breaks=True)
    broken = await gateway.bearer("acme").request("POST", CHAT, BODY)

    assert "".join(line["message"]["content"] for line in payloads(whole.body)) == "Hello wörld 🌍"
    assert payloads(whole.body)[-1]["done"] and "tollgate" in payloads(whole.body)[-1]
    first, error = payloads(broken.body)
    assert first["message"]["content"] == "Hello"
    assert (isinstance(error["error"], str), error["code"]) == (True, "provider_cut")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (CHAT, {"model": "sandbox"}, 400, "missing_required_parameter"),
        (GENERATE, {"model": "sandbox"}, 400, "missing_required_parameter"),
        (CHAT, BODY | {"stream": "no"}, 400, "invalid_type"),
        (CHAT, BODY | {"model": "nobody-has-this"}, 404, "model_not_found"),
        ("/api/show", {}, 400, "missing_required_parameter"),
        ("/api/show", {"model": "nobody-has-this"}, 404, "model_not_found"),
        ("/api/pull", {"model": "sandbox"}, 404, "not_found"),
    ],
)
async def test_every_refusal_is_a_text_and_a_code(gateway: Gateway, path: str, body: Any, status: int, code: str):
    response = await gateway.bearer("acme").request("POST", path, body)

    assert response.status == status
    assert (isinstance(response.json["error"], str), response.json["code"]) == (True, code)
    assert not gateway.worker.accepted


async def test_without_a_key_nothing_is_asked_and_nothing_listed(gateway: Gateway):
    for method, path, body in (("POST", CHAT, BODY), ("GET", "/api/tags", None), ("POST", "/api/show", BODY)):
        response = await gateway.anonymous.request(method, path, body)
        assert response.status == 401
        assert "Authorization: Bearer" in response.json["error"]


async def test_models_are_listed_and_shown_as_the_sdk_reads_them(gateway: Gateway):
    client = gateway.bearer("acme")

    listed = ListResponse.model_validate((await client.request("GET", "/api/tags")).json)
    shown = (await client.request("POST", "/api/show", {"model": "sandbox/sandbox-x"})).json

    assert [model.model for model in listed.models] == ["sandbox"]
    assert len(listed.models[0].digest or "") == 64
    assert "tools" in (ShowResponse.model_validate(shown).capabilities or [])
    assert shown["model_info"]["general.basename"] == "sandbox/sandbox-x"


async def test_anybody_may_ask_which_version_of_the_api_is_spoken(gateway: Gateway):
    version = (await gateway.anonymous.request("GET", "/api/version")).json["version"]
    assert [part.isdigit() for part in version.split(".")] == [True] * 3


async def test_a_body_that_is_nested_too_deeply_is_refused(gateway: Gateway):
    raw = orjson.dumps(BODY)[:-1] + b', "options": ' + b"[" * 300 + b"]" * 300 + b"}"
    response = await gateway.bearer("acme").request("POST", CHAT, raw=raw)
    assert (response.status, response.json["code"]) == (400, "json_too_deep")
