"""Speech, `POST /v1/audio/speech`: text in, sound out, charged by the character or by tokens of sound.

Sound comes as bytes, which count nothing, or as events, the last of which counts the tokens (`stream_format: sse`).
Both leave as they come.
"""

from collections.abc import Mapping

import orjson

from tollgate.errors import ProviderError, Refusal
from tollgate.events import Usage
from tollgate.wire import Ask, Body, Exchange, Extras, Meter, Quirks, UpstreamRequest, failures, fields, neutral
from tollgate.wire.services import JSON, JsonService, input_bound, token_usage, without_extensions

# By the character, where nobody counts: OpenAI's price page gives 0.015 USD for a minute of speech at 12 USD per
# million tokens, and a minute of speech is some 900 characters.
AUDIO_TOKENS_PER_1000_CHARACTERS = 1_390

_CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}
_NEUTRAL = frozenset({"input", "instructions", "model", "response_format", "speed", "stream_format", "voice"})


class Speech(JsonService):
    path = "/audio/speech"
    ends = frozenset({"speech.audio.done"})

    @staticmethod
    def ask(body: Body) -> Ask:
        text = fields.text(body, "input")
        if text is None:
            raise fields.missing("input")
        fields.text(body, "response_format")
        return Ask(
            model=fields.model(body),
            stream=fields.text(body, "stream_format") == "sse",
            input_bound_tokens=input_bound(body),
            unbounded=fields.changes_price(body, _NEUTRAL, {}),
            limits=Usage(characters=len(text)),
            uncappable="input",
        )

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
        if body.get("stream_format") == "sse":
            exchange = super().exchange(
                body,
                request_id=request_id,
                model=model,
                max_output_tokens=max_output_tokens,
                headers=headers,
                quirks=quirks,
            )
            exchange.meter.estimate = service.estimate()
            return exchange
        request = UpstreamRequest(
            method="POST",
            path=cls.path,
            headers={"content-type": JSON, "accept": "*/*"},
            body=orjson.dumps(without_extensions(body) | {"model": model}),
            stream=True,
        )
        kind = body.get("response_format") or "mp3"
        return _Sound(request, _CONTENT_TYPES.get(kind, "application/octet-stream"), service)

    @property
    def is_stream(self) -> bool:
        return True

    def characters(self) -> int:
        return len(self.body["input"])

    def meter(self, answer: Body, meter: Meter) -> None:
        block = answer.get("usage")
        counted = token_usage(block) if isinstance(block, dict) else None
        meter.usage = Usage(
            input_tokens=counted.input_tokens if counted else 0,
            output_audio_tokens=counted.output_tokens + counted.output_audio_tokens if counted else 0,
            characters=self.characters(),
        )
        if counted is not None:
            meter.estimate = None
            meter.usage_raw = neutral.compact(block)

    def estimate(self) -> Usage:
        """For models that are charged by tokens, which nobody has counted; and for what was heard in part only."""
        characters = self.characters()
        return Usage(
            characters=characters, output_audio_tokens=-(-characters * AUDIO_TOKENS_PER_1000_CHARACTERS // 1000)
        )


class _Sound:
    """One attempt whose answer is bytes that leave as they come, but for the last one, which waits for the books."""

    dropped: tuple[str, ...] = ()

    def __init__(self, request: UpstreamRequest, content_type: str, service: Speech) -> None:
        self.request = request
        self.meter = Meter(estimate=service.estimate())
        self.content_type = content_type
        self._characters = service.characters()
        self._held = b""

    def answer(self, body: bytes) -> None:
        raise AssertionError("sound comes in pieces")

    def feed(self, data: bytes) -> bytes:
        if not data:
            return b""
        self.meter.content_started = True
        ready, self._held = self._held + data[:-1], data[-1:]
        return ready

    def finish(self) -> None:
        if not self._held:
            raise failures.unreadable("it is empty")
        self.meter.usage = Usage(characters=self._characters)
        self.meter.finish_reason = "done"
        self.meter.complete = True

    def final(self, extras: Extras) -> bytes:
        return self._held

    def said(self) -> list[str]:
        return []

    def failure(self, error: ProviderError | Refusal, request_id: str) -> bytes:
        return b""  # sound has no words
