"""An archive becomes the log of a Kafka cluster whose topics are empty; interrupted, the same command goes on.

Kafka gives out offsets itself, from 0 on and without gaps, so gaps are filled, and what retention had cut is filled
and deleted. While it lasts, the topics take the times that they are given, and a topic of its own stands in the
cluster, named for the archive: no gateway starts beside it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaError, for_code

from tollgate.errors import ConfigError, LogUnavailable, UsageError
from tollgate.topics import Topics

from . import Record
from .archive import Archive, Part
from .kafka import IMPORT_TOPIC, KafkaLog
from .kafka_security import Security
from .kafka_topics import apply_kafka
from .moving import FILLER_KEY, Progress, check_files, check_partitions, compare, filler_of

CLIENT_ID = "tollgate-import"
BATCH_BYTES = 1 << 20
REQUEST_BYTES = 64 << 20  # the largest record, alone in its batch
SETTLE_S = 2.0  # until a killed run's last words have landed
REQUEST_TIMEOUT_S = 30.0

# The times that records have already; and nothing of what is old is removed before it was compared. Set as a whole,
# because Kafka's request for it forgets what it does not name.
_WHILE_IMPORTING = {
    "message.timestamp.type": "CreateTime",
    "retention.ms": "-1",
    "min.compaction.lag.ms": str(100 * 365 * 86_400_000),
}

# May hold records of a cluster's earlier life: nothing refers to them, and they are not in an archive that matters.
_PASSING = {"replies", "dead-letters"}


async def import_kafka(
    archive: Archive,
    brokers: str,
    topics: Topics,
    security: Security | None = None,
    *,
    checked: Progress,
    written: Progress,
    compared: Progress,
) -> list[dict[str, Any]]:
    """Write the archive into the cluster; return what both hold, by partition.

    Raises `UsageError` when the topics are not empty, `ConfigError` for a damaged archive, other partition counts, or
    a cluster that refuses.
    """
    manifest = archive.manifest
    check_partitions(manifest, topics)
    moved = [topics[name] for name in manifest.partitions]
    marker = f"{IMPORT_TOPIC}{manifest.id}"
    log = await KafkaLog.connect(
        brokers, topics, client_id=CLIENT_ID, security=security, read_only=True, while_importing=True
    )
    try:
        async with _admin(brokers, security) as admin:
            begun = await _begun(admin, marker)
            if not begun:
                await _check_empty(log, topics)
            check_files(archive, checked)
            if not begun:
                await _create(admin, marker, topics.replication_factor)
            given = [msgspec.structs.replace(topic, config=topic.config | _WHILE_IMPORTING) for topic in moved]
            await apply_kafka(brokers, Topics(topics={topic.name: topic for topic in given}), security)
            await _write(archive, log, brokers, security, written)
            await _cut(admin, archive, topics)
            rows = await compare(log, manifest, compared)
            declared = Topics(topics={topic.name: topic for topic in moved})
            await apply_kafka(brokers, declared, security, unset=_WHILE_IMPORTING)
            await admin.delete_topics([marker])
            return rows
    finally:
        await log.close()


async def _begun(admin: Any, marker: str) -> bool:
    """Has this import been begun before? Raises `UsageError` when another one has."""
    markers = [name for name in await admin.list_topics() if name.startswith(IMPORT_TOPIC)]
    if others := [name for name in markers if name != marker]:
        raise UsageError(
            f"the import of another archive was begun here and has not ended (topic '{others[0]}'): go on with that "
            "one, or delete all topics and begin anew"
        )
    return bool(markers)


async def _check_empty(log: KafkaLog, topics: Topics) -> None:
    for topic in topics:
        if topic.name in _PASSING:
            continue
        for number, end in (await log.ends(topic.name)).items():
            if end > 0:
                raise UsageError(
                    f"the log is not empty: {topic.name}/{number} ends at {end}. History is imported into new topics: "
                    "delete these and run 'tollgate topics apply', or use another cluster"
                )


async def _create(admin: Any, marker: str, replication_factor: int) -> None:
    answer = await admin.create_topics([NewTopic(name=marker, num_partitions=1, replication_factor=replication_factor)])
    for name, code, *message in answer.topic_errors:
        if code != 0:
            reason = message[0] if message and message[0] else for_code(code).__name__
            raise ConfigError(f"Kafka would not create '{name}', which marks an import: {reason}")


async def _write(archive: Archive, log: KafkaLog, brokers: str, security: Security | None, progress: Progress) -> None:
    """Append what is missing, all partitions side by side, each in its order."""
    ends = await _settled_ends(log, archive)
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers,
        client_id=CLIENT_ID,
        acks="all",
        enable_idempotence=True,
        linger_ms=0,
        max_batch_size=BATCH_BYTES,
        max_request_size=REQUEST_BYTES,
        compression_type="zstd",
        request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
        **(security or Security()).options(),
    )
    total, done = sum(part.end for part in archive.manifest.parts), 0
    try:
        await producer.start()
        for part in archive.manifest.parts:
            begin = ends[part.topic, part.partition]
            done += begin
            async for count in _append(producer, part, gapless(archive.records(part), part, begin), begin):
                done += count
                progress(done, total)
    except KafkaError as error:
        raise LogUnavailable(f"Kafka at {brokers} does not take the archive: {error!r}") from error
    finally:
        await producer.stop()


async def _settled_ends(log: KafkaLog, archive: Archive) -> dict[tuple[str, int], int]:
    """Where each partition ends, once that does not change any more."""
    before: dict[tuple[str, int], int] = {}
    while True:
        ends = {
            (name, number): end
            for name in archive.manifest.partitions
            for number, end in (await log.ends(name)).items()
        }
        if ends == before or not any(ends.values()):
            break
        before = ends
        await asyncio.sleep(SETTLE_S)
    for part in archive.manifest.parts:
        if (end := ends[part.topic, part.partition]) > part.end:
            raise UsageError(f"{part.name} ends at {end}, behind the archive's {part.end}: somebody else writes there")
    return ends


def gapless(batches: Iterable[list[Record]], part: Part, begin: int) -> Iterator[Record]:
    """The records of a partition from the offset `begin` on, and fillers where there are none, up to its end. Pure."""
    value = filler_of(part.topic)
    offset, time_ms = 0, 0

    def fill(until: int) -> Iterator[Record]:
        for gap in range(max(offset, begin), until):
            yield Record(part.topic, part.partition, gap, time_ms, FILLER_KEY, value)

    for records in batches:
        for record in records:
            time_ms = record.timestamp_ms if not offset else time_ms
            yield from fill(record.offset)
            if record.offset >= begin:
                yield record
            offset, time_ms = record.offset + 1, record.timestamp_ms
    yield from fill(part.end)


async def _append(producer: Any, part: Part, records: Iterator[Record], begin: int) -> AsyncIterator[int]:
    """Append the records one batch after the other; yield how many each had."""
    batch, count, offset = producer.create_batch(), 0, begin
    for record in records:
        while not _put(batch, record):
            yield await _send(producer, part, batch, count, offset)
            batch, count, offset = producer.create_batch(), 0, offset + count
        count += 1
    if count:
        yield await _send(producer, part, batch, count, offset)


def _put(batch: Any, record: Record) -> bool:
    taken = batch.append(
        timestamp=record.timestamp_ms, key=record.key, value=record.value, headers=list(record.headers)
    )
    return taken is not None


async def _send(producer: Any, part: Part, batch: Any, count: int, offset: int) -> int:
    sent = await producer.send_batch(batch, part.topic, partition=part.partition)
    metadata = await sent
    if metadata.offset not in (offset, -1):  # -1: the broker has it from an earlier try, and no longer knows where
        raise UsageError(
            f"{part.name}: a record of offset {offset} landed at {metadata.offset}, for somebody else writes there: "
            "delete the topics and begin anew"
        )
    return count


async def _cut(admin: Any, archive: Archive, topics: Topics) -> None:
    """Delete the fillers before the first record, as retention had deleted what was there."""
    doomed = {
        TopicPartition(part.topic, part.partition): RecordsToDelete(
            before_offset=part.start if part.records else part.end
        )
        for part in archive.manifest.parts
        if (part.start if part.records else part.end) > 0 and not topics[part.topic].compacted
    }
    if doomed:
        await admin.delete_records(doomed)


@asynccontextmanager
async def _admin(brokers: str, security: Security | None) -> AsyncIterator[Any]:
    admin = AIOKafkaAdminClient(
        bootstrap_servers=brokers,
        client_id=CLIENT_ID,
        request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
        **(security or Security()).options(),
    )
    try:
        await admin.start()
        yield admin
    except KafkaError as error:
        raise LogUnavailable(f"Kafka at {brokers} refused a part of the import: {error!r}") from error
    finally:
        await admin.close()
