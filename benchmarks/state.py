"""A checkpoint of very many rows, as a worker with that many users would have written it."""

import asyncio

import msgspec

from tollgate.log import Log
from tollgate.processors.ledger import Account

ROWS = 1_000_000
GROUP = 4_000
CHANGELOG = "tollgate-state-changelog"
PERIOD = "2026-11"


async def fill(log: Log, *, partition: int) -> None:
    """Add `ROWS` accounts to the checkpoint of the partition. Its owner must not run, and must have run before."""
    epoch = await _epoch(log, partition)
    row = msgspec.json.encode(Account(spent_pusd=123_456_789, requests=17, offset=0))
    for start in range(0, ROWS, GROUP):
        numbers = range(start, min(start + GROUP, ROWS))
        names = (f"account/user:u{number:08}|{PERIOD}@{epoch}".encode() for number in numbers)
        await asyncio.gather(*(log.append(CHANGELOG, name, row, partition=partition) for name in names))


async def _epoch(log: Log, partition: int) -> int:
    """That of the newest mark."""
    epochs = [
        int(record.key.rpartition(b"@")[2])
        async for records in log.scan(CHANGELOG, partition, (await log.starts(CHANGELOG))[partition])
        for record in records
        if record.key is not None and record.key.startswith(b"mark@")
    ]
    return max(epochs)
