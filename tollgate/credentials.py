"""Credentials of provider accounts that are set while the gateway runs: how they lie on the log, and how they change.

    given ──seal (ingress)──▶ command ──decide (owner)──▶ state on `control` ──open (worker)──▶ the account's next call

A credential is encrypted with AES-256-GCM before it is written anywhere. The key is derived from `TOLLGATE_SECRET`
(HKDF-SHA256, RFC 5869: `tollgate.derive`), for this purpose alone. The nonce is 96 random bits, which NIST
SP 800-38D (8.3) allows for 2^32 encryptions under one key. Provider and account are authenticated beside it
(associated data): on another account's record the same bytes do not open.
"""

import os
from typing import Any
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tollgate.accounts import Given
from tollgate.derive import derive
from tollgate.errors import Refusal, TollgateError
from tollgate.events import CommandIssued, CredentialSet, DeleteCredential, SetCredential
from tollgate.secret import Secret
from tollgate.times import iso

NONCE_BYTES = 12
SHOWN_CHARS = 4
LEAST_HIDDEN_CHARS = 8  # of what is so short that less would stay hidden, nothing is shown


class CredentialError(TollgateError):
    """A credential that was set cannot be opened: it was altered or moved, or the gateway's secret is another."""


def seal(root: Secret, given: Given, *, provider: str, account: str) -> bytes:
    """The credential as it may be written down, for this account alone."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + _cipher(root).encrypt(nonce, _text(given), _context(provider, account))


def unseal(root: Secret, state: CredentialSet) -> Given:
    """The credential again. Raises `CredentialError`."""
    nonce, sealed = state.sealed[:NONCE_BYTES], state.sealed[NONCE_BYTES:]
    try:
        text = _cipher(root).decrypt(nonce, sealed, _context(state.provider, state.account))
        return msgspec.json.decode(text, type=Given, dec_hook=to_secret)
    except (InvalidTag, ValueError):  # msgspec's errors are `ValueError`s
        raise CredentialError(
            f"the credential that was set for {state.provider}/{state.account} does not open: TOLLGATE_SECRET is not "
            "the one that it was set under; set the credential again"
        ) from None


def checked(given: Given) -> Given:
    """The credential, if it can be one. Raises `ValueError` that names the field and shows no value."""
    if len(given.kinds) != 1:
        raise ValueError(f"give one of {', '.join(given.__struct_fields__)}")
    if given.oauth is not None and not _is_private(given.oauth.token_url):
        raise ValueError("oauth.token_url must begin with https://: a secret is sent there")
    if given.google is not None:
        _check_service_account(given.google.service_account)
    return given


def last_four(given: Given) -> str:
    """The last characters of what tells one credential from another; nothing of what is short.

    That is the key itself; of OAuth the refresh token or the client's secret; of AWS and of a service account the *id*
    of the key.
    """
    text = ""
    if given.api_key is not None:
        text = given.api_key.reveal()
    elif given.oauth is not None:
        secret = given.oauth.refresh_token or given.oauth.client_secret
        text = secret.reveal() if secret is not None else given.oauth.client_id
    elif given.google is not None:
        text = str(_service_account(given.google.service_account).get("private_key_id", ""))
    elif given.aws is not None:
        text = given.aws.access_key_id
    return text[-SHOWN_CHARS:] if len(text) >= SHOWN_CHARS + LEAST_HIDDEN_CHARS else ""


def to_secret(shape: type, value: Any) -> Any:
    """For msgspec: text, or a whole object as it lies in a key file, as a secret. Raises `ValueError`."""
    if shape is not Secret:
        raise NotImplementedError(shape)
    if isinstance(value, dict):
        return Secret(msgspec.json.encode(value).decode())
    if not isinstance(value, str):
        raise ValueError("must be text")
    return Secret(value)


def _is_private(url: str) -> bool:
    """Can nobody listen on the way there?"""
    address = urlsplit(url)
    return address.scheme == "https" or (address.scheme == "http" and address.hostname in ("127.0.0.1", "::1"))


def _check_service_account(text: Secret) -> None:
    account = _service_account(text)
    try:
        load_pem_private_key(str(account["private_key"]).encode(), password=None)
        complete = isinstance(account["client_email"], str)
    except Exception:  # of whatever kind: cryptography's many ways to say that it is none
        complete = False
    if not complete:
        raise ValueError("google.service_account must be the content of a service account's key file (JSON)")


def _service_account(text: Secret) -> dict[str, Any]:
    try:
        account = msgspec.json.decode(text.reveal())
    except msgspec.DecodeError:
        return {}
    return account if isinstance(account, dict) else {}


def _cipher(root: Secret) -> AESGCM:
    return AESGCM(derive(root, "credential sealing v1"))


def _context(provider: str, account: str) -> bytes:
    return b"\0".join((b"credential", provider.encode(), account.encode()))


def _text(given: Given) -> bytes:
    return msgspec.json.encode({kind: getattr(given, kind) for kind in given.kinds}, enc_hook=_revealed)


def _revealed(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    raise NotImplementedError(type(value))


# Decisions -----------------------------------------------------------------------------------------------------------


def decide_set(
    known: CredentialSet | None, action: SetCredential, command: CommandIssued, src: int, now_ms: int
) -> CredentialSet:
    """The state after a credential was given. Pure."""
    return CredentialSet(
        provider=action.provider,
        account=action.account,
        version=1 if known is None else known.version + 1,
        src=src,
        command_id=command.command_id,
        set_ms=now_ms,
        set_by=command.actor,
        kind=action.kind,
        sealed=action.sealed,
        last_four=action.last_four,
    )


def decide_deletion(
    known: CredentialSet | None, action: DeleteCredential, command: CommandIssued, src: int, now_ms: int
) -> CredentialSet | Refusal:
    """The state after it was taken away, which is kept: by it a command that comes again is known. Pure."""
    if known is None or known.kind is None:
        return unknown_credential()
    return CredentialSet(
        provider=action.provider,
        account=action.account,
        version=known.version + 1,
        src=src,
        command_id=command.command_id,
        set_ms=now_ms,
        set_by=command.actor,
    )


def unknown_credential() -> Refusal:
    """Does not repeat what was asked for: who mixes up the words of a command may have named a secret."""
    return Refusal(404, "credential_not_found", "No credential was set for this account through the management API.")


def public_credential(state: CredentialSet) -> dict[str, Any]:
    """A credential as the management API shows it: never what it is."""
    shown = {"object": "credential", "provider": state.provider, "account": state.account}
    if state.kind is None:
        return {**shown, "deleted": True, "version": state.version}
    return {
        **shown,
        "kind": state.kind,
        "last_four": state.last_four,
        "source": "api",
        "version": state.version,
        "set_at": iso(state.set_ms),
        "set_by": state.set_by,
    }
