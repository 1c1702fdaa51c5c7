"""Partitions are taken over before they are consumed, and consumed from where the owner says."""

import asyncio
import os

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tests.transports.support import PARTITIONS, WAIT_S, Place, Processor, append, read
from tollgate.errors import OutOfRange, TollgateError
from tollgate.log import Log
from tollgate.log.embedded import EmbeddedLog


async def test_an_agent_receives_every_partition_in_order(place: Place, log: Log) -> None:
    for partition in range(PARTITIONS):
        await append(log, place.requests, partition, [b"%d" % n for n in range(300)])
    async with Processor(place, log, start=lambda partition: 0) as processor:
        await append(log, place.requests, 0, [b"later"])
        await processor.until(lambda it: len(it.received) == 3 * 300 + 1)
    assert processor.offsets(0) == list(range(301))
    assert processor.offsets(1) == processor.offsets(2) == list(range(300))
    assert {event.record.value for event in processor.received} == {b"%d" % n for n in range(300)} | {b"later"}


async def test_every_partition_is_taken_over_once_before_its_first_event_and_given_up_once_at_the_stop(
    place: Place, log: Log
) -> None:
    await append(log, place.requests, 1, [b"waiting"])
    async with Processor(place, log, start=lambda partition: 0) as processor:
        await processor.app.until_ready()
        await processor.until(lambda it: it.offsets(1) == [0])
    assert sorted(processor.told("take")) == sorted(processor.told("give")) == [0, 1, 2]
    assert processor.happened.index(("take", 1)) < processor.happened.index(("event", 1, 0))
    assert all(word == "give" for word, *_ in processor.happened[-PARTITIONS:])


async def test_nothing_of_a_partition_is_received_while_its_take_over_is_under_way(place: Place, log: Log) -> None:
    for partition in range(PARTITIONS):
        await append(log, place.requests, partition, [b"waiting"] * 10)
    decided = asyncio.Event()

    async def start(partition: int) -> int:
        if partition == 1:
            await decided.wait()
        return 5

    async with Processor(place, log, start=start) as processor:
        await processor.until(lambda it: len(it.offsets(0)) == len(it.offsets(2)) == 5)
        assert processor.offsets(1) == []
        assert not processor.app.consumer.all_taken.is_set()
        decided.set()
        await processor.app.until_ready()
        await processor.until(lambda it: len(it.offsets(1)) == 5)
    assert processor.offsets(0) == processor.offsets(1) == processor.offsets(2) == [5, 6, 7, 8, 9]


async def test_a_restart_goes_on_where_the_owner_says_whatever_is_committed(place: Place, log: Log) -> None:
    """Below the committed offset, at it, above it, at the end; the committed offset follows."""
    await append(log, place.requests, 0, [b"%d" % n for n in range(20)])
    async with Processor(place, log, start=lambda partition: 0) as first:
        await first.until(lambda it: len(it.received) == 20)
    assert await place.committed(0) == 20
    for start in (12, 0, 19, 20):
        async with Processor(place, log, start=lambda partition, start=start: start if partition == 0 else 0) as again:
            await again.app.until_ready()
            await append(log, place.requests, 1, [b"mark"])
            await again.until(lambda it, start=start: len(it.offsets(0)) == 20 - start and len(it.offsets(1)) > 0)
        assert again.offsets(0) == list(range(start, 20))
        assert await place.committed(0) == 20


async def test_the_committed_offset_stays_at_the_first_event_that_is_not_acknowledged(place: Place, log: Log) -> None:
    await append(log, place.requests, 0, [b"%d" % n for n in range(10)])
    processor = Processor(place, log, start=lambda partition: 0)
    processor.handle = lambda event: None
    async with processor:
        await processor.until(lambda it: len(it.received) == 10)
        for n in (0, 1, 3, 4, 9):
            processor.received[n].ack()
    assert await place.committed(0) == 2


