"""The log on Kafka, by aiokafka: idempotent, acknowledged by all in-sync replicas, one batch under way per partition.

Records are put into their partition's batch when `append` is called, so their order is fixed then. While a batch
is under way the next one gathers. Timestamps are the broker's (`message.timestamp.type: LogAppendTime`).
"""

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
from aiokafka.errors import KafkaError, UnknownTopicOrPartitionError

from tollgate.errors import AppendUnknown, ConfigError, LogError, LogUnavailable, UsageError
from tollgate.topics import Topics

from . import Headers, Position, Unacknowledged
from .clock import LogClock
from .kafka_access import Access, check_access, warn_of_exposure
from .kafka_clients import connection_options, new_producer
from .kafka_election import Election, standing
from .kafka_reading import KafkaReading
from .kafka_security import Security
from .partitioner import partition_of
from .reach import Queue, Reach, Worth, pause_s

# What may wait for acknowledgement; beyond it an append is refused. All of it fits into one request to the broker,
# which takes 100 MiB (socket.request.max.bytes).
QUEUE_RECORDS = 16_384
QUEUE_BYTES = 64 << 20
# What the broker's limit on a batch counts beyond key, value and headers of its one record, at most.
BATCH_OVERHEAD = 160

CONNECT_TIMEOUT_S = 10.0
# An idempotent producer may repeat an append for as long as the broker remembers its last ones (a day:
# producer.id.expiration.ms). So an outage is sat out, up to here.
APPEND_TIMEOUT_S = 3_600.0
WATCH_EVERY_S = 0.25
# So often the leaders are asked something, for their silence to be noticed while nobody appends.
ASK_EVERY_S = 0.5
INQUIRE_EVERY_S = 10.0  # why a log does not answer is found out and said
# How long a record that may linger waits for one that may not.
LINGER_S = 0.05
CLOSE_TIMEOUT_S = 10.0

_RECORD_OVERHEAD = 300

IMPORT_TOPIC = "tollgate-import-"  # and what tells the archive: there as long as history is being imported
ELECTION_TOPIC = "control"  # it has one partition, as an election must; nothing is read of it

log = logging.getLogger("tollgate")


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
    clock: LogClock = field(default_factory=LogClock)


