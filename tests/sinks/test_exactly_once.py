"""Random journals, batches, crashes, writers that overtake each other, compactions: Parquet is the fold of the log.

The steps of a random life of the data folder are drawn first and then carried out; whatever the order, no reader may
ever see a row that the log does not say, or one twice, and in the end none may be missing.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sinks.journals import DAY_MS, MemoryLog, audit, ended, kept, told, took
from tollgate.errors import Fenced
from tollgate.events import OwnerReleased
from tollgate.journal import JOURNAL
from tollgate.sinks.compact import compact, due, first_open_day
from tollgate.sinks.fold import AUDIT, TOPICS, Fold, cursor_key
from tollgate.sinks.manifest import KEEP_MS, Manifest
from tollgate.sinks.writer import write

CRASH_STEPS = (
    "sink.before_write",
    "sink.after_write",
    "sink.after_rename",
    "sink.before_commit",
    "sink.after_commit",
    "compact.after_plan",
    "compact.before_rename",
    "compact.before_commit",
    "compact.after_commit",
)
PARTITIONS = 2
WRITERS = 2


class Crash(Exception):
    """The process dies here."""


class Writer:
    """One sink process, driven by hand; `reborn` after a crash or a fence. Each has its own view of the manifest."""

    def __init__(self, log: MemoryLog, data: Path) -> None:
        self.log, self.data = log, data
        self.reborn()

    def reborn(self) -> None:
        self.manifest = Manifest(self.data, checkpoint_every=3)
        self.fold = Fold(self.manifest.state.cursors)

    def read(self, count: int, *, again: int = 0) -> None:
        """Take up to `count` records of each partition; the first `again` of them were delivered before."""
        for (topic, partition), records in self.log.records.items():
            if topic in TOPICS:
                offset = self.fold.offset(topic, partition)
                first = sum(record.offset < offset for record in records)
                self.fold.take(records[max(0, first - again) : first + count])

    def act(self, what: str, crash_at: str | None) -> None:
        def failpoint(name: str) -> None:
            if name == crash_at:
                raise Crash

        try:
            if what == "flush":
                batch = self.fold.cut()
                if batch.cursors:
                    write(self.manifest, batch, failpoint)
            elif what == "compact":
                ends = {cursor_key(t, n): r[-1].offset + 1 if r else 0 for (t, n), r in self.log.records.items()}
                open_day = first_open_day(self.manifest.state.cursors, ends, self.log.now_ms)
                for plan in due(self.manifest.state, open_day):
                    compact(self.manifest, plan, self.log.now_ms, failpoint)
            elif what == "sweep":
                # Files have the machine's time, so an hour from the latest touch is well past what it says.
                self.manifest.sweep(max(self.log.now_ms, 4 * 10**12) + KEEP_MS)
            elif what == "restart":
                self.reborn()
        except (Crash, Fenced):
            self.reborn()


@dataclass(frozen=True)
class Append:
    """Records on one partition of the journal: `took`, or some of another kind."""

    what: str
    partition: int
    count: int
    later_ms: int


@dataclass(frozen=True)
class Read:
    writer: int
    count: int
    again: int


@dataclass(frozen=True)
class Act:
    writer: int
    what: str
    crash_at: str | None


writers = st.integers(0, WRITERS - 1)
appends = st.builds(
    Append,
    st.sampled_from(["valid", "valid", "valid", "took", "zombie", "early", "garbage", "released", "audit"]),
    st.integers(0, PARTITIONS - 1),
    st.integers(1, 3),
    st.sampled_from([0, 1, 1000, DAY_MS // 2]),
)
reads = st.builds(Read, writers, st.integers(1, 12), st.integers(0, 3))
acts = st.builds(
    Act,
    writers,
    st.sampled_from(["flush", "flush", "flush", "compact", "compact", "sweep", "restart"]),
    st.one_of(st.none(), st.sampled_from(CRASH_STEPS)),
)


def append(log: MemoryLog, step: Append, number: int) -> list[str]:
    """Append, and return the requests that a reader must count."""
    log.now_ms += step.later_ms
    counted = []
    for index in range(step.count):
        records = log.records[JOURNAL, step.partition]
        epochs = [record.offset for record in records if b"owner_took" in (record.value or b"")]
        name = f"{step.what}-{number}-{index}"
        match step.what:
            case "took":
                log.put(took(), step.partition)
            case "valid":
                log.put(ended(name, epoch=epochs[-1]), step.partition)
                counted.append(name)
            case "zombie":
                log.put(ended(name, epoch=epochs[0] if len(epochs) > 1 else 10**6), step.partition)
            case "early":
                log.put(ended(name, epoch=records[-1].offset + 1), step.partition)
            case "garbage":
                log.put(b"{", step.partition)
            case "released":
                log.put(OwnerReleased(epoch=epochs[-1]), step.partition, skip=index)
            case "audit":
                log.put(audit(name), step.partition, AUDIT)
    return counted


def check_readers(log: MemoryLog, data: Path) -> None:
    """Whoever reads now, by manifest or by glob, sees rows of the log, each at most once."""
    whole = told(log)
    for rows in (kept(data), kept(data, closed=True)):
        for table, of_table in rows.items():
            wanted = {str(row) for row in whole[table]}
            found = [str(row) for row in of_table]
            assert len(found) == len(set(found)), f"a row of {table} is there twice"
            assert wanted.issuperset(found), f"a row of {table} is not what the log says"


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.one_of(appends, reads, acts, acts), min_size=15, max_size=60))
def test_parquet_is_the_fold_of_the_log_whatever_happens(steps: list[Append | Read | Act]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        log = MemoryLog(PARTITIONS)
        for partition in range(PARTITIONS):
            log.put(took(), partition)
        sinks = [Writer(log, data) for _ in range(WRITERS)]
        counted: list[str] = []
        for number, step in enumerate(steps):
            match step:
                case Append():
                    counted += append(log, step, number)
                case Read():
                    sinks[step.writer].read(step.count, again=step.again)
                case Act():
                    sinks[step.writer].act(step.what, step.crash_at)
                    check_readers(log, data)
        last = sinks[0]
        last.reborn()
        last.read(10**6)
        last.act("flush", None)
        assert kept(data) == told(log)
        assert sorted(row["request_id"] for row in kept(data)["usage"]) == sorted(counted)
        log.now_ms += 2 * DAY_MS
        for _ in range(2):  # plans left by a crash first, then the rest of their days
            last.act("compact", None)
        assert kept(data) == kept(data, closed=True) == told(log)
