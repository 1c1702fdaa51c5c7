"""The rows of the checkpoint: a Faust table with one purpose, to bring them back.

Its changelog is the checkpoint. Rows are written to one partition of it and awaited, and are not kept in memory
here. An owner reads them in bulk from the log as part of its take-over, some twenty times faster than Faust's recovery,
which goes event by event and is told that there is nothing to recover.

Not within the rebalance: Kafka's client sends no heartbeat before the handling of an assignment returns, so a
million rows read there cost the worker its membership, time after time.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, cast

from faust.stores import STORES, memory
from faust.types import TP, EventT, TableT

from tollgate.log import Log

SCHEME = "checkpoint"
URL = f"{SCHEME}://log"

# Rows whose futures are awaited together: one group of the embedded log, and a bound on the loop's pause.
ROWS_PER_GROUP = 128


async def read_rows(table: TableT[Any, Any], partition: int) -> dict[str, bytes]:
    """The rows of the partition, as the changelog has them now. To be called by whoever takes the partition over."""
    topic, log = table.changelog_topic.get_topic_name(), _log(table)
    start = (await log.starts(topic))[partition]
    rows: dict[str, bytes] = {}
    async for records in log.scan(topic, partition, start):
        for record in records:
            if record.key is None:
                continue
            name = record.key.decode(errors="replace")
            if record.value is None:
                rows.pop(name, None)
            else:
                rows[name] = record.value
        await asyncio.sleep(0)
    return rows


async def write_rows(table: TableT[Any, Any], partition: int, rows: Mapping[str, bytes | None]) -> None:
    """Write rows to the changelog's partition, in order, and return when all of them are durable.

    None deletes a row. If it raises, any part of the rows may have been written; what it raises is what
    `Log.append` raises, as rows go through the log that the journal goes through, and not through Faust's producer.
    """
    topic, log = table.changelog_topic.get_topic_name(), _log(table)
    pending = iter(rows.items())
    while group := list(islice(pending, ROWS_PER_GROUP)):
        await asyncio.gather(*(log.append(topic, name.encode(), row, partition=partition) for name, row in group))


class Store(memory.Store[Any, Any]):
    """Tells Faust, at each assignment, that the table has everything which its changelog holds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ends: dict[int, int] = {}

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Note where the changelog ends."""
        self._ends = await _log(self.table).ends(self.table.changelog_topic.get_topic_name())

    def persisted_offset(self, tp: TP) -> int | None:
        """The last offset there is: Faust would recover what lies behind it."""
        return self._ends[tp.partition] - 1 if tp.partition in self._ends else None

    def apply_changelog_batch(
        self, batch: Iterable[EventT[Any]], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        """What another worker has appended since: the owner will read it."""


def _log(table: Any) -> Log:
    return cast(Log, table.app.event_log)


STORES.aliases[SCHEME] = f"{__name__}:Store"
