"""Keys for one purpose each, derived from the gateway's one secret.

HKDF-SHA256 (RFC 5869). Who learns one of them learns neither the secret nor another.
"""

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tollgate.secret import Secret

KEY_BYTES = 32


def derive(root: Secret, purpose: str) -> bytes:
    """The 256-bit key of `root` for `purpose`: the same words always give the same key."""
    hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"tollgate {purpose}".encode())
    return hkdf.derive(root.reveal().encode())
