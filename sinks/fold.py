"""Carries the rule `record → rows` along the partitions: who may speak, which day a row belongs to, how far we are.

Used alike by the sink, by `replay`, by `sql` for what is not flushed, and by `reconcile`, so that they cannot differ.
Pure: no clock, no I/O. Records come in; batches of rows with the cursors they lead to come out.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

import msgspec
import pyarrow as pa

from tollgate.errors import Unreadable
from tollgate.events import Adjusted, AuditRecorded, Ended, OwnerTook, decode
from tollgate.journal import JOURNAL, NO_EPOCH, valid
from tollgate.log import Record
from tollgate.sinks import rows
from tollgate.sinks.manifest import Cursor
from tollgate.sinks.rows import DAY_MS, Placed, PlacedAudit

AUDIT = "audit"
TOPICS = (JOURNAL, AUDIT)

# Events that become columns together. About 1 ms; fewer at a time cost more each.
SEAL_EVENTS = 200

# Half of the journal's records, of which no row is made: told by their first bytes, they need not be decoded.
_NO_ROWS = (b'{"type":"admitted.', b'{"type":"attempt_started.')


Of = TypeVar("Of", Placed, PlacedAudit)


class Skipped(NamedTuple):
    """A record of which no row can be made, and why."""

    topic: str
    partition: int
    offset: int
    reason: str


class Part(NamedTuple):
    """The rows of one table and one day as a `pyarrow.Table`."""

    table: str
    day: str
    rows: Any


@dataclass
class Batch:
    """Rows by table and day, what was skipped, and the cursors before and after them."""

    parts: list[Part]
    skipped: list[Skipped]
    base: dict[str, Cursor]
    cursors: dict[str, Cursor]  # of the partitions that moved


def cursor_key(topic: str, partition: int) -> str:
    """How a partition is named in the manifest: `completions/3`."""
    return f"{topic}/{partition}"


class Fold:
    """The rows of all records taken since the last `cut`, each counted once however often it is delivered.

    Events become columns `seal_events` at a time. With some hundred of them, none of these steps holds up an event loop
    for more than a millisecond or two.
    """

    def __init__(self, cursors: Mapping[str, Cursor], *, seal_events: int = SEAL_EVENTS) -> None:
        self._cursors: dict[str, Cursor] = {key: msgspec.structs.replace(cursor) for key, cursor in cursors.items()}
        self._base = dict(cursors)
        self._seal_events = seal_events
        # Events that are no columns yet, by day since 1970.
        self._journal: defaultdict[int, list[Placed]] = defaultdict(list)
        self._audit: defaultdict[int, list[PlacedAudit]] = defaultdict(list)
        self._loose = 0
        self._sealed: defaultdict[tuple[int, str], list[Any]] = defaultdict(list)
        self._sealed_size = 0
        self._skipped: list[Skipped] = []
        self.fenced = 0
        """Ends and adjustments, since the start, whose writer owned the partition no more."""

    @property
    def size(self) -> int:
        """How many rows a cut would give."""
        loose = sum(rows.rows_of(each.event) for of_day in self._journal.values() for each in of_day)
        return self._sealed_size + loose + sum(map(len, self._audit.values()))

    def offset(self, topic: str, partition: int) -> int:
        """The offset of the next record to take."""
        cursor = self._cursors.get(cursor_key(topic, partition))
        return cursor.offset if cursor is not None else 0

    def skip_to(self, topic: str, partition: int, offset: int, *, epoch: int = NO_EPOCH, hash: str = "") -> None:
        """Begin a partition at `offset`: what was before is gone. `epoch` and `hash` are those in force there."""
        self._cursors[cursor_key(topic, partition)] = Cursor(offset=offset, epoch=epoch, hash=hash)

    def behind(self, ends: Mapping[str, int]) -> bool:
        """Is there more to take before these ends, by `topic/partition`?"""
        return any(self._cursors.get(key, Cursor()).offset < end for key, end in ends.items())

    def take(self, records: Sequence[Record]) -> None:
        """Take records of one partition in their order. What lies below the cursor was taken before."""
        if not records:
            return
        topic, partition = records[0].topic, records[0].partition
        cursor = self._cursors.setdefault(cursor_key(topic, partition), Cursor())
        take_one, passed = (self._take_journal, _NO_ROWS) if topic == JOURNAL else (self._take_audit, ())
        if records[0].offset < cursor.offset:
            records = [record for record in records if record.offset >= cursor.offset]
        for record in records:
            value = record.value
            if value is None or value.startswith(passed):
                continue
            try:
                take_one(cursor, record, value)
            except Unreadable as error:
                self._skipped.append(Skipped(topic, partition, record.offset, str(error)))
            if self._loose >= self._seal_events:
                self._seal()
        if records:
            cursor.offset = records[-1].offset + 1
            cursor.time_ms = records[-1].timestamp_ms

    def cut(self) -> Batch:
        """All rows since the last cut; the next batch begins where this one ends."""
        self._seal()
        parts = [
            Part(table, rows.day_of(day * DAY_MS), pa.concat_tables(tables))
            for (day, table), tables in sorted(self._sealed.items())
        ]
        moved = {
            key: msgspec.structs.replace(cursor)
            for key, cursor in self._cursors.items()
            if cursor != self._base.get(key)
        }
        batch = Batch(parts, self._skipped, self._base, moved)
        self._base = {**self._base, **moved}
        self._sealed.clear()
        self._sealed_size = 0
        self._skipped = []
        return batch

    def _seal(self) -> None:
        """Put the loose events into columns. A record with a number that no column holds is skipped whole."""
        for day, of_journal in self._journal.items():
            for table, columns in self._tables(JOURNAL, rows.journal_tables, of_journal).items():
                self._keep(day, table, columns)
        for day, of_audit in self._audit.items():
            for table, columns in self._tables(AUDIT, rows.audit_tables, of_audit).items():
                self._keep(day, table, columns)
        self._journal.clear()
        self._audit.clear()
        self._loose = 0

    def _keep(self, day: int, table: str, columns: Any) -> None:
        if columns.num_rows:
            self._sealed[day, table].append(columns)
            self._sealed_size += columns.num_rows

    def _tables(
        self, topic: str, make: Callable[[Sequence[Of]], dict[str, Any]], placed: Sequence[Of]
    ) -> dict[str, Any]:
        try:
            return make(placed)
        except (pa.ArrowInvalid, OverflowError):
            fit = []
            for each in placed:
                try:
                    make([each])
                except (pa.ArrowInvalid, OverflowError) as error:
                    self._skipped.append(Skipped(topic, each.partition, each.offset, str(error)))
                else:
                    fit.append(each)
            return make(fit)

    def _take_journal(self, cursor: Cursor, record: Record, value: bytes) -> None:
        event = decode(value)
        kind = type(event)
        if kind is OwnerTook:
            cursor.epoch = record.offset
        elif kind is Ended or kind is Adjusted:
            if valid(cursor.epoch, event):
                placed = Placed(event, record.partition, record.offset, record.timestamp_ms)  # type: ignore[arg-type]
                self._journal[record.timestamp_ms // DAY_MS].append(placed)
                self._loose += 1
            else:
                self.fenced += 1

    def _take_audit(self, cursor: Cursor, record: Record, value: bytes) -> None:
        cursor.hash = chain(cursor.hash, value)
        event = decode(value)
        if type(event) is not AuditRecorded:
            raise Unreadable(f"not an audit record: {type(event).__name__}")
        placed = PlacedAudit(event, record.partition, record.offset, record.timestamp_ms, cursor.hash)
        self._audit[record.timestamp_ms // DAY_MS].append(placed)
        self._loose += 1


def chain(hash: str, value: bytes) -> str:
    """The next link of a partition's audit chain: SHA-256 over the link before it (nothing at first) and the record.

    A record that is altered, removed or inserted changes every link after it.
    """
    return sha256(bytes.fromhex(hash) + value).hexdigest()