async def test_any_bytes_reach_the_agent_as_they_are(place: Place, log: Log) -> None:
    values = [b"", b"{", b"null", b"\xff\xfe\x00", os.urandom(5000), None, b'{"type": 1}', b"last"]
    await append(log, place.requests, 0, values)
    await log.append(place.requests, None, b"without a key", partition=0, headers=(("name", b"\xff"),))
    async with Processor(place, log, start=lambda partition: 0) as processor:
        await processor.until(lambda it: len(it.received) == len(values) + 1)
    assert [event.record.value for event in processor.received] == [*values, b"without a key"]
    assert processor.received[0].record.key == b"key"
    assert processor.received[-1].record.key is None


async def test_the_timestamp_of_an_event_is_that_of_the_log(place: Place, log: Log) -> None:
    position = await log.append(place.requests, b"key", b"value", partition=2)
    async with Processor(place, log, start=lambda partition: 0) as processor:
        await processor.until(lambda it: len(it.received) == 1)
    assert processor.received[0].record.timestamp_ms == position.timestamp_ms


async def test_a_take_over_that_fails_crashes_the_app_and_is_given_up(place: Place, log: Log) -> None:
    async def start(partition: int) -> int:
        if partition == 2:
            raise RuntimeError("the journal cannot be read")
        return 0

    async with Processor(place, log, start=start) as processor:
        with pytest.raises(RuntimeError, match="the journal cannot be read"):
            await processor.app.until_ready()
        with pytest.raises(RuntimeError, match="the journal cannot be read"):
            await processor.app.until_ended()
    assert sorted(processor.told("give")) == [0, 1, 2]


async def test_an_agent_that_raises_crashes_the_app(place: Place, log: Log) -> None:
    def careless(event: object) -> None:
        raise ValueError("not caught")

    processor = Processor(place, log, start=lambda partition: 0)
    processor.handle = careless
    async with processor:
        await processor.app.until_ready()
        await append(log, place.requests, 0, [b"x"])
        with pytest.raises(ValueError, match="not caught"):
            await asyncio.wait_for(processor.app.until_ended(), WAIT_S)


async def test_a_stop_during_a_take_over_cancels_it_and_gives_up(place: Place, log: Log) -> None:
    cancelled: list[int] = []

    async def start(partition: int) -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(partition)
            raise
        return 0

    async with Processor(place, log, start=start) as processor:
        await processor.until(lambda it: len(it.told("take")) == PARTITIONS)
    assert sorted(cancelled) == sorted(processor.told("give")) == [0, 1, 2]


async def test_a_start_that_retention_has_removed_becomes_the_oldest_offset_left(place: Place, log: Log) -> None:
    await append(log, place.requests, 0, [b"%d" % n for n in range(10)])
    await expire(place, log, before=6)
    async with Processor(place, log, start=lambda partition: 2 if partition == 0 else 0) as processor:
        await processor.until(lambda it: len(it.received) == 4)
    assert processor.offsets(0) == [6, 7, 8, 9]


async def test_a_start_beyond_the_end_crashes_the_app(place: Place, log: Log) -> None:
    """Or else whatever is appended next would be taken for handled."""
    await append(log, place.requests, 0, [b"x"])
    async with Processor(place, log, start=lambda partition: 2 if partition == 0 else 0) as processor:
        with pytest.raises(OutOfRange, match=r"from offset 2, but ends at 1"):
            await processor.app.until_ready()


async def test_an_app_without_its_changelog_crashes_at_the_start(place: Place) -> None:
    del place.topics.topics[place.changelog]
    async with place.log() as log, Processor(place, log, start=lambda partition: 0) as processor:
        with pytest.raises(TollgateError, match=place.changelog):
            await processor.app.until_ready()
    assert processor.happened == []


async def expire(place: Place, log: Log, *, before: int) -> None:
    """Have retention remove what is older than the offset `before` of partition 0."""
    if isinstance(log, EmbeddedLog):
        oldest = (await read(log, place.requests, 0))[before].timestamp_ms
        await log.maintain(now_ms=oldest + (place.topics[place.requests].retention_ms or 0))
        return
    admin = AIOKafkaAdminClient(bootstrap_servers=place.server)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(place.requests, 0): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()
