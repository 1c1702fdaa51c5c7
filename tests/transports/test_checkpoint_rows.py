"""Rows written to the changelog come back at a take-over."""

import asyncio
from typing import Any

from tests.transports.support import Place, Processor, read
from tollgate.log import Log
from tollgate.processors.transports.checkpoint import ROWS_PER_GROUP, read_rows, write_rows

Rows = dict[str, bytes]


class Keeper(Processor):
    """Reads the rows at each take-over."""

    def __init__(self, place: Place, log: Log, **options: Any) -> None:
        self.rows: dict[int, Rows] = {}
        super().__init__(place, log, start=self._take, **options)

    async def _take(self, partition: int) -> int:
        self.rows[partition] = await read_rows(self.app.checkpoint, partition)
        return 0


async def test_what_was_written_is_taken_after_a_restart(place: Place, log: Log) -> None:
    written = {f"row {n}": b"%d" % n for n in range(3 * ROWS_PER_GROUP)}
    async with Keeper(place, log) as first:
        await first.app.until_ready()
        assert first.rows == {0: {}, 1: {}, 2: {}}
        await write_rows(first.app.checkpoint, 1, written)
        await write_rows(first.app.checkpoint, 2, {"a": b"1", "b": b"2", "c": b"3"})
        await write_rows(first.app.checkpoint, 2, {"b": None, "c": b"4", "never there": None})
    async with Keeper(place, log) as second:
        await second.app.until_ready()
    assert second.rows == {0: {}, 1: written, 2: {"a": b"1", "c": b"4"}}


async def test_rows_are_durable_in_the_order_written_when_the_call_returns(place: Place, log: Log) -> None:
    async with Keeper(place, log) as keeper:
        await keeper.app.until_ready()
        await write_rows(keeper.app.checkpoint, 0, {f"{n}": b"x" for n in range(2 * ROWS_PER_GROUP)})
        found = await read(log, place.changelog, 0)
    assert [record.key for record in found] == [b"%d" % n for n in range(2 * ROWS_PER_GROUP)]


async def test_rows_come_back_from_a_changelog_that_was_compacted(place: Place) -> None:
    async with place.log() as log, Keeper(place, log) as first:
        await first.app.until_ready()
        for version in range(30):
            await write_rows(first.app.checkpoint, 0, {f"row {n}": b"%d" % version for n in range(20)})
            await write_rows(first.app.checkpoint, 0, {"gone": b"x" if version < 29 else None})
    async with place.log() as log:
        await until_compacted(place, log, below=30 * 21 // 2)
        async with Keeper(place, log) as second:
            await second.app.until_ready()
    assert second.rows[0] == {f"row {n}": b"29" for n in range(20)}


async def test_what_is_appended_after_the_rebalance_is_read_as_well(place: Place, log: Log) -> None:
    """Another worker may still write then; Faust finds that there is more, and recovers it into nothing."""
    await append_rows(log, place, {"a": b"1", "b": b"1"})
    await append_rows(log, place, {"a": None, "b": b"2", "c": b"2"})

    class Behind:
        """The log as it was when Faust asked for its ends; once."""

        asked = False

        async def ends(self, topic: str) -> dict[int, int]:
            ends = await log.ends(topic)
            if self.asked or topic != place.changelog:
                return ends
            self.asked = True
            return {partition: min(end, 2) for partition, end in ends.items()}

        def __getattr__(self, name: str) -> Any:
            return getattr(log, name)

    keeper = Keeper(place, log)
    keeper.app.event_log = Behind()  # type: ignore[assignment]
    async with keeper:
        await keeper.app.until_ready()
    assert keeper.rows[0] == {"b": b"2", "c": b"2"}


async def test_no_row_is_read_within_the_rebalance(place: Place, log: Log) -> None:
    """On Kafka no heartbeat is sent before that is handled: however many rows there are, it must not take longer."""
    await append_rows(log, place, {"a": b"1"})
    keeper = Keeper(place, log)
    async with keeper:
        await keeper.app.until_ready()
        scans: list[str] = []

        class Watched:
            def scan(self, topic: str, *args: Any) -> Any:
                scans.append(topic)
                return log.scan(topic, *args)

            def __getattr__(self, name: str) -> Any:
                return getattr(log, name)

        keeper.app.event_log = Watched()  # type: ignore[assignment]
        store: Any = keeper.app.checkpoint.data
        await store.on_rebalance(set(), set(), set())
        assert scans == []
        assert await read_rows(keeper.app.checkpoint, 0) == {"a": b"1"}
        assert scans == [place.changelog]


async def test_thirty_thousand_rows_are_read_in_bulk(place: Place, log: Log) -> None:
    """Not event by event: none of them passes through Faust's recovery."""
    for first in range(0, 30_000, 5_000):
        await append_rows(log, place, {f"{n % 25_000}": b"%d" % n for n in range(first, first + 5_000)})
    keeper = Keeper(place, log)
    seen: list[Any] = []
    keeper.app.checkpoint.on_changelog_event = seen.append
    async with keeper:
        await keeper.app.until_ready()
    assert len(keeper.rows[0]) == 25_000
    assert keeper.rows[0]["4999"] == b"29999"
    assert seen == []


async def append_rows(log: Log, place: Place, rows: dict[str, bytes | None]) -> None:
    await asyncio.gather(*(log.append(place.changelog, k.encode(), v, partition=0) for k, v in rows.items()))


async def until_compacted(place: Place, log: Log, *, below: int) -> None:
    """The embedded log is compacted when it is opened; Kafka takes its time, and a new record to close a segment."""
    async with asyncio.timeout(60):
        while len(await read(log, place.changelog, 0)) >= below:
            assert place.server is not None
            await log.append(place.changelog, b"gone", None, partition=0)
            await asyncio.sleep(0.5)
