"""The owner of a partition, with a log of its own and nobody beside it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from tollgate.config import load_config
from tollgate.control import Control
from tollgate.events import CancelRequested, Ended, Request, RequestAccepted, decode, encode
from tollgate.keys import ADMIN
from tollgate.log.embedded import EmbeddedLog
from tollgate.prices.book import PriceBook
from tollgate.processors.owner import Owner
from tollgate.processors.setup import setup_of
from tollgate.processors.upstream.accounts import upstreams
from tollgate.processors.world import World
from tollgate.replies import Reply
from tollgate.sealed import FolderSeals, Sealer
from tollgate.secret import Secret
from tollgate.topics import load_topics

PARTITION = 1  # not the one whose owner changes keys
NOW_MS = 1_800_000_000_000
QUESTION = b'{"model": "sandbox", "messages": [{"role": "user", "content": "Hello"}]}'


class ElsewhereReplies:
    """Clients that other processes hold."""

    def send(self, address: str, reply: Reply) -> None: ...

    async def room(self, address: str, request_id: str, sent_bytes: int) -> None: ...

    async def arrived(self, address: str | None = None) -> None: ...

    def is_waiting(self, address: str, request_id: str) -> bool | None:
        return None

    def probe(self, address: str, request_id: str, *, org_id: str, epoch: int) -> bool | None:
        return None


@asynccontextmanager
async def an_owner(folder: Path) -> AsyncIterator[tuple[Owner, World]]:
    config = load_config(None, {})
    log = await EmbeddedLog.open(folder / "log", load_topics())
    async with upstreams() as ways:
        setup = setup_of(config, PriceBook.load(None), ways.reach(config))
        world = World(
            log=log,
            replies=ElsewhereReplies(),
            control=Control(),
            sealer=Sealer(Secret("a secret of this test"), FolderSeals(folder / "seals")),
            setup=lambda: setup,
            instance="test",
            address="here",
            fatal=pytest.fail,
            draw=lambda: 0.0,
            now_ms=lambda: NOW_MS,
            shared=True,
        )
        owner = Owner(PARTITION, world)
        await owner.take_over({})
        try:
            yield owner, world
        finally:
            await log.close()


def accepted(world: World) -> RequestAccepted:
    seal, body = world.sealer.seal("default", "request-1", QUESTION, NOW_MS)
    request = Request(
        request_id="request-1",
        org_id="default",
        key_id=ADMIN,
        endpoint="/v1/chat/completions",
        dialect="openai",
        model="sandbox",
        accepted_ms=NOW_MS,
        deadline_ms=NOW_MS + 60_000,
        reply_to="0/elsewhere/1",
        body_bytes=len(QUESTION),
    )
    return RequestAccepted(request=request, body=body, seal=seal)


async def ends(world: World) -> list[Ended]:
    journal = [record async for batch in world.log.scan("completions", PARTITION, 0) for record in batch]
    return [event for record in journal if isinstance(event := decode(record.value or b""), Ended)]


async def the_end(world: World) -> Ended:
    async with asyncio.timeout(10):
        while not (ended := await ends(world)):
            await asyncio.sleep(0.01)
    return ended[0]


async def test_a_cancellation_right_behind_its_request_keeps_it_from_being_called(tmp_path: Path):
    async with an_owner(tmp_path) as (owner, world):
        event = accepted(world)
        owner.receive(0, NOW_MS, encode(event), lambda: None)
        cancel = CancelRequested(request_id=event.request.request_id, reason="not acknowledged in time")
        owner.receive(1, NOW_MS, encode(cancel), lambda: None)  # the admission is not durable yet

        ended = await the_end(world)
    assert (ended.status, ended.attempts, ended.bill_pusd, ended.cost_pusd) == ("cancelled", (), 0, 0)


@pytest.mark.parametrize(
    ("void_after_ms", "status", "calls"), [(NOW_MS - 1, "rejected", 0), (NOW_MS, "completed", 1), (0, "completed", 1)]
)
async def test_what_the_log_takes_after_its_client_was_refused_is_not_called(
    tmp_path: Path, void_after_ms: int, status: str, calls: int
):
    async with an_owner(tmp_path) as (owner, world):
        event = msgspec.structs.replace(accepted(world), void_after_ms=void_after_ms)
        owner.receive(0, NOW_MS, encode(event), lambda: None)

        ended = await the_end(world)
    assert (ended.status, len(ended.attempts)) == (status, calls)
    if not calls:
        assert (ended.http_status, ended.error, ended.bill_pusd) == (503, "log_unavailable", 0)


async def test_what_nobody_cancels_is_called(tmp_path: Path):
    async with an_owner(tmp_path) as (owner, world):
        owner.receive(0, NOW_MS, encode(accepted(world)), lambda: None)

        ended = await the_end(world)
    assert (ended.status, len(ended.attempts)) == ("completed", 1)
