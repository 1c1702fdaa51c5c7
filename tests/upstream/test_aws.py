"""Requests to AWS are signed as its documentation says (Signature Version 4), here worked out a second time."""

import asyncio
import hashlib
import hmac
import re
import time
from datetime import UTC, datetime

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tollgate.accounts import AwsAccount
from tollgate.errors import ProviderError
from tollgate.processors.upstream.credentials.aws import RENEW_LEFT_S, AwsCredential
from tollgate.secret import Secret

URL = "https://bedrock-runtime.eu-west-1.amazonaws.com/model/a.b-v1%3A0/converse"
BODY = b'{"messages": []}'
ID, KEY = "AKIDTEST", "a/secret+key"


def digest(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def signature(headers: dict[str, str], signed: list[str], scope: str, *, path: str) -> str:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html"""
    canonical = "\n".join(
        [
            "POST",
            path,
            "",
            *(f"{name}:{headers[name]}" for name in signed),
            "",
            ";".join(signed),
            hashlib.sha256(BODY).hexdigest(),
        ]
    )
    to_sign = f"AWS4-HMAC-SHA256\n{headers['x-amz-date']}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{KEY}".encode()
    for part in scope.split("/"):
        key = digest(key, part)
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize(("region", "expected"), [(None, "eu-west-1"), ("us-gov-west-1", "us-gov-west-1")])
async def test_a_request_is_signed_with_its_body_and_path(region, expected):
    account = AwsAccount(region=region, access_key_id=ID, secret_access_key=Secret(KEY), session_token=Secret("sesame"))
    headers = await AwsCredential("p/main", account).headers("POST", URL, {"content-type": "application/json"}, BODY)
    match = re.fullmatch(
        rf"AWS4-HMAC-SHA256 Credential={ID}/(\d{{8}}/{expected}/bedrock/aws4_request), "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
        headers["authorization"],
    )
    assert match is not None
    scope, signed, found = match.groups()
    assert set(signed.split(";")) >= {"content-type", "host", "x-amz-date", "x-amz-security-token"}
    host = {"host": "bedrock-runtime.eu-west-1.amazonaws.com"}
    assert headers["x-amz-security-token"] == "sesame"
    assert found == signature({**headers, **host}, signed.split(";"), scope, path="/model/a.b-v1%253A0/converse")


async def test_without_configured_keys_they_are_found_as_other_tools_find_them(monkeypatch, tmp_path):
    config = tmp_path / "config"
    config.write_text(f"[profile mine]\naws_access_key_id = {ID}\naws_secret_access_key = {KEY}\nregion = eu-west-1\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    headers = await AwsCredential("p/main", AwsAccount(profile="mine")).headers("POST", URL, {}, BODY)
    assert f"Credential={ID}/" in headers["authorization"]


async def test_what_is_not_found_is_said_by_the_account_and_without_a_trace(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(ProviderError, match="no AWS credentials were found for p/main") as failed:
        await AwsCredential("p/main", AwsAccount(profile="nobody")).headers("POST", URL, {}, BODY)
    assert failed.value.error_class == "auth"
    assert "could not be renewed: ProfileNotFound" in caplog.text


# Roles ---------------------------------------------------------------------------------------------------------------

ROLE = "arn:aws:iam::123456789012:role/gateway"
NOW_S = 1_795_000_000.0


class Sts:
    """AWS's token service, as far as roles need it: each session has keys of its own and lasts an hour."""

    def __init__(self, clock_s) -> None:
        self.asked: list[dict[str, str]] = []
        self.authorizations: list[str | None] = []
        self.status = 200
        self._clock_s = clock_s

    def session(self) -> dict[str, str]:
        expires = datetime.fromtimestamp(self._clock_s() + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        number = str(len(self.asked))
        return {"AccessKeyId": f"ASIA{number}", "SecretAccessKey": KEY, "SessionToken": "t", "Expiration": expires}

    async def assume(self, request: web.Request) -> web.Response:
        self.asked.append(dict(await request.post()))
        self.authorizations.append(request.headers.get("authorization"))
        action = self.asked[-1]["Action"]
        made = "".join(f"<{name}>{value}</{name}>" for name, value in self.session().items())
        return web.Response(
            status=self.status,
            text=f'<{action}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{action}Result><Credentials>{made}'
            f"</Credentials></{action}Result></{action}Response>",
            content_type="text/xml",
        )

    async def container(self, request: web.Request) -> web.Response:
        self.asked.append({"Action": "container"})
        return web.json_response({**self.session(), "Token": "t"})


@pytest.fixture
async def sts(monkeypatch, tmp_path):
    clock = [NOW_S]
    sts = Sts(lambda: clock[0])
    sts.clock = clock
    app = web.Application()
    app.router.add_post("/", sts.assume)
    app.router.add_get("/container", sts.container)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    async with TestServer(app) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", str(server.make_url("")))
        sts.url = str(server.make_url("/container"))
        yield sts


async def signed_as(credential: AwsCredential) -> str:
    headers = await credential.headers("POST", URL, {}, BODY)
    return re.search(r"Credential=(\w+)/", headers["authorization"])[1]


async def test_a_role_is_assumed_with_the_accounts_keys_and_again_before_its_session_ends(sts, caplog):
    account = AwsAccount(access_key_id=ID, secret_access_key=Secret(KEY), role_arn=ROLE, external_id="42")
    credential = AwsCredential("p/main", account, wall_s=lambda: sts.clock[0])
    assert {await signed_as(credential) for _ in range(3)} == {"ASIA1"}
    assert sts.asked == [
        {
            "Action": "AssumeRole",
            "Version": "2011-06-15",
            "RoleArn": ROLE,
            "RoleSessionName": "tollgate",
            "ExternalId": "42",
        }
    ]
    assert f"Credential={ID}/" in sts.authorizations[0]
    sts.clock[0] += 3600 - RENEW_LEFT_S + 1
    renewing = asyncio.create_task(credential.keep_fresh())
    async with asyncio.timeout(10):
        while await signed_as(credential) == "ASIA1":  # until then calls go on with the old keys
            await asyncio.sleep(0.01)
    renewing.cancel()
    assert len(sts.asked) == 2
    sts.status = 403
    sts.clock[0] += 3601
    with pytest.raises(ProviderError, match="no AWS credentials were found for p/main"):
        await signed_as(credential)
    assert "could not be renewed: ClientError" in caplog.text
    assert KEY not in caplog.text


async def test_calls_that_wait_for_a_role_share_one_question_and_a_refused_session_is_replaced(sts):
    account = AwsAccount(access_key_id=ID, secret_access_key=Secret(KEY), role_arn=ROLE)
    credential = AwsCredential("p/main", account, wall_s=lambda: sts.clock[0])
    assert await asyncio.gather(*(signed_as(credential) for _ in range(5))) == ["ASIA1"] * 5
    credential.rejected()
    assert await signed_as(credential) == "ASIA2"


@pytest.mark.parametrize("kind", ["web identity", "container"])
async def test_a_role_that_the_machine_gives_is_found(sts, monkeypatch, tmp_path, kind):
    sts.clock[0] = time.time()
    if kind == "web identity":
        (tmp_path / "token").write_text("signed by the cluster")
        monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    else:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", sts.url)
    assert await signed_as(AwsCredential("p/main", AwsAccount())) == "ASIA1"
    assert sts.asked[0]["Action"] == ("AssumeRoleWithWebIdentity" if kind == "web identity" else "container")
