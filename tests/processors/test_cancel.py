"""A client that goes away stops its request wherever that is: before its call, in it, or after its owner has left."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.processors.support import PARTITION, Site
from tollgate.control import follow_control
from tollgate.events import CallReported, Ended, OwnerReleased
from tollgate.log.embedded import EmbeddedLog
from tollgate.topics import load_topics


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
    ended, *_ = await site.until("completions", Ended)
    assert (ended.status, ended.reason, ended.attempts) == ("cancelled", "client disconnected", ())
    assert site.provider.called == []
    await owner.close("the end")


async def test_a_call_that_was_handed_over_is_cut_at_once_when_its_client_goes_and_is_reported_once(site: Site):
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"), await site.accept("r2"))
    await site.until_called(2)
    await owner.release()
    await site.cancel("r1")  # read by nobody else: the partition has no owner now
    report, *_ = await site.until("requests", CallReported)
    assert (report.request_id, report.status, report.attempts[0].outcome) == ("r1", "cancelled", "cancelled")
    assert site.provider.cut == ["r1.1"]
    async with asyncio.timeout(10):
        while owner.calls > 1:  # the other goes on
            await asyncio.sleep(0.005)
    assert owner.calls == 1

    heir = await site.owner()
    records = [record async for batch in site.log.scan("requests", PARTITION, 0) for record in batch]
    await site.give(heir, *records)
    ended, *_ = await site.until("completions", Ended)
    assert (ended.request.request_id, ended.status, len(ended.attempts)) == ("r1", "cancelled", 1)
    await heir.close("the end")
    owner.interrupt("the end")
    await owner.drained(10, "the end")
    assert len(await site.events("completions", Ended)) == 1


async def test_an_outcome_is_reported_when_nothing_that_was_sent_before_it_can_be_overtaken(site: Site):
    """The next owner sends the last bytes when it has read the report."""
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"))
    await site.until_called()
    await owner.release()
    arrived, asked = asyncio.Event(), []

    async def slowly(address: str | None = None) -> None:
        asked.append(address)
        await arrived.wait()

    site.world.replies.arrived = slowly  # type: ignore[method-assign]
    await site.cancel("r1")
    async with asyncio.timeout(10):
        while not asked:
            await asyncio.sleep(0.005)
    assert await site.events("requests", CallReported) == []
    arrived.set()
    await site.until("requests", CallReported)
    await owner.drained(10, "the end")


async def test_a_partition_is_handed_over_when_everybody_was_told_who_is_booked(site: Site):
    """The next owner looks only after those whose worker died before it could hand over."""
    owner = await site.owner()
    arrived = asyncio.Event()

    async def slowly(address: str | None = None) -> None:
        await arrived.wait()

    site.world.replies.arrived = slowly  # type: ignore[method-assign]
    releasing = asyncio.create_task(owner.release())
    await asyncio.sleep(0.05)
    assert await site.events("completions", OwnerReleased) == []
    arrived.set()
    await releasing
    assert len(await site.events("completions", OwnerReleased)) == 1


async def test_what_was_cancelled_before_the_hand_over_is_not_cancelled_again_by_it(site: Site):
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"), await site.accept("r2"), await site.cancel("r1"))
    await site.until("completions", Ended)
    await owner.release()
    await site.cancel("r2")
    report, *_ = await site.until("requests", CallReported)
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
    ended, *_ = await site.until("completions", Ended)
    assert (ended.status, ended.reason) == ("cancelled", "client disconnected")
    assert site.provider.called == ["r1.1"]
    await heir.close("the end")
