"""Clients of every kind, all at once: they ask, read, hang up or see the gateway die, and write down what they saw.

Chance comes from a seed; which request is where when the process dies is up to the machine.
"""

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import suppress
from decimal import Decimal
from json import JSONDecodeError, loads
from typing import Any, NamedTuple

import aiohttp

from tests.crash.evidence import Key, Sent

CLIENTS = 24
ANSWER_TIMEOUT_S = 15.0  # longer than any answer takes here: who waits so long has been forgotten
PATH = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


class Kind(NamedTuple):
    """One kind of request. `{latency}` and `{tokens}` in the model's name are drawn; `hangs_up`: before it is over."""

    weight: int
    model: str
    stream: bool
    max_tokens: int | None = None
    hangs_up: bool = False


UNARY = (
    Kind(12, "sandbox-lat{latency}-tok{tokens}", False),
    Kind(6, "sandbox-lat{latency}-tok{tokens}", False, max_tokens=20),
    Kind(2, "sandbox-lat{latency}-tok9-in40-cached30-reason4", False, max_tokens=30),
    Kind(3, "sandbox-lat5-err429x1-tok{tokens}", False),  # the second provider answers
    Kind(3, "sandbox-lat5-err500", False),  # the fallback answers
    Kind(1, "sandbox-lat5-err400", False),  # nobody does
    Kind(1, "sandbox-lat5-err503", False),
    Kind(1, "sandbox-lat10-tok9-cut0", False),
    Kind(1, "sandbox-lat10-tok9-nousage", False),
    Kind(2, "sandbox-lat10-over30", False, max_tokens=5),
    Kind(2, "sandbox-lat60-tok{tokens}", False, hangs_up=True),
    Kind(1, "sandbox-hang", False, hangs_up=True),
    Kind(1, "sandbox-hang", False),  # first the provider's time is up, then the request's
)
STREAMS = (
    Kind(12, "sandbox-lat{latency}-tok{tokens}-gap2", True),
    Kind(6, "sandbox-lat{latency}-tok{tokens}-chunks6-gap4", True, max_tokens=20),
    Kind(2, "sandbox-lat{latency}-tok9-in40-cached30-reason4", True, max_tokens=30),
    Kind(3, "sandbox-lat5-err429x1-tok{tokens}", True),
    Kind(3, "sandbox-lat5-err500", True),
    Kind(1, "sandbox-lat5-err503", True),
    Kind(2, "sandbox-lat5-tok12-gap2-cut5", True),
    Kind(1, "sandbox-lat5-tok12-gap2-eband5", True),
    Kind(1, "sandbox-lat5-tok9-cut0", True),
    Kind(1, "sandbox-lat10-tok9-nousage", True),
    Kind(2, "sandbox-lat10-over30", True, max_tokens=5),
    Kind(4, "sandbox-lat5-tok30-gap4", True, hangs_up=True),
    Kind(1, "sandbox-hang", True, hangs_up=True),
)
MIXED = UNARY + STREAMS

# What answers in the place of a model that all providers fail
FALLBACKS = {"sandbox-lat5-err500": ["sandbox-lat5-tok7"]}


