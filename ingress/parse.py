"""JSON bodies, read strictly: what two parsers could read in two ways is refused.

The gateway prices a request from what it reads, and a provider charges for what it reads; a key given twice, of which
each parser may take another, must not come between the two. Pure.
"""

import json
import re
from decimal import Decimal
from typing import Any

import orjson

from tollgate.errors import Refusal

MAX_DEPTH = 254  # what `orjson.dumps` takes; Python's own recursion limit lies well above it
LOCATE_BYTES = 1 << 20  # how far into a body the place of a fault is looked for
_MAX_SHOWN = 64

# A string (its end may be cut off), or a bracket. Possessive: a string is looked at once, whatever follows it.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[{\]}]', re.DOTALL)
_ESCAPED_COLON = re.compile(rb"\\u003[aA]")


def parse_object(body: bytes) -> dict[str, Any]:
    """The object in `body`. Raises `Refusal` (400) that says what is wrong with it and where, and shows none of it."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_json(body, error) from None
    if not isinstance(content, dict):
        raise _refusal("invalid_json", f"The body must be a JSON object, not {_type_name(content)}.")
    _check_unambiguous(body, content)
    return content


def parse_exact(body: bytes) -> dict[str, Any]:
    """As `parse_object`, with every number that has a fraction or an exponent as a `Decimal`: no amount is rounded."""
    parse_object(body)
    content: dict[str, Any] = json.loads(body, parse_float=Decimal)
    return content


def _check_unambiguous(body: bytes, content: dict[str, Any]) -> None:
    """Refuse keys that are there twice, and what is nested too deep; both from one look at the re-encoded content.

    Every member of an object has one colon outside of strings, and a key given twice leaves only one member behind:
    the content, encoded again, then has fewer colons than the body. Strings have the same colons in both, unless the
    body escapes them (backslash, u003a); only then, and to name the key, is the body parsed the slow way.
    """
    try:
        again = orjson.dumps(content)
    except TypeError:
        raise _too_deep(body) from None
    if body.count(b":") != again.count(b":") or (b"\\u003" in body and _ESCAPED_COLON.search(body)):
        json.loads(body, object_pairs_hook=_refuse_duplicates)


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _refusal(
                    "duplicate_key", f"The key {_shown(name)} is there twice in one object.", param=name[:_MAX_SHOWN]
                )
            seen.add(name)
    return members


def _not_json(body: bytes, error: orjson.JSONDecodeError) -> Refusal:
    try:
        text = body.decode()
    except UnicodeDecodeError as invalid:
        return _refusal(
            "invalid_utf8",
            f"The body is not UTF-8 at byte {invalid.start} (0x{body[invalid.start]:02x}).",
        )
    if not body:
        return _refusal("invalid_json", "The body is empty; it must be a JSON object.")
    offset = len(text[: error.pos].encode())
    if "depth limit" in error.msg:
        return _too_deep(body)
    return _refusal(
        "invalid_json",
        f"The body is not valid JSON: {error.msg}, at byte {offset} of {len(body)} "
        f"(line {error.lineno}, column {error.colno}).",
    )


def _too_deep(body: bytes) -> Refusal:
    offset = _depth_exceeded_at(body[:LOCATE_BYTES])
    place = "" if offset is None else f", at byte {offset}"
    return _refusal("json_too_deep", f"The body is nested deeper than {MAX_DEPTH} levels{place}.")


def _depth_exceeded_at(body: bytes) -> int | None:
    depth = 0
    for token in _TOKEN.finditer(body):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return token.start()
        elif first in b"]}":
            depth -= 1
    return None


def _refusal(code: str, message: str, *, param: str | None = None) -> Refusal:
    return Refusal(400, code, message, param=param)


def _type_name(content: Any) -> str:
    match content:
        case list():
            return "an array"
        case str():
            return "a string"
        case bool():
            return "true or false"
        case None:
            return "null"
        case _:
            return "a number"


def _shown(name: str) -> str:
    return ascii(name if len(name) <= _MAX_SHOWN else name[:_MAX_SHOWN] + "…")
