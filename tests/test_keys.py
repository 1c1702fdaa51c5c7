"""Keys are well-formed, of full strength, and known only by a peppered hash."""

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from hypothesis import given
from hypothesis import strategies as st

from tollgate import keys
from tollgate.derive import derive
from tollgate.secret import Secret

PEPPER = keys.pepper(Secret("a root secret of the tests, long enough"))


def test_a_new_key_parses_into_its_public_id_and_its_secret():
    key_id, token = keys.new_key()
    parsed = keys.parse(token)
    assert parsed is not None
    assert parsed.key_id == key_id
    assert token == f"sk-tollgate-{key_id}-{parsed.secret}"
    assert (len(key_id), len(parsed.secret)) == (8, 43)


def test_no_two_keys_are_alike():
    assert len({keys.new_key()[1] for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "token",
    [
        "",
        "sk-tollgate-",
        "sk-other-abcdefgh-" + "x" * 43,
        "sk-tollgate-abcdefg-" + "x" * 43,
        "sk-tollgate-abcdefgh-" + "x" * 42,
        "sk-tollgate-abcdefgh-" + "x" * 44,
        "sk-tollgate-abcdefgh-" + "x" * 42 + "'",
        "sk-tollgate-abcdefgh-" + "x" * 42 + "é",
        "sk-tollgate-abcdefgh-" + "x" * 43 + "\n",
    ],
)
def test_what_is_not_exactly_a_key_is_none(token: str):
    assert keys.parse(token) is None


@given(st.text())
def test_no_text_makes_the_parser_fail(text: str):
    assert keys.parse(text) is None


def test_only_the_secret_itself_matches_its_hash():
    kept = keys.hash_secret("x" * 43, PEPPER)
    assert keys.matches("x" * 43, kept, PEPPER)
    assert not keys.matches("x" * 42 + "y", kept, PEPPER)


def test_nothing_matches_where_no_hash_is_kept():
    assert not keys.matches("x" * 43, None, PEPPER)
    assert not keys.matches("", "", PEPPER)


def test_the_hash_says_nothing_without_the_pepper():
    other = keys.pepper(Secret("another root secret, just as long"))
    assert keys.hash_secret("secret", PEPPER) != keys.hash_secret("secret", other)
    assert "secret" not in keys.hash_secret("secret", PEPPER)


def test_the_hash_never_changes_its_form_because_the_log_keeps_it():
    # openssl dgst -sha256 -mac HMAC -macopt hexkey:00…
    pepper = HMAC(bytes(32), SHA256())
    assert keys.hash_secret("secret", pepper) == "1810e8d341b9e61e88895fba0b1aa2bd03cb6c8fff2b368e666ef8efdef5b4fb"


def test_the_pepper_never_changes_or_every_key_would_be_lost():
    # openssl kdf -keylen 32 -kdfopt digest:SHA2-256 -kdfopt "info:tollgate key pepper v1" … HKDF
    pepper = HMAC(bytes.fromhex("3e777211fc113b1eac1132d2f6666bcbbbc3a1cfc5ad034794e5f01e647b8147"), SHA256())
    assert keys.hash_secret("secret", PEPPER) == keys.hash_secret("secret", pepper)


def test_each_purpose_has_its_own_key():
    root = Secret("a root secret of the tests, long enough")
    assert derive(root, "one") == derive(root, "one")
    assert derive(root, "one") != derive(root, "two")
    assert len(derive(root, "one")) == 32
