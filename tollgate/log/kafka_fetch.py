"""One partition read from end to end: whole batches, each unpacked once, the next one on its way meanwhile.

aiokafka's consumer makes an object with eleven fields of every record, which costs four times what reading it does;
for following the end that does not matter, for reading a million it does. Sent by aiokafka's client, in Kafka's
protocol (https://kafka.apache.org/protocol#The_Messages_Fetch); what this does not read is left to the consumer.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import CorruptRecordException, KafkaError, NodeNotReadyError, OffsetOutOfRangeError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from tollgate.errors import LogUnavailable

from . import Record

READ_COMMITTED = 1
WAIT_MS = 500  # how long a fetch that finds nothing may take
RETRY_S = 0.1
STALL_S = 60.0  # without getting on, before it is given up

# What `Record(...)` does, without a function of Python's in between: that is a fifth of unpacking.
_new_record = tuple.__new__


class LeftToTheConsumer(Exception):
    """From `offset` on there is something that only the consumer can read: parts of transactions that were aborted."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


async def fetch(
    options: Mapping[str, Any], source: TopicPartition, start: int, end: int, *, max_bytes: int
) -> AsyncIterator[Sequence[Record]]:
    """Yield the records of `[start, end)`, those of a fetch together; `end` is at most the partition's.

    Raises aiokafka's `KafkaError`, `LogUnavailable` when nothing comes, and `LeftToTheConsumer`.
    """
    client = AIOKafkaClient(**options)
    following: asyncio.Task[Any] | None = None
    try:
        await client.bootstrap()
        await client.set_topics([source.topic])
        following = asyncio.create_task(_ask(client, source, start, max_bytes))
        while True:
            data, aborted = await following
            if aborted:
                raise LeftToTheConsumer(start)
            # Positions, not records: the last offsets may hold nothing.
            before = start
            records, start = unpack(data, source, start, end)
            if start == before:  # not even one whole batch: older brokers cut one that is too large
                raise LeftToTheConsumer(start)
            if start < end:
                following = asyncio.create_task(_ask(client, source, start, max_bytes))
            if records:
                yield records
            if start >= end:
                return
    finally:
        if following is not None:
            following.cancel()
            with suppress(asyncio.CancelledError, KafkaError, LogUnavailable):
                await following
        await client.close()


async def _ask(client: Any, source: TopicPartition, offset: int, max_bytes: int) -> tuple[bytes, Any]:
    """What lies at `offset` and behind it, as the broker keeps it, and which transactions in it were aborted."""
    deadline = monotonic() + STALL_S
    while True:
        try:
            data, aborted = await _ask_once(client, source, offset, max_bytes)
            if data:
                return data, aborted
        except KafkaError as error:
            if not error.retriable or monotonic() > deadline:
                raise
            if error.invalid_metadata:
                await client.force_metadata_update()
        if monotonic() > deadline:
            raise LogUnavailable(f"{source.topic}/{source.partition}: nothing came after offset {offset}")
        await asyncio.sleep(RETRY_S)


async def _ask_once(client: Any, source: TopicPartition, offset: int, max_bytes: int) -> tuple[bytes, Any]:
    leader = client.cluster.leader_for_partition(source)
    if leader is None or leader == -1:
        await client.force_metadata_update()
        raise NodeNotReadyError(f"{source.topic}/{source.partition} has no leader")
    wanted = [(source.topic, [(source.partition, offset, max_bytes)])]
    answer = await client.send(leader, FetchRequest(WAIT_MS, 1, max_bytes, READ_COMMITTED, wanted))
    [(_, [(_, code, _, *rest)])] = answer.topics
    error = for_code(code)
    if error is OffsetOutOfRangeError:
        raise OffsetOutOfRangeError({source: offset})
    if code != 0:
        raise error(source)
    return found_of(answer.API_VERSION, rest)


def found_of(version: int, rest: Sequence[Any]) -> tuple[bytes, Any]:
    """The records and the aborted transactions in what an answer says of a partition behind its high watermark."""
    # From version 11 on a preferred replica stands between the aborted transactions and the records.
    return rest[-1], rest[2] if version >= 11 else rest[-2]


def unpack(data: bytes, source: TopicPartition, start: int, end: int = sys.maxsize) -> tuple[list[Record], int]:
    """The records of `[start, end)` in whole batches, and the offset that comes after what was looked at. Pure.

    Raises aiokafka's `CorruptRecordException`.
    """
    topic, partition = source.topic, source.partition
    found: list[Record] = []
    batches = MemoryRecords(data)
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {source}")
        if not batch.is_control_batch:
            records = [
                _new_record(
                    Record,
                    (topic, partition, each.offset, each.timestamp, each.key, each.value, tuple(each.headers)),
                )
                for each in batch
            ]
            if records and (records[0].offset < start or records[-1].offset >= end):
                records = [record for record in records if start <= record.offset < end]
            found += records
        start = max(start, batch.next_offset)
    return found, start
