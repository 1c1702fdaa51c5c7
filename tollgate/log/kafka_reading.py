"""Reading from Kafka: positions asked for, ranges scanned, topics followed; outside of any group.

A patient reader waits for a broker that is away, as appends do, and goes on where it was. One that is not says so.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import CloseReason
from aiokafka.errors import KafkaError, KafkaTimeoutError, OffsetOutOfRangeError

from tollgate.errors import LogUnavailable, OutOfRange, UsageError
from tollgate.topics import Topics

from . import Record
from .kafka_clients import FETCH_WAIT_S, READ_ROWS, SCAN_BYTES, Options, new_consumer
from .kafka_fetch import LeftToTheConsumer, fetch
from .kafka_reader import Reader, out_of_range, record_of
from .reach import pause_s

SCAN_STALL_S = 60.0  # a scan that got nowhere for so long has failed

Answer = TypeVar("Answer")

log = logging.getLogger("tollgate")


class KafkaReading:
    """The reading half of a log on Kafka."""

    def __init__(self, brokers: str, topics: Topics, *, patient: bool) -> None:
        self._brokers = brokers
        self._counts = {topic.name: topic.partitions for topic in topics}
        self._patient = patient
        self._options: Options = {}
        self._asker: Any = None
        self._consumers: set[Any] = set()
        self._readers: set[Reader] = set()

    async def open_reader(self, options: Options) -> None:
        """Connect. Raises `LogUnavailable`."""
        self._options = options
        self._asker = await self._started()

    async def close_reader(self) -> None:
        await asyncio.gather(*(each.stop() for each in (*self._consumers, *self._readers, self._asker)))

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        try:
            return self._counts[topic]
        except KeyError:
            raise UsageError(f"the log has no topic '{topic}'") from None

    async def follow(self, topic: str, offsets: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        """See `Log.follow`."""
        positions = {self._source(topic, number).partition: offset for number, offset in offsets.items()}
        failures = 0
        while True:
            try:
                async with self._following(topic, positions) as reader:
                    while True:
                        number, records = await reader.read(READ_ROWS)
                        positions[number] = records[-1].offset + 1
                        failures = 0
                        yield records
            except LogUnavailable as error:
                failures += 1
                await self._pause(error, failures)

    async def scan(
        self, topic: str, partition: int, start: int, end: int | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        """See `Log.scan`."""
        source = self._source(topic, partition)
        last = await self._end(source)
        end = last if end is None else min(end, last)
        if start > last:
            raise OutOfRange(f"{topic}/{partition}: offset {start} is not in the log, which ends at {last}")
        failures = 0
        while start < end:
            try:
                async for records in self._range(source, start, end):
                    start, failures = records[-1].offset + 1, 0
                    yield records
                return
            except LogUnavailable as error:
                failures += 1
                await self._pause(error, failures)

    async def _range(self, source: TopicPartition, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
        """Read batch by batch, as far as that goes."""
        try:
            async for records in fetch(self._options, source, start, end, max_bytes=SCAN_BYTES):
                start = records[-1].offset + 1
                for first in range(0, len(records), READ_ROWS):
                    yield records[first : first + READ_ROWS]
        except LeftToTheConsumer as rest:
            async for records in self._scan(source, max(start, rest.offset), end):
                yield records
        except OffsetOutOfRangeError as error:
            raise out_of_range(error) from None
        except KafkaError as error:
            raise self._unavailable(error) from error

    async def _scan(self, source: TopicPartition, start: int, end: int) -> AsyncIterator[Sequence[Record]]:
        """Read by the consumer, record by record."""
        async with self._reading({source: start}) as consumer:
            moved_at = time.monotonic()
            # By position, for the last offsets may hold nothing: transaction markers, or what compaction took.
            while start < end:
                batches = await consumer.getmany(timeout_ms=int(FETCH_WAIT_S * 1000), max_records=READ_ROWS)
                records = [record_of(record) for record in batches.get(source, ()) if record.offset < end]
                before, start = start, await consumer.position(source)
                if start != before:
                    moved_at = time.monotonic()
                elif time.monotonic() - moved_at > SCAN_STALL_S:
                    raise LogUnavailable(f"{source.topic}/{source.partition}: nothing came after offset {start}")
                if records:
                    yield records

    async def ends(self, topic: str) -> dict[int, int]:
        """See `Log.ends`."""
        found = await self._ask(lambda asker: asker.end_offsets(self._sources(topic)))
        return {source.partition: offset for source, offset in found.items()}

    async def starts(self, topic: str) -> dict[int, int]:
        """See `Log.starts`; what compaction removed does not move the start."""
        found = await self._ask(lambda asker: asker.beginning_offsets(self._sources(topic)))
        return {source.partition: offset for source, offset in found.items()}

    async def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """See `Log.offset_at`."""
        source = self._source(topic, partition)
        times = {source: max(timestamp_ms, 0)}
        found = (await self._ask(lambda asker: asker.offsets_for_times(times)))[source]
        return await self._end(source) if found is None else int(found.offset)

    def reader(self, topic: str) -> Reader:
        """A reader of some partitions of the topic, of which more may come and others go; not started yet."""
        return Reader(AIOKafkaClient(**self._options), topic)

    async def all_answer(self) -> None:
        """Return when the leader of every partition has answered. Raises `LogUnavailable` when one does not."""
        everything = [source for topic in self._counts for source in self._sources(topic)]
        await self._ask_once(lambda asker: asker.end_offsets(everything))

    async def _end(self, source: TopicPartition) -> int:
        return int((await self._ask(lambda asker: asker.end_offsets([source])))[source])

    def _source(self, topic: str, number: int) -> TopicPartition:
        count = self.partitions(topic)
        if not 0 <= number < count:
            raise UsageError(f"'{topic}' has {count} partitions; there is no partition {number}")
        return TopicPartition(topic, number)

    def _sources(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, number) for number in range(self.partitions(topic))]

    @asynccontextmanager
    async def _reading(self, positions: Mapping[TopicPartition, int]) -> AsyncIterator[Any]:
        """A consumer at these positions."""
        consumer = await self._started()
        self._consumers.add(consumer)
        try:
            consumer.assign(list(positions))
            for source, offset in positions.items():
                consumer.seek(source, offset)
            yield consumer
        except OffsetOutOfRangeError as error:
            raise out_of_range(error) from None
        except KafkaError as error:
            raise self._unavailable(error) from error
        finally:
            self._consumers.discard(consumer)
            await consumer.stop()

    @asynccontextmanager
    async def _following(self, topic: str, positions: Mapping[int, int]) -> AsyncIterator[Reader]:
        """A reader of the topic that has begun at these positions."""
        reader = self.reader(topic)
        self._readers.add(reader)
        try:
            await reader.start()
            for number, offset in positions.items():
                reader.begin(number, offset)
            yield reader
        except KafkaError as error:
            raise self._unavailable(error) from error
        finally:
            self._readers.discard(reader)
            await reader.stop()

    async def _started(self) -> Any:
        consumer = new_consumer(self._options)
        try:
            await consumer.start()
        except BaseException as error:
            await consumer.stop()
            if isinstance(error, KafkaError):
                raise self._unavailable(error) from error
            raise
        return consumer

    async def _ask(self, question: Callable[[Any], Awaitable[Answer]]) -> Answer:
        failures = 0
        while True:
            try:
                return await self._ask_once(question)
            except LogUnavailable as error:
                failures += 1
                await self._pause(error, failures)

    async def _ask_once(self, question: Callable[[Any], Awaitable[Answer]]) -> Answer:
        asker = self._asker
        if asker is None:
            raise LogUnavailable(f"no Kafka broker has answered at {self._brokers} yet")
        try:
            return await question(asker)
        except KafkaError as error:
            if isinstance(error, KafkaTimeoutError):
                # It gives a question up, but not the connection, which may lead nowhere any more.
                for connection in list(asker._client._conns.values()):
                    connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise self._unavailable(error) from error

    async def _pause(self, error: LogUnavailable, failures: int) -> None:
        """Wait before the next try. Raises the error where waiting does not help, or nobody wants to wait."""
        if not self._patient or not _passes(error.__cause__):
            raise error
        log.debug("reading goes on when Kafka answers: %s", error)
        await asyncio.sleep(pause_s(failures, random.random()))  # noqa: S311

    def _unavailable(self, error: KafkaError) -> LogUnavailable:
        return LogUnavailable(f"Kafka at {self._brokers} does not answer: {error!r}")


def _passes(cause: BaseException | None) -> bool:
    """Does an error pass by itself? None: nothing came for a while."""
    return cause is None or isinstance(cause, KafkaTimeoutError) or bool(getattr(cause, "retriable", False))
