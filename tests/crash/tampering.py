"""What may happen to a log from outside while its gateway does not run: a zombie speaks, consumers forget how far
they were. To a gateway that keeps its promises none of it makes a difference.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import orjson

from tests.crash.evidence import OFFSET_BITS, Fields

STRANGER = "01900000-0000-7000-8000-00000000dead"  # a request that was never accepted
DEAR_PUSD = 10**9


def let_a_zombie_speak(data: Path) -> None:
    """Have each partition taken over by somebody else, and its last writer speak on in spite of it: a further end of
    what has ended, dear to its key, and the admission of a stranger."""
    with closing(sqlite3.connect(data / "log" / "log.db")) as database, database:
        for place, records in _journals(database):
            events = [event for _, event in records]
            ends = [event for event in events if event["type"] == "ended.1"]
            admissions = [event for event in events if event["type"] == "admitted.1"]
            if not ends or not admissions:
                continue
            said = [
                {"type": "owner_took.1", "instance": "elsewhere"},
                ends[-1] | {"bill_pusd": DEAR_PUSD, "cost_pusd": DEAR_PUSD},
                admissions[-1] | {"request": admissions[-1]["request"] | {"request_id": STRANGER}},
            ]
            for offset, event in enumerate(said, start=records[-1][0] + 1):
                row = (place << OFFSET_BITS) + offset, orjson.dumps(event)
                database.execute("INSERT INTO records SELECT ?, max(timestamp_ms), x'', ?, NULL FROM records", row)


def forget_offsets(data: Path) -> None:
    """Set back what every consumer group has committed, as if nothing had been delivered yet."""
    with closing(sqlite3.connect(data / "log" / "log.db")) as database, database:
        database.execute("UPDATE committed SET position = 0")


def _journals(database: sqlite3.Connection) -> Iterator[tuple[int, list[tuple[int, Fields]]]]:
    """The place and the records (offset, event) of each partition of the journal that has any."""
    for (place,) in database.execute("SELECT place FROM partitions WHERE topic = 'completions'").fetchall():
        rows = database.execute(
            "SELECT id, value FROM records WHERE id >> ? = ? ORDER BY id", (OFFSET_BITS, place)
        ).fetchall()
        if rows:
            yield place, [(id - (place << OFFSET_BITS), orjson.loads(value)) for id, value in rows]
