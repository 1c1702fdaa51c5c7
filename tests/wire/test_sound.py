"""How long a sound can be at most is told from its file, or not at all."""

import base64
import io
import struct
import wave

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.wire.services.sound import MAX_HEAD_BYTES, longest_ms

FRAME = bytes([0xFF, 0xFB, 0x90, 0x64]) + bytes(413)  # MPEG 1, layer III, 128 kbit/s, 44.1 kHz


def told(data):
    return longest_ms(base64.b64encode(data).decode())


def pcm(seconds, *, rate=16_000, channels=1, bits=16):
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setnchannels(channels)
        written.setsampwidth(bits // 8)
        written.setframerate(rate)
        written.writeframes(bytes(int(seconds * rate) * channels * bits // 8))
    return file.getvalue()


def riff(kind, *, bits=16, rate=16_000, more=b"", before=b""):
    fmt = struct.pack("<HHIIHH", kind, 1, rate, rate * bits // 8, bits // 8, bits) + more
    chunks = before + b"fmt " + struct.pack("<I", len(fmt)) + fmt + b"data" + struct.pack("<I", 0xFFFFFFFF)
    return b"RIFF" + struct.pack("<I", 0xFFFFFFFF) + b"WAVE" + chunks + bytes(32_000)


def tag(size):
    return b"ID3\x03\x00\x00" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


@given(st.floats(0, 3), st.sampled_from([8_000, 16_000, 44_100]), st.sampled_from([1, 2]), st.sampled_from([8, 16, 24]))
def test_samples_are_as_long_as_they_are_many(seconds, rate, channels, bits):
    data = pcm(seconds, rate=rate, channels=channels, bits=bits)
    assert int(seconds * 1000) <= told(data) <= seconds * 1000 + 10


def test_a_size_that_is_not_known_or_not_true_does_not_count():
    assert 1000 <= told(riff(1)) <= 1010
    assert 1000 <= told(riff(1, before=b"LIST" + struct.pack("<I", 4) + b"INFO")) <= 1010
    extensible = struct.pack("<HHIH14x", 22, 16, 0, 1)
    assert 1000 <= told(riff(0xFFFE, more=extensible)) <= 1010


@pytest.mark.parametrize("at", [0, 1, 10, 300, 200_000])
def test_a_frame_of_mpeg_is_never_longer_than_a_millisecond_a_byte(at):
    data = (tag(at) if at else b"") + FRAME * 20
    seconds = 20 * 1152 / 44_100
    assert seconds * 1000 <= told(data) <= len(data) + 3


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"RIFF",
        riff(0x55),  # MPEG in RIFF
        riff(2, bits=4),  # compressed
        riff(1, bits=4),
        riff(1, rate=0),
        b"RIFF\0\0\0\0WAVEdata\0\0\0\0" + bytes(100),
        b"RIFF\0\0\0\0WAVEjunk" + struct.pack("<I", MAX_HEAD_BYTES) + bytes(2 * MAX_HEAD_BYTES),
        b"fLaC" + bytes(100),
        b"OggS" + bytes(100),
        b"\0\0\0\x20ftypM4A " + bytes(100),
        tag(20) + b"fLaC" + bytes(100),  # another format behind the tag of this one
        bytes([0xFF, 0xF1, 0x50, 0x80]) + bytes(100),  # AAC
        bytes([0xFF, 0xFB, 0x00, 0x64]) + bytes(100),  # a rate of its own
        bytes([0xFF, 0xFB, 0xF0, 0x64]) + bytes(100),
    ],
)
def test_where_a_few_bytes_may_last_for_hours_nothing_is_told(data):
    assert told(data) is None


@given(st.binary(max_size=300), st.booleans())
def test_whatever_is_sent_it_has_a_length_or_none(data, mpeg):
    found = told((FRAME[:4] if mpeg else b"RIFF\0\0\0\0WAVE") + data)
    assert found is None or found > 0
    assert longest_ms("not base64!") is None
