"""The folder of the embedded log: its lock, and its database with a place for every declared partition."""

import fcntl
import os
import sqlite3
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tollgate.errors import ConfigError, LogLocked
from tollgate.topics import Topics

from .storage import Durability, Storage, Stored

DATABASE = "log.db"
LOCK = "lock"


def take_lock(folder: Path) -> int:
    """Make the folder; a file descriptor that holds its lock until it is closed, or the process ends."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise LogLocked(
            f"{folder}: the log is in use by process {holder}: stop it, or name another folder with TOLLGATE_DATA"
        ) from None
    os.truncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def open_database(path: Path, topics: Topics, durability: Durability) -> Storage:
    """The database for the one writer, with a place for every declared partition."""
    try:
        storage = Storage(path, durability=durability, writable=True)
    except sqlite3.Error as error:
        raise ConfigError(f"{path}: cannot be opened: {error}") from None
    try:
        counts = Counter(stored.topic for stored in _places(storage, path))
        for topic in topics:
            if counts[topic.name] not in (0, topic.partitions):
                raise ConfigError(
                    f"topics.yaml: '{topic.name}' has {topic.partitions} partitions, the log in {path.parent} has "
                    f"{counts[topic.name]}; the count is fixed for the life of a log"
                )
        storage.declare((topic.name, number) for topic in topics for number in range(topic.partitions))
    except BaseException:
        storage.close()
        raise
    return storage


def _places(storage: Storage, path: Path) -> Sequence[Stored]:
    try:
        return storage.load()
    except sqlite3.DatabaseError as error:
        raise ConfigError(
            f"{path} is damaged ({error}): put a copy of it back, or move the folder aside to begin anew"
        ) from None
