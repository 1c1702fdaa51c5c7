"""The client of one accepted request: it gets what comes back, and is noticed when it goes or falls behind.

    waiting ──first reply──▶ answering ──last reply──▶ done
       │                        │
       └──hung up, too slow, deadline──▶ CancelRequested, at once and once

The server's `send` never fails when the client is gone, so its connection is watched beside it; and it waits for ever
for a client that does not read, so every piece that waits has a deadline.
"""

import asyncio
import time
from collections.abc import Callable

from msgspec.structs import replace as with_fields

from tollgate.errors import LogUnavailable, Refusal
from tollgate.events import CancelRequested, Request, RequestAccepted, encode
from tollgate.failpoints import reached
from tollgate.ingress.door import REQUESTS, Door
from tollgate.ingress.guard import RETRY_AFTER
from tollgate.ingress.http import JSON, ClientGone, Incoming, encoded
from tollgate.log import Position
from tollgate.replies import Reply
from tollgate.wire.exchange import WIRES
from tollgate.wire.gemini.array import ArrayWriter

SEND_DEADLINE_S = 30.0  # for one piece of at most SEND_SLICE_BYTES: a client slower than 8 KiB/s is given up
SEND_SLICE_BYTES = 256 << 10
ACCEPT_PATIENCE_S = 5.0  # for the log to acknowledge a request; then its client is told to try again
DEADLINE_GRACE_S = 5.0  # the owner ends a request at its deadline; this much later nothing is expected of it any more

HUNG_UP = "client disconnected"
TOO_SLOW = "client reads too slowly"
TOO_LATE = "deadline passed without an end"
NOT_WHOLE = "a part of the answer was lost"
NOT_ACKNOWLEDGED = "the log did not acknowledge the request in time"
NOT_WRITTEN = "the cancellation could not be written"

# Kinds of answers in which an error can be told though they have begun; to others happens what happens to a file
_WITH_WORDS = (b"text/event-stream", b"application/x-ndjson", b"application/json")

