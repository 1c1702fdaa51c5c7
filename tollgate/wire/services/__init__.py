"""What OpenAI's protocol serves beside conversations: completions, embeddings, images, moderations, speech.

A request is passed on to a provider that serves the same, unknown fields intact, and its answer is metered on the way
back; nothing is translated. Each service is one module with one class, an instance of which is one attempt. Pure.
"""

from collections.abc import Mapping
from typing import ClassVar, Protocol

import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Usage
from tollgate.wire import Ask, Body, Exchange, Extras, Meter, Quirks, UpstreamRequest, failures, fields, neutral, sse
from tollgate.wire.content import Delta
from tollgate.wire.exchange import Passage, refusal_of
from tollgate.wire.neutral import Mark, Reader, parse
from tollgate.wire.openai import reply

JSON = "application/json"
FIXED_TOKENS = 15  # around the text of a request, as for chat completions


class Service(Protocol):
    """One kind of request, as a class; an instance of it is one attempt."""

    @staticmethod
    def ask(body: Body) -> Ask:
        """Raises `Refusal` (400, with `param`) for a field of the wrong type or a missing one."""
        ...

    @staticmethod
    def most_output_tokens(body: Body, model: str) -> int | None:
        """The most that one answer of this model can hold, by its provider's documentation; None: nobody says."""
        ...

    @staticmethod
    def exchange(
        body: Body,
        *,
        request_id: str,
        model: str,
        max_output_tokens: int | None,
        headers: Mapping[str, str],
        quirks: Quirks,
    ) -> Exchange: ...


class JsonService:
    """A service whose answer is JSON or a stream of JSON events, all of which leave as they came but for the one with
    the extras."""

    path: ClassVar[str]
    stream_type = "text/event-stream"
    ends: ClassVar[frozenset[str]] = frozenset()  # types of the events that end its streams, and hold the usage

    @staticmethod
    def most_output_tokens(body: Body, model: str) -> int | None:
        return None

    def __init__(self, body: Body, quirks: Quirks) -> None:
        self.body = body
        self.quirks = quirks

    @classmethod
    def exchange(
        cls,
        body: Body,
        *,
        request_id: str,
        model: str,
        max_output_tokens: int | None,
        headers: Mapping[str, str],
        quirks: Quirks,
    ) -> Exchange:
        service = cls(body, quirks)
        sent = service.sent(model=model, max_output_tokens=max_output_tokens)
        stream = service.is_stream
        content_type, content = service.encode(sent, request_id)
        request = UpstreamRequest(
            method="POST",
            path=cls.path,
            headers={"content-type": content_type, "accept": "text/event-stream" if stream else JSON},
            body=content,
            stream=stream,
        )
        return Passage(service, body, sent, request, quirks, ())

    @property
    def is_stream(self) -> bool:
        return bool(self.body.get("stream"))

    def sent(self, *, model: str, max_output_tokens: int | None) -> Body:
        return without_extensions(self.body) | {"model": model}

    def encode(self, sent: Body, request_id: str) -> tuple[str, bytes]:
        """Content type and content."""
        return JSON, orjson.dumps(sent)

    # The answer -----------------------------------------------------------------------------------------------------

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        """Raises `ProviderError` if it is not one."""
        if answer.get("error"):
            raise failures.inband_error(answer)
        model = answer.get("model")
        if isinstance(model, str) and model:
            meter.served_model = model
        self.meter(answer, meter)

    def meter(self, answer: Body, meter: Meter) -> None:
        """What was used, by the answer or by the event that ends a stream."""
        raise NotImplementedError

    def splitter(self) -> sse.Splitter:
        return sse.Splitter()

    def reader(self, meter: Meter, body: Body, quirks: Quirks) -> Reader:
        return _Reader(self, meter)

    def add_extras(self, answer: Body, extras: Extras) -> None:
        reply.add_extras(answer, extras)

    def write_tail(self, events: list[sse.Event], body: Body, extras: Extras) -> bytes:
        """The event that ends the stream takes the extras."""
        pieces: list[bytes] = []
        for event in events:
            payload = parse(event.data) if event.data not in (b"", b"[DONE]") else {}
            if fields.kind_of(payload) in self.ends:
                self.add_extras(payload, extras)
                pieces.append(sse.write(orjson.dumps(payload), event.name.decode("ascii", "replace")))
            else:
                pieces.append(event.raw)
        return b"".join(pieces)

    def error_event(self, refusal: Refusal, request_id: str, number: int | None = None) -> bytes:
        return reply.error_event(refusal, request_id)


