"""The embedded log as a tool reads it, while a gateway writes it or not. Everything comes from the database."""

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from tollgate.errors import ConfigError, OutOfRange, UsageError

from . import Headers, Position, Record
from .embedded_folder import DATABASE
from .partitioner import partition_of
from .reach import Worth
from .storage import OFFSET_BITS, Storage, Stored
from .worker import Worker

# One read from the disk, so that readers take turns and memory stays bounded.
READ_ROWS = 1_000
READ_BYTES = 4 << 20
# How often a reader of another process's log looks for news.
POLL_S = 0.2


class Partition:
    """One partition as the loop knows it: `next` counts what was taken, `end` what is durable."""

    __slots__ = ("base", "end", "last_ms", "next", "number", "start", "stored", "tail", "topic")

    def __init__(self, stored: Stored) -> None:
        self.stored = stored
        self.topic = stored.topic
        self.number = stored.partition
        self.base = stored.place << OFFSET_BITS
        self.start = stored.start
        self.end = self.next = stored.end
        self.last_ms = stored.last_ms
        self.tail: deque[Record] = deque()

    def check(self, offset: int) -> None:
        """Raise `OutOfRange` unless the offset can be read from."""
        if not self.start <= offset <= self.end:
            raise OutOfRange(
                f"{self.topic}/{self.number}: offset {offset} is not in the log, which holds {self.start} to {self.end}"
            )

    def from_tail(self, offset: int, limit: int) -> list[Record] | None:
        """Up to `limit` records from `offset` on, durable or not yet; None when they are no longer in memory."""
        if offset >= self.next:
            return []
        tail = self.tail
        if not tail or offset < tail[0].offset:
            return None
        first = offset - tail[0].offset
        # By index: a deque finds its last elements at once, and walks to a slice from its first.
        return [tail[index] for index in range(first, min(first + limit, len(tail)))]


class EmbeddedReader:
    """An embedded log opened to be read only, while a gateway writes it or not. Satisfies `Log`; refuses appends."""

    def __init__(self, folder: Path) -> None:
        """Open the database. Raises `ConfigError` where there is none."""
        self._folder = folder
        self._partitions: dict[str, list[Partition]] = {}
        self._news = 0
        self._closed = False
        path = folder / DATABASE
        try:
            self._storage = Storage(path, writable=False)
            self._learn(self._storage.load())
        except sqlite3.Error as error:
            raise ConfigError(
                f"{path}: there is no log that can be read ({error}); 'tollgate serve' makes one, and "
                "TOLLGATE_DATA names the folder where one is"
            ) from None
        self._reads = Worker("tollgate-log-read")

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
        """Raise `UsageError`."""
        raise UsageError(f"{self._folder}: this log is open for reading only")

    def partition_for(self, topic: str, key: bytes) -> int:
        """The partition that `append` chooses for this key."""
        return partition_of(key, self.partitions(topic))

    def earliest_ms(self, topic: str, partition: int) -> int | None:
        """See `Log.earliest_ms`: the time of this log is this process's own."""
        return None

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        return len(self._of(topic))

    async def follow(self, topic: str, offsets: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        """See `Log.follow`. Raises `LogUnavailable` when the log is closed meanwhile."""
        positions = dict(offsets)
        await self._refresh()
        for number, position in positions.items():
            self._partition(topic, number).check(position)
        while True:
            seen = self._news
            idle = True
            for number, position in positions.items():
                partition = self._partition(topic, number)
                if position < partition.end:
                    idle = False
                    records, positions[number] = await self._read(partition, position, partition.end)
                    if records:
                        yield records
            if idle:
                await self.wait_news(seen, topic)

    async def scan(
        self, topic: str, partition: int, start: int, end: int | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        """See `Log.scan`."""
        await self._refresh()
        source = self._partition(topic, partition)
        source.check(start)
        end = source.end if end is None else min(end, source.end)
        while start < end:
            records, start = await self._read(source, start, end)
            if records:
                yield records

    async def ends(self, topic: str) -> dict[int, int]:
        """See `Log.ends`."""
        await self._refresh()
        return {partition.number: partition.end for partition in self._of(topic)}

    async def starts(self, topic: str) -> dict[int, int]:
        """See `Log.starts`; what compaction removed does not move the start."""
        await self._refresh()
        return {partition.number: partition.start for partition in self._of(topic)}

    async def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """See `Log.offset_at`."""
        await self._refresh()
        source = self._partition(topic, partition)
        first, end = source.base + source.start, source.base + source.end
        id = await self._reads.run(lambda: self._storage.first_not_older(timestamp_ms, first=first, end=end))
        return source.start + id - first

    async def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Where a consumer group goes on: {(topic, partition): next offset}; what it never committed is absent."""
        return await self._reads.run(lambda: self._storage.committed(group))

    @property
    def news(self) -> int:
        """A number that changes when something was appended: what `wait_news` compares with."""
        return self._news

    async def wait_news(self, seen: int, topic: str) -> int:
        """Return `news` as soon as it is not `seen` because of that topic; at times because of another."""
        while self._news == seen:
            await asyncio.sleep(POLL_S)
            await self._refresh()
        return self._news

    async def close(self) -> None:
        """Release the database. Closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        await self._reads.run(self._storage.close)
        self._reads.stop()

    def _of(self, topic: str) -> list[Partition]:
        try:
            return self._partitions[topic]
        except KeyError:
            raise UsageError(f"the log in {self._folder} has no topic '{topic}'") from None

    def _partition(self, topic: str, number: int) -> Partition:
        partitions = self._of(topic)
        if not 0 <= number < len(partitions):
            raise UsageError(f"'{topic}' has {len(partitions)} partitions; there is no partition {number}")
        return partitions[number]

    def _learn(self, found: Sequence[Stored]) -> None:
        """Take over what the database says; the partitions of a topic come in ascending order."""
        for stored in found:
            known = self._partitions.setdefault(stored.topic, [])
            if stored.partition == len(known):
                known.append(Partition(stored))
            partition = known[stored.partition]
            if stored.end != partition.end:
                self._news += 1
            partition.start, partition.end = stored.start, stored.end

    async def _refresh(self) -> None:
        """Learn what another process has appended and removed."""
        self._learn(await self._reads.run(self._storage.load))

    async def _read(self, partition: Partition, offset: int, end: int) -> tuple[Sequence[Record], int]:
        """A batch of `[offset, end)`, empty over a gap, and the offset to go on from."""
        read = partial(
            self._storage.read,
            partition.topic,
            partition.number,
            first=partition.base + offset,
            end=partition.base + end,
            max_rows=READ_ROWS,
            max_bytes=READ_BYTES,
        )
        records, following = await self._reads.run(read)
        # Retention may have passed by meanwhile; what it left must not be taken for all there was.
        await self._refresh()
        partition.check(offset)
        return records, following - partition.base
