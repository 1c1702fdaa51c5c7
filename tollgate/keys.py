"""API keys: how they look, how they are made, and what is kept of them.

`sk-tollgate-<public id>-<secret>`: 8 and 43 characters of [0-9A-Za-z]. The public id may be shown and logged. Of the
secret, 256 random bits, only its HMAC-SHA256 under a pepper is kept. A deliberately slow hash protects what can be
guessed; for secrets of 112 bits and more NIST SP 800-63B asks for an approved one-way function and no more, and a
slow one would cost every request 100 ms.
"""

import hmac
import re
from typing import NamedTuple

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC

from tollgate.derive import derive
from tollgate.ids import random_text
from tollgate.secret import Secret

ADMIN = "admin"  # stands for the id of the admin key, which has none and is no record of the control topic
PREFIX = "sk-tollgate-"
KEY_ID_CHARS = 8
SECRET_CHARS = 43

_TOKEN = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{KEY_ID_CHARS}}})-([0-9A-Za-z]{{{SECRET_CHARS}}})")
_NO_HASH = "0" * 64  # what no secret hashes to in practice: compared with when there is nothing to compare with


class KeyToken(NamedTuple):
    """A key's two parts, as its bearer shows them."""

    key_id: str
    secret: str


def new_key() -> tuple[str, str]:
    """A new key's public id, and the whole token, which is shown once."""
    key_id = random_text(KEY_ID_CHARS)
    return key_id, f"{PREFIX}{key_id}-{random_text(SECRET_CHARS)}"


def parse(token: str) -> KeyToken | None:
    """The parts of a well-formed token; None for anything else."""
    match = _TOKEN.fullmatch(token)
    return KeyToken(match[1], match[2]) if match else None


def pepper(root: Secret) -> HMAC:
    """What all secrets are hashed with, so that a copy of the log without the gateway's secret proves no guess.

    A hash that has taken in its key: a copy of it takes a third of the time in which OpenSSL makes a new one.
    """
    return HMAC(derive(root, "key pepper v1"), SHA256())


def hash_secret(secret: str, pepper: HMAC) -> str:
    """HMAC-SHA256 of the secret under the pepper, in hex: all that is kept of it."""
    hashing = pepper.copy()
    hashing.update(secret.encode())
    return hashing.finalize().hex()


def matches(secret: str, kept: str | None, pepper: HMAC) -> bool:
    """Is `kept` the hash of this secret? None takes as long, so that time tells nobody which ids exist."""
    return hmac.compare_digest(hash_secret(secret, pepper), kept or _NO_HASH)
