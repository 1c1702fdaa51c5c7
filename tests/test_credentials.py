"""A credential that was set opens for its own account under the gateway's own secret, and for nothing else."""

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from tollgate.accounts import Account, Given, GivenAws, GivenServiceAccount, OAuth
from tollgate.credentials import (
    CredentialError,
    checked,
    decide_deletion,
    decide_set,
    last_four,
    public_credential,
    seal,
    to_secret,
    unseal,
)
from tollgate.errors import Refusal
from tollgate.events import CommandIssued, CredentialSet, DeleteCredential, SetCredential, encode
from tollgate.secret import Secret

ROOT, OTHER = Secret("kR7pVx2mQz9nBt4wYs6cJd"), Secret("another-secret-of-the-gateway")
KEY = "sk-live-3f9a8b7c6d5e4f"
PEM = (
    ed25519.Ed25519PrivateKey.generate()
    .private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    .decode()
)
ROBOT = {"client_email": "robot@project.test", "private_key": PEM, "private_key_id": "0123456789abcdef"}
KINDS = {
    "api_key": {"api_key": KEY},
    "oauth": {"oauth": {"token_url": "https://id.test/token", "client_id": "me", "refresh_token": KEY}},
    "google": {"google": {"service_account": ROBOT}},
    "aws": {"aws": {"access_key_id": "AKIA0123456789AB", "secret_access_key": KEY, "region": "eu-west-1"}},
}


def read(body: object) -> Given:
    return checked(msgspec.convert(body, Given, dec_hook=to_secret))


def state(sealed: bytes, *, provider: str = "openai", account: str = "main", **facts: object) -> CredentialSet:
    fields = {"version": 1, "src": 0, "command_id": "c", "set_ms": 0, "set_by": "admin", "kind": "api_key", **facts}
    return CredentialSet(provider=provider, account=account, sealed=sealed, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_credential_of_every_kind_is_what_it_was_when_it_is_opened(kind: str):
    credential = read(KINDS[kind])
    sealed = seal(ROOT, credential, provider="openai", account="main")
    assert credential.kinds == (kind,)
    assert unseal(ROOT, state(sealed)) == credential
    assert KEY.encode() not in encode(state(sealed))
    assert credential.of(Account(name="main", weight=7)).credentials == (kind,)
    assert credential.of(Account(name="main", weight=7)).weight == 7


def test_it_takes_the_place_of_a_credential_of_another_kind():
    account = Account(name="main", api_key_file="/run/secrets/key")
    assert read(KINDS["oauth"]).of(account).credentials == ("oauth",)


@pytest.mark.parametrize(
    ("root", "place"),
    [
        (OTHER, {}),
        (ROOT, {"provider": "evil"}),
        (ROOT, {"account": "second"}),
        (ROOT, {"provider": "openai\0main", "account": ""}),
    ],
)
def test_it_opens_under_no_other_secret_and_for_no_other_account(root: Secret, place: dict[str, str]):
    sealed = seal(ROOT, read(KINDS["api_key"]), provider="openai", account="main")
    with pytest.raises(CredentialError, match="TOLLGATE_SECRET is not the one") as failed:
        unseal(root, state(sealed, **place))
    assert KEY not in str(failed.value)


@given(st.integers(min_value=0), st.integers(min_value=1, max_value=255))
def test_altered_by_one_bit_anywhere_it_does_not_open(at: int, flip: int):
    sealed = bytearray(seal(ROOT, read(KINDS["api_key"]), provider="openai", account="main"))
    sealed[at % len(sealed)] ^= flip
    with pytest.raises(CredentialError):
        unseal(ROOT, state(bytes(sealed)))


@given(st.binary(max_size=64))
def test_what_was_never_sealed_does_not_open(noise: bytes):
    with pytest.raises(CredentialError):
        unseal(ROOT, state(noise))


def test_the_same_credential_is_sealed_differently_each_time():
    credential = read(KINDS["api_key"])
    assert len({seal(ROOT, credential, provider="p", account="a") for _ in range(10)}) == 10


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "give one of api_key, oauth, google, aws"),
        ({"api_key": KEY, **KINDS["aws"]}, "give one of"),
        ({"oauth": {"token_url": "http://id.test/token", "client_id": "me"}}, "must begin with https"),
        ({"oauth": {"token_url": "http://127.0.0.1.evil.test/", "client_id": "me"}}, "must begin with https"),
        ({"google": {"service_account": {}}}, "service account's key file"),
        ({"google": {"service_account": {**ROBOT, "private_key": KEY}}}, "service account's key file"),
        ({"google": {"service_account": "no JSON"}}, "service account's key file"),
    ],
)
def test_what_can_be_no_credential_is_named_and_not_shown(body: object, says: str):
    with pytest.raises(ValueError, match=says) as failed:
        read(body)
    assert KEY not in str(failed.value)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"api_key": KEY}, "5e4f"),
        ({"api_key": "short-key"}, ""),
        (KINDS["oauth"], "5e4f"),
        (KINDS["google"], "cdef"),
        (KINDS["aws"], "89AB"),
    ],
)
def test_four_characters_are_shown_unless_little_more_would_stay_hidden(body: object, shown: str):
    assert last_four(read(body)) == shown


def test_no_file_of_the_gateways_machine_can_be_named():
    for kind in (GivenServiceAccount, GivenAws, OAuth):
        assert not {field for field in kind.__struct_fields__ if field.endswith("file") or field == "profile"}
    with pytest.raises(msgspec.ValidationError):
        read({"api_key_file": "/etc/passwd"})


# Decisions -----------------------------------------------------------------------------------------------------------

SET = SetCredential(provider="openai", account="main", kind="api_key", sealed=b"sealed", last_four="5e4f")
DELETE = DeleteCredential(provider="openai", account="main")


def issued(action: SetCredential | DeleteCredential, command_id: str = "c1") -> CommandIssued:
    return CommandIssued(command_id=command_id, actor="k7", action=action)


def test_it_is_set_replaced_and_taken_away_and_each_state_says_when_and_by_whom():
    first = decide_set(None, SET, issued(SET), 5, 1_000)
    second = decide_set(first, SET, issued(SET, "c2"), 6, 2_000)
    gone = decide_deletion(second, DELETE, issued(DELETE, "c3"), 7, 3_000)
    assert isinstance(gone, CredentialSet)
    assert [(s.version, s.src, s.set_ms, s.set_by) for s in (first, second, gone)] == [
        (1, 5, 1_000, "k7"),
        (2, 6, 2_000, "k7"),
        (3, 7, 3_000, "k7"),
    ]
    assert (gone.kind, gone.sealed, gone.last_four) == (None, b"", "")
    assert public_credential(gone)["deleted"] is True
    assert decide_set(gone, SET, issued(SET), 8, 4_000).version == 4


@pytest.mark.parametrize("known", [None, state(b"", kind=None)])
def test_what_is_not_there_cannot_be_taken_away(known: CredentialSet | None):
    refusal = decide_deletion(known, DELETE, issued(DELETE), 7, 3_000)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 404


def test_what_is_shown_is_neither_the_credential_nor_what_it_was_sealed_into():
    shown = public_credential(decide_set(None, SET, issued(SET), 5, 1_000))
    assert shown == {
        "object": "credential",
        "provider": "openai",
        "account": "main",
        "kind": "api_key",
        "last_four": "5e4f",
        "source": "api",
        "version": 1,
        "set_at": "1970-01-01T00:00:01.000Z",
        "set_by": "k7",
    }
