"""What a call asks for, whatever the dialect, and how its fields are read. Pure: no clock, no I/O."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import orjson

Document: TypeAlias = Mapping[str, Any]  # a JSON object

TOKENS_PER_MESSAGE = 3
MAX_NAME_SHOWN = 200  # characters of a model's name that are repeated in errors and in the ledger


class Refused(Exception):
    """The call is answered with an error of that HTTP status.

    `param` is the field at fault, if it is one; `code` is OpenAI's word for it where the status does not settle it.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code


class Ask(NamedTuple):
    """A call's request, reduced to what the answer depends on.

    `max_tokens` is None when the caller sets no limit. `fingerprint` is a CRC-32 of all text: it picks the answer.
    """

    model: str
    stream: bool
    max_tokens: int | None
    stop: tuple[bytes, ...]
    choices: int
    include_usage: bool
    input_tokens: int
    fingerprint: int


def read_document(body: bytes) -> Document:
    """The JSON object in a request's body. Raises `Refused` (400) when it is not one."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(400, f"The body is not valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise Refused(400, "The body must be a JSON object.")
    return document


def read_model(document: Document) -> str:
    model = document.get("model")
    if not isinstance(model, str) or not model:
        raise Refused(400, "model: a non-empty string is required", param="model")
    return model


def read_messages(document: Document) -> list[Document]:
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Refused(400, "messages: at least one message is required", param="messages")
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            param = f"messages[{index}]"
            raise Refused(400, f"{param}: an object with a role is required", param=param)
    return messages


def read_int(document: Document, name: str, *, least: int, most: int | None = None) -> int | None:
    """The whole number in a field, None where it is absent or null."""
    value = document.get(name)
    if value is None:
        return None
    # JSON's true and false are ints to Python, and to nobody else
    if type(value) is not int or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise Refused(400, f"{name}: a whole number {bounds} is required", param=name)
    return value


def read_bool(document: Document, name: str) -> bool:
    """The truth value in a field, false where it is absent or null."""
    value = document.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise Refused(400, f"{name}: true or false is required", param=name)
    return value


def read_stop(document: Document, name: str) -> tuple[bytes, ...]:
    """The stop sequences in a field: a string or a list of them. Empty ones stop nothing."""
    value = document.get(name)
    sequences = [value] if isinstance(value, str) else value or []
    if not isinstance(sequences, list) or not all(isinstance(item, str) for item in sequences):
        raise Refused(400, f"{name}: a string or a list of strings is required", param=name)
    return tuple(item.encode() for item in sequences if item)


def measure(contents: Iterable[object], *, messages: int) -> tuple[int, int]:
    """Input tokens and fingerprint of a request's texts.

    Tokens are the words between white space plus 3 per message. A word has at least one byte, so this never exceeds
    the UTF-8 bytes of the text plus 8 per message, and bounds made of those hold.
    """
    words = fingerprint = 0
    for content in contents:
        for text in _texts(content):
            words += len(text.split())
            fingerprint = zlib.crc32(text.encode(), fingerprint)
    return words + TOKENS_PER_MESSAGE * messages, fingerprint


def _texts(content: object) -> Iterator[str]:
    """All text of a `content` field: a string, or parts that hold `text` or, as tool results do, a `content`."""
    waiting = [content]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, list):
            waiting.extend(part)
        elif isinstance(part, dict):
            waiting.extend((part.get("text"), part.get("content")))
