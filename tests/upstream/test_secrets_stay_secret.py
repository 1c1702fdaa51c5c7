"""A provider that repeats every credential it is given finds no echo: in no answer, event, log line or file."""

import logging

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.test_one_request import post
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.secret import first_run_secrets

KEY, FILED, HUSH, TOKEN, AWS = "key-canary-1", "filed-canary-2", "client-canary-3", "token-canary-4", "aws-canary-5"


async def echo(request: web.Request) -> web.Response:
    said = f"{dict(request.headers)} {KEY} {FILED} {HUSH} {TOKEN} {AWS}"
    error = {"error": {"message": said, "type": "authentication_error", "code": "invalid_api_key"}}
    return web.json_response(error, status=401, headers={"x-echo": said.replace("\n", " ")})


async def token(request: web.Request) -> web.Response:
    return web.json_response({"access_token": TOKEN, "expires_in": 60, "note": HUSH})


async def test_credentials_of_every_kind_stay_where_they_belong(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    data, away = tmp_path / "data", tmp_path / "away"
    data.mkdir()
    away.mkdir()
    monkeypatch.chdir(away)
    (away / "key").write_text(FILED)
    app = web.Application()
    app.router.add_post("/token", token)
    app.router.add_post("/v1/chat/completions", echo)
    async with TestServer(app) as server:
        address = f"protocol: openai, base_url: '{server.make_url('/v1')}', max_retries: 0"
        accounts = {
            "by-key": f"{{name: main, api_key: {KEY}}}",
            "by-file": "{name: main, api_key_file: key}",
            "by-token": f"{{name: main, oauth: {{token_url: '{server.make_url('/token')}', client_id: me, "
            f"client_secret: {HUSH}}}}}",
            "by-aws": f"{{name: main, aws: {{access_key_id: AK, secret_access_key: {AWS}}}}}",
        }
        (away / "gateway.yaml").write_text(
            "providers:\n"
            + "".join(f"  {name}: {{{address}, models: [m], accounts: [{one}]}}\n" for name, one in accounts.items())
        )
        secrets = first_run_secrets(data, {}, embedded=True)
        config = load_config(away / "gateway.yaml", {})
        shown = repr(config)
        async with (
            open_gateway(config, data=data, instance="test", secrets=secrets, fatal=pytest.fail) as gateway,
            gateway.started(),
        ):
            for name in accounts:
                asked = {"model": f"{name}/m", "messages": [{"role": "user", "content": "Hi"}]}
                status, headers, body = await post(gateway.application, secrets.admin_key.reveal(), orjson.dumps(asked))
                assert status == 502
                shown += f"{headers} {body!r}"
    shown += caplog.text + "".join(repr(file.read_bytes()) for file in data.rglob("*") if file.is_file())
    assert [canary for canary in (KEY, FILED, HUSH, TOKEN, AWS) if canary in shown] == []
