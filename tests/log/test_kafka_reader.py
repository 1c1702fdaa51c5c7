"""A reader whose partitions come and go reads each from where it was begun, and nothing of before."""

import asyncio
from collections import defaultdict, deque
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import (
    KafkaConnectionError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownError,
)
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from tollgate.errors import OutOfRange
from tollgate.log import kafka_reader
from tollgate.log.kafka_reader import Reader


class FakeClient:
    """Answers each fetch with what the test says next: records or an error by partition. Until then, nothing."""

    def __init__(self) -> None:
        self.leaders: dict[int, int] = defaultdict(lambda: 1)
        self.cluster = SimpleNamespace(leader_for_partition=lambda source: self.leaders[source.partition])
        self.answers: dict[int, deque[Any]] = defaultdict(deque)
        self.asked: list[tuple[int, dict[int, int]]] = []
        self.updates = 0
        self.meanwhile: Any = None

    async def force_metadata_update(self) -> None:
        self.updates += 1

    async def send(self, leader: int, request: Any) -> Any:
        [(_, partitions)] = request._topics
        self.asked.append((leader, {partition: offset for partition, offset, _ in partitions}))
        while not self.answers[leader]:
            await asyncio.sleep(0)
        answer = self.answers[leader].popleft()
        if isinstance(answer, Exception):
            raise answer
        if self.meanwhile is not None:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        told = [
            (partition, *((what.errno, 0, 0, 0, [], -1, b"") if isinstance(what, type) else (0, 9, 9, 0, [], -1, what)))
            for partition, what in answer.items()
        ]
        return SimpleNamespace(topics=[("t", told)], API_VERSION=11)


def batch(*offsets: int, transaction_of: int | None = None) -> bytes:
    builder = DefaultRecordBatchBuilder(2, 0, transaction_of is not None, transaction_of or -1, 0, 0, 1 << 16)
    for offset in offsets:
        builder.append(offset - offsets[0], 1, b"", b"", [])
    data = bytearray(builder.build())
    data[:8] = offsets[0].to_bytes(8, "big")
    return bytes(data)


async def read(reader: Reader, max_records: int = 100) -> tuple[int, list[int]]:
    async with asyncio.timeout(5):
        partition, records = await reader.read(max_records)
    return partition, [record.offset for record in records]


def begun(client: FakeClient, *partitions: int) -> Reader:
    reader = Reader(client, "t")  # type: ignore[arg-type]
    for partition in partitions:
        reader.begin(partition, 0)
    return reader


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_reader, "RETRY_PAUSE_S", 0.0)


async def test_what_a_fetch_brings_of_several_partitions_is_given_out_one_by_one():
    client = FakeClient()
    reader = Reader(client, "t")  # type: ignore[arg-type]
    reader.begin(0, 5)
    reader.begin(1, 7)
    client.answers[1].append({0: batch(5, 6), 1: batch(9)})
    assert [await read(reader), await read(reader)] == [(0, [5, 6]), (1, [9])]
    await asyncio.sleep(0.01)
    assert client.asked == [(1, {1: 7, 0: 5}), (1, {0: 7, 1: 10})]


async def test_the_next_fetch_is_under_way_before_the_records_are_read():
    client = FakeClient()
    reader = begun(client, 0)
    client.answers[1] += [{0: batch(0)}, {0: batch(1, 2)}]
    assert await read(reader) == (0, [0])
    await asyncio.sleep(0.01)
    assert client.asked[-1] == (1, {0: 3})
    assert await read(reader) == (0, [1, 2])


async def test_no_more_is_fetched_than_may_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kafka_reader, "WAITING_BYTES", 3 * len(batch(0)))
    client = FakeClient()
    reader = begun(client, 0)
    client.answers[1] += [{0: batch(offset)} for offset in range(20)]
    assert await read(reader) == (0, [0])
    await asyncio.sleep(0.02)
    assert len(client.asked) == 4
    assert [await read(reader) for _ in range(19)] == [(0, [offset]) for offset in range(1, 20)]


async def test_more_than_is_wanted_is_given_out_in_parts():
    client = FakeClient()
    reader = begun(client, 0)
    client.answers[1].append({0: batch(0, 1, 2)})
    assert [await read(reader, 2), await read(reader, 2)] == [(0, [0, 1]), (0, [2])]


