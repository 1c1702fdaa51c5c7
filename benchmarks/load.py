"""The load generator: a process of its own that sends chat requests and times the answers.

    python -m benchmarks.load < order.json > outcome.json

Raw asyncio protocols on uvloop and requests that were encoded beforehand: some 30 µs per request, so that it is not
what it measures (`cpu_s` of the outcome says what it did cost). It reads exactly as much of HTTP/1.1 as its two
servers write.
"""

import asyncio
import re
import resource
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import cast

import msgspec
import orjson
import uvloop

PROMPT = "The quick brown fox jumps over the lazy dog. " * 12

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CONTENT = re.compile(rb'"content":"[^"]')
_LAST_CHUNK = b"\r\n0\r\n\r\n"


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request goes: a server of the OpenAI dialect on this machine, and what it is asked for."""

    port: int
    model: str
    key: str = "none"
    stream: bool = False

    def request(self) -> bytes:
        """The request as it goes over the wire."""
        messages = [{"role": "user", "content": PROMPT}]
        body = orjson.dumps({"model": self.model, "messages": messages, "max_tokens": 256, "stream": self.stream})
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{self.port}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to do. Without `rate`, every target has `concurrency` requests under way at any time until `requests` are
    done in all. With it, `rate` requests a second begin for each target at fixed times, the targets in turn, however
    long the answers take.
    """

    targets: list[Target]
    requests: int
    concurrency: int = 1  # connections per target
    rate: float | None = None
    limit_s: float = 300.0


class Times(msgspec.Struct, kw_only=True):
    """The answers of one target. Times in ms from when a request was due, one per request that succeeded."""

    latency_ms: list[float] = []
    first_token_ms: list[float] = []
    failures: int = 0

    def note(self, due: float, first: float | None, status: int) -> None:
        if status != 200:
            self.failures += 1
            return
        self.latency_ms.append((time.perf_counter() - due) * 1000)
        if first is not None:
            self.first_token_ms.append((first - due) * 1000)


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an order: `times` in the order of its targets, and what the generator itself used."""

    times: list[Times]
    seconds: float
    cpu_s: float


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._done: Callable[[float | None, int], None] | None = None
        self._received = bytearray()
        self._streams = False
        self._first: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, *, stream: bool, done: Callable[[float | None, int], None]) -> None:
        """Send it; `done(when the first content came, status)` when its answer is whole, status 0 if it never is."""
        assert self._transport is not None
        self._done, self._streams, self._first = done, stream, None
        self._received.clear()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        if self._streams and self._first is None and _CONTENT.search(received):
            self._first = time.perf_counter()
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = _LENGTH.search(received, 0, head_end)
        if received.endswith(_LAST_CHUNK) if length is None else len(received) >= head_end + 4 + int(length[1]):
            self._finish(int(received[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(0)

    def close(self) -> None:
        self._done = None
        if self._transport is not None:
            self._transport.close()

    def _finish(self, status: int) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(self._first, status)


class Line:
    """The connections to one target, and the times of its answers."""

    def __init__(self, target: Target) -> None:
        self.times = Times()
        self._target = target
        self._request = target.request()
        self._idle: list[Connection] = []

    async def open(self, connections: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(connections):
            _, connection = await loop.create_connection(Connection, "127.0.0.1", self._target.port)
            self._idle.append(connection)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()

    def begin(self, due: float, done: Callable[[], None]) -> None:
        """Send a request that was due at `due`; without a connection for it, it has failed."""
        if not self._idle:
            self.times.failures += 1
            done()
            return
        connection = self._idle.pop()

        def finished(first: float | None, status: int) -> None:
            self.times.note(due, first, status)
            self._idle.append(connection)
            done()

        connection.send(self._request, stream=self._target.stream, done=finished)


async def run(order: Order) -> Outcome:
    """Carry the order out. Raises `TimeoutError` when it takes longer than it may."""
    lines = [Line(target) for target in order.targets]
    for line in lines:
        await line.open(order.concurrency)
    began = time.perf_counter()
    async with asyncio.timeout(order.limit_s):
        await (_press(lines, order) if order.rate is None else _pace(lines, order, order.rate))
    seconds = time.perf_counter() - began
    for line in lines:
        line.close()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Outcome(times=[line.times for line in lines], seconds=seconds, cpu_s=used.ru_utime + used.ru_stime)


async def _press(lines: list[Line], order: Order) -> None:
    """Have as many requests under way as may be, until all are answered."""
    left = Countdown(order.requests)
    begun = 0

    def again(line: Line) -> None:
        nonlocal begun
        if begun < order.requests:
            begun += 1
            line.begin(time.perf_counter(), partial(ended, line))

    def ended(line: Line) -> None:
        left.one()
        again(line)

    for line in lines * order.concurrency:
        again(line)
    await left.over.wait()


async def _pace(lines: list[Line], order: Order, rate: float) -> None:
    """Begin each request when it is due. What the generator or the server is late by counts as latency."""
    left = Countdown(order.requests)
    began = time.perf_counter()
    for number in range(order.requests):
        due = began + number / (rate * len(lines))
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        lines[number % len(lines)].begin(due, left.one)
    await left.over.wait()


class Countdown:
    """Is over when it was told so often."""

    def __init__(self, times: int) -> None:
        self._left = times
        self.over = asyncio.Event()

    def one(self) -> None:
        self._left -= 1
        if self._left == 0:
            self.over.set()


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(run(order))))


if __name__ == "__main__":
    main()
