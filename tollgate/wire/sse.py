"""Server-sent events, read from bytes cut anywhere and written.

Follows the event stream grammar of the HTML standard (section 9.2): LF, CRLF or CR, comments, several data lines.
Each event keeps the bytes it came in, so that a stream can be passed on unchanged. Pure.
"""

import re

import msgspec

from tollgate.errors import ProviderError

MAX_EVENT_BYTES = 8 << 20  # an event may hold an image in base64

_BOM = b"\xef\xbb\xbf"
# Two line ends in a row. Atomic groups (?>…), or else a single CRLF would be taken for two ends.
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event. `raw` are its bytes with the blank line at its end; `data` is empty for a comment."""

    raw: bytes
    data: bytes
    name: bytes = b""


class Splitter:
    """Cuts a stream into events, however the network has cut it."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises `ProviderError` when one grows past `MAX_EVENT_BYTES`."""
        rest = self._rest
        buffer = rest + data if rest else data
        events: list[Event] = []
        if b"\r" in buffer:
            start = self._split_any(buffer, events)
        else:
            start = 0
            end = buffer.find(b"\n\n", max(0, len(rest) - 1))
            while end >= 0:
                events.append(_event(buffer[start : end + 2]))
                start = end + 2
                end = buffer.find(b"\n\n", start)
        self._rest = buffer[start:] if start else buffer
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ProviderError("server_error", f"the provider sent an event of more than {MAX_EVENT_BYTES} bytes")
        return events

    def close(self) -> Event | None:
        """What is left when the body is over: an event whose blank line never came, whole or not."""
        rest, self._rest = self._rest.strip(b"\r\n"), b""
        return _event(rest + b"\n\n") if rest else None

    @staticmethod
    def _split_any(buffer: bytes, events: list[Event]) -> int:
        """Split where lines may end in CR. A CR at the very end may be half of a CRLF, so it waits."""
        start = 0
        whole = len(buffer) - 1 if buffer.endswith(b"\r") else len(buffer)
        while found := _BLANK_LINE.search(buffer, start, whole):
            events.append(_event(buffer[start : found.end()]))
            start = found.end()
        return start


def write(data: bytes, name: str = "") -> bytes:
    """An event as bytes. `data` holds no line end: JSON text never does."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data) if name else b"data: %b\n\n" % data


def _event(raw: bytes) -> Event:
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2:  # by far the most: one line of data
        return Event(raw, raw[6:-2])
    name = b""
    data: list[bytes] = []
    for line in raw.removeprefix(_BOM).splitlines():
        field, _, value = line.partition(b":")
        if field == b"data":
            data.append(value.removeprefix(b" "))
        elif field == b"event":
            name = value.removeprefix(b" ")
    return Event(raw, b"\n".join(data), name)