async def test_what_was_read_of_a_partition_is_dropped_when_it_is_ended_or_begun_again():
    client = FakeClient()
    reader = begun(client, 0, 1, 2)
    client.answers[1].append({2: batch(0), 0: batch(0, 1), 1: batch(0)})
    assert await read(reader) == (2, [0])
    reader.end({0})
    reader.begin(1, 4)
    client.answers[1] += [{}, {1: batch(4)}]  # the first answers the fetch of before the change
    assert await read(reader) == (1, [4])
    assert client.asked[2] == (1, {2: 1, 1: 4})


async def test_what_a_fetch_brings_of_a_partition_that_was_begun_again_meanwhile_is_dropped():
    client = FakeClient()
    reader = begun(client, 0, 1)
    client.answers[1] += [{0: batch(0, 1), 1: batch(0)}, {0: batch(7)}]
    client.meanwhile = lambda: reader.begin(0, 7)
    assert [await read(reader), await read(reader)] == [(1, [0]), (0, [7])]


async def test_without_partitions_it_waits():
    reading = asyncio.create_task(begun(FakeClient()).read(1))
    await asyncio.sleep(0.01)
    assert not reading.done()
    reading.cancel()


async def test_each_leader_is_asked_for_its_own_and_none_waits_for_another():
    client = FakeClient()
    client.leaders |= {0: 1, 1: 2}
    reader = begun(client, 0, 1)
    client.answers[2] += [{1: batch(0)}, {1: batch(1)}]
    assert [await read(reader), await read(reader)] == [(1, [0]), (1, [1])]
    assert client.asked[:2] == [(1, {0: 0}), (2, {1: 0})]


async def test_each_partition_is_the_first_at_times():
    """A broker fills its answer in the order of the question, until it is full."""
    client = FakeClient()
    reader = begun(client, 0, 1, 2)
    client.answers[1] += [{0: batch(offset)} for offset in range(3)]
    for _ in range(3):
        await read(reader)
    assert {next(iter(asked)) for _, asked in client.asked[:3]} == {0, 1, 2}


@pytest.mark.parametrize(
    "refusal",
    [{0: NotLeaderForPartitionError}, KafkaConnectionError("gone"), RequestTimedOutError(), {0: UnknownError}],
    ids=["the leader has moved", "the connection is gone", "no answer came", "the broker has some error"],
)
async def test_an_outage_is_waited_for(refusal: Any):
    client = FakeClient()
    reader = begun(client, 0)
    client.answers[1] += [refusal, {0: batch(0)}]
    assert await read(reader) == (0, [0])


async def test_a_partition_without_a_leader_is_asked_for_when_it_has_one():
    client = FakeClient()
    client.leaders[0] = -1
    reader = begun(client, 0)
    reading = asyncio.create_task(read(reader))
    await asyncio.sleep(0.01)
    assert not client.asked
    assert client.updates
    client.answers[3].append({0: batch(0)})
    client.leaders[0] = 3
    assert await reading == (0, [0])


async def test_what_the_other_partitions_brought_does_not_wait_for_one_that_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kafka_reader, "RETRY_PAUSE_S", 60.0)
    client = FakeClient()
    reader = begun(client, 0, 1)
    client.answers[1].append({0: NotLeaderForPartitionError, 1: batch(0)})
    assert await read(reader) == (1, [0])


@pytest.mark.parametrize(
    ("error", "raised", "words"),
    [
        (OffsetOutOfRangeError, OutOfRange, "t/0: 0"),
        (TopicAuthorizationFailedError, TopicAuthorizationFailedError, "TopicPartition"),
    ],
)
async def test_what_waiting_cannot_mend_is_raised(error: Any, raised: type[Exception], words: str):
    client = FakeClient()
    reader = begun(client, 0)
    client.answers[1].append({0: error})
    with pytest.raises(raised, match=words):
        await read(reader)


async def test_an_answer_that_cannot_be_read_is_raised_and_not_waited_for():
    client = FakeClient()
    reader = begun(client, 0)
    client.answers[1].append(ValueError("no such field"))
    with pytest.raises(ValueError, match="no such field"):
        await read(reader)


def test_what_belongs_to_a_transaction_that_was_aborted_is_left_out():
    data = batch(0, 1, transaction_of=7) + batch(2) + batch(3, transaction_of=8)
    records, following = kafka_reader._committed(data, [(7, 0)], TopicPartition("t", 0), 0)
    assert ([record.offset for record in records], following) == ([2, 3], 4)
