"""What the sandbox serves beside conversations: texts, vectors, pictures, sounds, and counts, each in the form that the
API reference documents, and of no use beyond that. Pure: no clock, no I/O.

Each is a dialect as `tollgate.sandbox.dialect` describes them.
"""

import base64
import struct
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import orjson

from tollgate.sandbox import anthropic, gemini, openai
from tollgate.sandbox.answer import Answer, compose
from tollgate.sandbox.knobs import Knobs
from tollgate.sandbox.openai import CREATED_S
from tollgate.sandbox.request import (
    Ask,
    Document,
    Refused,
    measure,
    read_bool,
    read_document,
    read_int,
    read_messages,
    read_model,
    read_stop,
)

DIMENSIONS = 8
TOKENS_PER_IMAGE = 100
BYTES_PER_WORD = 400  # of sound that is spoken

# One pixel, which everything that shows pictures takes
_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_MP3_FRAME = b"\xff\xfb\x90\x64" + bytes(413)  # 26 ms of silence at 128 kbit/s


class Service:
    """What they have in common: OpenAI's errors, one unary answer, no tokens of output."""

    NAME: str = "openai"
    REQUEST_ID_HEADER = openai.REQUEST_ID_HEADER
    IN_BAND_ERROR = openai.IN_BAND_ERROR
    CONTENT_TYPE = b"application/json"
    texts: ClassVar[tuple[str, ...]] = ("input",)  # fields that are read

    def read_document(self, body: bytes, headers: Mapping[bytes, bytes]) -> Document:
        return read_document(body)

    def read_ask(self, document: Document, headers: Mapping[bytes, bytes]) -> Ask:
        model = read_model(document)
        for field in self.texts:
            if document.get(field) is None:
                raise Refused(400, f"{field}: is required", param=field)
        tokens, fingerprint = measure([document[field] for field in self.texts], messages=0)
        return Ask(
            model=model,
            stream=False,
            max_tokens=None,
            stop=(),
            choices=read_int(document, "n", least=1, most=128) or 1,
            include_usage=True,
            input_tokens=tokens,
            fingerprint=fingerprint,
        )

    def compose(self, ask: Ask, knobs: Knobs) -> Answer:
        return compose(ask, knobs._replace(tokens=0, chunks=None, reasoning_tokens=0))

    def request_id(self, seq: int) -> str:
        return openai.request_id(seq)

    def error_body(self, refused: Refused, seq: int) -> bytes:
        return openai.error_body(refused, seq)

    def error_event(self, refused: Refused, seq: int) -> bytes:
        return openai.error_event(refused, seq)

    def models_body(self) -> bytes:
        return openai.models_body()

    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        raise NotImplementedError

    def opening(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        raise NotImplementedError

    def contents(self, ask: Ask, answer: Answer, seq: int) -> Iterator[tuple[bytes, int]]:
        raise NotImplementedError

    def closing(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        raise NotImplementedError


class Completions(Service):
    """`POST /v1/completions`, also as a stream."""

    texts = ("prompt",)

    def read_ask(self, document: Document, headers: Mapping[bytes, bytes]) -> Ask:
        prompt = document.get("prompt")
        several = isinstance(prompt, list) and bool(prompt) and not isinstance(prompt[0], int)
        ask = super().read_ask(document, headers)
        options = document.get("stream_options") or {}
        return ask._replace(
            stream=read_bool(document, "stream"),
            max_tokens=read_int(document, "max_tokens", least=1),
            stop=read_stop(document, "stop"),
            choices=ask.choices * (len(prompt) if several and isinstance(prompt, list) else 1),
            include_usage=isinstance(options, dict) and read_bool(options, "include_usage"),
        )

    def compose(self, ask: Ask, knobs: Knobs) -> Answer:
        return compose(ask, knobs._replace(reasoning_tokens=0))

    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        body = self._head(ask, seq)
        body["choices"] = [self._choice(index, answer.text, answer) for index in range(ask.choices)]
        if answer.usage_reported:
            body["usage"] = _usage(ask, answer)
        return orjson.dumps(body)

    def opening(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        return b""

    def contents(self, ask: Ask, answer: Answer, seq: int) -> Iterator[tuple[bytes, int]]:
        for piece, size in zip(answer.pieces, answer.sizes, strict=True):
            for index in range(ask.choices):
                yield self._frame(ask, seq, [self._choice(index, piece.decode(), None)]), size

    def closing(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        frames = [self._frame(ask, seq, [self._choice(index, "", answer)]) for index in range(ask.choices)]
        if ask.include_usage and answer.usage_reported:
            frames.append(self._frame(ask, seq, [], usage=_usage(ask, answer)))
        return b"".join(frames) + b"data: [DONE]\n\n"

    @staticmethod
    def _choice(index: int, text: str, ended: Answer | None) -> dict[str, Any]:
        reason = None if ended is None else "length" if ended.finish == "limit" else "stop"
        return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}

    @staticmethod
    def _head(ask: Ask, seq: int) -> dict[str, Any]:
        return {"id": f"cmpl-{seq:029d}", "object": "text_completion", "created": CREATED_S, "model": ask.model}

    def _frame(self, ask: Ask, seq: int, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + orjson.dumps(self._head(ask, seq) | {"choices": choices, **more}) + b"\n\n"


class Embeddings(Service):
    """`POST /v1/embeddings`: vectors of unit length."""

    def read_ask(self, document: Document, headers: Mapping[bytes, bytes]) -> Ask:
        given = document.get("input")
        several = len(given) if isinstance(given, list) and given and not isinstance(given[0], int) else 1
        in_base64 = document.get("encoding_format") == "base64"
        return super().read_ask(document, headers)._replace(choices=several, include_usage=in_base64)

    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        vectors = [_vector(ask.fingerprint + index) for index in range(ask.choices)]
        body: dict[str, Any] = {
            "object": "list",
            "data": [
                {
                    "object": "embedding",
                    "index": index,
                    "embedding": _packed(vector) if ask.include_usage else vector,
                }
                for index, vector in enumerate(vectors)
            ],
            "model": ask.model,
        }
        if answer.usage_reported:
            total = answer.input_tokens + answer.cached_tokens
            body["usage"] = {"prompt_tokens": total, "total_tokens": total}
        return orjson.dumps(body)


class Images(Service):
    """`POST /v1/images/generations`: one pixel each."""

    texts = ("prompt",)

    def compose(self, ask: Ask, knobs: Knobs) -> Answer:
        tokens = TOKENS_PER_IMAGE if knobs.tokens is None else knobs.tokens
        return compose(ask, knobs._replace(tokens=tokens, chunks=None, reasoning_tokens=0))

    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        body: dict[str, Any] = {"created": CREATED_S, "data": [{"b64_json": _PNG} for _ in range(ask.choices)]}
        if answer.usage_reported:
            total_in = answer.input_tokens + answer.cached_tokens
            total_out = answer.output_tokens * ask.choices
            body["usage"] = {
                "input_tokens": total_in,
                "input_tokens_details": {"text_tokens": total_in, "image_tokens": 0},
                "output_tokens": total_out,
                "total_tokens": total_in + total_out,
            }
        return orjson.dumps(body)


class Moderations(Service):
    """`POST /v1/moderations`: nothing is harmful."""

    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        result = {"flagged": False, "categories": {}, "category_scores": {}, "category_applied_input_types": {}}
        return orjson.dumps({"id": f"modr-{seq}", "model": ask.model, "results": [result]})


class Speech(Service):
    """`POST /v1/audio/speech`: silence, the longer the more was to be said."""

    CONTENT_TYPE = b"audio/mpeg"

    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        words = max(1, ask.input_tokens)
        return _MP3_FRAME * max(1, words * BYTES_PER_WORD // len(_MP3_FRAME))


class Transcriptions(Service):
    """`POST /v1/audio/transcriptions` and `translations`: a sentence, picked by the bytes of the file."""

    texts = ("file",)

    def read_document(self, body: bytes, headers: Mapping[bytes, bytes]) -> Document:
        return _read_form(body, headers.get(b"content-type", b""))

    def read_ask(self, document: Document, headers: Mapping[bytes, bytes]) -> Ask:
        kind = document.get("response_format") or "json"
        if kind not in ("json", "verbose_json"):
            raise Refused(400, "response_format: the sandbox knows json and verbose_json", param="response_format")
        return super().read_ask(document, headers)._replace(input_tokens=len(document["file"]))

    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        seconds = -(-ask.input_tokens // 16_000)
        text = compose(ask, Knobs()).text
        return orjson.dumps({"text": text, "usage": {"type": "duration", "seconds": seconds}})

    def compose(self, ask: Ask, knobs: Knobs) -> Answer:
        return super().compose(ask, knobs._replace(input_tokens=0))


class CountTokens(Service):
    """`POST /v1/messages/count_tokens`."""

    NAME = "anthropic"
    REQUEST_ID_HEADER = anthropic.REQUEST_ID_HEADER

    def read_ask(self, document: Document, headers: Mapping[bytes, bytes]) -> Ask:
        messages = read_messages(document)
        texts = [document.get("system"), *(message.get("content") for message in messages)]
        tokens, fingerprint = measure(texts, messages=len(messages))
        return Ask(read_model(document), False, None, (), 1, True, tokens, fingerprint)

    def request_id(self, seq: int) -> str:
        return anthropic.request_id(seq)

    def error_body(self, refused: Refused, seq: int) -> bytes:
        return anthropic.error_body(refused, seq)

    def compose(self, ask: Ask, knobs: Knobs) -> Answer:
        """Nothing is charged for."""
        return super().compose(ask, knobs._replace(input_tokens=0, cached_tokens=0))

    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        return orjson.dumps({"input_tokens": ask.input_tokens})


class CountContentTokens(CountTokens):
    """`POST /v1beta/models/{model}:countTokens`."""

    NAME = "gemini"
    REQUEST_ID_HEADER = gemini.REQUEST_ID_HEADER

    def read_ask(self, document: Document, headers: Mapping[bytes, bytes]) -> Ask:
        whole = document.get("generateContentRequest")
        said = {"model": document.get("model"), "stream": False}
        return gemini.read_ask({**(whole if isinstance(whole, dict) else document), **said}, headers)

    def request_id(self, seq: int) -> str:
        return gemini.request_id(seq)

    def error_body(self, refused: Refused, seq: int) -> bytes:
        return gemini.error_body(refused, seq)

    def unary_body(self, ask: Ask, answer: Answer, seq: int) -> bytes:
        return orjson.dumps({"totalTokens": ask.input_tokens})


def _usage(ask: Ask, answer: Answer) -> dict[str, int]:
    prompt, completion = answer.input_tokens + answer.cached_tokens, answer.output_tokens * ask.choices
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _vector(seed: int) -> list[float]:
    """Each part is the same in size, and exact as a float of 32 bits."""
    return [0.25 if seed >> bit & 1 else -0.25 for bit in range(DIMENSIONS)]


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _read_form(body: bytes, content_type: bytes) -> Document:
    """The fields of a form; of a file its bytes, as text that is of no use but its length."""
    _, _, boundary = content_type.partition(b"boundary=")
    if not content_type.startswith(b"multipart/form-data") or not boundary:
        raise Refused(400, "The body must be a form.")
    document: dict[str, Any] = {}
    for part in body.split(b"--" + boundary.strip(b'"'))[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        _, _, rest = head.partition(b'name="')
        name = rest.partition(b'"')[0].decode()
        document[name] = content.removesuffix(b"\r\n").decode("latin-1")
    return document
