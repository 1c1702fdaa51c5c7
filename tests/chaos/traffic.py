"""A steady load of both dialects through a balancer, and how each request of it went.

Requests come at a fixed rate however long the answers take, up to `MOST_UNDER_WAY`. What is not answered as it should
be has a class, and a class has a name.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.chaos.supervisor import is_ready
from tests.crash.evidence import Key, Sent
from tests.crash.load import MIXED, Ask, Kind, Load, ask

RATE = 12.0  # requests a second
MOST_UNDER_WAY = 150
CLIENT_TIMEOUT_S = 100.0  # longer than the deadline of a request: who waits so long has been forgotten
BALANCER_POLL_S = 0.2
FALL = 3

# The kinds that end well by themselves: a failure is then the gateway's, or that of a fault
_FAILS = ("err400", "err503", "cut", "eband", "hang")
STEADY = tuple(kind for kind in MIXED if not any(word in kind.model for word in _FAILS))
REFUSED = (402, 429)  # by a limit of the key; whether with right, the checker says


@dataclass(kw_only=True)
class Asked:
    """One request of the load; times are those of the monotonic clock. `problem`: why there was no whole answer."""

    sent: Sent
    began_s: float
    ended_s: float = 0.0
    problem: str = ""

    @property
    def ok(self) -> bool:
        return self.sent.status == 200 and self.sent.complete and not self.sent.broken

    def failure(self) -> str | None:
        """The class of its failure; None where there is none, or it is the client's own doing."""
        sent = self.sent
        if self.ok or sent.hung_up or sent.status in REFUSED:
            return None
        if sent.broken:
            return f"stream {sent.error}"
        if sent.status is not None and sent.complete:
            return f"{sent.status} {sent.error}"
        return self.problem or "under way"


class Balancer:
    """Which ingresses may be asked: those that say so, looked at several times a second.

    As balancers do, it believes in trouble when it has seen it `FALL` times in a row, and asks any where none is left.
    """

    def __init__(self, urls: Sequence[str], chance: random.Random) -> None:
        self._failures = dict.fromkeys(urls, 0)
        self._chance = chance

    async def run(self) -> None:
        """For ever."""
        async with aiohttp.ClientSession() as session:
            while True:
                answers = await asyncio.gather(*(is_ready(session, url) for url in self._failures))
                for url, ready in zip(self._failures, answers, strict=True):
                    self._failures[url] = 0 if ready else self._failures[url] + 1
                await asyncio.sleep(BALANCER_POLL_S)

    def choose(self) -> list[str]:
        """In which order to try: a connection that is refused has cost nothing, so the next one may be asked."""
        urls = [url for url, failures in self._failures.items() if failures < FALL] or list(self._failures)
        return self._chance.sample(urls, len(urls))


class Traffic:
    """The load, and all that was asked so far."""

    def __init__(self, balancer: Balancer, seed: int, *, rate: float = RATE) -> None:
        self.asked: list[Asked] = []
        self.held_back = 0
        """Requests that were not sent, because too many were under way."""
        self.keys: Sequence[Key] = ()
        self._balancer = balancer
        self._load = Load(seed)
        self._chance = random.Random(seed)
        self._rate = rate
        self._under_way: set[asyncio.Task[Any]] = set()
        self._flows = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None

    @property
    def sent(self) -> Sequence[Sent]:
        return self._load.sent

    async def run(self) -> None:
        """Ask while the load flows; for ever."""
        timeout = aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as self._session:
            while True:
                await self._flows.wait()
                if len(self._under_way) < MOST_UNDER_WAY:
                    self.ask(self._chance.choice(self.keys), STEADY)
                else:
                    self.held_back += 1
                await asyncio.sleep(self._chance.expovariate(self._rate))

    def flow(self) -> None:
        self._flows.set()

    async def ebb(self) -> None:
        """Ask nothing more, and return when everything was answered or given up."""
        self._flows.clear()
        if self._under_way:
            await asyncio.wait(self._under_way)

    def ask(self, key: Key, kinds: Sequence[Kind], *, url: str | None = None, dialect: str | None = None) -> Asked:
        """One request, on its way from now on; to this ingress, or to one that the balancer chooses."""
        composed = self._load.compose(key, self._load.draw(kinds), dialect=dialect)
        asked = Asked(sent=composed.sent, began_s=time.monotonic())
        self.asked.append(asked)
        task = asyncio.create_task(self._send(asked, composed, None if url is None else [url]))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return asked

    async def _send(self, asked: Asked, composed: Ask, urls: Sequence[str] | None) -> None:
        asked.problem = "connection refused"
        try:
            for url in urls if urls is not None else self._balancer.choose():
                try:
                    await self._exchange(composed, url)
                    asked.problem = ""
                    break
                except aiohttp.ClientConnectorError:
                    asked.problem = "connection refused"
        except aiohttp.ClientError:
            asked.problem = f"connection lost{' in the answer' if asked.sent.status else ''}"
        except TimeoutError:
            asked.problem = "no answer in time"
        asked.ended_s = time.monotonic()

    async def _exchange(self, composed: Ask, url: str) -> None:
        assert self._session is not None
        await ask(self._session, composed, url=url)


async def answered(asked: Iterable[Asked], timeout_s: float) -> bool:
    """Return when each has come to its end; False when some has not in this time."""
    try:
        async with asyncio.timeout(timeout_s):
            while not all(each.ended_s for each in asked):
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True
