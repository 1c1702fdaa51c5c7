"""Forms with a file (`multipart/form-data`, RFC 7578), read into the body that the rest of the gateway knows.

A field is text, or a list of texts where it is there several times; a file is an object of name, type and base64.
Read strictly: a form that two parsers could read in two ways is refused. Pure.
"""

import base64
import re
from typing import Any

from tollgate.errors import Refusal

MAX_BYTES = 25 << 20  # a form, whose file fits into one record of the log after it is written in base64, twice
MAX_PARTS = 100
MAX_HEAD_BYTES = 4096  # of one part
MAX_NAME_CHARS = 64

_TYPE = re.compile(
    rb"multipart/form-data\s*;\s*boundary=(?:\"([0-9A-Za-z'()+_,./:=? -]{1,70})\"|([0-9A-Za-z'+_.-]{1,70}))\s*",
    re.IGNORECASE,
)
_DISPOSITION = re.compile(rb'form-data;\s*name="([^"\r\n]*)"(?:;\s*filename="([^"\r\n]*)")?\s*', re.IGNORECASE)
_MEDIA_TYPE = re.compile(rb"[\w!#$&^.+-]{1,64}/[\w!#$&^.+-]{1,64}")


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary that the header names; None when it announces no form."""
    match = _TYPE.fullmatch(content_type)
    return None if match is None else (match[1] or match[2])


def parse_form(raw: bytes, boundary: bytes) -> dict[str, Any]:
    """The fields of the form. Raises `Refusal` (400) that says what is wrong with it, and shows none of it."""
    if len(raw) > MAX_BYTES:
        raise Refusal(
            413,
            "request_too_large",
            f"The form is larger than {MAX_BYTES} bytes ({MAX_BYTES >> 20} MiB), the most taken.",
        )
    first, *parts = (b"\r\n" + raw).split(b"\r\n--" + boundary)
    if first or not parts or parts[-1].rstrip(b" \t\r\n") != b"--":
        raise _wrong("it does not begin and end with its boundary")
    if len(parts) > MAX_PARTS + 1:
        raise _wrong(f"it has more than {MAX_PARTS} parts")
    body: dict[str, Any] = {}
    for part in parts[:-1]:
        name, value = _part(part)
        if name not in body:
            body[name] = value
        elif isinstance(value, dict) or isinstance(body[name], dict):
            raise _wrong(f"the field {_shown(name)} is there twice, and is a file", param=name)
        else:
            body[name] = [*body[name], value] if isinstance(body[name], list) else [body[name], value]
    return body


def _part(part: bytes) -> tuple[str, Any]:
    """The name of a part, and its value."""
    padding, _, rest = part.partition(b"\r\n")
    head, separator, content = rest.partition(b"\r\n\r\n")
    if padding.strip(b" \t") or not separator or len(head) > MAX_HEAD_BYTES:
        raise _wrong("a part has no head, or one that is too long")
    headers: dict[bytes, bytes] = {}
    for line in head.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if not colon or name.lower() in headers:
            raise _wrong("a header of a part is none, or is there twice")
        headers[name.lower()] = value.strip()
    match = _DISPOSITION.fullmatch(headers.get(b"content-disposition", b""))
    if match is None:
        raise _wrong("a part has no content-disposition with a name")
    field = _text(match[1], "a name")
    if not 0 < len(field) <= MAX_NAME_CHARS:
        raise _wrong(f"a name is empty or longer than {MAX_NAME_CHARS} characters")
    if match[2] is None:
        return field, _text(content, f"the field {_shown(field)}")
    kind = headers.get(b"content-type", b"application/octet-stream").partition(b";")[0]
    if _MEDIA_TYPE.fullmatch(kind) is None:
        raise _wrong(f"the type of the file {_shown(field)} is none", param=field)
    return field, {
        "filename": _text(match[2], "a file's name"),
        "content_type": kind.decode(),
        "data": base64.b64encode(content).decode(),
    }


def _text(value: bytes, what: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _wrong(f"{what} is not UTF-8") from None


def _shown(name: str) -> str:
    return ascii(name[:MAX_NAME_CHARS])


def _wrong(why: str, *, param: str | None = None) -> Refusal:
    return Refusal(400, "invalid_form", f"The body is not a form as RFC 7578 has it: {why}.", param=param)
