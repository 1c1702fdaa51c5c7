"""Identifiers. A request id begins with the millisecond of its making, so that the log can be searched by it."""

import re
import secrets

import uuid_utils

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_REQUEST_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def new_request_id() -> str:
    """A UUID of version 7 (RFC 9562, section 5.7), in its usual text form."""
    return str(uuid_utils.uuid7())


def is_request_id(text: str) -> bool:
    return _REQUEST_ID.fullmatch(text) is not None


def request_time_ms(request_id: str) -> int:
    """Unix milliseconds at which the id was made: the first 48 bits of a version 7 UUID."""
    return int(request_id[:8] + request_id[9:13], 16)


def attempt_id(request_id: str, attempt: int) -> str:
    """What the provider is given as its request id, so that its bill can be matched line by line."""
    return f"{request_id}.{attempt}"


def random_text(length: int) -> str:
    """`length` random characters of [0-9A-Za-z], about 5.95 bits each, from the system's entropy source."""
    return "".join(secrets.choice(_BASE62) for _ in range(length))
