"""Transcriptions and translations, `POST /v1/audio/transcriptions` and `/translations`: sound in, text out.

The request is a form (RFC 7578), which the door reads into a body: its fields as text, its file as name, type and
base64. Charged by the second or by tokens. The answer is JSON, or a text whose last time stamp says how long it was.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import ClassVar

from tollgate.events import Usage
from tollgate.wire import Ask, Body, Exchange, Meter, Quirks, UpstreamRequest, fields, neutral
from tollgate.wire.failures import unreadable
from tollgate.wire.services import Bytes, JsonService, input_bound, token_usage, without_extensions
from tollgate.wire.services.sound import longest_ms

FILE = "file"
_TEXTS = {"text": "text/plain; charset=utf-8", "srt": "text/plain; charset=utf-8", "vtt": "text/vtt; charset=utf-8"}
_STAMP = re.compile(rb"-->\s*(?:(\d+):)?(\d{2}):(\d{2})[.,](\d{3})")

# Where nobody says how long it was: sound of 128 kbit/s, as the common encoders make it when they are not told
BYTES_PER_S = 16_000
ROUNDED_MS = 1000  # providers that charge by time count whole seconds

_NEUTRAL = frozenset(
    {
        "include",
        "include[]",
        "language",
        "model",
        "prompt",
        "response_format",
        "stream",
        "temperature",
        "timestamp_granularities",
        "timestamp_granularities[]",
    }
)


class Transcriptions(JsonService):
    path: ClassVar[str] = "/audio/transcriptions"
    ends = frozenset({"transcript.text.done"})

    @staticmethod
    def ask(body: Body) -> Ask:
        file = fields.mapping(body, FILE)
        if not file:
            raise fields.missing(FILE)
        fields.required_text(file, "data", FILE)
        fields.text(body, "response_format")
        rest = {name: value for name, value in body.items() if name != FILE}
        longest = longest_ms(file["data"])
        return Ask(
            model=fields.model(body),
            stream=body.get("stream") in (True, "true"),
            input_bound_tokens=input_bound(rest),
            unbounded=fields.changes_price(rest, _NEUTRAL, {}),
            limits=Usage(audio_ms=0 if longest is None else longest + ROUNDED_MS),
            uncappable=FILE,
            sound=FILE,
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
        kind = body.get("response_format")
        if kind not in _TEXTS:
            return super().exchange(
                body,
                request_id=request_id,
                model=model,
                max_output_tokens=max_output_tokens,
                headers=headers,
                quirks=quirks,
            )
        service = cls(body, quirks)
        content_type, content = service.encode(without_extensions(body) | {"model": model}, request_id)
        request = UpstreamRequest(
            method="POST",
            path=cls.path,
            headers={"content-type": content_type, "accept": "*/*"},
            body=content,
            stream=False,
        )
        return Bytes(request, _TEXTS[kind], service)

    @property
    def is_stream(self) -> bool:
        return self.body.get("stream") in (True, "true")

    def encode(self, sent: Body, request_id: str) -> tuple[str, bytes]:
        boundary = f"tollgate-{request_id}"
        return f"multipart/form-data; boundary={boundary}", write_form(sent, boundary.encode())

    def read_answer(self, answer: Body, meter: Meter, quirks: Quirks) -> None:
        if not answer.get("error") and not isinstance(answer.get("text"), str):
            raise unreadable("it has no 'text'")
        super().read_answer(answer, meter, quirks)

    def meter(self, answer: Body, meter: Meter) -> None:
        """The block of usage has either tokens or seconds; older models tell a duration, or nothing."""
        meter.output_bytes += neutral.text_bytes(answer.get("text"))
        meter.estimate = Usage(audio_ms=self._length_ms())
        block = answer.get("usage")
        block = block if isinstance(block, dict) else {}
        seconds = block.get("seconds") if block else answer.get("duration")
        if (length_ms := _milliseconds(seconds)) is not None:
            meter.usage = Usage(audio_ms=length_ms)
        elif (counted := token_usage(block)) is not None:
            meter.usage = counted
        if block:
            meter.usage_raw = neutral.compact(block)

    def meter_bytes(self, answer: bytes, meter: Meter) -> None:
        meter.output_bytes += len(answer)
        meter.estimate = Usage(audio_ms=self._length_ms())
        stamps = _STAMP.findall(answer)
        if stamps:
            hours, minutes, seconds, ms = (int(part or 0) for part in stamps[-1])
            meter.estimate = Usage(audio_ms=((hours * 60 + minutes) * 60 + seconds) * 1000 + ms)

    def _length_ms(self) -> int:
        size = len(self.body[FILE]["data"]) * 3 // 4
        return size * 1000 // BYTES_PER_S


class Translations(Transcriptions):
    path = "/audio/translations"


def _milliseconds(seconds: object) -> int | None:
    if isinstance(seconds, str):  # as some versions of the API write it
        try:
            seconds = float(seconds)
        except ValueError:
            return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 10**9:
        return None
    return round(seconds * 1000)


def write_form(body: Body, boundary: bytes) -> bytes:
    """The body as `multipart/form-data`. Raises `Refusal` for a file that is not base64."""
    pieces: list[bytes] = []
    for name, value in body.items():
        for one in value if isinstance(value, list) else [value]:
            head = b'--%b\r\ncontent-disposition: form-data; name="%b"' % (boundary, _quoted(name))
            if isinstance(one, dict):
                head += b'; filename="%b"\r\ncontent-type: %b' % (
                    _quoted(str(one.get("filename") or "audio")),
                    _quoted(str(one.get("content_type") or "application/octet-stream")),
                )
                content = _decoded(str(one.get("data")), name)
            else:
                content = str(one).encode()
            pieces += (head, b"\r\n\r\n", content, b"\r\n")
    return b"".join(pieces) + b"--%b--\r\n" % boundary


def _decoded(data: str, name: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise fields.invalid(f"{name}.data", "is not base64") from None


def _quoted(text: str) -> bytes:
    """As the HTML standard escapes names in forms (4.10.21.8)."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A").encode()
