"""Tokens that expire: asked for once however many calls wait, renewed before their end, and never shown."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tollgate.accounts import GoogleAccount, OAuth
from tollgate.errors import ConfigError, ProviderError
from tollgate.processors.upstream.credentials.tokens import Token, client_grant, service_account_grant
from tollgate.secret import Secret

CALL = ("POST", "https://provider.test/v1", {}, b"{}")
NOW_S = 1_790_000_000


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Issuer:
    """An authorisation server: counts what it is asked, and answers what it is told to."""

    def __init__(self) -> None:
        self.asked: list[dict[str, str]] = []
        self.answer: dict[str, Any] = {"expires_in": 1000, "token_type": "Bearer"}
        self.status = 200
        self.url = ""

    async def token(self, request: web.Request) -> web.Response:
        self.asked.append({name: str(value) for name, value in (await request.post()).items()})
        await asyncio.sleep(0)
        answer = {"access_token": f"token-{len(self.asked)}", **self.answer}
        return web.json_response(answer if self.status == 200 else self.answer, status=self.status)


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    issuer = Issuer()
    app = web.Application()
    app.router.add_post("/token", issuer.token)
    async with TestServer(app) as server:
        issuer.url = str(server.make_url("/token"))
        yield issuer


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def token_of(issuer, session, clock, **more):
    oauth = OAuth(token_url=issuer.url, client_id="me", client_secret=Secret("hush-hush"), **more)
    return Token("p/main", session, client_grant(oauth), clock_s=clock, wall_s=lambda: NOW_S)


async def test_calls_that_wait_share_one_question_and_later_ones_ask_nothing(issuer, session):
    credential = token_of(issuer, session, Clock(), scope="all")
    found = await asyncio.gather(*(credential.headers(*CALL) for _ in range(20)))
    assert found == [{"authorization": "Bearer token-1"}] * 20
    assert issuer.asked == [
        {"client_id": "me", "client_secret": "hush-hush", "grant_type": "client_credentials", "scope": "all"}
    ]


async def test_a_token_is_renewed_before_its_end_without_a_call_that_waits(issuer, session):
    clock = Clock()
    credential = token_of(issuer, session, clock)
    renewal = asyncio.create_task(credential.keep_fresh())
    await credential.headers(*CALL)
    clock.now_s += 900
    credential._wanted.set()  # its time has come: it sleeps on the real clock
    while len(issuer.asked) < 2:
        assert await credential.headers(*CALL) == {"authorization": "Bearer token-1"}
        await asyncio.sleep(0.001)
    renewal.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await renewal
    assert len(issuer.asked) == 2


async def test_an_expired_or_refused_token_is_not_used_again(issuer, session):
    clock = Clock()
    credential = token_of(issuer, session, clock)
    await credential.headers(*CALL)
    clock.now_s += 999
    assert await credential.headers(*CALL) == {"authorization": "Bearer token-2"}
    credential.rejected()
    assert await credential.headers(*CALL) == {"authorization": "Bearer token-3"}


async def test_a_refresh_token_is_used_and_so_is_the_one_that_replaces_it(issuer, session):
    clock = Clock()
    credential = token_of(issuer, session, clock, refresh_token=Secret("r-1"))
    issuer.answer["refresh_token"] = "r-2"
    await credential.headers(*CALL)
    credential.rejected()
    await credential.headers(*CALL)
    assert [asked["refresh_token"] for asked in issuer.asked] == ["r-1", "r-2"]
    assert {asked["grant_type"] for asked in issuer.asked} == {"refresh_token"}


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (400, {"error": "invalid_client", "error_description": "hush-hush is wrong"}, "HTTP 400, invalid_client"),
        (500, {"error": {"hush-hush": 1}}, "HTTP 500, no token"),
        (200, {"access_token": "a\nb"}, "HTTP 200, no token"),
        (200, {"access_token": 7}, "HTTP 200, no token"),
    ],
)
async def test_what_the_server_refuses_is_said_without_the_secret(issuer, session, caplog, status, answer, said):
    issuer.status, issuer.answer = status, answer
    credential = token_of(issuer, session, Clock())
    with pytest.raises(ProviderError) as failed:
        await credential.headers(*CALL)
    assert failed.value.error_class == "auth"
    assert failed.value.message == f"the token of p/main could not be renewed: {said}"
    assert "hush-hush" not in caplog.text


async def test_a_server_that_is_not_there_is_named_by_the_account(session):
    oauth = OAuth(token_url="http://127.0.0.1:1/token", client_id="me")
    with pytest.raises(ProviderError, match="the token of p/main could not be renewed: Client"):
        await Token("p/main", session, client_grant(oauth)).headers(*CALL)


async def test_a_lifetime_that_is_no_number_is_a_short_one(issuer, session):
    clock = Clock()
    issuer.answer["expires_in"] = "soon"
    credential = token_of(issuer, session, clock)
    await credential.headers(*CALL)
    clock.now_s += 299
    await credential.headers(*CALL)
    assert len(issuer.asked) == 2


# Service accounts ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def account_file(tmp_path, key, **fields):
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    path = tmp_path / "account.json"
    account = {"client_email": "robot@project.test", "private_key": pem, "private_key_id": "k1", **fields}
    path.write_bytes(orjson.dumps(account))
    return GoogleAccount(service_account_file=str(path))


async def test_a_service_account_signs_who_it_is_and_what_it_wants(tmp_path, key, issuer, session):
    grant = service_account_grant("p/main", account_file(tmp_path, key, token_uri=issuer.url))
    credential = Token("p/main", session, grant, clock_s=Clock(), wall_s=lambda: NOW_S)
    assert await credential.headers(*CALL) == {"authorization": "Bearer token-1"}
    (asked,) = issuer.asked
    assert asked["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    claim = jwt.decode(
        asked["assertion"],
        key.public_key(),
        algorithms=["RS256"],
        audience=issuer.url,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claim == {
        "iss": "robot@project.test",
        "scope": "https://www.googleapis.com/auth/cloud-platform",
        "aud": issuer.url,
        "iat": NOW_S,
        "exp": NOW_S + 3600,
    }
    assert jwt.get_unverified_header(asked["assertion"])["kid"] == "k1"


async def test_a_service_accounts_new_file_counts_from_the_next_token_on_and_a_broken_one_does_not(
    tmp_path, key, issuer, session, caplog
):
    credential = Token("p/main", session, service_account_grant("p/main", account_file(tmp_path, key)))
    path = tmp_path / "account.json"

    async def kid() -> str:
        credential.rejected()
        await credential.headers(*CALL)
        return jwt.get_unverified_header(issuer.asked[-1]["assertion"])["kid"]

    account_file(tmp_path, key, token_uri=issuer.url, private_key_id="k2")
    assert await kid() == "k2"
    path.write_text("{")
    assert await kid() == "k2"
    assert f"{path} is not the key file of a service account" in caplog.text


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"client_email": "a", "private_key": "no key"}'])
def test_a_file_that_is_no_service_account_is_named_and_not_shown(tmp_path, content):
    path = tmp_path / "account.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as failed:
        service_account_grant("p/main", GoogleAccount(service_account_file=str(path)))
    assert str(failed.value).startswith(f"providers: p/main: {path} is not the key file of a service account")
    assert "no key" not in str(failed.value)
