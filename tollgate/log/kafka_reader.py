"""Reading Kafka outside of any group: its records as ours, and a reader whose partitions come and go."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from tollgate.errors import OutOfRange

from . import Record
from .kafka_clients import FETCH_WAIT_S


class Reader:
    """Reads partitions of one topic, each from an offset on, while more are begun and others ended.

    What is read of a partition is never of a time before it was begun. Begin it with `start`, end it with `stop`.
    """

    def __init__(self, consumer: Any, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic
        self._next: dict[int, int] = {}  # by partition: the offset after what was read
        self._read: deque[tuple[int, Sequence[Record]]] = deque()
        self._changes = 0
        self._begun = asyncio.Event()

    async def start(self) -> None:
        await self._consumer.start()

    async def stop(self) -> None:
        await self._consumer.stop()

    def begin(self, partition: int, offset: int) -> None:
        """Read the partition from the offset on."""
        self.end({partition})
        self._next[partition] = offset
        self._assign()

    def end(self, partitions: set[int]) -> None:
        """Read them no more; what was read and not given out yet is dropped."""
        if partitions.isdisjoint(self._next):
            return
        for partition in partitions:
            self._next.pop(partition, None)
        self._read = deque(batch for batch in self._read if batch[0] not in partitions)
        self._assign()

    async def read(self, max_records: int) -> tuple[int, Sequence[Record]]:
        """The next records of some partition, in order. Raises `OutOfRange` when retention was faster than this."""
        while not self._read:
            await self._begun.wait()
            changes = self._changes
            try:
                found = await self._consumer.getmany(timeout_ms=int(FETCH_WAIT_S * 1000), max_records=max_records)
            except OffsetOutOfRangeError as error:
                raise out_of_range(error) from None
            if changes != self._changes:
                self._seek()  # it may be of a time before the change, or after it: it is read again
                continue
            for source, records in found.items():
                self._next[source.partition] = records[-1].offset + 1
                self._read.append((source.partition, [record_of(record) for record in records]))
        return self._read.popleft()

    def _assign(self) -> None:
        self._changes += 1
        self._consumer.assign([TopicPartition(self._topic, partition) for partition in self._next])
        self._seek()
        if self._next:
            self._begun.set()
        else:
            self._begun.clear()

    def _seek(self) -> None:
        for partition, offset in self._next.items():
            self._consumer.seek(TopicPartition(self._topic, partition), offset)


def record_of(record: Any) -> Record:
    return Record(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )


def out_of_range(error: OffsetOutOfRangeError) -> OutOfRange:
    where = ", ".join(f"{source.topic}/{source.partition}: {at}" for source, at in error.args[0].items())
    return OutOfRange(f"offsets that are not in the log: {where}")
