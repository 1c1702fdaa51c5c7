"""The log on Kafka, by aiokafka: idempotent, acknowledged by all in-sync replicas, one batch under way per partition.

Records are put into their partition's batch when `append` is called, so their order is fixed then. While a batch
is under way the next one gathers. Timestamps are the broker's (`message.timestamp.type: LogAppendTime`).
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from tollgate.errors import (
    AppendUnknown,
    ConfigError,
    LogError,
    LogUnavailable,
    OutOfRange,
    UsageError,
)
from tollgate.topics import Topics

from . import Headers, Position, Record, Unacknowledged
from .kafka_access import Access, check_access
from .kafka_election import Election, standing
from .kafka_fetch import LeftToTheConsumer, fetch
from .kafka_reader import FETCH_WAIT_S, READ_BYTES, Reader, new_consumer, out_of_range, record_of
from .kafka_security import Security
from .partitioner import partition_of

# What may wait for acknowledgement; beyond it an append is refused. All of it fits into one request to the broker,
# which takes 100 MiB (socket.request.max.bytes).
QUEUE_RECORDS = 16_384
QUEUE_BYTES = 64 << 20
# A batch takes further records up to here; a larger record has a batch of its own.
BATCH_BYTES = 256 << 10
# What the broker's limit on a batch counts beyond key, value and headers of its one record, at most.
BATCH_OVERHEAD = 160
# One read.
READ_ROWS = 1_000

CONNECT_TIMEOUT_S = 30.0
REQUEST_TIMEOUT_S = 15.0
# aiokafka repeats an idempotent request for ever. Two requests' time outlasts the election of a new leader.
APPEND_TIMEOUT_S = 30.0
WATCH_EVERY_S = 1.0
# How long a record that may linger waits for one that may not.
LINGER_S = 0.05
CLOSE_TIMEOUT_S = 10.0
# A scan gives up when it got nowhere for so long.
SCAN_STALL_S = 60.0

_RECORD_OVERHEAD = 300

Answer = TypeVar("Answer")


IMPORT_TOPIC = "tollgate-import-"  # and what tells the archive: there as long as history is being imported
ELECTION_TOPIC = "control"  # it has one partition, as an election must; nothing is read of it


@dataclass(slots=True)
class _Batch:
    builder: Any
    since: float
    size: int = 0
    futures: list["asyncio.Future[Position]"] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Partition:
    """Batches of one partition: the one under way, and those that gather behind it."""

    topic: str
    number: int
    due: bool = False
    sending: _Batch | None = None
    waiting: deque[_Batch] = field(default_factory=deque)
    last_ms: int = 0


class KafkaLog:
    """A log on a Kafka cluster. Satisfies `Log`; belongs to the loop that connected it."""

    def __init__(
        self,
        brokers: str,
        topics: Topics,
        *,
        options: Mapping[str, Any],
        append_timeout_s: float,
        producer: Any,
        asker: Any,
    ) -> None:
        """Use `KafkaLog.connect`."""
        self._brokers = brokers
        self._topics = topics
        self._options = options
        self._append_timeout_s = append_timeout_s
        self._producer = producer
        self._asker = asker
        self._loop = asyncio.get_running_loop()
        self._partitions = {
            topic.name: [_Partition(topic.name, number) for number in range(topic.partitions)] for topic in topics
        }
        self._consumers: set[Any] = set()
        self._queued_records = 0
        self._queued_bytes = 0
        self._due: deque[_Partition] = deque()
        self._news = asyncio.Event()
        self._lingering: dict[_Partition, None] = {}  # what waits for something that cannot
        self._linger_ends: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._refusal: LogError | None = None
        self.failed: asyncio.Future[LogError] = self._loop.create_future()
        """Done, with the error as its result, once an append's outcome is unknown: the process must start again."""
        self._tasks = [asyncio.create_task(self._send()), asyncio.create_task(self._watch())]

    @classmethod
    async def connect(
        cls,
        brokers: str,
        topics: Topics,
        *,
        client_id: str,
        security: Security | None = None,
        access: Access | None = None,
        read_only: bool = False,
        append_timeout_s: float = APPEND_TIMEOUT_S,
        while_importing: bool = False,
    ) -> "KafkaLog":
        """Connect to `brokers` ("host:port,host:port"), where the client must be allowed all of `access`.

        `read_only` asks for no right to write; appends are refused. Raises `LogUnavailable` when no broker answers,
        `ConfigError` when one refuses this client, a declared topic is missing or has another number of partitions, or
        history is being imported (unless `while_importing`).
        """
        security, access = security or Security(), access or Access()
        # Topics are counted below; without this right they would seem to be missing.
        described = {topic.name: access.topics.get(topic.name, ("Describe",)) for topic in topics}
        await check_access(brokers, security, msgspec.structs.replace(access, topics=described), client_id=client_id)
        options = {
            "bootstrap_servers": brokers,
            "client_id": client_id,
            "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
            **security.options(),
        }
        producer = AIOKafkaProducer(
            acks="all", enable_idempotence=not read_only, linger_ms=0, max_batch_size=BATCH_BYTES, **options
        )
        asker = new_consumer(options)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await producer.start()
                await asker.start()
                cluster = await producer.client.fetch_all_metadata()
                _check_counts(topics, cluster, brokers)
                if not while_importing:
                    _check_whole(cluster, brokers)
        except BaseException as error:
            await producer.stop()
            await asker.stop()
            if isinstance(error, KafkaError | TimeoutError):
                raise LogUnavailable(f"no Kafka broker answers at {brokers}: {error}") from error
            raise
        log = cls(
            brokers,
            topics,
            options=options,
            append_timeout_s=append_timeout_s,
            producer=producer,
            asker=asker,
        )
        if read_only:
            log._refusal = LogUnavailable("the log was opened to be read")
        return log

    def append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Headers = (),
        linger: bool = False,
    ) -> "asyncio.Future[Position]":
        """See `Log.append`. A record without key or partition goes to partition 0."""
        partitions = self._of(topic)
        target = self._partition(topic, partition_of(key, len(partitions)) if partition is None else partition)
        future: asyncio.Future[Position] = self._loop.create_future()
        size = (len(key) if key else 0) + (len(value) if value else 0)
        size += sum(len(name) + len(content or b"") + 10 for name, content in headers)
        refusal = self._refusal or self._no_room(topic, size)
        if refusal is not None:
            future.set_exception(refusal)
            return future
        batch = target.waiting[-1] if target.waiting else None
        record = {"timestamp": None, "key": key, "value": value, "headers": list(headers)}
        if batch is None or batch.builder.append(**record) is None:
            batch = _Batch(self._producer.create_batch(), since=time.monotonic())
            batch.builder.append(**record)
            target.waiting.append(batch)
        weight = size + _RECORD_OVERHEAD
        batch.futures.append(future)
        batch.size += weight
        self._queued_records += 1
        self._queued_bytes += weight
        if linger:
            self._lingering[target] = None
            if self._linger_ends is None:
                self._linger_ends = self._loop.call_later(LINGER_S, self._end_linger)
        else:
            self._schedule(target)
            self._end_linger()
        return future

    def partition_for(self, topic: str, key: bytes) -> int:
        """The partition that `append` chooses for this key."""
        return partition_of(key, self.partitions(topic))

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return len(self._of(topic))

    async def follow(self, topic: str, offsets: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        """See `Log.follow`."""
        positions = {TopicPartition(topic, self._partition(topic, n).number): at for n, at in offsets.items()}
        async with self._reading(positions) as consumer:
            while True:
                batches = await consumer.getmany(timeout_ms=int(FETCH_WAIT_S * 1000), max_records=READ_ROWS)
                for records in batches.values():
                    yield [record_of(record) for record in records]

    async def scan(
        self, topic: str, partition: int, start: int, end: int | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        """See `Log.scan`."""
        source = TopicPartition(topic, self._partition(topic, partition).number)
        last = (await self._ask(self._asker.end_offsets([source])))[source]
        end = last if end is None else min(end, last)
        if start > last:
            raise OutOfRange(f"{topic}/{partition}: offset {start} is not in the log, which ends at {last}")
        if start >= end:
            return
        try:
            async for records in fetch(self._options, source, start, end, max_bytes=READ_BYTES):
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
        found = await self._ask(self._asker.end_offsets(self._all(topic)))
        return {source.partition: offset for source, offset in found.items()}

    async def starts(self, topic: str) -> dict[int, int]:
        """See `Log.starts`; what compaction removed does not move the start."""
        found = await self._ask(self._asker.beginning_offsets(self._all(topic)))
        return {source.partition: offset for source, offset in found.items()}

    async def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """See `Log.offset_at`."""
        source = TopicPartition(topic, self._partition(topic, partition).number)
        found = (await self._ask(self._asker.offsets_for_times({source: max(timestamp_ms, 0)})))[source]
        if found is None:
            found = await self._ask(self._asker.end_offsets([source]))
            return int(found[source])
        return int(found.offset)

    def unacknowledged(self) -> Unacknowledged:
        """See `WritableLog.unacknowledged`."""
        now = time.monotonic()
        oldest = min((batch.since for batch in self._unacknowledged()), default=now)
        return Unacknowledged(self._queued_records, self._queued_bytes, now - oldest)

    def reader(self, topic: str) -> Reader:
        """A reader of some partitions of the topic, of which more may come and others go; not started yet."""
        return Reader(new_consumer(self._options), topic)

    def standing(self, group: str) -> AbstractAsyncContextManager[Election]:
        """Stand for election among all that call this with the same group name."""
        return standing(self._options, group=group, topic=ELECTION_TOPIC)

    async def close(self) -> None:
        """Wait until what was appended is acknowledged, then disconnect; appends from now on are refused."""
        if self._refusal is None:
            self._refusal = LogUnavailable("the log is closed")
        self._end_linger()
        if self._queued_records and not self.failed.done():
            self._drained = self._loop.create_future()
            await self._drained
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # A producer whose broker has gone would wait for it; what it still has is already reported as unknown.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.gather(*(client.stop() for client in (*self._consumers, self._asker, self._producer)))

    def _of(self, topic: str) -> list[_Partition]:
        try:
            return self._partitions[topic]
        except KeyError:
            raise UsageError(f"the log has no topic '{topic}'") from None

    def _partition(self, topic: str, number: int) -> _Partition:
        partitions = self._of(topic)
        if not 0 <= number < len(partitions):
            raise UsageError(f"'{topic}' has {len(partitions)} partitions; there is no partition {number}")
        return partitions[number]

    def _all(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, partition.number) for partition in self._of(topic)]

    def _no_room(self, topic: str, size: int) -> LogUnavailable | None:
        largest = self._topics[topic].max_message_bytes - BATCH_OVERHEAD
        if size > largest:
            return LogUnavailable(f"'{topic}' takes records of up to {largest} bytes; this one has {size}")
        if self._queued_records >= QUEUE_RECORDS or self._queued_bytes + size > QUEUE_BYTES:
            return LogUnavailable(f"{self._queued_records} records already wait for Kafka at {self._brokers}")
        return None

    def _schedule(self, partition: _Partition) -> None:
        """Have the partition's next batch sent, unless one is under way: its end does so."""
        if partition.sending is None and not partition.due:
            partition.due = True
            self._due.append(partition)
            self._news.set()

    def _end_linger(self) -> None:
        """Have sent what could wait: behind what could not, and with the same request."""
        if self._linger_ends is not None:
            self._linger_ends.cancel()
            self._linger_ends = None
            lingering, self._lingering = self._lingering, {}
            for partition in lingering:
                if partition.waiting:
                    self._schedule(partition)

    async def _send(self) -> None:
        """Hand batches to the producer, in the order in which their partitions had something to send."""
        try:
            while await self._news.wait():
                self._news.clear()
                while self._due:
                    partition = self._due.popleft()
                    partition.due = False
                    batch = partition.sending = partition.waiting.popleft()
                    sent = await self._producer.send_batch(batch.builder, partition.topic, partition=partition.number)
                    sent.add_done_callback(partial(self._sent, partition, batch))
        except KafkaError as error:
            self._fail(error)

    def _sent(self, partition: _Partition, batch: _Batch, sent: "asyncio.Future[Any]") -> None:
        error = sent.exception()
        if error is not None:
            self._fail(error)
            return
        metadata = sent.result()
        if metadata.offset < 0:
            # The broker has the batch from an earlier try, and no longer knows where.
            self._fail(KafkaError("duplicate sequence number"))
            return
        timestamp_ms = partition.last_ms = max(partition.last_ms, metadata.timestamp)
        for offset, future in enumerate(batch.futures, start=metadata.offset):
            if not future.done():
                future.set_result(Position(partition.number, offset, timestamp_ms))
        self._queued_records -= len(batch.futures)
        self._queued_bytes -= batch.size
        partition.sending = None
        if partition.waiting:
            self._schedule(partition)
        if self._drained is not None and not self._queued_records:
            self._drained.set_result(None)

    async def _watch(self) -> None:
        """Give up on appends that nobody acknowledges."""
        while not self.failed.done():
            await asyncio.sleep(WATCH_EVERY_S)
            oldest = min((batch.since for batch in self._unacknowledged()), default=time.monotonic())
            if time.monotonic() - oldest > self._append_timeout_s:
                self._fail(TimeoutError(f"no acknowledgement in {self._append_timeout_s:.0f} s"))

    def _unacknowledged(self) -> list[_Batch]:
        partitions = [partition for of_topic in self._partitions.values() for partition in of_topic]
        under_way = [partition.sending for partition in partitions if partition.sending is not None]
        return under_way + [batch for partition in partitions for batch in partition.waiting]

    def _fail(self, cause: BaseException) -> None:
        """An append failed, or may have: the order of what follows could not be kept, so nothing follows."""
        if self.failed.done():
            return
        self._refusal = AppendUnknown(f"Kafka at {self._brokers} did not acknowledge an append: {cause!r}")
        self._refusal.__cause__ = cause
        self.failed.set_result(self._refusal)
        for batch in self._unacknowledged():
            for future in batch.futures:
                if not future.done():
                    future.set_exception(self._refusal)
        if self._drained is not None:
            self._drained.set_result(None)

    @contextlib.asynccontextmanager
    async def _reading(self, positions: Mapping[TopicPartition, int]) -> AsyncIterator[Any]:
        """A consumer at these positions, outside of any group."""
        consumer = new_consumer(self._options)
        self._consumers.add(consumer)
        try:
            await consumer.start()
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

    async def _ask(self, question: Awaitable[Answer]) -> Answer:
        try:
            return await question
        except KafkaError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: KafkaError) -> LogUnavailable:
        return LogUnavailable(f"Kafka at {self._brokers} does not answer: {error!r}")


def _check_whole(cluster: Any, brokers: str) -> None:
    """Raise `ConfigError` while history is being imported: half of it would be taken for the whole."""
    for name in cluster.topics():
        if name.startswith(IMPORT_TOPIC):
            raise ConfigError(
                f"an import into Kafka at {brokers} has not ended (topic '{name}'): run 'tollgate log import' again, "
                "or delete all topics"
            )


def _check_counts(topics: Topics, cluster: Any, brokers: str) -> None:
    for topic in topics:
        found = len(cluster.partitions_for_topic(topic.name) or ())
        if found != topic.partitions:
            has = f"has {found} partitions" if found else "is missing"
            raise ConfigError(
                f"topics.yaml: '{topic.name}' {has} in Kafka at {brokers}, declared are {topic.partitions}; "
                "see `tollgate topics check`"
            )
