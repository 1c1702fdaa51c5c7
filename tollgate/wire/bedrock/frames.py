"""AWS's event stream: frames with a length, typed headers, a payload and two checksums, read by botocore. Pure.

https://docs.aws.amazon.com/transcribe/latest/dg/streaming-setting-up.html#streaming-event-stream
"""

from botocore.eventstream import EventStreamBuffer, EventStreamMessage, ParserError

from tollgate.wire.failures import unreadable
from tollgate.wire.sse import Event

MAX_WAITING_BYTES = 24 << 20  # botocore takes frames of up to 24 MiB

EXCEPTION = b"exception:"  # before the name of an event that is an error


class Splitter:
    """Cuts a stream into events, however the network has cut it. An event's name is its type, its data the payload."""

    def __init__(self) -> None:
        self._buffer = EventStreamBuffer()
        self._waiting_bytes = 0

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises `ProviderError` for a frame that is damaged or too long."""
        self._waiting_bytes += len(data)
        self._buffer.add_data(data)
        events: list[Event] = []
        try:
            for message in self._buffer:
                events.append(_event(message))
                self._waiting_bytes -= message.prelude.total_length
        except (ParserError, ValueError) as error:
            raise unreadable(f"a frame of its stream is damaged ({type(error).__name__})") from None
        if self._waiting_bytes > MAX_WAITING_BYTES:
            raise unreadable(f"a frame of its stream is longer than {MAX_WAITING_BYTES} bytes")
        return events

    def close(self) -> None:
        """Half a frame is nothing."""
        return


def splitter() -> Splitter:
    return Splitter()


def _event(message: EventStreamMessage) -> Event:
    headers = message.headers
    if headers.get(":message-type") in ("exception", "error"):
        kind = headers.get(":exception-type") or headers.get(":error-code") or ""
        payload = message.payload or str(headers.get(":error-message") or "").encode()
        return Event(raw=b"", data=payload, name=EXCEPTION + str(kind).encode())
    return Event(raw=b"", data=message.payload, name=str(headers.get(":event-type") or "").encode())
