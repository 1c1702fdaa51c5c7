"""Where a replay begins and ends in each partition, and what must be known there of what came before.

A range of time is a stretch of offsets: from the first record that is not older than its beginning, up to the first
that is not older than its end. So ranges that adjoin add up to the whole, record by record, whatever the brokers'
clocks did, and a row is the one that a replay of everything makes: the epoch in force at the start and the audit
chain's last link before it are found in the log. The log is only read.
"""

from collections.abc import Mapping

import msgspec

from tollgate.errors import OutOfRange, Unreadable
from tollgate.events import OwnerTook, decode
from tollgate.journal import JOURNAL, NO_EPOCH
from tollgate.log import Log
from tollgate.sinks.fold import AUDIT, TOPICS, chain, cursor_key
from tollgate.sinks.manifest import Cursor
from tollgate.sinks.retention import epoch_at

# A writer that was fenced has at most its queue left to write (16,384 records on either log). Of more records than
# the queues of several such hold, some are the owner's.
LOOK_BACK_RECORDS = 65_536
LOOK_BACK_FIRST = 1_024  # the first window; each further one is twice as long


class Range(msgspec.Struct, frozen=True):
    """Times of the log in Unix milliseconds: from the first, up to the second; None is the beginning, and the end."""

    from_ms: int | None = None
    until_ms: int | None = None


WHOLE = Range()


class Stretch(msgspec.Struct, frozen=True):
    """What of one partition is to be read: from `start` up to the offset `end`."""

    topic: str
    partition: int
    start: Cursor
    end: int

    @property
    def key(self) -> str:
        return cursor_key(self.topic, self.partition)

    @property
    def records(self) -> int:
        return max(0, self.end - self.start.offset)


async def find_starts(log: Log, range: Range, *, from_start_of_log: bool) -> dict[str, Cursor]:
    """The cursors from which the range is read, by `topic/partition`.

    Raises `OutOfRange` with the first position that can still be read when retention has cut the log within the range,
    unless `from_start_of_log` says that history may begin there; the audit chain then begins there as well.
    """
    starts: dict[str, Cursor] = {}
    cut = []
    for topic in TOPICS:
        for number, kept in sorted((await log.starts(topic)).items()):
            first = kept if range.from_ms is None else await log.offset_at(topic, number, range.from_ms)
            if kept > 0 and first <= kept:
                cut.append(f"{cursor_key(topic, number)} at {kept}")
            if topic == JOURNAL:
                cursor = Cursor(offset=first, epoch=await epoch_before(log, number, first, kept=kept))
            else:
                cursor = Cursor(offset=first, hash=await chain_before(log, number, first, kept=kept))
            starts[cursor_key(topic, number)] = cursor
    if cut and not from_start_of_log:
        raise OutOfRange(
            f"retention has cut the log; what is left begins with {', '.join(cut)}. "
            "Parquet made of it would lack what came before: say --from-start-of-log if that is meant"
        )
    return starts


async def find_ends(log: Log, range: Range) -> dict[str, int]:
    """The offsets up to which the range is read, by `topic/partition`: the ends as of now if it has no end."""
    ends = {}
    for topic in TOPICS:
        for number, end in sorted((await log.ends(topic)).items()):
            if range.until_ms is not None:
                end = min(end, await log.offset_at(topic, number, range.until_ms))
            ends[cursor_key(topic, number)] = end
    return ends


def stretches(starts: Mapping[str, Cursor], cursors: Mapping[str, Cursor], ends: Mapping[str, int]) -> list[Stretch]:
    """What is left to be read, given how far earlier runs came (`cursors`); the longest first. Pure."""
    found = []
    for key, end in ends.items():
        topic, _, number = key.rpartition("/")
        found.append(Stretch(topic, int(number), cursors.get(key, starts[key]), end))
    return sorted((stretch for stretch in found if stretch.records), key=lambda stretch: -stretch.records)


async def epoch_before(
    log: Log, partition: int, offset: int, *, kept: int = 0, look_back: int = LOOK_BACK_RECORDS
) -> int:
    """The epoch in force at `offset` of the journal: that of the last take-over before it.

    It is looked for backwards. Where many records come after it, one of them names it: no record names a later one,
    and fenced writers, which name earlier ones, have only few left to write.
    """
    end, size, seen, named = offset, LOOK_BACK_FIRST, 0, NO_EPOCH
    while end > kept and (seen < look_back or named == NO_EPOCH):
        begin = max(kept, end - size)
        took = NO_EPOCH
        async for records in log.scan(JOURNAL, partition, begin, end):
            seen += len(records)
            for record in records:
                try:
                    event = decode(record.value or b"")
                except Unreadable:
                    continue
                if type(event) is OwnerTook:
                    took = record.offset
                else:
                    named = max(named, getattr(event, "epoch", NO_EPOCH))
        if took != NO_EPOCH:
            return took
        end, size = begin, 2 * size
    if end <= kept and kept > 0:  # the take-over itself may be gone
        return max(named, await epoch_at(log, partition, offset))
    return named if end > kept else NO_EPOCH


async def chain_before(log: Log, partition: int, offset: int, *, kept: int, link: str = "") -> str:
    """The last link of the audit chain before `offset`, made of all records before it that are kept; `link` was the
    last before those."""
    if offset > kept:
        async for records in log.scan(AUDIT, partition, kept, offset):
            for record in records:
                if record.value is not None:
                    link = chain(link, record.value)
    return link