class _Reader:
    """Events that have a `type`; one of them is the end."""

    def __init__(self, service: JsonService, meter: Meter) -> None:
        self._service = service
        self._meter = meter
        self.deltas: list[Delta] = []
        self.finishes: dict[int, str] = {}

    def read(self, event: sse.Event) -> Mark:
        if not event.data:
            return Mark.OTHER
        if event.data == b"[DONE]":
            return Mark.END
        payload = parse(event.data)
        if payload.get("type") == "error" or payload.get("error"):
            raise failures.inband_error(payload)
        self._meter.content_started = True
        if fields.kind_of(payload) not in self._service.ends:
            self._meter.output_bytes += neutral.text_bytes(payload.get("delta"))
            return Mark.CONTENT
        self._service.meter(payload, self._meter)
        self._meter.finish_reason = "done"
        return Mark.END


class Bytes:
    """One attempt whose answer is not JSON: it leaves as it came, and what was used is found by `read`."""

    dropped: tuple[str, ...] = ()

    def __init__(self, request: UpstreamRequest, content_type: str, service: "BytesService") -> None:
        self.request = request
        self.meter = Meter()
        self.content_type = content_type
        self._service = service
        self._answer = b""

    def answer(self, body: bytes) -> None:
        if not body:
            raise failures.unreadable("it is empty")
        self._answer = body
        self._service.meter_bytes(body, self.meter)
        self.meter.content_started = self.meter.complete = True

    def feed(self, data: bytes) -> bytes:
        raise AssertionError("bytes come whole")

    def finish(self) -> None:
        raise AssertionError("bytes come whole")

    def final(self, extras: Extras) -> bytes:
        return self._answer

    def said(self) -> list[str]:
        return []

    def failure(self, error: ProviderError | Refusal, request_id: str) -> bytes:
        return reply.error_event(refusal_of(error) if isinstance(error, ProviderError) else error, request_id)


class BytesService(Protocol):
    """A service that may answer with bytes."""

    def meter_bytes(self, answer: bytes, meter: Meter) -> None: ...


def without_extensions(body: Body) -> Body:
    return {field: value for field, value in body.items() if field not in fields.EXTENSION_FIELDS}


def input_bound(body: Body) -> int:
    """No tokenizer makes more tokens of the request than it has bytes."""
    return fields.size(body) + FIXED_TOKENS


def token_usage(block: Mapping[str, object]) -> Usage | None:
    """The usage of images, speech and transcriptions, where it counts tokens; None where it does not.

    `input_tokens` and `output_tokens` are totals of what the details tell apart: text, images, audio. Some write
    `input_token_details`.
    """
    found = {name: neutral.tokens(block, f"{name}_tokens") for name in ("input", "output")}
    if found["input"] is None and found["output"] is None:
        return None
    parts: dict[str, int] = {}
    for name, total in found.items():
        for kind in ("image", "audio"):
            count = None
            for details in (f"{name}_tokens_details", f"{name}_token_details"):
                count = neutral.tokens(block, details, f"{kind}_tokens") if count is None else count
            parts[f"{name}_{kind}_tokens"] = count or 0
        parts[f"{name}_tokens"] = max(0, (total or 0) - parts[f"{name}_image_tokens"] - parts[f"{name}_audio_tokens"])
    return Usage(**parts)
