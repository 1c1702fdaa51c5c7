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
from tollgate.events import Adjusted, AuditRecorded, Ended, OwnerTook, decode, encode
from tollgate.journal import JOURNAL, NO_EPOCH, valid
from tollgate.log import Record
from tollgate.sinks import rows
from tollgate.sinks.ends import FIRST_BYTES
from tollgate.sinks.manifest import Cursor
from tollgate.sinks.rows import DAY_MS, Booking, PlacedAudit, PlacedEnd

AUDIT = "audit"
TOPICS = (JOURNAL, AUDIT)

# Records that become columns together. Some 3 ms, of which two thirds are the same for any number of them.
SEAL_EVENTS = 100

# Half of the journal's records, of which no row is made: told by their first bytes, they need not be decoded.
_NO_ROWS = (b'{"type":"admitted.', b'{"type":"attempt_started.')

_UNFIT = (pa.ArrowInvalid, OverflowError)


Placed = TypeVar("Placed", PlacedEnd, Booking, PlacedAudit)


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

    Events become columns `seal_events` at a time, which holds up an event loop for 3 to 4 ms with a hundred of them.
    """

    def __init__(self, cursors: Mapping[str, Cursor], *, seal_events: int = SEAL_EVENTS) -> None:
        self._cursors: dict[str, Cursor] = {key: msgspec.structs.replace(cursor) for key, cursor in cursors.items()}
        self._base = dict(cursors)
        self._seal_events = seal_events
        # What is no columns yet, by day since 1970.
        self._ends: defaultdict[int, list[PlacedEnd]] = defaultdict(list)
        self._adjustments: defaultdict[int, list[Booking]] = defaultdict(list)
        self._audit: defaultdict[int, list[PlacedAudit]] = defaultdict(list)
        self._loose = 0
        self._sealed: defaultdict[tuple[int, str], list[Any]] = defaultdict(list)
        self._sealed_size = 0
        self._skipped: list[Skipped] = []
        self.fenced = 0
        """Ends and adjustments, since the start, whose writer owned the partition no more."""

    @property
    def size(self) -> int:
        """How many rows a cut would give; what is no columns yet counts as one row a record."""
        return self._sealed_size + self._loose

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
        if records[0].offset < cursor.offset:
            records = [record for record in records if record.offset >= cursor.offset]
        take_one = self._take_journal if topic == JOURNAL else self._take_audit
        for record in records:
            value = record.value
            if value is None:
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
        """Put what is loose into columns.

        A record that cannot be read, or has a number that no column holds, is skipped whole.
        """
        for day, ends in self._ends.items():
            tables, fit = self._tables(JOURNAL, rows.end_tables, ends)
            self.fenced += fit - tables["usage"].num_rows
            self._keep(day, tables)
        for day, adjustments in self._adjustments.items():
            self._keep(day, self._tables(JOURNAL, rows.adjustment_tables, adjustments)[0])
        for day, of_audit in self._audit.items():
            self._keep(day, self._tables(AUDIT, rows.audit_tables, of_audit)[0])
        self._ends.clear()
        self._adjustments.clear()
        self._audit.clear()
        self._loose = 0

    def _keep(self, day: int, tables: Mapping[str, Any]) -> None:
        for table, columns in tables.items():
            if columns.num_rows:
                self._sealed[day, table].append(columns)
                self._sealed_size += columns.num_rows

    def _tables(
        self, topic: str, make: Callable[[Sequence[Placed]], dict[str, Any]], placed: Sequence[Placed]
    ) -> tuple[dict[str, Any], int]:
        """The tables, and of how many records they are: all of them, nearly always."""
        try:
            return make(placed), len(placed)
        except _UNFIT:
            fit = []
            for each in placed:
                try:
                    make([each])
                except _UNFIT as error:
                    self._skipped.append(Skipped(topic, each.partition, each.offset, _reason(each, error)))
                else:
                    fit.append(each)
            return make(fit), len(fit)

    def _take_journal(self, cursor: Cursor, record: Record, value: bytes) -> None:
        if value.startswith(_NO_ROWS):
            return
        if value.startswith(FIRST_BYTES):
            self._take_end(cursor, record, value)
            return
        event = decode(value)
        if isinstance(event, OwnerTook):
            cursor.epoch = record.offset
        elif isinstance(event, Ended):
            self._take_end(cursor, record, encode(event))
        elif isinstance(event, Adjusted):
            if valid(cursor.epoch, event):
                booking = rows.adjustment(event, record.partition, record.offset, record.timestamp_ms)
                self._adjustments[record.timestamp_ms // DAY_MS].append(booking)
                self._loose += 1
            else:
                self.fenced += 1

    def _take_end(self, cursor: Cursor, record: Record, value: bytes) -> None:
        placed = PlacedEnd(value, cursor.epoch, record.partition, record.offset, record.timestamp_ms)
        self._ends[record.timestamp_ms // DAY_MS].append(placed)
        self._loose += 1

    def _take_audit(self, cursor: Cursor, record: Record, value: bytes) -> None:
        cursor.hash = chain(cursor.hash, value)
        event = decode(value)
        if type(event) is not AuditRecorded:
            raise Unreadable(f"not an audit record: {type(event).__name__}")
        placed = PlacedAudit(event, record.partition, record.offset, record.timestamp_ms, cursor.hash)
        self._audit[record.timestamp_ms // DAY_MS].append(placed)
        self._loose += 1


def _reason(placed: PlacedEnd | Booking | PlacedAudit, error: Exception) -> str:
    """Why it makes no row. What is wrong with an end is better said by who reads one value after the other."""
    if isinstance(placed, PlacedEnd):
        try:
            decode(placed.value)
        except Unreadable as unreadable:
            return str(unreadable)
    return str(error)


def chain(hash: str, value: bytes) -> str:
    """The next link of a partition's audit chain: SHA-256 over the link before it (nothing at first) and the record.

    A record that is altered, removed or inserted changes every link after it.
    """
    return sha256(bytes.fromhex(hash) + value).hexdigest()
