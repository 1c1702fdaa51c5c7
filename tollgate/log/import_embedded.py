"""An archive becomes an embedded log, whole or not at all: made beside its place, compared, then renamed into it."""

import os
import shutil
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tollgate.errors import ConfigError, UsageError, why
from tollgate.topics import Topics

from . import Record
from .archive import Archive
from .embedded import EmbeddedLog
from .embedded_folder import DATABASE, take_lock
from .moving import FILLER_KEY, Progress, check_files, check_partitions, compare, filler_of
from .storage import OFFSET_BITS, Storage, pack_headers

GROUP_RECORDS = 5_000  # of one transaction


async def import_embedded(
    archive: Archive, folder: Path, topics: Topics, *, checked: Progress, written: Progress, compared: Progress
) -> list[dict[str, Any]]:
    """Make the log in `folder` of the archive; return what both hold, by partition.

    Raises `UsageError` when there is a log with records, `LogLocked` when a gateway uses it, `ConfigError` for a
    damaged archive or other partition counts. Whatever happens, the folder has the whole log or what it had before.
    """
    check_partitions(archive.manifest, topics)
    lock = take_lock(folder)
    try:
        _check_empty(folder)
        check_files(archive, checked)
        new = folder.with_name(folder.name + ".importing")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        _write(archive, new, topics, written)
        log = await EmbeddedLog.open_readonly(new)
        try:
            rows = await compare(log, archive.manifest, compared)
        finally:
            await log.close()
        for path in (new / DATABASE, new):
            _sync(path)
        shutil.rmtree(folder)
        new.rename(folder)
        _sync(folder.parent)
        return rows
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(f"{folder}: the archive cannot be written there: {why(error)}") from error
    finally:
        os.close(lock)


def _check_empty(folder: Path) -> None:
    if not (folder / DATABASE).exists():
        return
    storage = Storage(folder / DATABASE, writable=True)
    try:
        for stored in storage.load():
            if stored.end > 0:
                raise UsageError(
                    f"{folder}: the log is not empty: {stored.topic}/{stored.partition} ends at {stored.end}. "
                    "History is imported into a new log: move the folder aside, or name another with TOLLGATE_DATA"
                )
    finally:
        storage.close()


def _write(archive: Archive, folder: Path, topics: Topics, progress: Progress) -> None:
    storage = Storage(folder / DATABASE, durability="process", writable=True)
    try:
        storage.declare((topic.name, number) for topic in topics for number in range(topic.partitions))
        places = {(stored.topic, stored.partition): stored.place for stored in storage.load()}
        total, done = sum(part.records for part in archive.manifest.parts), 0
        for part in archive.manifest.parts:
            place = places[part.topic, part.partition]
            last = part.start - 1
            time_ms = 0
            for records in archive.records(part):
                for first in range(0, len(records), GROUP_RECORDS):
                    _append(storage, place, records[first : first + GROUP_RECORDS])
                last, time_ms = records[-1].offset, records[-1].timestamp_ms
                done += len(records)
                progress(done, total)
            if part.records and last < part.end - 1:  # the end is behind the last record: behind a transaction's marker
                filler = Record(part.topic, part.partition, part.end - 1, time_ms, FILLER_KEY, filler_of(part.topic))
                _append(storage, place, [filler])
            storage.expire(place, part.start if part.records else part.end)
    finally:
        storage.close()


def _append(storage: Storage, place: int, records: Iterable[Record]) -> None:
    values: list[object] = []
    count = 0
    for record in records:
        id = (place << OFFSET_BITS) + record.offset
        values += (id, record.timestamp_ms, record.key, record.value, pack_headers(record.headers))
        count += 1
    storage.append(values, count)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
