"""A reader whose partitions come and go reads each from where it was begun, and nothing of before."""

import asyncio
from collections import deque
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from tollgate.log.kafka_reader import Reader


class FakeConsumer:
    """Answers what the test says, at positions that the reader sets."""

    def __init__(self) -> None:
        self.at: dict[int, int] = {}
        self.answers: deque[dict[int, list[int]]] = deque()
        self.meanwhile: Any = None

    def assign(self, sources: list[TopicPartition]) -> None:
        self.at = {source.partition: -1 for source in sources}

    def seek(self, source: TopicPartition, offset: int) -> None:
        self.at[source.partition] = offset

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[Any]]:
        found = self.answers.popleft()
        for partition, offsets in found.items():
            self.at[partition] = offsets[-1] + 1
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        return {
            TopicPartition("t", partition): [record(partition, offset) for offset in offsets]
            for partition, offsets in found.items()
        }


def record(partition: int, offset: int) -> Any:
    return SimpleNamespace(topic="t", partition=partition, offset=offset, timestamp=1, key=b"", value=b"", headers=())


async def read(reader: Reader) -> tuple[int, list[int]]:
    async with asyncio.timeout(5):
        partition, records = await reader.read(100)
    return partition, [record.offset for record in records]


async def test_what_a_read_brings_of_several_partitions_is_given_out_one_by_one():
    consumer = FakeConsumer()
    reader = Reader(consumer, "t")
    reader.begin(0, 5)
    reader.begin(1, 7)
    assert consumer.at == {0: 5, 1: 7}
    consumer.answers.append({0: [5, 6], 1: [9]})
    assert [await read(reader), await read(reader)] == [(0, [5, 6]), (1, [9])]


async def test_what_was_read_of_a_partition_is_dropped_when_it_is_ended_or_begun_again():
    consumer = FakeConsumer()
    reader = Reader(consumer, "t")
    for partition in (0, 1, 2):
        reader.begin(partition, 0)
    consumer.answers.append({2: [0], 0: [0, 1], 1: [0]})
    assert await read(reader) == (2, [0])
    reader.end({0})
    reader.begin(1, 4)
    assert consumer.at == {1: 4, 2: 1}
    consumer.answers.append({1: [4]})
    assert await read(reader) == (1, [4])


async def test_a_fetch_that_a_change_has_overtaken_is_made_again_from_where_it_began():
    """It may have been answered by the former assignment or by the present one."""
    consumer = FakeConsumer()
    reader = Reader(consumer, "t")
    reader.begin(0, 3)
    consumer.answers += [{0: [3, 4]}, {0: [3, 4], 1: [8]}]
    consumer.meanwhile = lambda: (reader.begin(1, 8), consumer.at.update({0: 5, 1: 9}))
    assert await read(reader) == (0, [3, 4])
    assert await read(reader) == (1, [8])


async def test_without_partitions_it_waits():
    reader = Reader(FakeConsumer(), "t")
    reading = asyncio.create_task(reader.read(1))
    await asyncio.sleep(0.01)
    assert not reading.done()
    reading.cancel()
