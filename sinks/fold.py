"""Carries the rule `record → rows` along the partitions: who may speak, which day a row belongs to, how far we are.

Used alike by the sink, by `replay`, by `sql` for what is not flushed, and by `reconcile`, so that they cannot differ.
Pure: no clock, no I/O. Records come in; batches of rows with the cursors they lead to come out.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from tollgate.errors import Unreadable
from tollgate.events import Adjusted, AuditRecorded, Ended, Event, OwnerTook, decode
from tollgate.journal import JOURNAL, NO_EPOCH, valid
from tollgate.log import Record
from tollgate.sinks import rows
from tollgate.sinks.manifest import Cursor
from tollgate.sinks.rows import DAY_MS, Row

AUDIT = "audit"
TOPICS = (JOURNAL, AUDIT)

SEAL_ROWS = 800  # about 200 requests: 1 ms; fewer at a time cost more each (100 a third more, 20 four times as much)

# Half of the journal's records, of which no row is made: told by their first bytes, they need not be decoded.
_NO_ROWS = (b'{"type":"admitted.', b'{"type":"attempt_started.')


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

    Rows become columns a few hundred at a time: none of these steps holds up the event loop for more than a
    millisecond or two, and tuples that die young cost no garbage collection.
    """

    def __init__(self, cursors: Mapping[str, Cursor]) -> None:
        self._cursors: dict[str, Cursor] = {key: msgspec.structs.replace(cursor) for key, cursor in cursors.items()}
        self._base = dict(cursors)
        self._loose: defaultdict[tuple[int, str], list[Row]] = defaultdict(list)  # by day since 1970, and table
        self._loose_size = 0
        self._sealed: defaultdict[tuple[int, str], list[Any]] = defaultdict(list)
        self._sealed_size = 0
        self._skipped: list[Skipped] = []
        self.fenced = 0
        """Ends and adjustments, since the start, whose writer owned the partition no more."""

    @property
    def size(self) -> int:
        """How many rows a cut would give."""
        return self._sealed_size + self._loose_size

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
        key = cursor_key(topic, partition)
        cursor = self._cursors.setdefault(key, Cursor())
        take_one = self._take_journal if topic == JOURNAL else self._take_audit
        for record in records:
            if record.offset < cursor.offset:
                continue
            cursor.offset = record.offset + 1
            cursor.time_ms = record.timestamp_ms
            if record.value is None:
                continue
            try:
                take_one(cursor, record, record.value)
            except Unreadable as error:
                self._skipped.append(Skipped(topic, partition, record.offset, str(error)))
            if self._loose_size >= SEAL_ROWS:
                self._seal()

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

    def _add(self, table: str, timestamp_ms: int, of_table: Sequence[Row]) -> None:
        if of_table:
            self._loose[timestamp_ms // DAY_MS, table] += of_table
            self._loose_size += len(of_table)

    def _seal(self) -> None:
        """Put the loose rows into columns. A record with a number that no column holds is skipped whole."""
        loose, self._loose, self._loose_size = self._loose, defaultdict(list), 0
        try:
            sealed = {key: rows.table_of(key[1], of_table) for key, of_table in loose.items()}
        except (pa.ArrowInvalid, OverflowError):
            self._skipped += _take_out_unfit(loose)
            sealed = {key: rows.table_of(key[1], of_table) for key, of_table in loose.items() if of_table}
        for key, table in sealed.items():
            self._sealed[key].append(table)
            self._sealed_size += table.num_rows

    def _take_journal(self, cursor: Cursor, record: Record, value: bytes) -> None:
        if value.startswith(_NO_ROWS):
            return
        event = decode(value)
        if type(event) is OwnerTook:
            cursor.epoch = record.offset
        elif valid(cursor.epoch, event):
            self._add_journal_rows(event, record)
        elif type(event) in (Ended, Adjusted):
            self.fenced += 1

    def _add_journal_rows(self, event: Event, record: Record) -> None:
        place = record.partition, record.offset, record.timestamp_ms
        if type(event) is Ended:
            self._add("usage", record.timestamp_ms, [rows.usage_row(event, *place)])
            self._add(
                "attempts", record.timestamp_ms, [rows.attempt_row(event, each, *place) for each in event.attempts]
            )
            self._add("costs", record.timestamp_ms, rows.ended_cost_rows(event, *place))
        elif type(event) is Adjusted:
            self._add("costs", record.timestamp_ms, rows.adjusted_cost_rows(event, *place))

    def _take_audit(self, cursor: Cursor, record: Record, value: bytes) -> None:
        cursor.hash = chain(cursor.hash, value)
        event = decode(value)
        if type(event) is not AuditRecorded:
            raise Unreadable(f"not an audit record: {type(event).__name__}")
        row = rows.audit_row(event, record.partition, record.offset, record.timestamp_ms, hash=cursor.hash)
        self._add("audit", record.timestamp_ms, [row])


def chain(hash: str, value: bytes) -> str:
    """The next link of a partition's audit chain: SHA-256 over the link before it (nothing at first) and the record.

    A record that is altered, removed or inserted changes every link after it.
    """
    return sha256(bytes.fromhex(hash) + value).hexdigest()


def _take_out_unfit(loose: Mapping[tuple[int, str], list[Row]]) -> list[Skipped]:
    """Remove the rows of every record of which a row does not fit into its columns; tell which."""
    unfit: dict[tuple[str, int, int], str] = {}
    for (_, table), of_table in loose.items():
        for row in of_table:
            try:
                rows.table_of(table, [row])
            except (pa.ArrowInvalid, OverflowError) as error:
                unfit[_place(table, row)] = str(error)
    for (_, table), of_table in loose.items():
        of_table[:] = [row for row in of_table if _place(table, row) not in unfit]
    return [Skipped(*place, reason) for place, reason in unfit.items()]


def _place(table: str, row: Row) -> tuple[str, int, int]:
    """Topic, partition and offset of the record that the row was made of."""
    return AUDIT if table == "audit" else JOURNAL, row[-2], row[-1]
