"""Do the books balance? The log is folded once more, and compared with Parquet row by row and with itself.

What lies past the sink's position, requests still open and copies of the last moments are *pending*, not differences.
Nothing is changed. Rows wait on disk, so that memory is bounded by open requests and by what differs.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tollgate.errors import Unreadable
from tollgate.events import Admitted, CostsBooked, Ended, decode
from tollgate.journal import JOURNAL, NO_EPOCH, epoch_after, valid
from tollgate.log import Log, Record
from tollgate.sinks import parquet, rows
from tollgate.sinks.compact import CLOSE_GRACE_MS
from tollgate.sinks.differences import Difference, compare
from tollgate.sinks.fold import AUDIT, TOPICS, Fold, cursor_key
from tollgate.sinks.manifest import TEMPORARY, DataFile, State, load
from tollgate.sinks.schemas import SCHEMAS
from tollgate.sinks.starts import WHOLE, Range, chain_before, epoch_before

COSTS = "costs"
COPY_GRACE_MS = 10_000  # a copy may lag so far behind its journal; a crash in between is mended at the next start
WAITING_ROWS = 50_000
MEMORY = "512MB"

_NO_END = 2**62

_SQL = Path(__file__).with_name("sql")


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. The books balance when `differences` is empty.

    `rows` were compared; `pending_rows` are not in Parquet yet; `open_requests` have not ended; `pending_copies` are
    cost lines on their way to the topic `costs`; `before_log` are rows whose records retention has removed.
    """

    differences: list[Difference]
    rows: int
    pending_rows: int
    open_requests: int
    pending_copies: int
    before_log: int


async def reconcile(log: Log, data: Path, *, range: Range = WHOLE) -> Report:
    """Compare the log, or a range of it, with the Parquet of the data folder. Safe beside a running gateway.

    The range is that of the log's own time, record by record as `replay` takes it. Requests that were admitted before
    it, or end after it, are not followed beyond it; copies of cost lines are looked for up to the end of the log.
    """
    with tempfile.TemporaryDirectory(prefix="tollgate-reconcile-") as folder:
        state = load(data)
        reading = await _read(log, Path(folder), await _spans(log, data, state, range), range)
        return await asyncio.to_thread(_judge, data, state, reading, range)


# Reading the log ------------------------------------------------------------------------------------------------------


@dataclass
class _Span:
    """What of a partition was read, and how far the topic `costs` must have followed the journal.

    Retention has left what lies at `kept` and behind it. Where the costs begin, for retention may have cut them, is
    `copies_from_ms`.
    """

    topic: str
    partition: int
    kept: int
    first: int
    end: int | None  # None: what comes meanwhile is read as well
    settled_offset: int
    epoch: int = NO_EPOCH  # of the journal, at `first`
    hash: str = ""  # of the audit, before `first`
    settled_ms: int = 0
    copies_from_ms: int = 0


@dataclass
class _Reading:
    """The log as rows in Parquet files under `folder`, and what was noticed on the way."""

    folder: Path
    spans: list[_Span]
    differences: list[Difference] = field(default_factory=list)
    holds: dict[str, int | None] = field(default_factory=dict)  # of the open requests
    files: dict[str, list[Path]] = field(default_factory=lambda: {table: [] for table in (*SCHEMAS, "copies")})

    def write(self, name: str, table: Any) -> None:
        path = self.folder / f"{name}-{len(self.files[name])}.parquet"
        parquet.write(table, path)
        self.files[name].append(path)


async def _spans(log: Log, data: Path, state: State, range: Range) -> list[_Span]:
    """All partitions as they are now. Where retention has cut one, Parquet knows what the audit chain was there."""
    spans = []
    for topic in TOPICS:
        ends = await log.ends(topic)
        for number, kept in sorted((await log.starts(topic)).items()):
            first = kept if range.from_ms is None else await log.offset_at(topic, number, range.from_ms)
            end = None if range.until_ms is None else await log.offset_at(topic, number, range.until_ms)
            settled = ends[number] if end is None else min(end, ends[number])
            spans.append(_Span(topic, number, kept, first, end, settled))
    for span in spans:
        if span.topic == JOURNAL:
            span.epoch = await epoch_before(log, span.partition, span.first, kept=span.kept)
        elif span.first > 0:
            link = await asyncio.to_thread(_hash_before, data, state, span) if span.kept > 0 else ""
            span.hash = await chain_before(log, span.partition, span.first, kept=span.kept, link=link)
    return spans


def _hash_before(data: Path, state: State, span: _Span) -> str:
    """The audit chain's last link before what retention has left."""
    with parquet.connect(spill=data / TEMPORARY) as connection:
        parquet.view_files(connection, "audit", "audit", [data / file.path for file in state.of("audit")])
        query = "SELECT max_by(hash, log_offset) FROM audit WHERE log_partition = ? AND log_offset < ?"
        [(hash,)] = connection.execute(query, [span.partition, span.kept]).fetchall()
    return hash or ""


