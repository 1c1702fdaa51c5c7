"""The providers of the simulation: they speak the protocols' bytes, fail as providers do, and keep their own books.

A provider works whether its caller is still there or not: a unary answer is generated to its end, a stream until the
connection closes. What it has counted is in `calls`, which is the third witness beside clients and log.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from random import Random
from types import TracebackType

from tests.simulation.loop import Process, VirtualLoop
from tollgate.errors import ProviderError
from tollgate.processors.upstream import Answer
from tollgate.wire import UpstreamRequest

NATURAL_TOKENS = 40  # answers that nobody cuts short are up to this long
OVERRUN = 20  # a provider that ignores the cap writes so many times as much
MOST_TOKENS = 160
ERRORS = (429, 500, 503, 400)


@dataclass(kw_only=True)
class ProviderCall:
    """One line of a provider's own books."""

    call_id: str
    process: Process  # whose call it is
    checked_s: float  # when its caller last looked whether it may call
    provider: str
    account: str
    model: str
    stream: bool
    cap: int | None
    input_tokens: int
    output_tokens: int = 0  # generated so far
    status: int = 0  # sent; 0: none
    told_usage: bool = False
    finished: bool = False  # everything has been handed to the network
    overran: bool = False
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Manners:
    """How often what goes wrong, as shares of the calls."""

    error: float = 0.0
    refused: float = 0.0
    cut: float = 0.0
    hang: float = 0.0
    overrun: float = 0.0
    silent: float = 0.0  # answers without usage
    latency_s: float = 0.3
    pause_s: float = 0.05  # between two pieces of a stream
    connect_s: float = 0.01


