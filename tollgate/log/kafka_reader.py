"""The newest records of some partitions as they come, outside of any group: partitions are begun and ended meanwhile.

aiokafka's consumer prepares for groups, seeks and paused partitions with each fetch, which costs 0.5 ms where a fetch
itself costs 0.2, and a request that is alone waits for two of them. So this asks the leaders itself, by aiokafka's
client (https://kafka.apache.org/protocol#The_Messages_Fetch): one fetch at each is under way, the next one begins when
it is answered, and what it has brought is read as it lies there, like a scan.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED, PartitionRecords
from aiokafka.errors import (
    CorruptRecordException,
    IncompatibleBrokerVersion,
    KafkaError,
    LeaderNotAvailableError,
    NoError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords

from tollgate.errors import OutOfRange

from . import Record
from .kafka_clients import FETCH_WAIT_S, READ_BYTES, RETRY_PAUSE_S
from .kafka_fetch import found_of, unpack

# What was fetched and waits to be read, as it came; from here on nothing more is fetched.
WAITING_BYTES = READ_BYTES
# After what has come the next fetch waits so long, in which it is handled: asking takes as long as deciding.
READ_FIRST_S = 0.001
# Waiting mends all others: a broker says a lot while it starts, stops or has no disk.
_FINAL = (OffsetOutOfRangeError, TopicAuthorizationFailedError, CorruptRecordException, IncompatibleBrokerVersion)
_NOBODY = -1  # as the client says of a partition without a leader

log = logging.getLogger(__name__)


class _Place:
    """How far a partition was read. A partition that is begun again has a new one."""

    __slots__ = ("offset", "partition")

    def __init__(self, partition: int, offset: int) -> None:
        self.partition = partition
        self.offset = offset


class _Batch(NamedTuple):
    """Records of one place, and how many bytes they were."""

    place: _Place
    records: Sequence[Record]
    size: int


class Reader:
    """Reads partitions of one topic, each from an offset on, while more are begun and others ended.

    What is read of a partition was asked for after it was begun. Begin it with `start`, end it with `stop`.
    """

    def __init__(self, client: AIOKafkaClient, topic: str) -> None:
        self._client: Any = client
        self._topic = topic
        self._places: dict[int, _Place] = {}
        self._read: deque[_Batch] = deque()
        self._fetches: dict[int, asyncio.Task[None]] = {}  # by leader
        self._failed: Exception | None = None
        self._news = asyncio.Event()
        self._turn = 0

    async def start(self) -> None:
        """Connect. Raises aiokafka's `KafkaError`."""
        await self._client.bootstrap()
        await self._client.set_topics([self._topic])

    async def stop(self) -> None:
        for fetch in self._fetches.values():
            fetch.cancel()
        await asyncio.gather(*self._fetches.values(), return_exceptions=True)
        await self._client.close()

    def begin(self, partition: int, offset: int) -> None:
        """Read the partition from the offset on."""
        self.end({partition})
        self._places[partition] = _Place(partition, offset)
        self._news.set()

    def end(self, partitions: set[int]) -> None:
        """Read them no more; what was read and not given out yet is dropped."""
        if not partitions.isdisjoint(self._places):
            for partition in partitions:
                self._places.pop(partition, None)
            self._read = deque(batch for batch in self._read if self._counts(batch.place))

    async def read(self, max_records: int) -> tuple[int, Sequence[Record]]:
        """The next records of some partition, in order. An outage is waited for.

        Raises `OutOfRange` when retention was faster than this, and `KafkaError` when waiting will not help.
        """
        while not self._read:
            self._news.clear()
            self._fetch()
            await self._news.wait()
            if self._failed is not None:
                failed, self._failed = self._failed, None
                raise out_of_range(failed) if isinstance(failed, OffsetOutOfRangeError) else failed
        place, records, size = self._read.popleft()
        if len(records) > max_records:
            self._read.appendleft(_Batch(place, records[max_records:], size))
            records = records[:max_records]
        self._fetch()
        return place.partition, records

    def _counts(self, place: _Place) -> bool:
        return self._places.get(place.partition) is place

    def _fetch(self) -> None:
        """Have a fetch under way at each leader of a partition, unless enough waits to be read."""
        if sum([batch.size for batch in self._read]) >= WAITING_BYTES:
            return
        wanted: dict[int, list[_Place]] = {}
        for place in self._places.values():
            leader = self._client.cluster.leader_for_partition(TopicPartition(self._topic, place.partition))
            wanted.setdefault(_NOBODY if leader is None else leader, []).append(place)
        for leader, places in wanted.items():
            if leader not in self._fetches:
                fetch = asyncio.get_running_loop().create_task(self._fetch_from(leader, places))
                self._fetches[leader] = fetch

    async def _fetch_from(self, leader: int, places: Sequence[_Place]) -> None:
        """Ask one leader for what comes next, and again when that has been answered."""
        try:
            if await self._ask(leader, places):
                await asyncio.sleep(READ_FIRST_S)
        except Exception as error:  # whatever it is: a reader that has stopped would wait for ever
            if isinstance(error, _FINAL) or not isinstance(error, KafkaError):
                self._failed = error
            else:
                level = logging.DEBUG if error.retriable else logging.WARNING
                log.log(level, "a fetch of '%s' from broker %d failed: %r", self._topic, leader, error)
                if error.invalid_metadata:
                    await self._client.force_metadata_update()
                await asyncio.sleep(RETRY_PAUSE_S)
        finally:
            del self._fetches[leader]
        self._news.set()
        if self._failed is None:
            self._fetch()

    async def _ask(self, leader: int, places: Sequence[_Place]) -> bool:
        """Has anything come?"""
        if leader == _NOBODY:
            raise LeaderNotAvailableError(f"partitions of '{self._topic}' have no leader")
        # A broker fills its answer in this order, up to the limit: so each partition is the first at times.
        self._turn = (self._turn + 1) % len(places)
        places = [*places[self._turn :], *places[: self._turn]]
        asked = [(place.partition, place.offset, READ_BYTES) for place in places]
        request = FetchRequest(int(FETCH_WAIT_S * 1000), 1, READ_BYTES, READ_COMMITTED, [(self._topic, asked)])
        answer = await self._client.send(leader, request)
        by_partition = {place.partition: place for place in places}
        refused: KafkaError | None = None
        brought = False
        for _, partitions in answer.topics:
            for partition, code, _, *rest in partitions:
                place = by_partition[partition]
                if not self._counts(place):
                    continue  # ended meanwhile, or begun again
                error = for_code(code)
                if error is not NoError:
                    source = TopicPartition(self._topic, partition)
                    refused = error({source: place.offset}) if error is OffsetOutOfRangeError else error(source)
                    continue
                data, aborted = found_of(answer.API_VERSION, rest)
                if data:
                    brought |= self._take(place, data, aborted)
        if refused is not None:
            raise refused
        return brought

    def _take(self, place: _Place, data: bytes, aborted: Any) -> bool:
        source = TopicPartition(self._topic, place.partition)
        if aborted:
            records, place.offset = _committed(data, aborted, source, place.offset)
        else:
            records, place.offset = unpack(data, source, place.offset)
        if records:
            self._read.append(_Batch(place, records, len(data)))
            self._news.set()
        return bool(records)


def _committed(data: bytes, aborted: Any, source: TopicPartition, start: int) -> tuple[list[Record], int]:
    """As `unpack`, without what belongs to transactions that were aborted: nobody here writes any."""
    found = PartitionRecords(source, MemoryRecords(data), aborted, start, None, None, True, READ_COMMITTED)
    return [record_of(record) for record in found], found.next_fetch_offset


def record_of(record: Any) -> Record:
    return Record(
        record.topic, record.partition, record.offset, record.timestamp, record.key, record.value, record.headers
    )


def out_of_range(error: OffsetOutOfRangeError) -> OutOfRange:
    where = ", ".join(f"{source.topic}/{source.partition}: {at}" for source, at in error.args[0].items())
    return OutOfRange(f"offsets that are not in the log: {where}")
