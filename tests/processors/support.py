"""What the tests of the processors share."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tollgate.config import Config, load_config
from tollgate.control import Control
from tollgate.events import CancelRequested, Event, Request, RequestAccepted, decode, encode
from tollgate.log import Log, Record
from tollgate.log.embedded import EmbeddedLog
from tollgate.prices.book import PriceBook
from tollgate.processors.owner import Owner
from tollgate.processors.setup import Setup, setup_of
from tollgate.processors.world import World
from tollgate.replies import LocalReplies, Reply
from tollgate.sealed import FolderSeals, Sealer
from tollgate.secret import Secret

NOW_MS = 1_795_000_000_000
PARTITION = 1
BODY = {"model": "sandbox", "messages": [{"role": "user", "content": "Hello"}]}
BOOK = PriceBook.load(None)
DEFAULTS = load_config(None, {})


def always(
    config: Config = DEFAULTS, *, transports: Mapping[tuple[str, str], Any] | None = None, book: PriceBook = BOOK
) -> Callable[[], Setup]:
    """A setup that stays in force."""
    setup = setup_of(config, book, transports or {})
    return lambda: setup


def make_world(log: Log, folder: Path, **given: Any) -> World:
    """The surroundings of one process on this log; what is not given is what a process alone would have."""
    facts: dict[str, Any] = {
        "log": log,
        "replies": LocalReplies("here"),
        "control": Control(),
        "sealer": Sealer(Secret("s" * 32), FolderSeals(folder / "seals")),
        "setup": always(),
        "instance": "here",
        "address": "here",
        "fatal": pytest.fail,
        "draw": lambda: 0.0,
        "now_ms": lambda: NOW_MS,
    }
    return World(**facts | given)


class Elsewhere:
    """The clients are held by another process, of which this one knows nothing."""

    def send(self, address: str, reply: Reply) -> None: ...

    async def room(self, address: str, request_id: str, sent_bytes: int) -> None: ...

    async def arrived(self, address: str | None = None) -> None: ...

    def is_waiting(self, address: str, request_id: str) -> bool | None:
        return None

    def probe(self, address: str, request_id: str, *, org_id: str, epoch: int) -> bool | None:
        return None


class SlowProvider:
    """Takes calls, and never answers."""

    def __init__(self) -> None:
        self.called: list[str] = []
        self.cut: list[str] = []

    @asynccontextmanager
    async def send(self, request: Any, *, request_id: str) -> AsyncIterator[Any]:
        self.called.append(request_id)
        try:
            await asyncio.sleep(3600)
            yield None
        finally:
            self.cut.append(request_id)


class Site:
    """One worker on a log that others use as well."""

    def __init__(self, log: EmbeddedLog, folder: Path) -> None:
        self.log = log
        self.provider = SlowProvider()
        self.world: World = make_world(
            log,
            folder,
            replies=Elsewhere(),
            setup=always(transports={("sandbox", "main"): self.provider}),
            shared=True,
            now_ms=lambda: time.time_ns() // 1_000_000,
        )

    async def owner(self, rows: Mapping[str, bytes] | None = None) -> Owner:
        owner = Owner(PARTITION, self.world)
        await owner.take_over(rows or {})
        return owner

    async def accept(self, name: str, *, void_after_ms: int = 0) -> Record:
        now_ms = self.world.now_ms()
        raw = orjson.dumps(BODY)
        await self.world.sealer.prepare("acme", now_ms)
        seal, sealed = self.world.sealer.seal("acme", name, raw, now_ms)
        request = Request(
            request_id=name,
            org_id="acme",
            key_id="admin",
            endpoint="/v1/chat/completions",
            dialect="openai",
            model="sandbox",
            accepted_ms=now_ms,
            deadline_ms=now_ms + 60_000,
            reply_to="0/ingress/1",
        )
        event = RequestAccepted(request=request, body=sealed, seal=seal, void_after_ms=void_after_ms)
        return await self.append(event)

    async def append(self, event: Event) -> Record:
        position = await self.log.append("requests", None, encode(event), partition=PARTITION)
        return Record("requests", PARTITION, position.offset, position.timestamp_ms, None, encode(event))

    async def cancel(self, name: str) -> Record:
        return await self.append(CancelRequested(request_id=name, reason="client disconnected"))

    async def give(self, owner: Owner, *records: Record) -> None:
        for record in records:
            waiting = owner.receive(record.offset, record.timestamp_ms, record.value or b"", lambda: None)
            if waiting is not None:
                await waiting

    async def events(self, topic: str, kind: type[Any], *, partition: int = PARTITION) -> list[Any]:
        found = [decode(record.value or b"") async for batch in self.log.scan(topic, partition, 0) for record in batch]
        return [event for event in found if isinstance(event, kind)]

    async def until(self, topic: str, kind: type[Any], *, times: int = 1) -> list[Any]:
        """Events of the kind, once there are so many of them."""
        async with asyncio.timeout(10):
            while len(found := await self.events(topic, kind)) < times:
                await asyncio.sleep(0.005)
        return found

    async def until_called(self, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while len(self.provider.called) < times:
                await asyncio.sleep(0.005)
