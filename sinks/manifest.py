"""Which files hold the rows, and up to where in the log: one numbered, exclusively created record per commit.

Files and log positions change in one atomic step, the creation of `_log/<number>.json`. So a crash neither loses nor
doubles a row, and of two writers at the same number one finds the name taken. A reader folds the records from the
latest checkpoint on; what no record names does not exist, whatever lies in the folders.

    _log/00000000000000000041.json               a `Change`
    _log/00000000000000000100.checkpoint.json    the `State` after change 100
    _tmp/…                                       files being written; never named so that `*.parquet` finds them
    usage/_live/…                                rows of days that still grow, and late ones
    usage/dt=2026-11-20/…                        the rows of a closed day, each in exactly one file
"""

import secrets
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tollgate.errors import Fenced
from tollgate.journal import NO_EPOCH
from tollgate.sinks import disk

LOG = "_log"
TEMPORARY = "_tmp"
LIVE = "_live"

CHECKPOINT_EVERY = 100
COMMIT_ATTEMPTS = 100  # each lost one is a commit of another writer
REREAD_ATTEMPTS = 10  # each lost one is a pruning in the middle of a listing
KEEP_MS = 3_600_000  # what nobody names is kept this long, for those who read or write it at this moment


class Cursor(msgspec.Struct, omit_defaults=True):
    """What a reader carries along one partition: everything below `offset` is in the rows.

    `epoch` is that of the journal there, `hash` the last link of the audit chain, `time_ms` the last record's time.
    """

    offset: int = 0
    epoch: int = NO_EPOCH
    hash: str = ""
    time_ms: int = 0


class DataFile(msgspec.Struct, frozen=True):
    """A Parquet file of one table and one day (UTC, by the rows' `ts`); `path` is relative to the data folder."""

    path: str
    table: str
    day: str
    rows: int

    @property
    def live(self) -> bool:
        return f"/{LIVE}/" in self.path


class Compaction(msgspec.Struct, frozen=True):
    """`output` is to hold exactly the rows of `inputs`. Once in the manifest, whoever comes next completes it:
    so no two files with the same rows can ever lie in a closed day."""

    output: DataFile
    inputs: tuple[str, ...]


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One commit. `cursors` are by `topic/partition`, of those that moved; adding a planned output fulfils its plan."""

    add: tuple[DataFile, ...] = ()
    remove: tuple[str, ...] = ()
    cursors: dict[str, Cursor] = {}
    plan: Compaction | None = None


class State(msgspec.Struct, frozen=True):
    """What the first `number` changes add up to. `planned` is by the path of the output."""

    number: int = 0
    files: dict[str, DataFile] = {}
    cursors: dict[str, Cursor] = {}
    planned: dict[str, Compaction] = {}

    def after(self, change: Change) -> "State":
        """The state after one more change. Pure."""
        files, planned = dict(self.files), dict(self.planned)
        for path in change.remove:
            files.pop(path, None)
        for file in change.add:
            files[file.path] = file
            planned.pop(file.path, None)
        if change.plan is not None:
            planned[change.plan.output.path] = change.plan
        return State(self.number + 1, files, {**self.cursors, **change.cursors}, planned)

    def of(self, table: str) -> list[DataFile]:
        """The files that hold the table's rows."""
        return [file for file in self.files.values() if file.table == table]


def load(data: Path) -> State:
    """The state on disk; that of an empty folder if there is none. Changes nothing; safe beside a writer."""
    for _ in range(REREAD_ATTEMPTS):
        try:
            return _read(data / LOG)
        except FileNotFoundError:
            continue  # a record was pruned between listing and reading: a newer checkpoint is there
    raise OSError(f"{data / LOG}: changes faster than it can be read")


