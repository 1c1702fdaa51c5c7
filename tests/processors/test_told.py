"""What a client is told of its call beside the answer: whose failure it was, and what has cut the answer short."""

from contextlib import asynccontextmanager

import orjson
import pytest

from tests.test_one_request import post
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.secret import first_run_secrets

HI = [{"role": "user", "content": "Hi"}]


@asynccontextmanager
async def running(tmp_path):
    """What asks a gateway: with a body, and a key where it is not the admin's."""
    secrets = first_run_secrets(tmp_path, {}, embedded=True)
    admin = secrets.admin_key.reveal()
    async with (
        open_gateway(
            load_config(None, {}), data=tmp_path, instance="test", secrets=secrets, fatal=pytest.fail
        ) as gateway,
        gateway.started(),
    ):

        async def ask(body, key=admin, path="/v1/chat/completions"):
            status, headers, answer = await post(gateway.application, key, orjson.dumps(body), path)
            return status, headers, answer

        yield ask


async def test_a_failure_names_provider_and_model(tmp_path):
    async with running(tmp_path) as ask:
        status, headers, body = await ask({"model": "sandbox/sandbox-err401", "messages": HI})
        assert (status, headers["x-tollgate-provider"], headers["x-tollgate-model"]) == (
            502,
            "sandbox",
            "sandbox-err401",
        )
        assert orjson.loads(body)["error"]["message"] == (
            "sandbox (sandbox-err401): the operator's credentials were refused (HTTP 401)"
        )
        _, _, body = await ask({"model": "sandbox/sandbox-err400", "messages": HI})
        assert orjson.loads(body)["error"]["message"].startswith("sandbox (sandbox-err400): ")
        _, _, body = await ask({"model": "sandbox-anthropic/sandbox-cut2-chunks9", "messages": HI, "stream": True})
        assert b'"message":"sandbox-anthropic (sandbox-cut2-chunks9): the connection ended' in body


async def test_a_cap_that_the_budget_has_set_is_named(tmp_path):
    async with running(tmp_path) as ask:
        quota = {"quota": {"monthly_budget": "0.0002"}}
        _, _, created = await ask({"name": "poor", **quota}, path="/v1/keys")
        poor = orjson.loads(created)["key"]
        asked = {"model": "sandbox/sandbox-tok50", "messages": HI}
        status, headers, body = await ask(asked, poor)
        answer = orjson.loads(body)
        assert (status, answer["choices"][0]["finish_reason"]) == (200, "length")
        cap = answer["usage"]["completion_tokens"]
        assert 0 < cap < 50
        assert headers["x-tollgate-max-output-tokens"] == str(cap)
        assert answer["tollgate"]["max_output_tokens"] == cap
        _, headers, body = await ask({**asked, "max_tokens": 5}, poor)
        assert "x-tollgate-max-output-tokens" not in headers and b"max_output_tokens" not in body
        _, headers, _ = await ask(asked)
        assert "x-tollgate-max-output-tokens" not in headers  # without a budget the provider's own default holds
