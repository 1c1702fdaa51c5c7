"""Moves history between logs: what an archive takes from one, and how another is compared with it.

Offsets stay what they are, because events name them: an epoch is the offset of a take-over, `src` that of a request,
a copy of costs names its journal record. So whoever reads the new log finds every reference where it was.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tollgate
from tollgate.errors import ConfigError, Unreadable, UsageError
from tollgate.events import Adjusted, Admitted, CostsBooked, Ended, IngressBeat, OwnerBeat, decode, encode
from tollgate.journal import JOURNAL, NO_EPOCH, epoch_after, valid
from tollgate.topics import Topics

from . import Log, Record
from .archive import Archive, Manifest, Part, Writer, digest, write_manifest

REQUESTS = "requests"
LEFT_OUT: Mapping[str, str] = {
    "replies": "answers on their way, of no use once they have arrived",
    "tollgate-state-changelog": "a checkpoint, made anew from the journal",
}

# Kafka gives out offsets without gaps, so a gap is filled with a record that says nothing to any reader. In an archive
# it is a gap again. Readers of these two topics want an event; the others pass over a tombstone.
FILLER_KEY = b"tollgate-filler"
_FILLERS: Mapping[str, bytes] = {
    JOURNAL: encode(OwnerBeat(epoch=NO_EPOCH)),  # of an epoch that nobody has, and so never valid
    REQUESTS: encode(IngressBeat(address="")),
    "costs": encode(CostsBooked(request_id="", org_id="", attempt=0, revision=0, provider="", account="", model="",
                                journal_offset=0, lines=())),
}  # fmt: skip

# A gateway on Kafka writes some record several times a second.
GROWTH_S = 2.0

Progress = Callable[[int, int], None]


def filler_of(topic: str) -> bytes | None:
    """The value of a filler of the topic. Pure."""
    return _FILLERS.get(topic)


def without_fillers(records: Iterable[Record]) -> list[Record]:
    """Pure."""
    return [record for record in records if record.key != FILLER_KEY]


@dataclass
class Sums:
    """What the valid records of one journal partition add up to; `decided` is the watermark of requests."""

    ends: int = 0
    cost_pusd: int = 0
    bill_pusd: int = 0
    decided: int = -1
    _epoch: int = NO_EPOCH

    def take(self, records: Iterable[Record]) -> None:
        """Take the next records, in order."""
        for record in records:
            try:
                event = decode(record.value or b"")
            except Unreadable:
                continue
            if valid(self._epoch, event):
                self._count(event)
            self._epoch = epoch_after(self._epoch, record.offset, event)

    def _count(self, event: object) -> None:
        if isinstance(event, Ended):
            self.ends += 1
            self.cost_pusd += event.cost_pusd
            self.bill_pusd += event.bill_pusd
            self.decided = max(self.decided, -1 if event.src is None else event.src)
        elif isinstance(event, Admitted):
            self.decided = max(self.decided, event.src)
        elif isinstance(event, Adjusted):
            self.cost_pusd += sum(line.cost_pusd for line in event.lines)
            self.bill_pusd += sum(line.bill_pusd for line in event.lines)


# Out of a log ---------------------------------------------------------------------------------------------------------


@dataclass
class Export:
    """One export of a log into a folder. `decided` are the watermarks of the requests, by partition."""

    log: Log
    folder: Path
    topics: Topics
    source: str
    all_requests: bool = True
    settle_s: float = 0.0  # how long to look afterwards whether the log grows
    progress: Progress = lambda done, total: None
    parts: list[Part] = field(default_factory=list)
    decided: dict[int, int] = field(default_factory=dict)
    done: int = 0

    async def run(self) -> Manifest:
        """Write the archive; what makes it one is written last, so an interrupted one is none.

        Raises `ConfigError` when retention has cut the journal, `UsageError` when the log grows meanwhile.
        """
        # The journal first: it says which requests are decided.
        names = sorted((topic.name for topic in self.topics if topic.name not in LEFT_OUT), key=lambda n: n != JOURNAL)
        bounds = [(name, await self.log.starts(name), await self.log.ends(name)) for name in names]
        _check_whole(bounds)
        total = sum(end - starts[n] for _, starts, ends in bounds for n, end in ends.items())
        self.progress(0, total)
        for name, starts, ends in bounds:
            for number in sorted(ends):
                self.parts.append(await self._part(name, number, starts[number], ends[number], total))
        await asyncio.sleep(self.settle_s)
        for name, _, ends in bounds:
            if await self.log.ends(name) != ends:
                raise UsageError(f"'{name}' grew while it was read: stop the gateway, then export again")
        manifest = Manifest(
            tollgate=tollgate.__version__,
            made=datetime.fromtimestamp(time.time(), UTC).isoformat(timespec="seconds"),
            source=self.source,
            left_out=tuple(f"{name}: {why}" for name, why in LEFT_OUT.items()),
            partitions={name: len(ends) for name, _, ends in bounds},
            parts=tuple(self.parts),
        )
        write_manifest(self.folder, manifest)
        return manifest

    async def _part(self, topic: str, number: int, start: int, end: int, total: int) -> Part:
        if topic == REQUESTS and not self.all_requests:
            start = max(start, min(self.decided[number] + 1, end))
        file, sums = f"{topic}-{number}.ndjson.zst", Sums()
        writer = Writer(self.folder / file)
        before = start
        async for batch in self.log.scan(topic, number, start, end):
            records = without_fillers(batch)
            writer.add(records)
            if topic == JOURNAL:
                sums.take(records)
            self.done += batch[-1].offset + 1 - before
            before = batch[-1].offset + 1
            self.progress(self.done, total)
        if topic == JOURNAL:
            self.decided[number] = sums.decided
        return Part(
            topic=topic,
            partition=number,
            file=file,
            start=start,
            end=end,
            records=writer.records,
            sha256=writer.close(),
            ends=sums.ends,
            cost_pusd=str(sums.cost_pusd),
            bill_pusd=str(sums.bill_pusd),
        )


def _check_whole(bounds: Sequence[tuple[str, Mapping[int, int], Mapping[int, int]]]) -> None:
    for name, starts, _ in bounds:
        for number, start in starts.items():
            if name == JOURNAL and start > 0:
                raise ConfigError(
                    f"retention has cut {name}/{number}, which begins at {start}: what budgets have counted before "
                    "would be lost, so this log cannot be moved"
                )


# Into a log -----------------------------------------------------------------------------------------------------------


def check_partitions(manifest: Manifest, topics: Topics) -> None:
    """Raise `ConfigError` unless the new log has the partitions that the archive's log had."""
    for name, count in manifest.partitions.items():
        if name not in topics.topics:
            raise ConfigError(f"topics.yaml: there is no topic '{name}', of which the archive has {count} partitions")
        if topics[name].partitions != count:
            raise ConfigError(
                f"topics.yaml: '{name}' has {topics[name].partitions} partitions, in the archive it has {count}; "
                "the count is fixed for the life of a history"
            )


