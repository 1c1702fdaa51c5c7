"""What retention and compaction remove from the embedded log, in small steps between its appends."""

from collections.abc import Awaitable, Callable
from functools import partial

from tollgate.topics import Topics

from . import compaction
from .embedded_reader import Partition
from .storage import Storage
from .worker import Worker

# One step of retention between two groups of appends, and the steps of one call per partition.
EXPIRE_ROWS = 250
EXPIRE_BYTES = 8 << 20
EXPIRE_STEPS = 20

Call = Callable[[], None]


class Upkeep:
    """Looks in `reads`, on a connection of its own; removes by `write`, which takes its turn with the appends."""

    def __init__(
        self,
        topics: Topics,
        *,
        storage: Storage,
        reads: Worker,
        written: Storage,
        write: Callable[[Call], Awaitable[None]],
    ) -> None:
        self._topics = topics
        self._storage = storage
        self._reads = reads
        self._written = written
        self._write = write

    async def expire(self, partition: Partition, before_ms: int) -> None:
        """Remove what is older, but never the newest record; what is left over is for the next call."""
        base, newest = partition.base, partition.end - 1
        if newest <= partition.start:
            return
        find = partial(self._storage.first_not_older, before_ms, first=base + partition.start, end=base + newest)
        before = await self._reads.run(find)
        for _ in range(EXPIRE_STEPS):
            first = base + partition.start
            if first >= before:
                return
            reach = partial(self._storage.reach, first=first, end=before, max_rows=EXPIRE_ROWS, max_bytes=EXPIRE_BYTES)
            # Moved before anything is removed: a reader that misses something finds that it is out of range.
            partition.start = start = await self._reads.run(reach) - base
            await self._write(partial(self._written.expire, partition.stored.place, start))

    async def compact(self, partition: Partition, now_ms: int) -> None:
        """One pass: of each key the newest record stays, and a tombstone until every reader has seen it."""
        stored, base = partition.stored, partition.base
        end = min(partition.end, stored.cleaned + compaction.PASS_ROWS)
        look = compaction.Pass(
            storage=self._storage,
            cleaned=base + stored.cleaned,
            end=base + end,
            tombstones_before_ms=now_ms - self._topics[partition.topic].delete_retention_ms,
        )
        first = look.cleaned
        while first < look.end:
            first = await self._reads.run(partial(look.learn, first))
        first = base + partition.start
        while first < look.end:
            doomed, first = await self._reads.run(partial(look.judge, first))
            for index in range(0, len(doomed), compaction.REMOVE_ROWS):
                ids = doomed[index : index + compaction.REMOVE_ROWS]
                await self._write(partial(self._written.remove, ids))
        await self._write(partial(self._written.mark_cleaned, stored.place, cleaned=end, kept=look.kept))
        stored.cleaned, stored.kept = end, look.kept
