"""Genuine keys are known at once, others never, and time does not tell which ids exist."""

import hmac

import pytest

from tests.ingress.support import ADMIN_KEY, CHAT, OPENAI_BODY, SECRETS, Gateway
from tollgate import keys
from tollgate.control import Control
from tollgate.errors import Refusal
from tollgate.events import KeySet, Limits
from tollgate.ingress.auth import Authenticator, Identity, claimed_key_id

NOW_MS = 1_795_000_000_000
KEY_ID, TOKEN = keys.new_key()


def authenticator(**fields: object) -> Authenticator:
    control = Control()
    parsed = keys.parse(TOKEN)
    assert parsed is not None
    state = {
        "key_id": KEY_ID,
        "hash": keys.hash_secret(parsed.secret, keys.pepper(SECRETS.secret)),
        "name": "n",
        "org_id": "acme",
        "team_id": "web",
        "version": 1,
        "src": 0,
        "command_id": "",
        "created_ms": 0,
        "limits": Limits(requests_per_minute=3),
    }
    control.evolve(KeySet(**(state | fields)))
    return Authenticator(control, SECRETS)


def refusal(token: str, made: Authenticator | None = None) -> Refusal:
    with pytest.raises(Refusal) as caught:
        (made or authenticator()).authenticate({b"authorization": f"Bearer {token}".encode()}, NOW_MS)
    assert caught.value.status == 401
    return caught.value


def test_a_genuine_key_says_who_it_is():
    identity = authenticator().authenticate({b"x-api-key": TOKEN.encode()}, NOW_MS)
    assert identity == Identity(KEY_ID, "acme", "web", is_admin=False, limits=Limits(requests_per_minute=3))


def test_the_admin_key_is_the_admin():
    identity = authenticator().authenticate({b"authorization": f"Bearer {ADMIN_KEY}".encode()}, NOW_MS)
    assert (identity.key_id, identity.org_id, identity.is_admin) == ("admin", "default", True)


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(TOKEN[:-1] + ("a" if TOKEN[-1] != "a" else "b"), id="another end"),
        pytest.param(keys.new_key()[1], id="of another gateway"),
        ADMIN_KEY[:-1],
        ADMIN_KEY + "x",
        "admin",
        "' OR 1=1 --",
        "\xff\xfe",
    ],
)
def test_nearly_a_key_is_no_key(token: str):
    message = refusal(token).message
    assert "not known" in message
    assert token not in message


def test_a_key_that_was_revoked_or_has_expired_says_so():
    assert "revoked at 1970" in refusal(TOKEN, authenticator(revoked_ms=1)).message
    assert "expired at" in refusal(TOKEN, authenticator(expires_ms=NOW_MS)).message
    assert authenticator(expires_ms=NOW_MS + 1).authenticate({b"x-api-key": TOKEN.encode()}, NOW_MS)


def test_whoever_guesses_a_revoked_keys_id_learns_nothing_of_it():
    parsed = keys.parse(TOKEN)
    assert parsed is not None
    wrong = TOKEN.replace(parsed.secret, "x" * 43)
    assert "revoked" not in refusal(wrong, authenticator(revoked_ms=1)).message


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b""},
        {b"authorization": b"Bearer "},
        {b"authorization": b"Basic eDp5"},
        {b"authorization": TOKEN.encode()},
        {b"x-api-key": b" "},
    ],
)
def test_without_a_key_it_is_said_how_to_send_one(headers: dict[bytes, bytes]):
    with pytest.raises(Refusal, match="x-api-key"):
        authenticator().authenticate(headers, NOW_MS)


def test_an_unknown_id_costs_as_many_hashes_as_a_wrong_secret(monkeypatch: pytest.MonkeyPatch):
    made, hashes = authenticator(), []
    digest = hmac.digest
    monkeypatch.setattr(hmac, "digest", lambda *args: hashes.append(args) or digest(*args))
    refusal(TOKEN[:-1] + "_" if TOKEN.endswith("-") else TOKEN[:-1] + ("a" if TOKEN[-1] != "a" else "b"), made)
    wrong_secret = len(hashes)
    refusal(keys.new_key()[1], made)
    assert len(hashes) == 2 * wrong_secret


def test_the_audit_names_the_key_that_was_claimed_and_nothing_that_is_not_one():
    assert claimed_key_id({b"authorization": f"Bearer {TOKEN}".encode()}) == KEY_ID
    assert claimed_key_id({b"authorization": f"Bearer {ADMIN_KEY}".encode()}) is None
    assert claimed_key_id({}) is None


async def test_a_key_given_in_the_url_is_not_taken(gateway: Gateway):
    token = gateway.tokens["acme"]
    response = await gateway.anonymous.request("POST", f"{CHAT}?api_key={token}", OPENAI_BODY)
    assert response.status in (401, 404)
    assert token not in response.body.decode()
