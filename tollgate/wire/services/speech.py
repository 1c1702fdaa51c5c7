"""Speech, `POST /v1/audio/speech`: text in, sound out, charged by the character or by tokens of sound.

Sound comes as bytes, which count nothing, or as events, the last of which counts the tokens (`stream_format: sse`).
"""

from collections.abc import Mapping

import orjson

from tollgate.events import Usage
from tollgate.wire import Ask, Body, Exchange, Meter, Quirks, UpstreamRequest, fields, neutral
from tollgate.wire.services import JSON, Bytes, JsonService, input_bound, token_usage, without_extensions

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
        if body.get("stream_format") == "sse":
            return super().exchange(
                body,
                request_id=request_id,
                model=model,
                max_output_tokens=max_output_tokens,
                headers=headers,
                quirks=quirks,
            )
        request = UpstreamRequest(
            method="POST",
            path=cls.path,
            headers={"content-type": JSON, "accept": "*/*"},
            body=orjson.dumps(without_extensions(body) | {"model": model}),
            stream=False,
        )
        kind = body.get("response_format") or "mp3"
        return Bytes(request, _CONTENT_TYPES.get(kind, "application/octet-stream"), cls(body, quirks))

    @property
    def is_stream(self) -> bool:
        return True

    def meter_bytes(self, answer: bytes, meter: Meter) -> None:
        meter.estimate = self._estimate()
        meter.usage = Usage(characters=len(self.body["input"]))

    def meter(self, answer: Body, meter: Meter) -> None:
        characters = len(self.body["input"])
        block = answer.get("usage")
        counted = token_usage(block) if isinstance(block, dict) else None
        meter.usage = Usage(
            input_tokens=counted.input_tokens if counted else 0,
            output_audio_tokens=counted.output_tokens + counted.output_audio_tokens if counted else 0,
            characters=characters,
        )
        if counted is None:
            meter.estimate = self._estimate()
        else:
            meter.usage_raw = neutral.compact(block)

    def _estimate(self) -> Usage:
        """For models that are charged by tokens, which nobody has counted."""
        text = self.body["input"]
        return Usage(characters=len(text), output_audio_tokens=-(-len(text) * AUDIO_TOKENS_PER_1000_CHARACTERS // 1000))
