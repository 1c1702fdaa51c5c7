"""What every log promises. Each test runs on every adapter."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner

from tests.log.support import MAX_MESSAGE_BYTES, Open, declare, read
from tollgate.errors import LogUnavailable, OutOfRange, UsageError
from tollgate.log import Log, Record
from tollgate.log.embedded import now_ms

FOLLOW_TIMEOUT_S = 20


async def follow(log: Log, topic: str, offsets: dict[int, int], count: int) -> list[Record]:
    """The first `count` records that a follower sees."""
    seen: list[Record] = []
    async with asyncio.timeout(FOLLOW_TIMEOUT_S), contextlib.aclosing(aiter_of(log, topic, offsets)) as batches:
        async for batch in batches:
            assert len({record.partition for record in batch}) == 1
            seen += batch
            if len(seen) >= count:
                break
    return seen


async def aiter_of(log: Log, topic: str, offsets: dict[int, int]) -> AsyncGenerator[Sequence[Record], None]:
    async for batch in log.follow(topic, offsets):
        yield batch


async def test_appends_to_a_partition_land_in_the_order_of_the_calls(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    values = [b"%d" % i * (1 + i % 7 * 200) for i in range(1500)]
    positions = await asyncio.gather(*(log.append(topic, b"key", value) for value in values))
    assert [position.offset for position in positions] == list(range(1500))
    assert [record.value for record in await read(log, topic)] == values


async def test_a_record_comes_back_as_it_was_appended(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic, partitions=3))
    headers = (("type", b"x.1"), ("empty", b""), ("type", b"twice"))
    partition, offset, timestamp_ms = await log.append(topic, b"key", b"value", partition=2, headers=headers)
    assert await read(log, topic, 2) == [Record(topic, 2, 0, timestamp_ms, b"key", b"value", headers)]
    assert (partition, offset) == (2, 0)


async def test_a_tombstone_an_empty_value_and_a_missing_key_are_told_apart(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    for key, value in ((b"k", None), (b"k", b""), (None, b"v")):
        await log.append(topic, key, value)
    assert [(r.key, r.value) for r in await read(log, topic)] == [(b"k", None), (b"k", b""), (None, b"v")]


async def test_large_values_pass_among_small_ones(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    values = [b"a", b"b" * (5 << 20), b"c", b"d" * (5 << 20), b"e"]
    await asyncio.gather(*(log.append(topic, b"k", value) for value in values))
    assert [record.value for record in await read(log, topic)] == values
    assert [record.value for record in await follow(log, topic, {0: 0}, 5)] == values


async def test_keys_choose_the_partition_that_kafkas_own_clients_choose(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic, partitions=5))
    kafkas = DefaultPartitioner()
    for key in (b"", b"a", b"default", b"org-17", "größe".encode(), b"x" * 37):
        position = await log.append(topic, key, b"v")
        assert position.partition == log.partition_for(topic, key) == kafkas(key, list(range(5)), list(range(5)))
    assert (await log.append(topic, None, b"v")).partition == 0
    assert log.partitions(topic) == 5


async def test_timestamps_are_those_of_the_append_and_never_decrease(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    began_ms = now_ms()
    positions = [await log.append(topic, b"k", b"v") for _ in range(50)]
    stamps = [position.timestamp_ms for position in positions]
    assert stamps == sorted(stamps)
    assert began_ms <= stamps[0] <= stamps[-1] <= now_ms()
    assert [record.timestamp_ms for record in await read(log, topic)] == stamps


async def test_what_was_acknowledged_is_there_after_opening_again(open_log: Open, topic: str) -> None:
    topics = declare(topic)
    log = await open_log(topics)
    await log.append(topic, b"k", b"first")
    await log.close()
    log = await open_log(topics)
    assert await log.ends(topic) == {0: 1}
    assert (await log.append(topic, b"k", b"second")).offset == 1
    assert [record.value for record in await read(log, topic)] == [b"first", b"second"]


async def test_closing_waits_for_what_was_appended_and_then_refuses(open_log: Open, topic: str) -> None:
    topics = declare(topic)
    log = await open_log(topics)
    appended = [log.append(topic, b"k", b"%d" % i) for i in range(300)]
    await log.close()
    assert [(await position).offset for position in appended] == list(range(300))
    with pytest.raises(LogUnavailable, match="closed"):
        await log.append(topic, b"k", b"late")
    assert len(await read(await open_log(topics), topic)) == 300


async def test_a_caller_that_gives_up_waiting_does_not_take_its_record_back(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    asyncio.ensure_future(log.append(topic, b"k", b"nobody waits")).cancel()
    assert (await log.append(topic, b"k", b"next")).offset == 1
    assert [record.value for record in await read(log, topic)] == [b"nobody waits", b"next"]


async def test_a_follower_reads_what_is_there_and_goes_on_with_what_comes(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    for i in range(5):
        await log.append(topic, b"k", b"%d" % i)
    following = asyncio.create_task(follow(log, topic, {0: 2}, 6))
    await asyncio.sleep(0)
    for i in range(5, 8):
        await log.append(topic, b"k", b"%d" % i)
    assert [record.value for record in await following] == [b"2", b"3", b"4", b"5", b"6", b"7"]


async def test_a_follower_at_the_end_sees_only_what_comes(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic, partitions=2))
    for partition in (0, 1):
        await log.append(topic, None, b"old", partition=partition)
    following = asyncio.create_task(follow(log, topic, await log.ends(topic), 2))
    await asyncio.sleep(0)
    for partition in (0, 1):
        await log.append(topic, None, b"new", partition=partition)
    assert {(record.partition, record.value) for record in await following} == {(0, b"new"), (1, b"new")}


async def test_a_follower_keeps_up_with_many_partitions_in_their_order(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic, partitions=4))
    following = asyncio.create_task(follow(log, topic, dict.fromkeys(range(4), 0), 2000))
    for i in range(2000):
        future = log.append(topic, None, b"%d" % i, partition=i % 4)
        if i % 100 == 0:
            await future
    seen = await following
    for partition in range(4):
        assert [int(r.value or b"") for r in seen if r.partition == partition] == list(range(partition, 2000, 4))


async def test_what_a_follower_sees_another_reader_can_read(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    following = asyncio.create_task(follow(log, topic, {0: 0}, 1))
    appended = log.append(topic, b"k", b"v")
    (record,) = await following
    assert (await log.ends(topic))[0] > record.offset
    assert await read(log, topic) == [record]
    assert (await appended).offset == record.offset


async def test_a_scan_stays_within_its_bounds(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    await asyncio.gather(*(log.append(topic, b"k", b"%d" % i) for i in range(20)))
    assert [r.offset for r in await read(log, topic, start=3, end=7)] == [3, 4, 5, 6]
    assert [r.offset for r in await read(log, topic, start=18, end=99)] == [18, 19]
    assert await read(log, topic, start=5, end=5) == []
    assert await read(log, topic, start=20) == []


async def test_a_scan_without_an_end_stops_at_the_end_that_it_began_with(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    await log.append(topic, b"k", b"before")
    seen: list[Record] = []
    async for batch in log.scan(topic, 0, 0):
        seen += batch
        await log.append(topic, b"k", b"meanwhile")
    assert [record.value for record in seen] == [b"before"]


async def test_starts_and_ends_of_an_empty_log_are_equal(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic, partitions=2))
    assert await log.starts(topic) == await log.ends(topic) == {0: 0, 1: 0}
    await log.append(topic, None, b"v", partition=1)
    assert await log.starts(topic) == {0: 0, 1: 0}
    assert await log.ends(topic) == {0: 0, 1: 1}


async def test_offsets_are_found_by_time(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    positions = []
    for _ in range(8):
        position = await log.append(topic, b"k", b"v")
        positions.append(position)
        while now_ms() <= position.timestamp_ms:
            await asyncio.sleep(0.001)
    for position in positions:
        assert await log.offset_at(topic, 0, position.timestamp_ms) == position.offset
        assert await log.offset_at(topic, 0, position.timestamp_ms + 1) == position.offset + 1
    assert await log.offset_at(topic, 0, 0) == 0
    assert await log.offset_at(topic, 0, now_ms() + 86_400_000) == 8


async def test_an_offset_beyond_the_end_is_out_of_range(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    await log.append(topic, b"k", b"v")
    with pytest.raises(OutOfRange, match=topic):
        await read(log, topic, start=2)
    with pytest.raises(OutOfRange, match=topic):
        await follow(log, topic, {0: 2}, 1)


async def test_more_than_the_queue_takes_is_refused_at_once(
    open_log: Open, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await open_log(declare(topic))
    monkeypatch.setattr(sys.modules[type(log).__module__], "QUEUE_RECORDS", 10)
    taken = [asyncio.ensure_future(log.append(topic, b"k", b"taken")) for _ in range(10)]
    refused = asyncio.ensure_future(log.append(topic, b"k", b"refused"))
    assert refused.done()
    with pytest.raises(LogUnavailable, match="10 records already wait"):
        await refused
    await asyncio.gather(*taken)
    assert (await log.append(topic, b"k", b"after")).offset == 10


async def test_more_bytes_than_the_queue_takes_are_refused_at_once(
    open_log: Open, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await open_log(declare(topic))
    monkeypatch.setattr(sys.modules[type(log).__module__], "QUEUE_BYTES", 100_000)
    taken = log.append(topic, b"k", b"x" * 60_000)
    with pytest.raises(LogUnavailable):
        await log.append(topic, b"k", b"x" * 60_000)
    assert (await taken).offset == 0
    for offset in range(1, 400):
        assert (await log.append(topic, b"k", b"")).offset == offset
    assert (await log.append(topic, b"k", b"x" * 60_000)).offset == 400


async def test_a_record_larger_than_its_topic_takes_is_refused_alone(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    with pytest.raises(LogUnavailable, match=topic):
        await log.append(topic, b"k", b"x" * (MAX_MESSAGE_BYTES + 1))
    assert (await log.append(topic, b"k", b"x" * (MAX_MESSAGE_BYTES - 1000))).offset == 0


async def test_an_unknown_topic_or_partition_is_named(open_log: Open, topic: str) -> None:
    log = await open_log(declare(topic))
    with pytest.raises(UsageError, match="no topic 'other'"):
        await log.append("other", b"k", b"v")
    with pytest.raises(UsageError, match="there is no partition 1"):
        await log.append(topic, b"k", b"v", partition=1)


async def test_what_is_not_acknowledged_can_be_seen(open_log: Open, topic: str) -> None:
    log: Any = await open_log(declare(topic))
    assert log.unacknowledged() == (0, 0, 0)
    appends = [log.append(topic, b"k", b"v" * 100) for _ in range(3)]
    records, size, oldest_s = log.unacknowledged()
    assert (records, size >= 300, 0 <= oldest_s < FOLLOW_TIMEOUT_S) == (3, True, True)
    await asyncio.gather(*appends)
    assert log.unacknowledged() == (0, 0, 0)
