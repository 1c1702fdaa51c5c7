"""The embedded log's SQLite database: schema and statements. Blocking: its callers run it in a thread.

One table holds every record under `id = place << 40 | offset`, `place` being the number of its topic's
partition: appending is adding at the end of a key range, reading is walking it, and a partition's end is one
look-up. A database in WAL mode lets other processes read while one writes.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from tollgate.errors import ConfigError

from . import Headers, Record

Durability = Literal["power", "process"]

SCHEMA_VERSION = 1
OFFSET_BITS = 40
OFFSET_MASK = (1 << OFFSET_BITS) - 1

# A group of up to this many records is one statement, so one hand-over of the interpreter lock. Each size has a
# statement of its own: SQLite commits a lone statement by itself, and a group needs no BEGIN and no COMMIT.
ROWS_PER_STATEMENT = 128
BUSY_TIMEOUT_S = 10.0
# How large the file of the write-ahead log may stay when a large record, or a slow reader, has made it grow.
WAL_KEPT_BYTES = 16 << 20

_SCHEMA = f"""
CREATE TABLE records (
    id INTEGER PRIMARY KEY, timestamp_ms INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB
);
CREATE TABLE partitions (
    place INTEGER PRIMARY KEY, topic TEXT NOT NULL, partition INTEGER NOT NULL,
    start INTEGER NOT NULL DEFAULT 0,    -- the oldest offset that retention has kept
    cleaned INTEGER NOT NULL DEFAULT 0,  -- compaction has seen every record below
    kept INTEGER NOT NULL DEFAULT 0,     -- how many of those it has left
    UNIQUE (topic, partition)
);
CREATE TABLE committed (
    consumer_group TEXT NOT NULL, topic TEXT NOT NULL, partition INTEGER NOT NULL, position INTEGER NOT NULL,
    PRIMARY KEY (consumer_group, topic, partition)
) WITHOUT ROWID;
PRAGMA user_version = {SCHEMA_VERSION};
"""
_INSERTS = {
    count: f"INSERT INTO records VALUES {','.join(['(?,?,?,?,?)'] * count)}"  # noqa: S608 no outside text
    for count in range(1, ROWS_PER_STATEMENT + 1)
}


@dataclass(slots=True)
class Stored:
    """What the database knows of one partition."""

    place: int
    topic: str
    partition: int
    start: int
    end: int
    last_ms: int
    cleaned: int
    kept: int


class Storage:
    """One connection. It may be used by one thread at a time."""

    def __init__(self, path: Path, *, durability: Durability = "power", writable: bool) -> None:
        """Open the database; create it if it may be written.

        `power` waits for the disk at each commit. `process` leaves that to the operating system: what was
        acknowledged outlives the process, but a power cut may take the last moments; the order stays whole.
        """
        self._connection = sqlite3.connect(
            path if writable else f"{path.absolute().as_uri()}?mode=rw",
            uri=not writable,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=2 * ROWS_PER_STATEMENT,
        )
        try:
            if writable:
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'power' else 'NORMAL'}")
            else:
                self._connection.execute("PRAGMA query_only = ON")
            self._check_version(path, writable=writable)
        except BaseException:
            self._connection.close()
            raise

    def _check_version(self, path: Path, *, writable: bool) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version == 0 and writable:
            self._connection.executescript(f"BEGIN; {_SCHEMA} COMMIT;")
        elif version != SCHEMA_VERSION:
            raise ConfigError(f"{path}: is a log of version {version}; this program reads version {SCHEMA_VERSION}")

    def close(self) -> None:
        """Release the connection; the last one also folds the write-ahead log into the database."""
        self._connection.close()

    def declare(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Give a place to each (topic, partition) that has none."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany("INSERT OR IGNORE INTO partitions (topic, partition) VALUES (?, ?)", partitions)
        self._connection.execute("COMMIT")

    def load(self) -> list[Stored]:
        """Every partition, with its bounds as of now."""
        return [
            Stored(place, topic, partition, start, end or start, last_ms or 0, cleaned, kept)
            for place, topic, partition, start, cleaned, kept, end, last_ms in self._connection.execute(
                """
                WITH newest AS (
                    SELECT *, (SELECT max(id) FROM records
                               WHERE id >= place << :bits AND id < (place + 1) << :bits) AS id FROM partitions
                )
                SELECT place, topic, partition, start, cleaned, kept, (newest.id & :mask) + 1, timestamp_ms
                FROM newest LEFT JOIN records ON records.id = newest.id ORDER BY place
                """,
                {"bits": OFFSET_BITS, "mask": OFFSET_MASK},
            )
        ]

    def append(self, values: Sequence[object], count: int) -> None:
        """Write `count` rows in one transaction; `values` holds their columns one after the other."""
        if count <= ROWS_PER_STATEMENT:
            self._connection.execute(_INSERTS[count], values)
            return
        self._connection.execute("BEGIN IMMEDIATE")
        for first in range(0, count, ROWS_PER_STATEMENT):
            rows = min(ROWS_PER_STATEMENT, count - first)
            self._connection.execute(_INSERTS[rows], values[5 * first : 5 * (first + rows)])
        self._connection.execute("COMMIT")

    def read(
        self, topic: str, partition: int, *, first: int, end: int, max_rows: int, max_bytes: int
    ) -> tuple[list[Record], int]:
        """Records with `first <= id < end`, and the id to go on from.

        At least one record if there is any, and no more once `max_rows` or `max_bytes` is reached.
        """
        records: list[Record] = []
        size = 0
        for id, timestamp_ms, key, value, headers in self._connection.execute(
            "SELECT * FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?", (first, end, max_rows)
        ):
            offset = id & OFFSET_MASK
            records.append(Record(topic, partition, offset, timestamp_ms, key, value, unpack_headers(headers)))
            size += len(key or b"") + len(value or b"")
            if size >= max_bytes or len(records) == max_rows:
                return records, id + 1
        return records, end

    def first_not_older(self, timestamp_ms: int, *, first: int, end: int) -> int:
        """The id of the first record in `[first, end)` that is not older; `end` if there is none."""
        answer = end
        while first < end:
            middle = (first + end) // 2
            row = self._connection.execute(
                "SELECT id, timestamp_ms FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT 1", (middle, end)
            ).fetchone()
            if row is None:
                end = middle
            elif row[1] < timestamp_ms:
                first = row[0] + 1
            else:
                answer, end = row[0], middle
        return answer

    def commit_offsets(self, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
        """Remember where a consumer group will go on."""
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.executemany(
            "INSERT OR REPLACE INTO committed VALUES (?, ?, ?, ?)",
            [(group, topic, partition, offset) for (topic, partition), offset in offsets.items()],
        )
        self._connection.execute("COMMIT")

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Where the group will go on, for the partitions that it has committed."""
        return {
            (topic, partition): position
            for topic, partition, position in self._connection.execute(
                "SELECT topic, partition, position FROM committed WHERE consumer_group = ?", (group,)
            )
        }

    def keys(self, *, first: int, end: int, max_rows: int) -> list[tuple[int, bytes | None, bool, int]]:
        """`(id, key, is a tombstone, timestamp_ms)` of up to `max_rows` records, without touching their values."""
        return self._connection.execute(
            "SELECT id, key, value IS NULL, timestamp_ms FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (first, end, max_rows),
        ).fetchall()

    def remove(self, ids: Sequence[int]) -> None:
        """Delete these records."""
        self._connection.execute(
            "DELETE FROM records WHERE id IN (SELECT value FROM json_each(?))", (msgspec.json.encode(ids),)
        )

    def reach(self, *, first: int, end: int, max_rows: int, max_bytes: int) -> int:
        """How far one can go from `first` towards `end` within these bounds: the id after the last record."""
        rows = self._connection.execute(
            "SELECT id, length(value) FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?",
            (first, end, max_rows),
        ).fetchall()
        size = 0
        for count, (id, length) in enumerate(rows, start=1):
            size += length or 0
            if count == max_rows or size >= max_bytes:
                return int(id) + 1
        return end

    def expire(self, place: int, start: int) -> None:
        """Delete a partition's records below the offset `start`."""
        base = place << OFFSET_BITS
        self._connection.execute("BEGIN IMMEDIATE")
        self._connection.execute("DELETE FROM records WHERE id >= ? AND id < ?", (base, base + start))
        self._connection.execute("UPDATE partitions SET start = ? WHERE place = ?", (start, place))
        self._connection.execute("COMMIT")

    def mark_cleaned(self, place: int, *, cleaned: int, kept: int) -> None:
        """Note that compaction has seen every record below the offset `cleaned` and left `kept` of them."""
        self._connection.execute("UPDATE partitions SET cleaned = ?, kept = ? WHERE place = ?", (cleaned, kept, place))


def pack_headers(headers: Headers) -> bytes | None:
    """Headers as the table holds them."""
    return msgspec.msgpack.encode(headers) if headers else None


def unpack_headers(packed: bytes | None) -> Headers:
    """What `pack_headers` was given."""
    return msgspec.msgpack.decode(packed, type=Headers) if packed else ()
