"""Requests to AWS are signed as its documentation says (Signature Version 4), here worked out a second time."""

import hashlib
import hmac
import re

import pytest

from tollgate.config import AwsAccount
from tollgate.errors import ProviderError
from tollgate.processors.upstream.credentials.aws import AwsCredential
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
