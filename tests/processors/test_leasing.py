"""A request that needs a share of a limit waits for it a little, in its turn, and lets everything else pass."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tests.processors.support import DEFAULTS, PARTITION, Site, always
from tollgate.config import RateLimiting
from tollgate.control import follow_control
from tollgate.events import Ended, LeaseAnswered, LeaseAsked, LeaseGranted
from tollgate.log.embedded import EmbeddedLog
from tollgate.processors.owner import SHARE_PATIENCE_S, Owner
from tollgate.topics import load_topics


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """A worker that owns one partition; whoever keeps the limit is played by the test."""
    log = await EmbeddedLog.open(tmp_path / "log", load_topics(), durability="process")
    site = Site(log, tmp_path)
    config = msgspec.structs.replace(DEFAULTS, rate_limiting=RateLimiting(global_rpm=600))
    setup = always(config, transports=site.world.setup().transports)
    site.world = msgspec.structs.replace(site.world, setup=setup)
    following = asyncio.create_task(follow_control(log, site.world.control))
    yield site
    following.cancel()
    await log.close()


async def question(site: Site) -> LeaseAsked:
    """The newest question about a share, wherever it was put."""
    async with asyncio.timeout(5):
        while True:
            for partition in range(site.log.partitions("requests")):
                found = await site.events("requests", LeaseAsked, partition=partition)
                if found:
                    newest: LeaseAsked = found[-1]
                    return newest
            await asyncio.sleep(0.005)


async def answer(site: Site, owner: Owner, asked: LeaseAsked, granted: int, **more: int) -> None:
    event = LeaseAnswered(limit=asked.limit, epoch=asked.epoch, question=asked.question, granted=granted, **more)
    await site.give(owner, await site.append(event))


async def test_a_request_without_a_share_is_decided_when_it_has_come_and_those_behind_it_in_their_order(site: Site):
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"), await site.accept("r2"))
    asked = await question(site)
    assert (asked.partition, asked.wanted, asked.per_minute) == (PARTITION, 1, 600)
    assert site.provider.called == []
    await answer(site, owner, asked, granted=2)
    await site.until_called(2)
    assert site.provider.called == ["r1.1", "r2.1"]
    await owner.close("the end")


async def test_without_an_answer_it_is_refused_in_time_and_told_to_come_again(site: Site):
    owner = await site.owner()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await site.give(owner, await site.accept("r1"), await site.accept("r2"))
    ended = await site.until("completions", Ended, times=2)
    assert loop.time() - began >= SHARE_PATIENCE_S
    assert [(event.request.request_id, event.http_status, event.error) for event in ended] == [
        ("r1", 429, "QUOTA_EXCEEDED"),
        ("r2", 429, "QUOTA_EXCEEDED"),
    ]
    await owner.close("the end")


async def test_what_is_known_to_be_exhausted_is_refused_at_once_and_not_asked_for_again(site: Site):
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"))
    asked = await question(site)
    await answer(site, owner, asked, granted=0, retry_ms=30_000)
    await site.give(owner, await site.accept("r2"))
    ended = await site.until("completions", Ended, times=2)
    assert {event.error for event in ended} == {"QUOTA_EXCEEDED"}
    assert await question(site) == asked
    await owner.close("the end")


async def test_what_came_too_late_is_refused_behind_those_that_wait(site: Site):
    owner = await site.owner()
    waiting = await site.accept("r1")
    late = await site.accept("r2", void_after_ms=1)
    await site.give(owner, waiting, late)
    ended = await site.until("completions", Ended, times=2)
    assert [(event.request.request_id, event.http_status) for event in ended] == [("r1", 429), ("r2", 503)]
    assert owner.ledger.decided == late.offset
    await owner.close("the end")


async def test_a_client_that_goes_while_its_request_waits_for_a_share_is_not_called_for(site: Site):
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"), await site.cancel("r1"))
    await answer(site, owner, await question(site), granted=1)
    ended = await site.until("completions", Ended)
    assert (ended[0].status, site.provider.called) == ("cancelled", [])
    await owner.close("the end")


async def test_what_was_asked_before_the_owner_of_a_limit_began_is_given_to_nobody(site: Site):
    question = LeaseAsked(limit="global", per_minute=600, wanted=5, partition=3, epoch=0, question=1)
    late = await site.append(question)
    await asyncio.sleep(0.01)
    owner = await site.owner()
    await site.give(owner, late)
    await site.give(owner, await site.append(question))
    granted = await site.until("completions", LeaseGranted)
    assert [event.granted for event in granted] == [5]
    await owner.close("the end")
