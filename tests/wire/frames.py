"""AWS's event stream, written by hand after its documentation: what the splitter reads is made here."""

import struct
import zlib
from typing import Any

import orjson


def frame(payload: Any, kind: str, *, message: str = "event") -> bytes:
    """One frame. `message` is `event` or `exception`."""
    body = payload if isinstance(payload, bytes) else orjson.dumps(payload)
    headers = b"".join(
        _header(name, value)
        for name, value in (
            (f":{message}-type", kind),
            (":content-type", "application/json"),
            (":message-type", message),
        )
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(body), len(headers))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return head + struct.pack(">I", zlib.crc32(head))


def _header(name: str, value: str) -> bytes:
    text = value.encode()
    return struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(text)) + text


def frames(*events: dict[str, Any]) -> bytes:
    """A stream of events, each as {type: payload}."""
    return b"".join(frame(payload, kind) for event in events for kind, payload in event.items())


def unframed(data: bytes) -> list[dict[str, Any]]:
    """The events of a stream."""
    events = []
    while data:
        length, headers_length = struct.unpack(">II", data[:8])
        headers, body = data[12 : 12 + headers_length], data[12 + headers_length : length - 4]
        kind = headers.split(b":event-type\x07", 1)[1]
        size = struct.unpack(">H", kind[:2])[0]
        events.append({kind[2 : 2 + size].decode(): orjson.loads(body)})
        data = data[length:]
    return events