def check_files(archive: Archive, progress: Progress) -> None:
    """Read everything once, before anything is written. Raises `ConfigError` that names the file that is damaged."""
    total = sum(part.records for part in archive.manifest.parts)
    done = 0
    for part in archive.manifest.parts:
        for records in archive.records(part):
            done += len(records)
            progress(done, total)


async def compare(log: Log, manifest: Manifest, progress: Progress) -> list[dict[str, Any]]:
    """For each partition, what the archive and the log hold. Raises `ConfigError` unless they hold the same."""
    rows = []
    total, done = sum(part.records for part in manifest.parts), 0
    for part in manifest.parts:
        hash, sums, count = hashlib.sha256(), Sums(), 0
        start, end = (await log.starts(part.topic))[part.partition], (await log.ends(part.topic))[part.partition]
        async for batch in log.scan(part.topic, part.partition, max(start, min(part.start, end))):
            records = without_fillers(batch)
            count += digest(hash, records)
            if part.topic == JOURNAL:
                sums.take(records)
            progress(done + count, total)
        done += count
        found = Part(
            topic=part.topic,
            partition=part.partition,
            file=part.file,
            start=part.start,
            end=end,
            records=count,
            sha256=hash.hexdigest(),
            ends=sums.ends,
            cost_pusd=str(sums.cost_pusd),
            bill_pusd=str(sums.bill_pusd),
        )
        if found != part:
            raise ConfigError(f"{part.name} is not what the archive holds: {_differences(part, found)}")
        rows.append({"partition": part.name, "archive": _told(part), "log": _told(found)})
    return rows


def _told(part: Part) -> dict[str, object]:
    return {
        "records": part.records,
        "end": part.end,
        "ends": part.ends,
        "cost_pusd": part.cost_pusd,
        "bill_pusd": part.bill_pusd,
        "sha256": part.sha256,
    }


def _differences(part: Part, found: Part) -> str:
    told, seen = _told(part), _told(found)
    return ", ".join(f"{name} is {seen[name]} instead of {told[name]}" for name in told if told[name] != seen[name])