async def _read(log: Log, folder: Path, spans: list[_Span], range: Range) -> _Reading:
    """The copies, then the journal to its end: so a copy made meanwhile has its journal record, and a record below
    the ends seen before has had time to be copied, or not."""
    reading = _Reading(folder, spans)
    await _read_copies(log, reading, range)
    fold = Fold({})
    for span in spans:
        fold.skip_to(span.topic, span.partition, span.first, epoch=span.epoch, hash=span.hash)
        watch = _Watch(reading, span)
        async for records in log.scan(span.topic, span.partition, span.first, span.end):
            fold.take(records)
            if span.topic == JOURNAL:
                watch.take(records)
            if fold.size >= WAITING_ROWS:
                await asyncio.to_thread(_write_rows, reading, fold)
    await asyncio.to_thread(_write_rows, reading, fold)
    return reading


def _write_rows(reading: _Reading, fold: Fold) -> None:
    batch = fold.cut()
    for part in batch.parts:
        reading.write(part.table, part.rows)
    reading.differences += [
        Difference(source="log", place=f"{topic}/{partition}@{offset}", what=f"makes no row: {reason}")
        for topic, partition, offset, reason in batch.skipped
    ]


async def _read_copies(log: Log, reading: _Reading, range: Range) -> None:
    """A copy is of the range when its line is. It was made later, by a clock that need not be the journal's."""
    spans = {span.partition: span for span in reading.spans if span.topic == JOURNAL}
    waiting: list[rows.Booking] = []
    for partition, kept in sorted((await log.starts(COSTS)).items()):
        start = kept
        if range.from_ms is not None:
            start = await log.offset_at(COSTS, partition, max(0, range.from_ms - CLOSE_GRACE_MS))
        cut = 0 < kept == start
        async for records in log.scan(COSTS, partition, start):
            if cut:
                spans[partition].copies_from_ms, cut = records[0].timestamp_ms, False
            for record in records:
                waiting += _copies(record, spans[partition], reading, range)
            if len(waiting) >= WAITING_ROWS:
                await asyncio.to_thread(reading.write, "copies", rows.costs_table(waiting))
                waiting = []
    await asyncio.to_thread(reading.write, "copies", rows.costs_table(waiting))


def _copies(record: Record, span: _Span, reading: _Reading, range: Range) -> list[rows.Booking]:
    """The lines of one record of the topic `costs`."""
    place = record.partition, record.offset, record.timestamp_ms
    try:
        event = decode(record.value or b"")
        if not isinstance(event, CostsBooked):
            raise Unreadable(f"not cost lines: {type(event).__name__}")
    except Unreadable as error:
        where = f"{COSTS}/{record.partition}@{record.offset}"
        reading.differences.append(Difference(source="log", place=where, what=str(error)))
        return []
    if range.from_ms is not None and event.journal_offset < span.first:
        return []
    if span.end is not None and event.journal_offset >= span.end:
        return []
    booking = rows.Booking(event.lines, event.request_id, event.org_id, event.attempt, event.revision, "", *place)
    return [booking]


class _Watch:
    """Follows the requests of one journal partition from hold to end, as the rows alone cannot tell."""

    def __init__(self, reading: _Reading, span: _Span) -> None:
        self._reading = reading
        self._span = span
        self._epoch = span.epoch

    def take(self, records: Sequence[Record]) -> None:
        for record in records:
            if record.offset < self._span.settled_offset:
                self._span.settled_ms = record.timestamp_ms
            try:
                event = decode(record.value or b"")
            except Unreadable:
                continue  # the fold says so
            if valid(self._epoch, event):
                self._follow(record, event)
            self._epoch = epoch_after(self._epoch, record.offset, event)

    def _follow(self, record: Record, event: object) -> None:
        holds = self._reading.holds
        if isinstance(event, Admitted):
            if event.request.request_id in holds:
                self._tell(record, event.request.request_id, "admitted twice")
            holds[event.request.request_id] = event.hold_pusd
        elif isinstance(event, Ended):
            request_id = event.request.request_id
            admitted = request_id in holds
            hold_pusd = holds.pop(request_id, None)
            if event.src is not None and admitted:
                self._tell(record, request_id, "ended as if it had never been admitted")
            elif event.src is None and not admitted and self._span.first == 0:
                self._tell(record, request_id, "ended without having been admitted")
            elif admitted and hold_pusd != event.hold_pusd:
                self._tell(record, request_id, f"held {hold_pusd} pico-dollars, ended with a hold of {event.hold_pusd}")

    def _tell(self, record: Record, request_id: str, what: str) -> None:
        place = f"{JOURNAL}/{record.partition}@{record.offset}"
        self._reading.differences.append(Difference(source="journal", place=place, request_id=request_id, what=what))


