"""A new owner reads again what it must, and not what nothing follows from."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.processors.support import Site
from tollgate.events import IngressBeat
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
