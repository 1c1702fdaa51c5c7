"""What a dialect's module offers, and where each is spoken. Pure: no clock, no I/O."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from tollgate.sandbox import anthropic, gemini, openai, responses, services
from tollgate.sandbox.answer import Answer
from tollgate.sandbox.knobs import Knobs
from tollgate.sandbox.request import Ask, Document, Refused


class Dialect(Protocol):
    """A wire format, as a module. A stream is its `opening`, the frames of `contents`, and its `closing`.

    `seq` numbers the call and is in its identifiers.
    """

    NAME: str
    REQUEST_ID_HEADER: bytes
    IN_BAND_ERROR: Refused
    CONTENT_TYPE: bytes  # of unary answers

    def read_document(self, body: bytes, headers: Mapping[bytes, bytes]) -> Document: ...
    def compose(self, ask: Ask, knobs: Knobs) -> Answer: ...
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
GEMINI: Dialect = gemini
COUNT_CONTENT_TOKENS: Dialect = services.CountContentTokens()

# Where each is spoken
PATHS: Mapping[str, Dialect] = {
    "/v1/chat/completions": OPENAI,
    "/v1/messages": ANTHROPIC,
    "/v1/messages/count_tokens": services.CountTokens(),
    "/v1/responses": RESPONSES,
    "/v1/completions": services.Completions(),
    "/v1/embeddings": services.Embeddings(),
    "/v1/images/generations": services.Images(),
    "/v1/moderations": services.Moderations(),
    "/v1/audio/speech": services.Speech(),
    "/v1/audio/transcriptions": services.Transcriptions(),
    "/v1/audio/translations": services.Transcriptions(),
}