# Comparing ------------------------------------------------------------------------------------------------------------


def _judge(data: Path, state: State, reading: _Reading, range: Range) -> Report:
    """Compare what the log says with the files of the manifest. Blocking."""
    differences, readable = _check_files(data, state)
    with parquet.connect(memory=MEMORY, spill=reading.folder / "spill") as connection:
        connection.register("all_partitions", _partitions(reading.spans, state))
        connection.execute(f"CREATE VIEW partitions AS SELECT * FROM all_partitions WHERE topic = '{JOURNAL}'")  # noqa: S608
        parquet.view_files(connection, "copies", "costs", reading.files["copies"])
        for table in SCHEMAS:
            parquet.view_files(connection, table, table, reading.files[table])
            paths = [data / file.path for file in readable if file.table == table]
            parquet.view_files(connection, f"{table}_files", table, paths)
        compared = pending = before_log = 0
        for table in SCHEMAS:
            topic = AUDIT if table == "audit" else JOURNAL
            _view_comparable(connection, table, topic, range)
            differences += compare(connection, table, topic)
            compared += _count(connection, "SELECT count(*) FROM expected")
            pending += _count(connection, f"SELECT count(*) FROM {table}") - _count(  # noqa: S608
                connection, "SELECT count(*) FROM expected"
            )
            before_log += _count(connection, "SELECT count(*) FROM before_log")
        for check in sorted((_SQL / "checks").glob("*.sql")):
            for request_id, what in connection.execute(check.read_text(encoding="utf-8")).fetchall():
                differences.append(Difference(source="journal", request_id=request_id, what=what))
        pending_copies = _count(connection, (_SQL / "pending_copies.sql").read_text(encoding="utf-8"))
    return Report(
        differences=differences + reading.differences,
        rows=compared,
        pending_rows=pending,
        open_requests=len(reading.holds),
        pending_copies=pending_copies,
        before_log=before_log,
    )


def _check_files(data: Path, state: State) -> tuple[list[Difference], list[DataFile]]:
    """The files that are not what the manifest says, and those that can be read."""
    differences, readable = [], []
    for file in state.files.values():
        try:
            found = pq.read_metadata(data / file.path).num_rows
        except (OSError, pa.ArrowException) as error:
            differences.append(Difference(source="files", place=file.path, what=f"cannot be read: {error}"))
            continue
        readable.append(file)
        if found != file.rows:
            what = f"holds {found} rows, the manifest says {file.rows}"
            differences.append(Difference(source="files", place=file.path, what=what))
    for path in sorted(data.glob("*/dt=*/*.parquet")):
        name = path.relative_to(data).as_posix()
        if name not in state.files and name not in state.planned:
            what = "lies in a closed day, but the manifest does not name it"
            differences.append(Difference(source="files", place=name, what=what))
    return differences, readable


def _partitions(spans: Sequence[_Span], state: State) -> Any:
    """Where each partition's rows are to be compared, and until when its copies are to be there."""

    def position(span: _Span) -> int:
        cursor = state.cursors.get(cursor_key(span.topic, span.partition))
        return cursor.offset if cursor is not None else 0

    columns: Mapping[str, Sequence[object]] = {
        "topic": [span.topic for span in spans],
        "log_partition": [span.partition for span in spans],
        "kept_offset": [span.kept for span in spans],
        "first_offset": [span.first for span in spans],
        "end_offset": [_NO_END if span.end is None else span.end for span in spans],
        "position": [position(span) for span in spans],
        "copied_offset": [span.settled_offset for span in spans],
        "copied_until": [_time(max(0, span.settled_ms - COPY_GRACE_MS)) for span in spans],
        "copied_from": [_time(span.copies_from_ms) for span in spans],
    }
    return pa.table(columns)


def _view_comparable(connection: parquet.Connection, table: str, topic: str, range: Range) -> None:
    """Make `expected` and `stored`: what the log says below the sink's position, and what Parquet says of the
    records that were read; and `before_log`, what it says of those that the log has no more."""
    times = f"ts >= make_timestamptz({(range.from_ms or 0) * 1000})"
    if range.until_ms is not None:
        times += f" AND ts < make_timestamptz({range.until_ms * 1000})"
    for view, source, condition in (
        ("expected", table, "log_offset < position"),
        ("stored", f"{table}_files", "log_offset >= first_offset AND log_offset < end_offset"),
        ("before_log", f"{table}_files", f"log_offset < kept_offset AND {times}"),
    ):
        connection.execute(
            f"CREATE OR REPLACE TEMP VIEW {view} AS SELECT {source}.* FROM {source} JOIN all_partitions "  # noqa: S608
            f"USING (log_partition) WHERE topic = '{topic}' AND {condition}"
        )


def _count(connection: parquet.Connection, query: str) -> int:
    [(count,)] = connection.execute(query).fetchall()
    return int(count)


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
