"""The rows of the checkpoint: a Faust table with one purpose, to bring them back.

Its changelog is the checkpoint. Rows are written to one partition of it and awaited, and are not kept in memory
here. After a restart or a rebalance they are read in bulk from the log, some twenty times faster than Faust's
recovery, which goes event by event; what was appended after that read, Faust recovers in its own way.
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


def take_rows(table: TableT[Any, Any], partition: int) -> dict[str, bytes]:
    """Return the rows that recovery brought for the partition, and forget them here.

    Complete from the moment the partition's take-over begins; a second call within it returns no rows.
    """
    return _store(table).take(partition)


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
    """Where the table's rows wait to be taken: raw bytes by partition, read anew at each assignment."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._rows: dict[int, dict[bytes, bytes]] = {}
        self._read_to: dict[TP, int] = {}

    def take(self, partition: int) -> dict[str, bytes]:
        """See `take_rows`."""
        return {name.decode(errors="replace"): row for name, row in self._rows.pop(partition, {}).items()}

    async def on_rebalance(
        self, assigned: set[TP], revoked: set[TP], newly_assigned: set[TP], generation_id: int = 0
    ) -> None:
        """Read every assigned partition of the changelog, also those kept: their rows have been taken."""
        self._rows.clear()
        topic, log = self.table.changelog_topic.get_topic_name(), _log(self.table)
        starts, ends = await log.starts(topic), await log.ends(topic)
        for tp in sorted(tp for tp in assigned if tp.topic == topic):
            start, end = starts[tp.partition], ends[tp.partition]
            rows = self._rows[tp.partition] = {}
            async for records in log.scan(topic, tp.partition, start, end):
                for record in records:
                    _apply(rows, record.key, record.value)
            self._read_to[tp] = end - 1

    def persisted_offset(self, tp: TP) -> int | None:
        """The last offset read: Faust recovers what lies behind it."""
        return self._read_to.get(tp)

    def apply_changelog_batch(
        self, batch: Iterable[EventT[Any]], to_key: Callable[[Any], Any], to_value: Callable[[Any], Any]
    ) -> None:
        for event in batch:
            message = event.message
            _apply(self._rows.setdefault(message.partition, {}), message.key, message.value)


def _apply(rows: dict[bytes, bytes], name: bytes | None, row: bytes | None) -> None:
    if name is None:
        return
    if row is None:
        rows.pop(name, None)
    else:
        rows[name] = row


def _log(table: Any) -> Log:
    return cast(Log, table.app.event_log)


def _store(table: TableT[Any, Any]) -> Store:
    return cast(Store, cast(Any, table).data)


STORES.aliases[SCHEME] = f"{__name__}:Store"
