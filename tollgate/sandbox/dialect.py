"""What a dialect's module offers, and where each is spoken. Pure: no clock, no I/O."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from tollgate.sandbox import anthropic, openai, responses
from tollgate.sandbox.answer import Answer
from tollgate.sandbox.request import Ask, Document, Refused


class Dialect(Protocol):
    """A wire format, as a module. A stream is its `opening`, the frames of `contents`, and its `closing`.

    `seq` numbers the call and is in its identifiers.
    """

    NAME: str
    REQUEST_ID_HEADER: bytes
    IN_BAND_ERROR: Refused

    def read_ask(self, document: Document, headers: Mapping[bytes, bytes]) -> Ask: ...
    def request_id(self, seq: int) -> str: ...
    def error_body(self, refused: Refused, seq: int) -> bytes: ...
    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes: ...
    def opening(self, ask: Ask, answer: Answer, seq: int) -> bytes: ...
    def contents(self, ask: Ask, answer: Answer, seq: int) -> Iterator[tuple[bytes, int]]: ...
    def closing(self, ask: Ask, answer: Answer, seq: int) -> bytes: ...
    def error_event(self, refused: Refused, seq: int) -> bytes: ...
    def models_body(self) -> bytes: ...


OPENAI: Dialect = openai
ANTHROPIC: Dialect = anthropic
RESPONSES: Dialect = responses