class SimProvider:
    """One account of one provider, reached without a socket. Satisfies `Transport`."""

    def __init__(
        self,
        loop: VirtualLoop,
        seed: str,
        *,
        name: str,
        account: str,
        protocol: str,
        timeout_s: float,
        manners: Manners,
        sent: Callable[[ProviderCall], None],
        received: Callable[[ProviderCall], None],
        says: Callable[[str, str], None],
    ) -> None:
        self.name = name
        self.account = account
        self.protocol = protocol
        self._loop = loop
        self._seed = seed
        self._timeout_s = timeout_s
        self._manners = manners
        self._sent = sent
        self._received = received
        self._says = says
        self._chance = Random(f"{seed}/{name}/{account}")

    def send(self, request: UpstreamRequest, *, request_id: str) -> "_Connection":
        return _Connection(self, request, request_id, self._loop, self._timeout_s)

    async def close(self) -> None:
        """Nothing is held open."""

    async def connect(self) -> None:
        """Sockets are not there at once: in between, much can happen to whoever calls."""
        await asyncio.sleep(self._chance.random() * self._manners.connect_s)

    def take(self, request: UpstreamRequest, call_id: str, checked_s: float) -> tuple[ProviderCall, dict[str, object]]:
        """A call has been sent. It may never be received."""
        body = json.loads(request.body)
        process = Process.current()
        assert process is not None
        cap = body.get("max_tokens", body.get("max_completion_tokens"))
        call = ProviderCall(
            call_id=call_id,
            process=process,
            checked_s=checked_s,
            provider=self.name,
            account=self.account,
            model=body["model"],
            stream=request.stream,
            cap=cap,
            input_tokens=max(1, len(json.dumps(body["messages"])) // 4),
        )
        self._sent(call)
        return call, body

    async def serve(self, connection: "_Connection", call: ProviderCall, body: dict[str, object]) -> None:
        """One call, as the provider sees it. Its fate is drawn from the seed and the id of the call alone."""
        manners, chance = self._manners, Random(f"{self._seed}/{self.name}/{call.call_id}")
        await asyncio.sleep(chance.random() * manners.latency_s / 10)
        if chance.random() < manners.refused:
            connection.fail("connection")
            return
        self._received(call)
        fate = chance.random()
        await asyncio.sleep(chance.random() * manners.latency_s)
        if fate < manners.hang:
            return
        fate -= manners.hang
        if fate < manners.error:
            call.status = chance.choice(ERRORS)
            call.finished = True
            connection.head(call.status)
            connection.put(json.dumps({"error": {"message": "out of order", "type": "api_error"}}).encode())
            connection.end()
        else:
            await self._answer(connection, call, body, cut=fate - manners.error < manners.cut, chance=chance)
        self._says(self.name, f"{call.call_id} {call.status} {call.output_tokens} tokens, finished={call.finished}")

    async def _answer(
        self, connection: "_Connection", call: ProviderCall, body: dict[str, object], *, cut: bool, chance: Random
    ) -> None:
        tokens = chance.randint(1, NATURAL_TOKENS)
        if call.cap is not None and tokens > call.cap:
            call.overran = chance.random() < self._manners.overrun
            tokens = min(OVERRUN * call.cap, MOST_TOKENS) if call.overran else call.cap
        told = chance.random() >= self._manners.silent
        answer = _ANSWERS[self.protocol](call, body, tokens, usage=told)
        if not call.stream:
            call.text = "".join(text for text, _, _ in answer)
            call.output_tokens = tokens
            call.told_usage = told
            answer = [(call.text, tokens, _WHOLE[self.protocol](call, usage=told))]
        end = chance.randrange(len(answer)) if cut and call.stream else len(answer)
        if cut and chance.random() < 0.3:  # before its head
            connection.fail("cut")
            return
        call.status = 200
        connection.head(200)
        for text, count, raw in answer[:end]:
            if call.stream:
                await asyncio.sleep(chance.random() * self._manners.pause_s)
                if connection.closed:
                    return
                call.text += text
                call.output_tokens += count
            at = chance.randint(0, len(raw))
            connection.put(raw[:at])
            if cut and not call.stream:
                break
            if chance.random() < 0.2:
                await asyncio.sleep(0)
            connection.put(raw[at:])
        if cut:
            connection.fail("cut")
            return
        call.told_usage = told
        call.finished = True
        connection.end()


class _Connection:
    """What lies between a gateway and a provider: pieces one way, a hang-up the other. Satisfies `Answer`."""

    def __init__(
        self, provider: SimProvider, request: UpstreamRequest, call_id: str, loop: VirtualLoop, timeout_s: float
    ) -> None:
        self.status = 0
        self.headers: Mapping[str, str] = {"x-request-id": f"up-{call_id}"}
        self.closed = False
        self._provider = provider
        self._request = request
        self._call_id = call_id
        self._loop = loop
        self._timeout_s = timeout_s
        self._pieces: deque[bytes] = deque()
        self._ended = False
        self._error: str | None = None
        self._news: asyncio.Future[None] | None = None
        self._checked_s = loop.time()

    async def __aenter__(self) -> Answer:
        await self._provider.connect()
        call, body = self._provider.take(self._request, self._call_id, self._checked_s)
        self._loop.outside_task(self._provider.serve(self, call, body))
        self._loop.outside_later(self._timeout_s, self.fail, "timeout")
        while not self.status:
            self._raise_error()
            await self._wait()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closed = True

    async def read(self) -> bytes:
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        while True:
            while self._pieces:
                yield self._pieces.popleft()
            if self._ended:
                return
            self._raise_error()
            await self._wait()

    # the provider's end

    def head(self, status: int) -> None:
        self.status = status
        self._wake()

    def put(self, piece: bytes) -> None:
        if piece:
            self._pieces.append(piece)
            self._wake()

    def end(self) -> None:
        self._ended = True
        self._wake()

    def fail(self, error_class: str) -> None:
        if not self._ended and self._error is None:
            self._error = error_class
            self._wake()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise ProviderError(self._error, f"the connection failed: {self._error}")

    async def _wait(self) -> None:
        self._news = self._loop.create_future()
        await self._news

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


# The two protocols, as their API references show them -----------------------------------------------------------------

_Pieces = list[tuple[str, int, bytes]]  # text, its tokens, the event that carries them


def attempt_of(text: str) -> int:
    """The attempt of which these are the words; 0 where there is none."""
    return ord(text[0]) - ord("a") if text else 0


def words_of(call_id: str, count: int) -> list[str]:
    """One token each, of four bytes: they show if a piece is lost, doubled, misplaced, or of another attempt."""
    attempt = chr(ord("a") + int(call_id.rpartition(".")[2]) % 26)
    return [f"{attempt}{number:02x} " for number in range(count)]


def _openai_stream(call: ProviderCall, body: dict[str, object], tokens: int, *, usage: bool) -> _Pieces:
    def event(choices: list[object], **more: object) -> bytes:
        chunk = {"id": call.call_id, "object": "chat.completion.chunk", "model": call.model, "choices": choices}
        return b"data: " + json.dumps(chunk | more).encode() + b"\n\n"

    def choice(delta: dict[str, str], reason: str | None = None) -> dict[str, object]:
        return {"index": 0, "delta": delta, "finish_reason": reason}

    pieces: _Pieces = [("", 0, event([choice({"role": "assistant", "content": ""})]))]
    pieces += [(word, 1, event([choice({"content": word})])) for word in words_of(call.call_id, tokens)]
    pieces.append(("", 0, event([choice({}, "stop")])))
    options = body.get("stream_options")
    if usage and isinstance(options, dict) and options.get("include_usage"):
        pieces.append(("", 0, event([], usage=_openai_usage(call, tokens))))
    pieces.append(("", 0, b"data: [DONE]\n\n"))
    return pieces


def _openai_whole(call: ProviderCall, *, usage: bool) -> bytes:
    message = {"role": "assistant", "content": call.text}
    answer: dict[str, object] = {
        "id": call.call_id,
        "object": "chat.completion",
        "model": call.model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    if usage:
        answer["usage"] = _openai_usage(call, call.output_tokens)
    return json.dumps(answer).encode()


def _openai_usage(call: ProviderCall, output_tokens: int) -> dict[str, int]:
    return {
        "prompt_tokens": call.input_tokens,
        "completion_tokens": output_tokens,
        "total_tokens": call.input_tokens + output_tokens,
    }


def _anthropic_stream(call: ProviderCall, body: dict[str, object], tokens: int, *, usage: bool) -> _Pieces:
    def event(kind: str, **facts: object) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind} | facts)}\n\n".encode()

    message = {"id": call.call_id, "type": "message", "role": "assistant", "model": call.model, "content": []}
    if usage:
        message["usage"] = {"input_tokens": call.input_tokens, "output_tokens": 1}
    pieces: _Pieces = [
        ("", 0, event("message_start", message=message)),
        ("", 0, event("content_block_start", index=0, content_block={"type": "text", "text": ""})),
    ]
    for word in words_of(call.call_id, tokens):
        pieces.append((word, 1, event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})))
    pieces.append(("", 0, event("content_block_stop", index=0)))
    counted = {"usage": {"output_tokens": tokens}} if usage else {}
    pieces.append(("", 0, event("message_delta", delta={"stop_reason": "end_turn"}, **counted)))
    pieces.append(("", 0, event("message_stop")))
    return pieces


def _anthropic_whole(call: ProviderCall, *, usage: bool) -> bytes:
    answer: dict[str, object] = {
        "id": call.call_id,
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": [{"type": "text", "text": call.text}],
        "stop_reason": "end_turn",
    }
    if usage:
        answer["usage"] = {"input_tokens": call.input_tokens, "output_tokens": call.output_tokens}
    return json.dumps(answer).encode()


_ANSWERS = {"openai": _openai_stream, "anthropic": _anthropic_stream}
_WHOLE = {"openai": _openai_whole, "anthropic": _anthropic_whole}
