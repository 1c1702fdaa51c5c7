"""A new owner reads again what it must, and not what nothing follows from."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from tests.processors.support import DEFAULTS, Site, always
from tollgate.events import Ended, IngressBeat, ProbeAnswered
from tollgate.log.embedded import EmbeddedLog
from tollgate.processors.journal import MARK_EVERY_EVENTS
from tollgate.processors.owner import Owner
from tollgate.topics import load_topics


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    log = await EmbeddedLog.open(tmp_path / "log", load_topics(), durability="process")
    yield Site(log, tmp_path)
    await log.close()


class Rows(dict[str, bytes]):
    """The table of checkpoints."""

    async def write(self, rows: Mapping[str, bytes | None]) -> None:
        for key, value in rows.items():
            if value is None:
                self.pop(key, None)
            else:
                self[key] = value


async def beats(site: Site, owner: Owner, count: int) -> int:
    """Give the owner that many events from which nothing follows; returns the last one's offset."""
    for _ in range(count):
        record = await site.append(IngressBeat(address="0/ingress/1"))
        await site.give(owner, record)
    return record.offset


async def test_thousands_of_beats_are_not_read_again(site: Site):
    rows = Rows()
    owner = await site.owner()
    await owner.checkpoint(rows.write)
    last = await beats(site, owner, MARK_EVERY_EVENTS + 1)
    await owner.checkpoint(rows.write)
    heir = Owner(owner.partition, site.world)
    assert await heir.take_over(rows) == last + 1


async def test_a_few_beats_are_not_worth_a_mark(site: Site):
    rows = Rows()
    owner = await site.owner()
    await owner.checkpoint(rows.write)
    before = dict(rows)
    await beats(site, owner, 10)
    await owner.checkpoint(rows.write)
    assert rows == before


async def test_a_request_that_was_decided_and_one_that_was_not(site: Site):
    rows = Rows()
    owner = await site.owner()
    first = await site.accept("r1")
    await site.give(owner, first)
    await site.accept("r2")  # not given to it any more
    await owner.checkpoint(rows.write)
    heir = Owner(owner.partition, site.world)
    assert await heir.take_over(rows) == first.offset + 1
    await heir.close("the end")


@pytest.mark.parametrize("left", ["nothing", "the provider"])
async def test_a_plan_whose_account_was_taken_out_of_the_configuration_since_fails_and_costs_nothing_more(
    site: Site, left: str
):
    owner = await site.owner()
    await site.give(owner, await site.accept("r1"))
    await site.until_called()
    config = DEFAULTS if left == "the provider" else replace(DEFAULTS, providers={})
    heir = Owner(owner.partition, replace(site.world, setup=always(config)))
    await heir.take_over({})
    await site.give(heir, await site.append(ProbeAnswered(request_id="r1", epoch=heir.ledger.epoch, waiting=True)))
    (ended,) = await site.until("completions", Ended)
    assert (ended.status, [attempt.outcome for attempt in ended.attempts]) == ("failed", ["abandoned", "error"])
    assert ended.attempts[-1].reason.startswith("sandbox is no" if left == "nothing" else "main is no")
    assert ended.attempts[-1].lines == ()
    await heir.close("the end")
