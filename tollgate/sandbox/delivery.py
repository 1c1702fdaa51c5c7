"""How an answer leaves: its waits, its pieces, its faults, and noticing that the caller has hung up.

Messages go to the server as raw ASGI, because this is also the upstream of benchmarks and must not be what they
measure.
"""

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from starlette.types import Receive, Send

from tollgate.sandbox.answer import Answer
from tollgate.sandbox.dialect import Dialect
from tollgate.sandbox.knobs import Knobs
from tollgate.sandbox.ledger import Call, Outcome
from tollgate.sandbox.request import Ask, Refused

RETRY_AFTER_S = 1
MAX_HANG_S = 3600.0
BURST_PIECES = 64  # sent without a look at whether the caller is still there, when no gap is asked for

Headers = Sequence[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
_STREAM = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))


class Cut(ConnectionError):
    """The call ends without a complete answer: whoever serves the app closes the connection."""


class Plan(NamedTuple):
    """What will become of a call: an answer, or an error. `model` is the name that was asked for, known or not."""

    model: str
    knobs: Knobs
    result: tuple[Ask, Answer] | Refused

    @property
    def status(self) -> int | None:
        """The HTTP status, None when there will be no answer."""
        if self.knobs.hang:
            return None
        return self.result.status if isinstance(self.result, Refused) else 200


class Caller:
    """The other end of a call. Its hang-up is noticed at once, but only while the call waits."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._hangup: asyncio.Task[None] | None = None

    async def stays(self, seconds: float) -> bool:
        """Wait so long; false as soon as the caller has hung up."""
        if self._hangup is None:
            self._hangup = asyncio.ensure_future(self._listen())
        await asyncio.wait((self._hangup,), timeout=seconds)
        return not self._hangup.done()

    def forget(self) -> None:
        """Listen no longer."""
        if self._hangup is not None:
            self._hangup.cancel()

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


async def deliver(dialect: Dialect, plan: Plan, call: Call, caller: Caller, send: Send) -> Outcome:
    """Send what was planned, counting in `call` what is handed over. Raises `Cut`, and what `send` raises."""
    knobs = plan.knobs
    if knobs.hang:
        if await caller.stays(MAX_HANG_S):
            raise Cut(f"nobody hung up within {MAX_HANG_S:.0f} s")
        return "disconnected"
    if knobs.latency_ms and not await caller.stays(knobs.latency_ms / 1000):
        return "disconnected"
    if isinstance(plan.result, Refused):
        await send_error(dialect, plan.result, call.seq, send)
        return "error"
    ask, answer = plan.result
    if ask.stream:
        return await _stream(dialect, knobs, ask, answer, call, caller, send)
    return await _whole(dialect, knobs, ask, answer, call, send)


async def _whole(dialect: Dialect, knobs: Knobs, ask: Ask, answer: Answer, call: Call, send: Send) -> Outcome:
    """A unary answer. All of its tokens count when any of its body is handed over, for all were made."""
    headers = ((b"content-type", dialect.CONTENT_TYPE), _request_id(dialect, call.seq))
    if knobs.in_band_after is not None and knobs.cut_after is None:
        await send_body(send, 200, dialect.error_body(dialect.IN_BAND_ERROR, call.seq), headers)
        return "error"
    body = dialect.unary_body(ask, answer, call.seq)
    _count_input(call, ask, answer)
    call.output_tokens = answer.output_tokens * ask.choices
    if knobs.cut_after is None:
        await send_body(send, 200, body, headers)
        return "ok"
    await send(_start(200, (*headers, _content_length(body))))
    await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
    raise Cut("in the middle of the body, as the name of the model asks")


async def _stream(
    dialect: Dialect, knobs: Knobs, ask: Ask, answer: Answer, call: Call, caller: Caller, send: Send
) -> Outcome:
    _count_input(call, ask, answer)
    await send(_start(200, (*_STREAM, _request_id(dialect, call.seq))))
    opening = dialect.opening(ask, answer, call.seq)
    await send({"type": "http.response.body", "body": opening, "more_body": True})
    gap_s = knobs.gap_ms / 1000
    fault_after = knobs.cut_after if knobs.cut_after is not None else knobs.in_band_after
    for index, (frame, tokens) in enumerate(islice(dialect.contents(ask, answer, call.seq), fault_after)):
        if index and (gap_s or index % BURST_PIECES == 0) and not await caller.stays(gap_s):
            return "disconnected"
        await send({"type": "http.response.body", "body": frame, "more_body": True})
        call.output_tokens += tokens
    if knobs.cut_after is not None:
        raise Cut("in the middle of the stream, as the name of the model asks")
    if knobs.in_band_after is not None:
        await send({"type": "http.response.body", "body": dialect.error_event(dialect.IN_BAND_ERROR, call.seq)})
        return "error"
    await send({"type": "http.response.body", "body": dialect.closing(ask, answer, call.seq)})
    return "ok"


async def send_error(dialect: Dialect, refused: Refused, seq: int, send: Send) -> None:
    """An error in the dialect's shape, saying when to come back where that helps."""
    headers = [_JSON, _request_id(dialect, seq)]
    if refused.status == 429:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    await send_body(send, refused.status, dialect.error_body(refused, seq), headers)


async def send_json(send: Send, body: bytes) -> None:
    await send_body(send, 200, body, (_JSON,))


async def send_body(send: Send, status: int, body: bytes, headers: Headers) -> None:
    """A whole answer; its length is added to the headers."""
    await send(_start(status, (*headers, _content_length(body))))
    await send({"type": "http.response.body", "body": body})


def _start(status: int, headers: Headers) -> dict[str, object]:
    return {"type": "http.response.start", "status": status, "headers": headers}


def _request_id(dialect: Dialect, seq: int) -> tuple[bytes, bytes]:
    return dialect.REQUEST_ID_HEADER, dialect.request_id(seq).encode()


def _content_length(body: bytes) -> tuple[bytes, bytes]:
    return b"content-length", str(len(body)).encode()


def _count_input(call: Call, ask: Ask, answer: Answer) -> None:
    """What is charged from the moment on at which the head of an answer leaves: the prompt, and the reasoning."""
    call.input_tokens = answer.input_tokens
    call.cached_tokens = answer.cached_tokens
    call.reasoning_tokens = answer.reasoning_tokens * ask.choices
