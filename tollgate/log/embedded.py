"""The embedded log: one process, one SQLite database, group commit.

The appends of one turn of the event loop become one transaction in a writer thread; while it runs, the next
group gathers. Offsets and timestamps are given on the loop, so the thread only writes. A bounded tail is kept in
memory, from where readers near the end are served without touching the disk.

Groups become durable in the order of their appends, so whatever depends on a record and is appended after it cannot
outlive it. A reader in this process that answers records by appends may therefore `listen` to a topic and have its
records before they are durable: cause and effect then share one group, and one wait for the disk.
"""

import asyncio
import os
import sqlite3
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from tollgate.errors import AppendUnknown, LogError, LogUnavailable
from tollgate.topics import Topics

from . import Headers, Position, Record, Unacknowledged, compaction
from .embedded_folder import DATABASE, open_database, take_lock
from .embedded_reader import READ_ROWS, EmbeddedReader, Partition
from .embedded_upkeep import Upkeep
from .partitioner import partition_of
from .reach import Queue, Worth
from .storage import Durability, Storage, pack_headers
from .worker import Worker

# What may wait for the writer; beyond it an append is refused. A record of the largest size fits an empty queue.
QUEUE_RECORDS = 16_384
QUEUE_BYTES = 64 << 20
# What readers near the end find in memory, over all partitions together.
TAIL_BYTES = 32 << 20
# How long a record that may linger waits for one that may not.
LINGER_S = 0.05

# What a record weighs in memory beyond its bytes: tuple, integers, queue entry.
_RECORD_OVERHEAD = 300

Result = TypeVar("Result")


def now_ms() -> int:
    """The wall clock in Unix milliseconds."""
    return time.time_ns() // 1_000_000


_Entry = tuple["asyncio.Future[Position]", Partition, Record, int]


