"""How long a sound can be at most, told from the head of its file: what is paid by the second is held beforehand.

Only where a decoder has no choice. PCM in a WAV file (Multimedia Programming Interface and Data Specifications 1.0) has
its length in its size. MPEG audio (ISO/IEC 11172-3, 13818-3) has no frame below 8 kbit/s, so a byte is a millisecond at
most. Other formats can hold hours of silence in a few bytes, or say a length that is not theirs. Pure.
"""

import base64
import binascii
from collections.abc import Iterator

MS_PER_MPEG_BYTE = 1
MAX_HEAD_BYTES = 64 << 10  # in which a WAV file must say its format

_PCM = frozenset({1, 3, 6, 7})  # integers, floats, A-law, µ-law: every sample has the same size
_EXTENSIBLE = 0xFFFE  # the format is the beginning of a GUID


def longest_ms(data: str) -> int | None:
    """Milliseconds that the file in base64 cannot exceed, at least 1; None where none can be stated."""
    size = len(data) * 3 // 4
    head = _decoded(data, 0)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        per_s = _pcm_bytes_per_s(head)
        return None if per_s is None else size * 1000 // per_s + 1
    return size * MS_PER_MPEG_BYTE + 1 if _is_mpeg(data, head) else None


def _decoded(data: str, at: int) -> bytes:
    """Some bytes of the file from about `at` on; the first of them is byte `at - at % 3`."""
    start = at // 3 * 4
    try:
        return base64.b64decode(data[start : start + MAX_HEAD_BYTES // 3 * 4])
    except (binascii.Error, ValueError):
        return b""


def _pcm_bytes_per_s(head: bytes) -> int | None:
    """The rate of the samples; None where they are compressed, or where it is not said before they begin."""
    for name, chunk in _chunks(head):
        if name == b"data":
            return None
        if name == b"fmt " and len(chunk) >= 16:
            kind, channels = int.from_bytes(chunk[0:2], "little"), int.from_bytes(chunk[2:4], "little")
            rate, bits = int.from_bytes(chunk[4:8], "little"), int.from_bytes(chunk[14:16], "little")
            if kind == _EXTENSIBLE:
                kind = int.from_bytes(chunk[24:26], "little")
            return rate * channels * (bits // 8) or None if kind in _PCM else None
    return None


def _chunks(head: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(head):
        size = int.from_bytes(head[at + 4 : at + 8], "little")
        yield head[at : at + 4], head[at + 8 : at + 8 + size]
        at += 8 + size + size % 2


def _is_mpeg(data: str, head: bytes) -> bool:
    """Does the file begin with a frame of MPEG audio, after a tag (ID3v2.3, section 3.1) if there is one?"""
    at = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        at = 10 + ((head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127)
    frame = _decoded(data, at)[at % 3 :][:4]
    if len(frame) < 4 or frame[0] != 0xFF or frame[1] & 0xE0 != 0xE0:
        return False
    version, layer, bit_rate, rate = frame[1] >> 3 & 3, frame[1] >> 1 & 3, frame[2] >> 4, frame[2] >> 2 & 3
    return version != 1 and layer != 0 and bit_rate not in (0, 15) and rate != 3
