"""The log: ordered, durable, partitioned. The port, and what every adapter guarantees.

Two adapters keep the same promises under one contract suite: `embedded` (SQLite, one process) and `kafka`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from typing import NamedTuple, Protocol

from tollgate.errors import LogError
from tollgate.log.reach import Worth

Headers = tuple[tuple[str, bytes], ...]


class Position(NamedTuple):
    """Where an append landed. `timestamp_ms` is the log's own time, never lower than before in the partition."""

    partition: int
    offset: int
    timestamp_ms: int


class Record(NamedTuple):
    """One record as read back. `value` is None for a tombstone of a compacted topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class Unacknowledged(NamedTuple):
    """Appends whose outcome is not known yet; `oldest_s` is how long the first of them has waited, 0 without any."""

    records: int
    bytes: int
    oldest_s: float


class Log(Protocol):
    """An append-only log of topics with partitions.

    Keys map to partitions by Kafka's murmur2 on every adapter. Topics exist before the log is used.
    """

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
    ) -> Awaitable[Position]:
        """Take the record at once and return a future that is done when it is durable.

        Appends to one partition land in the order of the calls, whether awaited or not. A record may `linger` when
        nobody waits to read it: it need not be written before others that are, and costs no write of its own.
        What may wait while the log does not answer is bounded, by what a record is worth: one that is `new` is refused
        as soon as the log is behind, one that is of use only in `passing` when much waits already.
        The future is an `asyncio.Future`: callbacks may be added. It fails with
        `LogUnavailable` when nothing was appended, `AppendUnknown` when nobody can know.
        """
        ...

    def partition_for(self, topic: str, key: bytes) -> int:
        """The partition that `append` chooses for this key."""
        ...

    def earliest_ms(self, topic: str, partition: int) -> int | None:
        """The earliest time that a record appended from now on can get, where others keep the log's time.

        None where it is not known, or this process keeps it.
        """
        ...

    def partitions(self, topic: str) -> int:
        """How many partitions the topic has."""
        ...

    def follow(self, topic: str, offsets: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        """Yield records in batches from `offsets` ({partition: next offset}) on, and keep following the end.

        Batches hold records of one partition in offset order; offsets may have gaps. Only durable records are seen.
        Raises `OutOfRange` when an offset is older than what is kept.
        """
        ...

    def scan(self, topic: str, partition: int, start: int, end: int | None = None) -> AsyncIterator[Sequence[Record]]:
        """Yield the records of `[start, end)` in batches, then stop; `end` None means the end as of now.

        Raises `OutOfRange` when `start` is older than what is kept.
        """
        ...

    async def ends(self, topic: str) -> dict[int, int]:
        """The offset that the next durable record of each partition would get."""
        ...

    async def starts(self, topic: str) -> dict[int, int]:
        """The oldest offset still kept, per partition (equal to the end where nothing is)."""
        ...

    async def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        """The first offset whose record is not older than the time; the end if there is none."""
        ...

    async def close(self) -> None:
        """Finish what was appended, then release every resource. Nothing may be appended afterwards."""
        ...


class WritableLog(Log, Protocol):
    """A log opened by one of its writers."""

    @property
    def failed(self) -> "asyncio.Future[LogError]":
        """Done, with the error as its result, once an append has an unknown outcome: the process must end."""
        ...

    def unacknowledged(self) -> Unacknowledged:
        """What was appended and is not known to be durable. For probes and metrics: it looks at everything queued."""
        ...

    async def until_open(self) -> None:
        """Return when the log can be used, however long that takes. Raises `ConfigError` when it never will be."""
        ...

    def waits_for(self) -> str | None:
        """What somebody new would wait for, in words for anybody; None while the log answers."""
        ...

    async def settled(self) -> None:
        """Return when the log has answered for a while: what others had waiting for it has come."""
        ...

    def answering_s(self) -> float:
        """A clock in seconds that stands still while the log does not answer: nobody can be heard meanwhile."""
        ...