class Manifest:
    """The writer's side. Threads may commit at the same time; they are taken one after the other."""

    def __init__(self, data: Path, *, checkpoint_every: int = CHECKPOINT_EVERY) -> None:
        """Read the state; make the folders if they are missing."""
        self.data = data
        self._checkpoint_every = checkpoint_every
        disk.make_folder(data / LOG)
        disk.make_folder(data / TEMPORARY)
        self._lock = threading.Lock()
        self._state = load(data)

    @property
    def state(self) -> State:
        """The state as of the last commit or `refresh` of this object."""
        return self._state

    def refresh(self) -> State:
        """Read what others have committed meanwhile."""
        with self._lock:
            return self._refresh()

    def commit(self, change: Change, *, base: Mapping[str, Cursor] | None = None) -> State:
        """Return when the change is durable and visible to every reader.

        `base` are the cursors from which those of the change were reached. Raises `Fenced` when they, a file to
        be removed or a plan to be fulfilled are no longer there: another writer has done this work.
        """
        with self._lock:
            for _ in range(COMMIT_ATTEMPTS):
                state = self._refresh()
                _check(state, change, base or {})
                if disk.publish_new(self._write(change), self._path(state.number + 1)):
                    self._state = state.after(change)
                    if self._state.number % self._checkpoint_every == 0:
                        disk.publish(self._write(self._state), self._path(self._state.number, checkpoint=True))
                    return self._state
        raise Fenced(f"{self.data / LOG}: other writers commit without pause")

    def temporary(self) -> Path:
        """A new name under which a file can be written before it is published."""
        return self.data / TEMPORARY / f"{secrets.token_hex(8)}.tmp"

    def sweep(self, now_ms: int) -> list[Path]:
        """Remove what no record names and nobody has touched for an hour; return what was removed.

        That is: files of crashed or fenced writers, inputs of done compactions, records that a checkpoint replaces.
        Nothing in a closed day's folder is ever swept, since nothing gets there without a plan.
        """
        state = self.refresh()
        kept = state.files.keys() | state.planned.keys()
        candidates = [*(self.data / TEMPORARY).iterdir(), *_superseded(self.data / LOG)]
        for live in self.data.glob(f"*/{LIVE}/*"):
            if live.relative_to(self.data).as_posix() not in kept:
                candidates.append(live)
        swept = [path for path in candidates if _is_older(path, now_ms - KEEP_MS)]
        for path in swept:
            path.unlink(missing_ok=True)
        return swept

    def _refresh(self) -> State:
        newest = max(_numbers(self.data / LOG), default=0)
        if newest != self._state.number:
            self._state = load(self.data)
        return self._state

    def _write(self, value: Change | State) -> Path:
        path = self.temporary()
        path.write_bytes(msgspec.json.encode(value))
        return path

    def _path(self, number: int, *, checkpoint: bool = False) -> Path:
        return _path(self.data / LOG, number, checkpoint=checkpoint)


def _check(state: State, change: Change, base: Mapping[str, Cursor]) -> None:
    for key in change.cursors:
        mine, theirs = base.get(key, Cursor()), state.cursors.get(key, Cursor())
        if mine.offset != theirs.offset:
            raise Fenced(f"another sink writes here: it has {key} at {theirs.offset}, this one is at {mine.offset}")
    for path in change.remove:
        if path not in state.files:
            raise Fenced(f"another sink writes here: it has replaced {path}")
    if change.plan is not None:
        taken = {path for plan in state.planned.values() for path in plan.inputs}
        if any(path in taken or path not in state.files for path in change.plan.inputs):
            raise Fenced(f"another sink writes here: it is compacting {change.plan.output.day}")


def _read(log: Path) -> State:
    checkpoint = max(_numbers(log, checkpoint=True), default=0)
    state = State()
    if checkpoint:
        state = msgspec.json.decode(_path(log, checkpoint, checkpoint=True).read_bytes(), type=State)
    for number in range(checkpoint + 1, max(_numbers(log), default=0) + 1):
        state = state.after(msgspec.json.decode(_path(log, number).read_bytes(), type=Change))
    return state


def _numbers(log: Path, *, checkpoint: bool = False) -> list[int]:
    """The numbers of the records in the folder."""
    try:
        names = [path.name for path in log.iterdir()]
    except FileNotFoundError:
        return []
    ending = ".checkpoint.json" if checkpoint else ".json"
    return [int(name[:20]) for name in names if name[20:] == ending]


def _path(log: Path, number: int, *, checkpoint: bool = False) -> Path:
    return log / (f"{number:020d}.checkpoint.json" if checkpoint else f"{number:020d}.json")


def _superseded(log: Path) -> list[Path]:
    newest = max(_numbers(log, checkpoint=True), default=0)
    return [_path(log, number) for number in _numbers(log) if number < newest] + [
        _path(log, number, checkpoint=True) for number in _numbers(log, checkpoint=True) if number < newest
    ]


def _is_older(path: Path, than_ms: int) -> bool:
    try:
        return path.stat().st_mtime * 1000 < than_ms
    except FileNotFoundError:
        return False
