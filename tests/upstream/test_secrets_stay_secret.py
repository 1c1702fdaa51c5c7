"""A provider that repeats every credential it is given finds no echo: in no answer, event, log line or file."""

import logging

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.ingress.support import Client
from tests.test_one_request import post
from tollgate.app.gateway import open_gateway
from tollgate.config import load_config
from tollgate.secret import first_run_secrets
from tollgate.sinks.sql import VIEWS, open_sql

KEY, FILED, HUSH, TOKEN, AWS = "key-canary-1", "filed-canary-2", "client-canary-3", "token-canary-4", "aws-canary-5"
ROOT = "root-canary-6-Xk3QzP9vWm2Lr8"
SET_KEY, SET_HUSH, SET_FRESH, SET_AWS, SET_PEM = (
    f"set-{name}-canary" for name in ("key", "hush", "fresh", "aws", "pem")
)
CANARIES = (KEY, FILED, HUSH, TOKEN, AWS, ROOT, SET_KEY, SET_HUSH, SET_FRESH, SET_AWS, SET_PEM)


async def echo(request: web.Request) -> web.Response:
    said = f"{dict(request.headers)} {' '.join(CANARIES)}"
    error = {"error": {"message": said, "type": "authentication_error", "code": "invalid_api_key"}}
    return web.json_response(error, status=401, headers={"x-echo": said.replace("\n", " ")})


async def token(request: web.Request) -> web.Response:
    return web.json_response({"access_token": TOKEN, "expires_in": 60, "note": HUSH})


def given(token_url: str) -> list[tuple[object, int]]:
    """What is set through the management API, right and wrong, and with which status that is answered."""
    oauth = {"token_url": token_url, "client_id": "me", "client_secret": SET_HUSH, "refresh_token": SET_FRESH}
    aws = {"access_key_id": "AKIA0123456789AB", "secret_access_key": SET_AWS}
    return [
        ({"api_key": SET_KEY}, 200),
        ({"oauth": oauth}, 200),
        ({"aws": aws}, 200),
        ({"api_key": f"{SET_KEY}\n"}, 400),
        ({"api_key": SET_KEY, "aws": aws}, 400),
        ({"oauth": {**oauth, "token_url": f"http://id.test/{SET_HUSH}"}}, 400),
        ({"google": {"service_account": {"client_email": "a", "private_key": SET_PEM}}}, 400),
        ({"key": SET_KEY}, 400),
        ([SET_KEY], 400),
    ]


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
        secrets = first_run_secrets(data, {"TOLLGATE_SECRET": ROOT}, embedded=True)
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
            admin = Client(gateway.application, secrets.admin_key.reveal())
            for one, status in given(str(server.make_url("/token"))):
                answer = await admin.request("PUT", "/v1/credentials/by-key/main", one)
                asked = {"model": "by-key/m", "messages": [{"role": "user", "content": "Hi"}]}
                failed = await admin.request("POST", "/v1/chat/completions", asked)
                assert (answer.status, failed.status) == (status, 502), answer.body
                shown += f"{answer.headers} {answer.body!r} {failed.headers} {failed.body!r}"
            shown += repr((await admin.request("GET", "/v1/credentials")).body)
            shown += repr((await admin.request("GET", "/metrics")).body)
            with await open_sql(data, gateway.log) as books:
                rows = {view: books.execute(f"from {view}").fetchall() for view in VIEWS}
    assert len([row for row in rows["audit"] if "set_credential" in row]) == 3
    shown += repr(rows)
    shown += caplog.text + "".join(repr(file.read_bytes()) for file in data.rglob("*") if file.is_file())
    assert [canary for canary in CANARIES if canary in shown] == []