class KafkaLog(KafkaReading):
    """A log on a Kafka cluster. Satisfies `WritableLog`; belongs to the loop that made it."""

    def __init__(
        self,
        brokers: str,
        topics: Topics,
        *,
        client_id: str,
        security: Security | None = None,
        access: Access | None = None,
        read_only: bool = False,
        patient: bool = False,
        append_timeout_s: float = APPEND_TIMEOUT_S,
        while_importing: bool = False,
    ) -> None:
        """A log that is not connected: appends are refused, and nothing can be read before it is open.

        `read_only` asks for no right to write. `patient`: reading waits for a broker that is away. `while_importing`:
        history may be in the middle of being imported.
        """
        super().__init__(brokers, topics, patient=patient)
        self._topics = topics
        self._client_id = client_id
        self._security = security or Security()
        # Topics are counted when it opens; without this right they would seem to be missing.
        access = access or Access()
        described = {topic.name: access.topics.get(topic.name, ("Describe",)) for topic in topics}
        self._access = msgspec.structs.replace(access, topics=described)
        self._read_only = read_only
        self._while_importing = while_importing
        self._append_timeout_s = append_timeout_s
        self._producer: Any = None
        self._loop = asyncio.get_running_loop()
        self._partitions = {
            topic.name: [_Partition(topic.name, number) for number in range(topic.partitions)] for topic in topics
        }
        self._queue = Queue()
        self._reach = Reach(time.monotonic())
        self._asked_s: float | None = None  # the oldest question to the leaders without an answer
        self._due: deque[_Partition] = deque()
        self._news = asyncio.Event()
        self._lingering: dict[_Partition, None] = {}  # what waits for something that cannot
        self._linger_ends: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[None] | None = None
        self._refusal: LogError | None = LogUnavailable(f"no Kafka broker has answered at {brokers} yet")
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: asyncio.Future[LogError] = self._loop.create_future()
        """Done, with the error as its result, once an append's outcome is unknown: the process must start again."""

    @classmethod
    async def connect(cls, brokers: str, topics: Topics, **options: Any) -> "KafkaLog":
        """A log that is open; `options` are those of the class. Raises what `open` does."""
        opened = cls(brokers, topics, **options)
        warn_of_exposure(brokers, opened._security)
        await opened.open()
        return opened

    async def open(self) -> None:
        """Connect to the brokers ("host:port,host:port"), where the client must be allowed all that it is going to do.

        Raises `LogUnavailable` when no broker answers, `ConfigError` when one refuses this client, a declared topic is
        missing or has another number of partitions, or history is being imported.
        """
        await check_access(self._brokers, self._security, self._access, client_id=self._client_id)
        options = connection_options(self._brokers, client_id=self._client_id, security=self._security)
        producer = new_producer(options, idempotent=not self._read_only, patience_s=self._append_timeout_s)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await producer.start()
                cluster = await producer.client.fetch_all_metadata()
                _check_counts(self._topics, cluster, self._brokers)
                if not self._while_importing:
                    _check_whole(cluster, self._brokers)
                await self.open_reader(options)
        except BaseException as error:
            await producer.stop()
            if isinstance(error, KafkaError | TimeoutError):
                raise LogUnavailable(f"no Kafka broker answers at {self._brokers}: {error}") from error
            raise
        self._producer = producer
        if self._read_only:
            self._refusal = LogUnavailable("the log was opened to be read")
            return
        self._refusal = None
        self._reach = Reach(time.monotonic())
        works = (self._send(), self._watch(), self._ask_often(), self._inquire())
        self._tasks = [asyncio.create_task(work) for work in works]

    async def until_open(self) -> None:
        """See `WritableLog.until_open`. Says in the process's log what is waited for, when that changes."""
        warn_of_exposure(self._brokers, self._security)
        failures, said = 0, ""
        while True:
            try:
                await self.open()
            except LogUnavailable as error:
                failures += 1
                if str(error) != said:
                    said = str(error)
                    log.warning("%s; waiting for it", said)
                await asyncio.sleep(pause_s(failures, random.random()))  # noqa: S311
            else:
                if failures:
                    log.warning("Kafka at %s answers", self._brokers)
                return

    def waits_for(self) -> str | None:
        """See `WritableLog.waits_for`."""
        if self._producer is None:
            return "the log: no broker has answered yet"
        if self._reach.behind:
            return f"the log: it has not answered for {self._reach.silent_s:.0f} s"
        return None

    async def settled(self) -> None:
        """See `WritableLog.settled`."""
        wait_s = self._reach.settles_in_s(time.monotonic())
        while wait_s > 0:
            await asyncio.sleep(wait_s)
            wait_s = self._reach.settles_in_s(time.monotonic())

    def answering_s(self) -> float:
        """See `WritableLog.answering_s`."""
        return self._reach.answering_s(time.monotonic())

    def append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        *,
        partition: int | None = None,
        headers: Headers = (),
        linger: bool = False,
        worth: Worth = "kept",
    ) -> "asyncio.Future[Position]":
        """See `Log.append`. A record without key or partition goes to partition 0."""
        target = self._partition(topic, self._number(topic, key) if partition is None else partition)
        future: asyncio.Future[Position] = self._loop.create_future()
        size = (len(key) if key else 0) + (len(value) if value else 0)
        size += sum(len(name) + len(content or b"") + 10 for name, content in headers)
        weight = size + _RECORD_OVERHEAD
        refusal = self._refusal or self._too_large(topic, size) or self._no_room(worth, weight)
        if refusal is not None:
            future.set_exception(refusal)
            return future
        batch = target.waiting[-1] if target.waiting else None
        record = {"timestamp": None, "key": key, "value": value, "headers": list(headers)}
        if batch is None or batch.builder.append(**record) is None:
            batch = _Batch(self._producer.create_batch(), since=time.monotonic())
            batch.builder.append(**record)
            target.waiting.append(batch)
        batch.futures.append(future)
        batch.size += weight
        self._queue.records += 1
        self._queue.bytes += weight
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
        return self._number(topic, key)

    def earliest_ms(self, topic: str, partition: int) -> int | None:
        """See `Log.earliest_ms`."""
        return self._partition(topic, partition).clock.earliest_ms(time.monotonic())

    def unacknowledged(self) -> Unacknowledged:
        """See `WritableLog.unacknowledged`."""
        now = time.monotonic()
        oldest = min((batch.since for batch in self._unacknowledged()), default=now)
        return Unacknowledged(self._queue.records, self._queue.bytes, now - oldest)

    def standing(self, group: str) -> AbstractAsyncContextManager[Election]:
        """Stand for election among all that call this with the same group name."""
        return standing(self._options, group=group, topic=ELECTION_TOPIC)

    async def close(self) -> None:
        """Wait until what was appended is acknowledged, then disconnect; appends from now on are refused.

        Raises `AppendUnknown` when that took longer than `CLOSE_TIMEOUT_S`.
        """
        if self._refusal is None:
            self._refusal = LogUnavailable("the log is closed")
        self._end_linger()
        given_up: LogError | None = None
        if self._queue.records and not self.failed.done():
            self._drained = self._loop.create_future()
            await asyncio.wait([self._drained], timeout=CLOSE_TIMEOUT_S)
            if not self._drained.done():
                self._fail(TimeoutError(f"{self._queue.records} records were given up at the end"))
                given_up = self.failed.result()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._producer is None:
            return
        # A producer whose broker has gone would wait for it; what it still has is already reported as unknown.
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await asyncio.gather(self.close_reader(), self._producer.stop())
        except TimeoutError:
            await self._producer.client.close()
        if given_up is not None:
            raise given_up

    def _partition(self, topic: str, number: int) -> _Partition:
        count = self.partitions(topic)
        if not 0 <= number < count:
            raise UsageError(f"'{topic}' has {count} partitions; there is no partition {number}")
        return self._partitions[topic][number]

    def _number(self, topic: str, key: bytes | None) -> int:
        return partition_of(key, self.partitions(topic))

    def _too_large(self, topic: str, size: int) -> LogUnavailable | None:
        largest = self._topics[topic].max_message_bytes - BATCH_OVERHEAD
        if size <= largest:
            return None
        return LogUnavailable(f"'{topic}' takes records of up to {largest} bytes; this one has {size}")

    def _no_room(self, worth: Worth, weight: int) -> LogUnavailable | None:
        if worth == "new" and self._reach.behind:
            return LogUnavailable(f"Kafka at {self._brokers} has not answered for {self._reach.silent_s:.1f} s")
        if not self._queue.has_room(worth, weight, max_records=QUEUE_RECORDS, max_bytes=QUEUE_BYTES):
            return LogUnavailable(f"{self._queue.records} records already wait for Kafka at {self._brokers}")
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
                    sent = await self._handed_over(batch, partition)
                    sent.add_done_callback(partial(self._sent, partition, batch))
        except Exception as error:  # whatever it is: nothing would be sent any more
            self._fail(error)

    async def _handed_over(self, batch: _Batch, partition: _Partition) -> "asyncio.Future[Any]":
        while True:
            with contextlib.suppress(UnknownTopicOrPartitionError):  # raised before the batch is taken, after a while
                sent: asyncio.Future[Any] = await self._producer.send_batch(
                    batch.builder, partition.topic, partition=partition.number
                )
                return sent

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
        partition.clock.heard(metadata.timestamp, asked_s=batch.since, now_s=time.monotonic())
        timestamp_ms = partition.last_ms = max(partition.last_ms, metadata.timestamp)
        for offset, future in enumerate(batch.futures, start=metadata.offset):
            if not future.done():
                future.set_result(Position(partition.number, offset, timestamp_ms))
        self._queue.records -= len(batch.futures)
        self._queue.bytes -= batch.size
        partition.sending = None
        if partition.waiting:
            self._schedule(partition)
        if self._drained is not None and not self._queue.records and not self._drained.done():
            self._drained.set_result(None)

    async def _watch(self) -> None:
        """Notice when the log is behind, and when it answers again; give up on what nobody acknowledges."""
        behind_s = 0.0
        while not self.failed.done():
            await asyncio.sleep(WATCH_EVERY_S)
            now_s = time.monotonic()
            oldest_s = min((batch.since for batch in self._unacknowledged()), default=now_s)
            if now_s - oldest_s > self._append_timeout_s:
                self._fail(TimeoutError(f"no acknowledgement in {self._append_timeout_s:.0f} s"))
            asked_s = min(oldest_s, now_s if self._asked_s is None else self._asked_s)
            self._reach.look(now_s, None if asked_s == now_s else asked_s)
            if self._reach.behind:
                behind_s = self._reach.silent_s
            elif behind_s:
                log.warning("Kafka at %s answers again, after %.0f s", self._brokers, behind_s)
                behind_s = 0.0

    async def _ask_often(self) -> None:
        while True:
            self._asked_s = self._asked_s or time.monotonic()
            try:
                await self.all_answer()
                self._asked_s = None
            except Exception as error:  # whatever it is, it is no answer
                log.debug("Kafka was asked and has not answered: %r", error)
            await asyncio.sleep(ASK_EVERY_S)

    async def _inquire(self) -> None:
        """While the log is behind, say why. What waiting cannot mend, as a changed password, ends it."""
        while True:
            await asyncio.sleep(INQUIRE_EVERY_S)
            if self._reach.behind:
                try:
                    await check_access(self._brokers, self._security, self._access, client_id=self._client_id)
                except LogUnavailable as error:
                    log.warning("waiting for Kafka for %.0f s: %s", self._reach.silent_s, error)
                except ConfigError as error:
                    self._fail(error)

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
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)


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
