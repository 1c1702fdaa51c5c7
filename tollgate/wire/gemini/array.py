"""A stream as one JSON array, its form without `alt=sse`: read from a provider, and written for a client. Pure."""

from tollgate.errors import ProviderError
from tollgate.wire import sse
from tollgate.wire.sse import MAX_EVENT_BYTES, Event

_SPACE = b" \t\r\n"
_OPEN, _CLOSE, _QUOTE, _BACKSLASH = b'{}"\\'


class Splitter:
    """Cuts a stream into events, whichever of the two forms it has: the first byte tells."""

    def __init__(self) -> None:
        self._events: sse.Splitter | _Elements | None = None

    def feed(self, data: bytes) -> list[Event]:
        if self._events is None:
            if not data.strip(_SPACE):
                return []
            data = data.lstrip(_SPACE)
            self._events = _Elements() if data.startswith(b"[") else sse.Splitter()
        return self._events.feed(data)

    def close(self) -> Event | None:
        return None if self._events is None else self._events.close()


class _Elements:
    """The objects of an array, each as an event once it is whole."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._at = 0  # of the bytes in `_rest`, how many have been looked at
        self._depth = 0
        self._in_text = False

    def feed(self, data: bytes) -> list[Event]:
        self._rest += data
        events: list[Event] = []
        start = 0 if self._depth else None
        rest, at = self._rest, self._at
        while at < len(rest):
            byte = rest[at]
            if self._in_text:
                if byte == _BACKSLASH:
                    if at + 1 == len(rest):
                        break  # what it escapes has not come yet
                    at += 1
                elif byte == _QUOTE:
                    self._in_text = False
            elif byte == _QUOTE:
                self._in_text = True
            elif byte == _OPEN:
                if not self._depth:
                    start = at
                self._depth += 1
            elif byte == _CLOSE and self._depth:
                self._depth -= 1
                if not self._depth and start is not None:
                    events.append(_event(bytes(rest[start : at + 1])))
                    start = None
            at += 1
        cut = at if start is None else start
        del rest[:cut]
        self._at = at - cut
        if len(rest) > MAX_EVENT_BYTES:
            raise ProviderError("server_error", f"the provider sent an event of more than {MAX_EVENT_BYTES} bytes")
        return events

    def close(self) -> Event | None:
        """Half an object is nothing; an answer that ends in one is cut."""
        return None


def _event(element: bytes) -> Event:
    """As the other form has it: elements may be spread over lines, which JSON lets be put together."""
    data = b" ".join(element.splitlines())
    return Event(sse.write(data), data)


class ArrayWriter:
    """The events of a stream, cut anywhere, as elements of an array."""

    def __init__(self) -> None:
        self._splitter = sse.Splitter()
        self._begun = False

    def feed(self, data: bytes, *, last: bool) -> bytes:
        out: list[bytes] = []
        for event in self._splitter.feed(data):
            if event.data:
                out += (b",\r\n" if self._begun else b"[", event.data)
                self._begun = True
        if last:
            out.append(b"]" if self._begun else b"[]")
        return b"".join(out)
