"""Who is asking: an API key from the control state, or the admin key.

The key is only ever hashed and compared. An unknown id costs what a wrong secret costs.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from tollgate import keys
from tollgate.control import Control
from tollgate.errors import Refusal
from tollgate.events import Limits
from tollgate.secret import Secrets
from tollgate.times import iso

Headers: TypeAlias = Mapping[bytes, bytes]

DEFAULT_ORG = "default"  # whose requests are that name no organisation, and the admin key's


class Identity(NamedTuple):
    """Whose request it is. The admin key may use the management API, and has no limits."""

    key_id: str
    org_id: str
    team_id: str | None
    is_admin: bool
    limits: Limits


ADMIN = Identity(keys.ADMIN, DEFAULT_ORG, None, is_admin=True, limits=Limits())


class Authenticator:
    """Knows genuine keys by their hashes."""

    def __init__(self, control: Control, secrets: Secrets) -> None:
        self._control = control
        self._pepper = keys.pepper(secrets.secret)
        self._admin_hash = keys.hash_secret(secrets.admin_key.reveal(), self._pepper)

    def authenticate(self, headers: Headers, now_ms: int) -> Identity:
        """The bearer of the key in these headers. Raises `Refusal` (401), which no client is to try again."""
        token = _token(headers)
        parsed = keys.parse(token)
        key = self._control.key(parsed.key_id) if parsed else None
        secret = parsed.secret if parsed else token
        if not keys.matches(secret, key.hash if key else None, self._pepper) or key is None:
            if keys.matches(token, self._admin_hash, self._pepper):
                return ADMIN
            raise _unauthorised("This API key is not known here, or not written as it was given.")
        if key.revoked_ms is not None:
            raise _unauthorised(f"This API key was revoked at {iso(key.revoked_ms)}.")
        if key.expires_ms is not None and key.expires_ms <= now_ms:
            raise _unauthorised(f"This API key expired at {iso(key.expires_ms)}.")
        return Identity(key.key_id, key.org_id, key.team_id, is_admin=False, limits=key.limits)


def claimed_key_id(headers: Headers) -> str | None:
    """The public id in the key that was shown, genuine or not; for the audit."""
    try:
        parsed = keys.parse(_token(headers))
    except Refusal:
        return None
    return parsed.key_id if parsed else None


def require_admin(identity: Identity) -> None:
    """Raise `Refusal` (403) for anybody but the bearer of the admin key."""
    if not identity.is_admin:
        raise Refusal(
            403,
            "permission_denied",
            "This needs the admin key. 'tollgate keys admin' says where it lies.",
            type="permission_error",
        )


def _token(headers: Headers) -> str:
    """What was sent as the key. Every header is taken on every route: clients of one dialect use another's."""
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    for name in (b"x-api-key", b"x-goog-api-key"):
        token = headers.get(name, b"").decode("latin-1").strip()
        if token:
            return token
    raise _unauthorised(
        "There is no API key: send it as 'Authorization: Bearer <key>', 'x-api-key: <key>' or 'x-goog-api-key: <key>'."
    )


def _unauthorised(message: str) -> Refusal:
    return Refusal(
        401,
        "invalid_api_key",
        message,
        type="authentication_error",
        headers={"x-should-retry": "false", "www-authenticate": "Bearer"},
    )
