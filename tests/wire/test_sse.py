"""Events are the same however the network has cut them."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.errors import ProviderError
from tollgate.wire import sse
from tollgate.wire.sse import Event, Splitter


def split(*pieces: bytes) -> list[Event]:
    splitter = Splitter()
    return [event for piece in pieces for event in splitter.feed(piece)]


@pytest.mark.parametrize(
    ("raw", "name", "data"),
    [
        (b"data: hello\n\n", b"", b"hello"),
        (b"data:hello\n\n", b"", b"hello"),
        (b"data:  two spaces\n\n", b"", b" two spaces"),
        (b"event: ping\ndata: {}\n\n", b"ping", b"{}"),
        (b"data: {}\r\nevent: ping\r\n\r\n", b"ping", b"{}"),
        (b"data: one\rdata: two\r\rdata", b"", b"one\ntwo"),
        (b"data: one\ndata\ndata: three\n\n", b"", b"one\n\nthree"),
        (b": a comment\n\n", b"", b""),
        (b"id: 7\nretry: 10\ndata: x\n\n", b"", b"x"),
        (b"\xef\xbb\xbfdata: after a byte order mark\n\n", b"", b"after a byte order mark"),
        (b"data: no: split: here\n\n", b"", b"no: split: here"),
    ],
)
def test_an_event_is_read_as_the_standard_says(raw, name, data):
    [event] = split(raw)

    assert (event.name, event.data) == (name, data)
    assert raw.startswith(event.raw)


def test_a_line_end_in_two_pieces_is_one_line_end():
    assert [event.data for event in split(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\nx")] == [b"a\nb"]


line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])
lines = st.sampled_from([b"data: x", b"data:", b"event: e", b": c", b"data: {}", b"junk", b""])


@given(
    whole=st.lists(st.tuples(lines, line_ends)).map(lambda parts: b"".join(a + b for a, b in parts)),
    cuts=st.lists(st.integers(0, 80)),
)
def test_where_the_network_cuts_changes_nothing(whole, cuts):
    edges = [0, *sorted(min(cut, len(whole)) for cut in cuts), len(whole)]
    pieces = [whole[a:b] for a, b in pairwise(edges)]
    one_by_one = [whole[at : at + 1] for at in range(len(whole))]

    assert split(*pieces) == split(whole) == split(*one_by_one)


@given(st.binary())
def test_no_byte_is_lost_or_repeated(whole):
    splitter = Splitter()

    passed = b"".join(event.raw for event in splitter.feed(whole))

    assert whole.startswith(passed)
    rest = splitter.close()
    assert (rest.raw.rstrip(b"\n") if rest else b"") == whole[len(passed) :].strip(b"\r\n")


def test_what_never_ends_is_an_error_and_not_a_growing_buffer():
    splitter = Splitter()
    piece = b"x" * (sse.MAX_EVENT_BYTES // 4)

    for _ in range(4):
        splitter.feed(piece)

    with pytest.raises(ProviderError, match="more than"):
        splitter.feed(b"x")


def test_what_is_left_at_the_end_is_an_event_with_its_blank_line():
    splitter = Splitter()
    splitter.feed(b"data: a\n\ndata: b\n")

    assert splitter.close() == Event(b"data: b\n\n", b"b")
    assert splitter.close() is None


def test_what_is_written_can_be_read():
    assert split(sse.write(b"{}", "ping") + sse.write(b"[DONE]")) == [
        Event(b"event: ping\ndata: {}\n\n", b"{}", b"ping"),
        Event(b"data: [DONE]\n\n", b"[DONE]"),
    ]
