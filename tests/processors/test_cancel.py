"""A client that goes away stops its request wherever that is: before its call, in it, or after its owner has left."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.processors.support import make_world
from tollgate.control import follow_control
from tollgate.events import CallReported, CancelRequested, Ended, Event, Request, RequestAccepted, decode, encode
from tollgate.log import Record
from tollgate.log.embedded import EmbeddedLog
from tollgate.processors.owner import Owner
from tollgate.processors.world import World
from tollgate.replies import Reply
from tollgate.topics import load_topics

PARTITION = 1
BODY = {"model": "sandbox", "messages": [{"role": "user", "content": "Hello"}]}


class Elsewhere:
    """The clients are held by another process, of which this one knows nothing."""

    def send(self, address: str, reply: Reply) -> None: ...

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
            transports={("sandbox", "main"): self.provider},
            shared=True,
            now_ms=lambda: time.time_ns() // 1_000_000,
        )

    async def owner(self, rows: Mapping[str, bytes] | None = None) -> Owner:
        owner = Owner(PARTITION, self.world)
        await owner.take_over((rows or {}).items())
        return owner

    async def accept(self, name: str) -> Record:
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
        return await self.append(RequestAccepted(request=request, body=sealed, seal=seal))

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

    async def events(self, topic: str, kind: type[Any]) -> list[Any]:
        found = [decode(record.value or b"") async for batch in self.log.scan(topic, PARTITION, 0) for record in batch]
        return [event for event in found if isinstance(event, kind)]

    async def until(self, topic: str, kind: type[Any]) -> Any:
        async with asyncio.timeout(10):
            while not (found := await self.events(topic, kind)):
                await asyncio.sleep(0.005)
        return found[0]

    async def until_called(self, times: int = 1) -> None:
        async with asyncio.timeout(10):
            while len(self.provider.called) < times:
                await asyncio.sleep(0.005)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    log = await EmbeddedLog.open(tmp_path / "log", load_topics(), durability="process")
    site = Site(log, tmp_path)
    following = asyncio.create_task(follow_control(log, site.world.control))
    yield site
    following.cancel()
    await log.close()


async def test_a_request_that_is_cancelled_while_its_admission_is_on_its_way_is_never_called(site: Site):
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"), await site.cancel("r1"))
    ended = await site.until("completions", Ended)
    assert (ended.status, ended.reason, ended.attempts) == ("cancelled", "client disconnected", ())
    assert site.provider.called == []
    await owner.close("the end")


async def test_a_call_that_was_handed_over_is_cut_at_once_when_its_client_goes_and_is_reported_once(site: Site):
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"), await site.accept("r2"))
    await site.until_called(2)
    await owner.release()
    await site.cancel("r1")  # read by nobody else: the partition has no owner now
    report = await site.until("requests", CallReported)
    assert (report.request_id, report.status, report.attempts[0].outcome) == ("r1", "cancelled", "cancelled")
    assert site.provider.cut == ["r1.1"]
    assert owner.calls == 1  # the other goes on

    heir = await site.owner()
    records = [record async for batch in site.log.scan("requests", PARTITION, 0) for record in batch]
    await site.give(heir, *records)
    ended = await site.until("completions", Ended)
    assert (ended.request.request_id, ended.status, len(ended.attempts)) == ("r1", "cancelled", 1)
    await heir.close("the end")
    owner.interrupt("the end")
    await owner.drained(10, "the end")
    assert len(await site.events("completions", Ended)) == 1


async def test_what_was_cancelled_before_the_hand_over_is_not_cancelled_again_by_it(site: Site):
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"), await site.accept("r2"), await site.cancel("r1"))
    await site.until("completions", Ended)
    await owner.release()
    await site.cancel("r2")
    report = await site.until("requests", CallReported)
    assert report.request_id == "r2"
    await owner.drained(10, "the end")
    assert await site.events("requests", CallReported) == [report]


async def test_a_client_that_goes_while_a_lost_call_is_asked_about_is_called_for_no_more(site: Site):
    owner = await site.owner()
    accepted = await site.accept("r1")
    await site.give(owner, accepted)
    await site.until_called()
    heir = await site.owner()  # the former one dies without a word
    await site.give(heir, await site.cancel("r1"))
    request = heir.open_request("r1")
    assert request is not None
    heir.resume(request, None)  # its ingress said that the client waits, an instant before it went
    ended = await site.until("completions", Ended)
    assert (ended.status, ended.reason) == ("cancelled", "client disconnected")
    assert site.provider.called == ["r1.1"]
    await heir.close("the end")
