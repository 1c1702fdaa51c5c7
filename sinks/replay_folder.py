"""The folder of a replay: one replay at a time, always of the same range, from the same starts.

    _lock             held by every process that writes here
    _replay.json      what is replayed, and the cursors it begins with

Beside them lies what the manifest knows.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from tollgate.errors import ConfigError, UsageError
from tollgate.sinks import disk
from tollgate.sinks.manifest import LOG, TEMPORARY, Cursor, Manifest
from tollgate.sinks.schemas import SCHEMAS
from tollgate.sinks.starts import Range

LOCK = "_lock"
PLAN = "_replay.json"

LOCK_WAIT_S = 10.0  # for the processes of a replay that was killed to notice
LOCK_POLL_S = 0.05


class Plan(msgspec.Struct, frozen=True):
    """What a folder is the replay of. `starts` are by `topic/partition`."""

    range: Range
    starts: dict[str, Cursor]


def check_folder(to: Path) -> None:
    """Refuse a folder with anything but a replay in it: not least the gateway's own, whose sink would be fenced.

    Raises `UsageError`; `ConfigError` when it cannot be read.
    """
    ours = {LOG, TEMPORARY, LOCK, PLAN, *SCHEMAS}
    try:
        names = [path.name for path in to.iterdir()]
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise UsageError(f"{to} is no folder: name an empty one, or one that is not there yet") from None
    except OSError as error:
        raise ConfigError(f"{to} cannot be read ({error.strerror}): name another folder") from None
    if others := sorted(name for name in names if name not in ours):
        raise UsageError(f"{to} holds {others[0]}, so it is neither empty nor the folder of a replay: name another one")


@contextmanager
def only_replay(to: Path) -> Iterator[None]:
    """Keep other replays out of the folder. Raises `UsageError` when one works there.

    Raises `ConfigError` when the folder cannot be made, or written to.
    """
    try:
        disk.make_folder(to)
        lock = os.open(to / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"{to} cannot be written to ({error.strerror}): name another folder") from None
    try:
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise UsageError(f"{to}: another replay is writing here") from None
                time.sleep(LOCK_POLL_S)
        _remove_unnamed(to)
        fcntl.flock(lock, fcntl.LOCK_SH)  # from now on its processes hold it too
        yield
    finally:
        os.close(lock)


@contextmanager
def one_of_the_replay(to: Path) -> Iterator[None]:
    """Hold the folder as a process of the replay that works there: if its parent is killed, the next one waits."""
    lock = os.open(to / LOCK, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield
    finally:
        os.close(lock)


def load_plan(to: Path, range: Range) -> Plan | None:
    """The plan of an interrupted replay; None in a new folder. Raises `UsageError` if it is that of another range."""
    try:
        plan = msgspec.json.decode((to / PLAN).read_bytes(), type=Plan)
    except FileNotFoundError:
        return None
    if plan.range != range:
        raise UsageError(f"{to} is the replay of another range of time: name another folder, or the same range")
    return plan


def save_plan(manifest: Manifest, plan: Plan) -> None:
    """Return when the plan is durable."""
    temporary = manifest.temporary()
    temporary.write_bytes(msgspec.json.encode(plan))
    disk.publish(temporary, manifest.data / PLAN)


def _remove_unnamed(to: Path) -> None:
    """Remove the files of closed days that a replay had put there when it was killed, before it had counted them."""
    if not (to / LOG).is_dir():
        return
    state = Manifest(to).state
    for path in to.glob("*/dt=*/*.parquet"):
        name = path.relative_to(to).as_posix()
        if name not in state.files and name not in state.planned:
            path.unlink()
