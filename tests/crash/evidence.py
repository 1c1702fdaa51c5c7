"""What the checker judges by, read from where it lies: log, Parquet, the provider's ledger, what clients saw.

Nothing here uses the code that wrote it. The log's database and the manifest are read as the files they are; events
are plain JSON objects, whose absent fields have their defaults where they are read.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow.parquet as pq

Fields = dict[str, Any]

TOPICS = ("requests", "completions", "costs")
TABLES = ("usage", "attempts", "costs")
OFFSET_BITS = 40  # of a record's number; those above name its partition


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key as it was asked for; None is no limit."""

    id: str
    token: str
    org: str
    budget_pusd: int | None = None
    per_minute: int | None = None
    at_once: int | None = None


@dataclass(kw_only=True)
class Sent:
    """One request as its client saw it. It carries `number` as a tag, so it is known also where nothing came back.

    `complete`: the dialect's last bytes were there. `broken`: the dialect's error came in the middle of a stream.
    `error` is the code of either error; `answers` are the ids of the answers that the pieces of a stream belong to.
    `may_retry`: the head of the answer says when another try may help.
    """

    number: str
    key: Key
    dialect: str
    model: str
    stream: bool
    max_tokens: int | None
    request_id: str | None = None
    status: int | None = None
    may_retry: bool = False
    complete: bool = False
    broken: bool = False
    hung_up: bool = False
    text: str = ""
    cost_pusd: int | None = None
    error: str | None = None
    answers: set[str] = field(default_factory=set)


class Entry(NamedTuple):
    """A record of the log."""

    partition: int
    offset: int
    timestamp_ms: int
    event: Fields

    @property
    def kind(self) -> str:
        """The event's name without its version."""
        return str(self.event["type"]).partition(".")[0]


@dataclass(kw_only=True)
class Evidence:
    """All of it. `calls` are the rows of the provider's ledger; `rows` are those of Parquet, by table, and `replayed`
    those of the Parquet that a replay of the log has made, if there was one."""

    sent: Sequence[Sent]
    calls: Sequence[Fields]
    topics: dict[str, list[Entry]] = field(default_factory=dict)
    rows: dict[str, list[Fields]] = field(default_factory=dict)
    replayed: dict[str, list[Fields]] | None = None


def gather(data: Path, *, sent: Sequence[Sent], calls: Sequence[Fields], replay: Path | None = None) -> Evidence:
    """Read the data folder of a gateway that does not run now, and that of its replay. Changes nothing there."""
    return Evidence(
        sent=sent,
        calls=calls,
        topics=read_log(data / "log"),
        rows=read_parquet(data),
        replayed=None if replay is None else read_parquet(replay),
    )


def read_log(folder: Path) -> dict[str, list[Entry]]:
    """The records of each topic, by partition and offset.

    A copy is read: closing the last connection to a database folds its write-ahead log in, which after a crash is
    the work of the gateway's next start, and to be tested there.
    """
    with tempfile.TemporaryDirectory() as copy:
        for path in folder.glob("log.db*"):
            shutil.copy(path, copy)
        database = sqlite3.connect(Path(copy) / "log.db")
        try:
            return {topic: list(_read_topic(database, topic)) for topic in TOPICS}
        finally:
            database.close()


def _read_topic(database: sqlite3.Connection, topic: str) -> Iterator[Entry]:
    rows = database.execute(
        "SELECT partition, records.id & ?, timestamp_ms, value FROM partitions JOIN records "
        "ON records.id >= place << ? AND records.id < (place + 1) << ? WHERE topic = ? ORDER BY records.id",
        ((1 << OFFSET_BITS) - 1, OFFSET_BITS, OFFSET_BITS, topic),
    )
    for partition, offset, timestamp_ms, value in rows:
        yield Entry(partition, offset, timestamp_ms, orjson.loads(value))


def read_parquet(data: Path) -> dict[str, list[Fields]]:
    """The rows of every file that the manifest names, by table. Raises `ValueError` where it is not whole."""
    files: dict[str, Fields] = {}
    changes = sorted(path for path in (data / "_log").glob("*.json") if "checkpoint" not in path.name)
    for number, path in enumerate(changes, start=1):
        if int(path.stem) != number:
            raise ValueError(f"the manifest has no change {number}")
        change = orjson.loads(path.read_bytes())
        for removed in change.get("remove", ()):
            del files[removed]
        for added in change.get("add", ()):
            files[added["path"]] = added
    rows: dict[str, list[Fields]] = {table: [] for table in TABLES}
    for file in files.values():
        if file["table"] in rows:
            of_file = pq.read_table(data / file["path"]).to_pylist()
            if len(of_file) != file["rows"]:
                raise ValueError(f"{file['path']} has {len(of_file)} rows; the manifest says {file['rows']}")
            rows[file["table"]] += of_file
    return rows