class Load:
    """Sends requests until the gateway dies, life after life; `sent` is the history of all of them."""

    def __init__(self, seed: int) -> None:
        self.sent: list[Sent] = []
        self._random = random.Random(seed)

    async def run(self, url: str, keys: Sequence[Key], *, kinds: Sequence[Kind]) -> None:
        """Return when nobody answers any more."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(self._one_after_another(session, keys, kinds) for _ in range(CLIENTS)))

    async def _one_after_another(
        self, session: aiohttp.ClientSession, keys: Sequence[Key], kinds: Sequence[Kind]
    ) -> None:
        with suppress(aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):  # the gateway is dead
            while True:
                await self._send(session, self._random.choice(keys), self.draw(kinds))

    def draw(self, kinds: Sequence[Kind]) -> Kind:
        """One of them, with what its model's name leaves to chance."""
        kind = self._random.choices(kinds, [kind.weight for kind in kinds])[0]
        latency, tokens = self._random.randint(5, 60), self._random.randint(1, 24)
        return kind._replace(model=kind.model.format(latency=latency, tokens=tokens))

    async def _send(self, session: aiohttp.ClientSession, key: Key, kind: Kind) -> None:
        """Raises what aiohttp raises when the connection ends under the answer."""
        await ask(session, self.compose(key, kind))

    def compose(self, key: Key, kind: Kind, *, dialect: str | None = None) -> "Ask":
        """The next request, in this dialect or in either."""
        dialect = dialect or self._random.choice(("openai", "anthropic"))
        max_tokens = kind.max_tokens
        if dialect == "anthropic":
            max_tokens = max_tokens or 25  # the dialect demands one
        sent = Sent(
            number=str(len(self.sent)),
            key=key,
            dialect=dialect,
            model=kind.model,
            stream=kind.stream,
            max_tokens=max_tokens,
        )
        self.sent.append(sent)
        headers = {
            "authorization": f"Bearer {key.token}",
            "x-tollgate-tags": f"sent={sent.number},max_tokens={max_tokens or 0}",
        }
        patience_s = self._random.uniform(0.0, 0.06) if kind.hangs_up else None
        return Ask(sent, headers, self._document(sent), patience_s)

    def _document(self, sent: Sent) -> dict[str, Any]:
        document: dict[str, Any] = {
            "model": sent.model,
            "messages": [{"role": "user", "content": "word " * self._random.randint(1, 12)}],
        }
        if sent.stream:
            document["stream"] = True
            if sent.dialect == "openai" and self._random.random() < 0.5:
                document["stream_options"] = {"include_usage": True}
        if sent.max_tokens is not None:
            document["max_tokens"] = sent.max_tokens
        return document


class Ask(NamedTuple):
    """A request, ready to be sent; its client waits no longer than `patience_s`."""

    sent: Sent
    headers: dict[str, str]
    document: dict[str, Any]
    patience_s: float | None


async def ask(session: aiohttp.ClientSession, ask: Ask, *, url: str = "") -> None:
    """Send it to the gateway at `url`, or at the session's, and note what comes back.

    Raises what aiohttp raises when the connection ends under the answer.
    """
    sent = ask.sent
    body = bytearray()
    try:
        async with asyncio.timeout(ask.patience_s):
            async with session.post(url + PATH[sent.dialect], json=ask.document, headers=ask.headers) as response:
                sent.request_id, sent.status = response.headers.get("x-request-id"), response.status
                sent.may_retry = "retry-after" in response.headers
                async for piece in response.content.iter_any():
                    body += piece
            sent.complete = True
    except TimeoutError:
        if ask.patience_s is None:
            raise
        sent.hung_up = True
    finally:
        read(sent, bytes(body))


def read(sent: Sent, body: bytes) -> None:
    """Note what the bytes say. The end of a body counts as complete only with the last bytes of its dialect in it."""
    if sent.stream and sent.status == 200:
        sent.complete = False
        for event in _events(body):
            if event in ("[DONE]", {"type": "message_stop"}):
                sent.complete = True
            elif isinstance(event, dict):
                _read_piece(sent, event)
    elif sent.complete:
        with suppress(JSONDecodeError):  # then it has neither text nor error, which the checker does not let pass
            _read_piece(sent, loads(body, parse_float=Decimal))


def _events(body: bytes) -> Iterator[Any]:
    """The data of every server-sent event that came whole."""
    for block in body.split(b"\n\n")[:-1]:
        for line in block.split(b"\n"):
            if line == b"data: [DONE]":
                yield "[DONE]"
            elif line.startswith(b"data: "):
                with suppress(JSONDecodeError):
                    yield loads(line[6:], parse_float=Decimal)


def _read_piece(sent: Sent, piece: dict[str, Any]) -> None:
    """A whole answer, or one event of it, in either dialect."""
    if error := piece.get("error"):
        sent.broken = sent.status == 200
        sent.error = error.get("code") or error.get("type")
    if sent.stream and "id" in piece:
        sent.answers.add(piece["id"])
    for choice in piece.get("choices") or ():
        said = choice.get("message") or choice.get("delta") or {}
        sent.text += said.get("content") or ""
    for block in piece.get("content") or ():
        sent.text += block.get("text", "")
    if piece.get("type") == "content_block_delta":
        sent.text += piece["delta"].get("text", "")
    if "tollgate" in piece:
        sent.cost_pusd = int(Decimal(piece["tollgate"]["cost"]).scaleb(12))