class EmbeddedLog(EmbeddedReader):
    """The log of the one process that may write it. Belongs to the loop that opened it."""

    def __init__(
        self, folder: Path, topics: Topics, *, lock: int, storage: Storage, clock_ms: Callable[[], int]
    ) -> None:
        """Use `EmbeddedLog.open`."""
        super().__init__(folder)
        self._topics = topics
        self._largest = {topic.name: topic.max_message_bytes for topic in topics}
        self._lock = lock
        self._writer_storage = storage
        self._clock_ms = clock_ms
        self._loop = asyncio.get_running_loop()
        self._writes = Worker("tollgate-log-write")
        self._upkeep = Upkeep(topics, storage=self._storage, reads=self._reads, written=storage, write=self._write)
        # The group that gathers, its rows laid out for the statement, and the group that is being written.
        self._gathering: list[_Entry] = []
        self._values: list[object] = []
        self._writing: list[_Entry] = []
        self._flush_is_due = False
        self._lingers = True  # the group holds nothing but records that may wait
        self._linger_ends: asyncio.TimerHandle | None = None
        self._listeners: dict[str, Callable[[int], None]] = {}
        self._queue = Queue()
        # Every record in memory, oldest first, as the partition in whose tail it is, with its weight.
        self._tail_order: deque[tuple[Partition, int]] = deque()
        self._tail_bytes = 0
        self._waiting: defaultdict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._drained: asyncio.Future[None] | None = None
        self._refusal: LogError | None = None
        self.failed: asyncio.Future[LogError] = self._loop.create_future()
        """Done, with the error as its result, once a commit has failed: the process must end and start again."""

    @classmethod
    async def open(
        cls,
        folder: Path,
        topics: Topics,
        *,
        durability: Durability = "power",
        clock_ms: Callable[[], int] = now_ms,
    ) -> "EmbeddedLog":
        """Open the log in `folder`, or make it; compacted topics that are mostly superseded are compacted first.

        `power`: what was acknowledged outlives a power cut. `process`: it outlives the process, but a power cut
        or a crash of the system may take the last moments, whole groups from the end.
        Raises `LogLocked` when another process has it, `ConfigError` when the partition counts are not those it
        was made with.
        """
        lock = take_lock(folder)
        try:
            storage = open_database(folder / DATABASE, topics, durability)
        except BaseException:
            os.close(lock)
            raise
        log = cls(folder, topics, lock=lock, storage=storage, clock_ms=clock_ms)
        for partition in log._compactable(compaction.RATIO_AT_OPEN):
            await log._upkeep.compact(partition, log._clock_ms())
        return log

    @staticmethod
    async def open_readonly(folder: Path) -> EmbeddedReader:
        """Open the log in `folder` for a tool, whether a gateway runs or not. Raises `ConfigError` if there is none."""
        return EmbeddedReader(folder)

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
        partitions = self._of(topic)
        if partition is None:
            target = partitions[partition_of(key, len(partitions))]
        else:
            target = self._partition(topic, partition)
        future: asyncio.Future[Position] = self._loop.create_future()
        size = (len(key) if key else 0) + (len(value) if value else 0)
        weight = size + _RECORD_OVERHEAD
        refusal = self._refusal or self._no_room(topic, size, worth, weight)
        if refusal is not None:
            future.set_exception(refusal)
            return future
        packed = pack_headers(headers)
        self._queue.records += 1
        self._queue.bytes += weight
        offset = target.next
        target.next = offset + 1
        target.last_ms = timestamp_ms = max(target.last_ms, self._clock_ms())
        record = Record(topic, target.number, offset, timestamp_ms, key, value, headers)
        self._gathering.append((future, target, record, weight))
        self._values += (target.base + offset, timestamp_ms, key, value, packed)
        target.tail.append(record)
        listener = self._listeners.get(topic)
        if listener is not None:
            listener(target.number)  # what it appends in answer starts the group, with this record in it
        elif not linger:
            self._lingers = False
            if not self._flush_is_due:
                self._flush_is_due = True
                self._loop.call_soon(self._flush)
        if self._lingers and self._linger_ends is None:
            self._linger_ends = self._loop.call_later(LINGER_S, self._end_linger)
        return future

    def unacknowledged(self) -> Unacknowledged:
        """See `WritableLog.unacknowledged`."""
        waiting = self._writing or self._gathering
        oldest_ms = self._clock_ms() - waiting[0][2].timestamp_ms if waiting else 0
        return Unacknowledged(self._queue.records, self._queue.bytes, max(0, oldest_ms) / 1000)

    def listen(self, topic: str, listener: Callable[[int], None]) -> None:
        """Call `listener(partition)` at each append to the topic from now on; `tail` has it before it is durable.

        For a reader in this process that holds back every effect of a record until something that it appended
        after it is durable. So the records of the topic linger, and share that one's group. One listener per topic.
        """
        self._listeners[topic] = listener

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next durable record would get."""
        return self._partition(topic, partition).end

    def taken(self, topic: str, partition: int) -> int:
        """The offset that the next append will get; what lies from `end` to there is not durable yet."""
        return self._partition(topic, partition).next

    def start(self, topic: str, partition: int) -> int:
        """The oldest offset that retention has kept."""
        return self._partition(topic, partition).start

    def tail(self, topic: str, partition: int, offset: int, limit: int) -> list[Record] | None:
        """Up to `limit` records from `offset` on, durable or not yet; None: `scan` must read them from the disk."""
        return self._partition(topic, partition).from_tail(offset, limit)

    async def wait_news(self, seen: int, topic: str) -> int:
        """Return `news` as soon as the topic has more than it had. Raises `LogUnavailable` when the log is closed."""
        if self._news == seen:
            if self._refusal is not None:
                raise self._refusal
            waiter = self._loop.create_future()
            self._waiting[topic].add(waiter)
            try:
                await waiter
            finally:
                self._waiting[topic].discard(waiter)
        return self._news

    async def commit_offsets(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Remember durably where a consumer group goes on: {(topic, partition): next offset}."""
        offsets = dict(offsets)
        await self._write(lambda: self._writer_storage.commit_offsets(group, offsets))

    async def maintain(self, now_ms: int) -> None:
        """Do some of what retention and compaction ask for; to be called every few seconds.

        Works in small steps between the appends. What is left over is done by the next calls. The newest record
        of a partition is never removed.
        """
        for topic in self._topics:
            if topic.retention_ms is not None:
                for partition in self._of(topic.name):
                    await self._upkeep.expire(partition, now_ms - topic.retention_ms)
        for partition in self._compactable():
            await self._upkeep.compact(partition, now_ms)

    async def until_open(self) -> None:
        """See `WritableLog.until_open`: it is."""

    def waits_for(self) -> str | None:
        """See `WritableLog.waits_for`: a disk that does not answer is not told from one that is slow."""
        return None

    async def settled(self) -> None:
        """See `WritableLog.settled`: always."""

    def answering_s(self) -> float:
        """See `WritableLog.answering_s`."""
        return time.monotonic()

    async def close(self) -> None:
        """Write what was appended, then release everything; appends from now on are refused."""
        if self._closed:
            return
        if self._refusal is None:
            self._refusal = LogUnavailable("the log is closed")
        if self._queue.records and not self.failed.done():
            self._drained = self._loop.create_future()
            self._end_linger()
            await self._drained
        self._announce_end(self._refusal)
        await super().close()
        await self._writes.run(self._writer_storage.close)
        self._writes.stop()
        os.close(self._lock)

    def _no_room(self, topic: str, size: int, worth: Worth, weight: int) -> LogUnavailable | None:
        largest = self._largest[topic]
        if size > largest:
            return LogUnavailable(f"'{topic}' takes records of up to {largest} bytes; this one has {size}")
        if not self._queue.has_room(worth, weight, max_records=QUEUE_RECORDS, max_bytes=QUEUE_BYTES):
            return LogUnavailable(f"{self._queue.records} records already wait to be written to {self._folder}")
        return None

    def _flush(self) -> None:
        """Hand what has gathered to the writer; while it is busy, its end does so."""
        self._flush_is_due = False
        if self._writing or self._lingers or self.failed.done():
            return
        self._lingers = True
        if self._linger_ends is not None:
            self._linger_ends.cancel()
            self._linger_ends = None
        self._writing, self._gathering = self._gathering, []
        values, self._values = self._values, []
        self._writes.post(partial(self._writer_storage.append, values, len(self._writing)), self._written)

    def _end_linger(self) -> None:
        """Have what has gathered written, though everything in it could wait."""
        self._lingers = not self._gathering
        self._flush()

    def _written(self, _: None, error: Exception | None) -> None:
        if error is not None:
            self._fail(error)
            return
        written, self._writing = self._writing, []
        self._flush()
        for future, partition, record, weight in written:
            partition.end = record.offset + 1
            self._tail_order.append((partition, weight))
            self._tail_bytes += weight
            self._queue.bytes -= weight
            if not future.done():
                future.set_result(Position(record.partition, record.offset, record.timestamp_ms))
        self._queue.records -= len(written)
        while self._tail_bytes > TAIL_BYTES:
            oldest, weight = self._tail_order.popleft()
            oldest.tail.popleft()
            self._tail_bytes -= weight
        self._news += 1
        self._announce({partition.topic for _, partition, _, _ in written})
        if self._drained is not None and not self._queue.records:
            self._drained.set_result(None)

    def _announce(self, topics: Iterable[str]) -> None:
        for topic in topics:
            for waiter in self._waiting.get(topic, ()):
                if not waiter.done():
                    waiter.set_result(None)

    def _announce_end(self, refusal: LogError) -> None:
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(refusal)

    def _fail(self, cause: Exception) -> None:
        """A transaction failed: nobody knows what the disk holds, so nothing more is said about it."""
        if self.failed.done():
            return
        self._refusal = AppendUnknown(f"{self._folder / DATABASE}: could not be written: {cause}")
        self._refusal.__cause__ = cause
        self.failed.set_result(self._refusal)
        for future, *_ in (*self._writing, *self._gathering):
            if not future.done():
                future.set_exception(self._refusal)
        self._announce_end(self._refusal)
        if self._drained is not None:
            self._drained.set_result(None)

    async def _write(self, call: Callable[[], Result]) -> Result:
        if self._refusal is not None:
            raise self._refusal
        try:
            return await self._writes.run(call)
        except sqlite3.Error as error:
            self._fail(error)
            raise self.failed.result() from error

    async def _refresh(self) -> None:
        """Nothing to learn: this process is the only writer."""

    async def _read(self, partition: Partition, offset: int, end: int) -> tuple[Sequence[Record], int]:
        partition.check(offset)
        records = partition.from_tail(offset, min(READ_ROWS, end - offset))
        if records is None:
            return await super()._read(partition, offset, end)
        return records, offset + len(records)

    def _compactable(self, ratio: float | None = None) -> list[Partition]:
        """The partitions whose compaction is due at this ratio; None takes each topic's own."""
        return [
            partition
            for topic in self._topics
            if topic.compacted
            for partition in self._of(topic.name)
            if compaction.is_due(
                end=partition.end,
                cleaned=partition.stored.cleaned,
                kept=partition.stored.kept,
                ratio=topic.dirty_ratio if ratio is None else ratio,
            )
        ]