_STREAM_HEADERS = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class Client:
    """Waits for the replies to one request and passes them on."""

    def __init__(
        self,
        incoming: Incoming,
        request: Request,
        door: Door,
        *,
        on_cancel: Callable[[str], None],
        form: ArrayWriter | None = None,
    ) -> None:
        self._incoming = incoming
        self._request = request
        self._door = door
        self._on_cancel = on_cancel
        self._form = form  # of a stream that does not leave as server-sent events
        self._loop = asyncio.get_running_loop()
        self._waiter = door.replies.open(request.request_id, self._fell_behind)
        self._sending = False
        self._cancelled = False
        self._has_words = True  # can an answer that has begun say that it failed?
        self._patience: asyncio.TimerHandle | None = None  # while it is not known whether the log has taken the request

    def accept(self, event: RequestAccepted) -> None:
        """Append the event, void from when its client is refused. Its failure, if it fails, is what `serve` raises."""
        log, key = self._door.log, self._request.org_id.encode()
        partition = log.partition_for(REQUESTS, key)
        if (now_ms := log.earliest_ms(REQUESTS, partition)) is not None:
            event = with_fields(event, void_after_ms=now_ms + int(ACCEPT_PATIENCE_S * 1000) - 1)
        appended = log.append(REQUESTS, key, encode(event), partition=partition, worth="new")
        asyncio.ensure_future(appended).add_done_callback(self._appended)
        self._patience = self._loop.call_later(ACCEPT_PATIENCE_S, self._not_accepted)

    async def serve(self) -> None:
        """Answer the client; return when the last byte is handed over.

        Raises `Refusal` when nothing has been sent and nothing will come, `ClientGone` when nobody is there.
        """
        connection = self._incoming.connection
        connection.watch(self._hung_up)
        left_s = (self._request.deadline_ms - self._door.now_ms()) / 1000
        deadline = self._loop.call_later(left_s + DEADLINE_GRACE_S, self._deadline_passed)
        try:
            await self._forward()
        except Refusal as refusal:
            self._cancel(NOT_WHOLE)  # unless it has been: whatever still comes is of no use to anybody
            if self._incoming.status is None:
                raise
            if not self._has_words:
                await self._break_off()
                return
            event = WIRES[self._request.dialect].error_event(refusal, self._request.request_id)
            await self._send(self._formed(event, last=True), more=False)
        finally:
            deadline.cancel()
            self._end_patience()
            connection.watch(None)
            self._door.replies.close(self._request.request_id)

    async def _forward(self) -> None:
        reply = await self._waiter.get()
        if reply.status is None:
            raise Refusal(502, "broken_answer", "The beginning of the answer was lost.", type="api_error")
        if reply.status != 200:
            self._form = None  # a refusal is one object in either form
        body = self._formed(reply.body, last=reply.last)
        await self._incoming.start(reply.status, self._head(reply, reply.status, len(body)))
        while not reply.last:
            if body:
                await self._send(body, more=True)
            reply = await self._waiter.get()
            body = self._formed(reply.body, last=reply.last)
        if reply.status is not None and reply.seq > 0:
            await self._break_off()
        else:
            await self._send(body, more=False)

    def _formed(self, body: bytes, *, last: bool) -> bytes:
        return body if self._form is None else self._form.feed(body, last=last)

    def _head(self, reply: Reply, status: int, length: int) -> list[tuple[bytes, bytes]]:
        headers = encoded(reply.headers)
        if self._form is not None:
            headers = [(name, value) for name, value in headers if name != b"content-type"]
        content_type = dict(headers).get(b"content-type")
        if content_type is None:
            content_type = JSON.encode()
            headers.append((b"content-type", content_type))
        self._has_words = content_type.startswith(_WITH_WORDS)
        if reply.last:
            headers.append((b"content-length", str(length).encode()))
        elif self._request.stream and status == 200:
            headers += _STREAM_HEADERS
        overhead_ms = (time.perf_counter() - self._incoming.started) * 1000 - reply.upstream_us / 1000
        headers.append((b"x-tollgate-overhead-ms", f"{max(0.0, overhead_ms):.1f}".encode()))
        return headers

    async def _send(self, body: bytes, *, more: bool) -> None:
        """Send in slices, each within `SEND_DEADLINE_S`, so that a large answer gets as long as it needs."""
        for start in range(0, len(body) or 1, SEND_SLICE_BYTES):
            piece = body if len(body) <= SEND_SLICE_BYTES else body[start : start + SEND_SLICE_BYTES]
            more_follows = more or start + SEND_SLICE_BYTES < len(body)
            if self._incoming.connection.is_behind:
                await self._send_in_time(piece, more=more_follows)
            else:
                await self._incoming.send(piece, more=more_follows)

    async def _send_in_time(self, piece: bytes, *, more: bool) -> None:
        stalled = self._loop.call_later(SEND_DEADLINE_S, self._too_slow)
        self._sending = True
        try:
            await self._incoming.send(piece, more=more)
        finally:
            self._sending = False
            stalled.cancel()

    # What may happen meanwhile -------------------------------------------------------------------------------------

    def _hung_up(self) -> None:
        self._cancel(HUNG_UP)
        self._waiter.give_up(ClientGone(HUNG_UP))

    def _appended(self, appended: "asyncio.Future[Position]") -> None:
        self._end_patience()
        error = None if appended.cancelled() else appended.exception()
        if error is None:
            reached("request.appended")
            return
        self._cancelled = True  # there is nothing to be cancelled
        unknown = Refusal(500, "unknown_outcome", "It is not known whether the request was taken.", type="api_error")
        self._waiter.give_up(not_accepted() if isinstance(error, LogUnavailable) else unknown)

    def _not_accepted(self) -> None:
        """What the log takes from now on is void. It may have taken it already: the cancellation lands behind it."""
        self._cancel(NOT_ACKNOWLEDGED)
        self._waiter.give_up(not_accepted())

    def _end_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _fell_behind(self) -> None:
        if self._sending:  # else it has not had the time to read
            self._too_slow()

    def _too_slow(self) -> None:
        self._cancel(TOO_SLOW)
        self._waiter.give_up(ClientGone(TOO_SLOW))
        self._incoming.connection.abort()

    async def _break_off(self) -> None:
        """End the connection without ending the answer, so that the client does not take it for whole."""
        self._cancelled = True  # the request has ended; nobody has hung up
        self._incoming.connection.abort()
        await asyncio.sleep(0)  # for the server to notice

    def _deadline_passed(self) -> None:
        self._cancel(TOO_LATE)
        self._waiter.give_up(
            Refusal(504, "deadline_exceeded", "The request did not end by its deadline.", type="api_error")
        )

    def _cancel(self, reason: str) -> None:
        if self._cancelled:
            return
        self._cancelled = True
        self._on_cancel(reason)
        event = CancelRequested(request_id=self._request.request_id, reason=reason)
        appended = self._door.log.append(REQUESTS, self._request.org_id.encode(), encode(event))
        asyncio.ensure_future(appended).add_done_callback(self._cancel_appended)

    def _cancel_appended(self, appended: "asyncio.Future[Position]") -> None:
        """A cancellation that could not be written is not tried again: the deadline ends the request anyway."""
        if not appended.cancelled() and appended.exception() is not None:
            self._on_cancel(NOT_WRITTEN)


def not_accepted() -> Refusal:
    """The log has not taken the request, or it is cancelled: nothing is called for it, and trying again is safe."""
    return Refusal(
        503,
        "log_unavailable",
        "The request could not be written down, so it was not accepted. Try again.",
        type="api_error",
        headers=RETRY_AFTER,
    )
