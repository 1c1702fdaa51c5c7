"""What the tests of the sinks share: events in a few words, and a log in memory."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from tollgate.errors import OutOfRange
from tollgate.events import Attempt, AuditRecorded, CostLine, Ended, Event, OwnerTook, Request, Usage, encode
from tollgate.journal import JOURNAL
from tollgate.log import Headers, Position, Record
from tollgate.sinks.fold import TOPICS, Fold
from tollgate.sinks.manifest import load
from tollgate.sinks.schemas import KEYS, SCHEMAS

NOON_MS = 1_763_640_000_000  # 2025-11-20 12:00 UTC
DAY_MS = 86_400_000
BATCH = 7  # records per read, so that borders are met often


def line(meter: str = "input_tokens", quantity: int = 10, price: int = 3, **more: Any) -> CostLine:
    cost = more.pop("cost_pusd", quantity * price)
    return CostLine(
        **{
            "meter": meter,
            "quantity": quantity,
            "unit_price_pusd": price,
            "cost_pusd": cost,
            "bill_pusd": cost,
            "price_version": "2025-11-20",
            **more,
        }
    )


def attempt(number: int = 1, outcome: str = "ok", lines: Sequence[CostLine] = (), **more: Any) -> Attempt:
    return Attempt(
        **{
            "attempt": number,
            "provider": "sandbox",
            "account": "main",
            "model": "sandbox-large",
            "outcome": outcome,
            "lines": tuple(lines),
            **more,
        }
    )


def ended(request_id: str = "r1", *, epoch: int = 0, org: str = "acme", **more: Any) -> Ended:
    """A request that ended, with the attempts given; cost and bill are the sums of their lines unless stated."""
    attempts = more.pop("attempts", (attempt(usage=Usage(input_tokens=10), usage_source="provider", lines=[line()]),))
    request = {
        "request_id": request_id,
        "org_id": org,
        "key_id": "key_1",
        "endpoint": "/v1/chat/completions",
        "dialect": "openai",
        "model": "sandbox",
        **more.pop("request", {}),
    }
    lines = [each for one in attempts for each in one.lines]
    return Ended(
        **{
            "epoch": epoch,
            "request": Request(**request),
            "status": "completed",
            "http_status": 200,
            "period": "2025-11",
            "attempts": tuple(attempts),
            "cost_pusd": sum(each.cost_pusd for each in lines),
            "bill_pusd": sum(each.bill_pusd for each in lines),
            **more,
        }
    )


def took() -> OwnerTook:
    return OwnerTook(instance="a")


def audit(action: str = "key.created") -> AuditRecorded:
    return AuditRecorded(actor="admin", action=action, org_id="acme")


class MemoryLog:
    """The port `Log` in memory. `now_ms` is the time of the next appends."""

    def __init__(self, partitions: int = 2, now_ms: int = NOON_MS) -> None:
        self.now_ms = now_ms
        self.records: dict[tuple[str, int], list[Record]] = {
            (topic, number): []
            for topic in (JOURNAL, "costs", "audit", "dead-letters")
            for number in range(partitions if topic != "dead-letters" else 1)
        }
        self.first: dict[tuple[str, int], int] = {}  # what retention has left
        self._appended = 0

    def put(self, event: Event | bytes, partition: int = 0, topic: str = JOURNAL, skip: int = 0) -> int:
        """Append at once; return the offset. `skip` leaves a gap of so many offsets before it."""
        records = self.records[topic, partition]
        offset = (records[-1].offset + 1 if records else 0) + skip
        value = event if isinstance(event, bytes) else encode(event)
        records.append(Record(topic, partition, offset, self.now_ms, b"key", value))
        self._appended += 1
        return offset

    def append(
        self, topic: str, key: bytes | None, value: bytes | None, *, partition: int | None = None, headers: Headers = ()
    ) -> "asyncio.Future[Position]":
        number = self.partition_for(topic, key or b"") if partition is None else partition
        offset = self.put(value or b"", number, topic)
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        future.set_result(Position(number, offset, self.now_ms))
        return future

    def partition_for(self, topic: str, key: bytes) -> int:
        return zlib.crc32(key) % self.partitions(topic)

    def earliest_ms(self, topic: str, partition: int) -> int | None:
        return None

    def partitions(self, topic: str) -> int:
        return sum(1 for name, _ in self.records if name == topic)

    async def follow(self, topic: str, offsets: Mapping[int, int]) -> AsyncIterator[Sequence[Record]]:
        offsets = dict(offsets)
        while True:
            seen = self._appended
            for number in offsets:
                async for batch in self.scan(topic, number, offsets[number]):
                    yield batch
                    offsets[number] = batch[-1].offset + 1
            while seen == self._appended:
                await asyncio.sleep(0.001)

    async def scan(
        self, topic: str, partition: int, start: int, end: int | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        if start < self.first.get((topic, partition), 0):
            raise OutOfRange(f"{topic}/{partition}: {start} is gone")
        wanted = [
            record
            for record in self.records[topic, partition]
            if record.offset >= start and (end is None or record.offset < end)
        ]
        for index in range(0, len(wanted), BATCH):
            yield wanted[index : index + BATCH]

    async def ends(self, topic: str) -> dict[int, int]:
        return {
            number: (records[-1].offset + 1 if records else 0)
            for (name, number), records in self.records.items()
            if name == topic
        }

    async def starts(self, topic: str) -> dict[int, int]:
        return {number: self.first.get((topic, number), 0) for number in range(self.partitions(topic))}

    async def offset_at(self, topic: str, partition: int, timestamp_ms: int) -> int:
        for record in self.records[topic, partition]:
            if record.timestamp_ms >= timestamp_ms:
                return record.offset
        return (await self.ends(topic))[partition]

    async def close(self) -> None:
        return None


def told(log: MemoryLog) -> dict[str, list[dict[str, Any]]]:
    """All rows of the log, by table: one pure fold from its start."""
    fold = Fold({})
    for (topic, _), records in log.records.items():
        if topic in TOPICS:
            fold.take(records)
    rows: dict[str, list[dict[str, Any]]] = {table: [] for table in SCHEMAS}
    for part in fold.cut().parts:
        rows[part.table] += part.rows.to_pylist()
    return {table: in_order(table, of_table) for table, of_table in rows.items()}


def kept(data: Path, *, closed: bool = False) -> dict[str, list[dict[str, Any]]]:
    """All rows that the manifest counts, by table; `closed`: those that anyone finds in the folders of closed days."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for table in SCHEMAS:
        paths = (
            sorted(data.glob(f"{table}/dt=*/*.parquet")) if closed else [data / f.path for f in load(data).of(table)]
        )
        found = [row for path in paths for row in pq.ParquetFile(path).read().to_pylist()]
        rows[table] = in_order(table, found)
    return rows


def in_order(table: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: tuple(row[name] for name in KEYS[table]))
