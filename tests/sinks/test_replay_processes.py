"""A replay by several processes, killed at any moment: what it leaves is what one that was left alone makes."""

import os
import random
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sinks.journals import DAY_MS, NOON_MS, audit, ended, took
from tollgate.errors import LogUnavailable, OutOfRange, UsageError
from tollgate.events import encode
from tollgate.journal import JOURNAL
from tollgate.log import Log
from tollgate.log.embedded import EmbeddedLog
from tollgate.sinks import replay as replaying
from tollgate.sinks.fold import TOPICS, Fold
from tollgate.sinks.manifest import Cursor, load
from tollgate.sinks.replay import replay
from tollgate.sinks.replay_folder import only_replay
from tollgate.sinks.replay_processes import shares
from tollgate.sinks.schemas import KEYS, SCHEMAS
from tollgate.sinks.starts import Stretch
from tollgate.topics import load_topics

PARTITIONS = 6
MANY, FEW = 26_000, 600  # requests: more than one process takes alone, and enough to see that all are there
KILLS = 3


async def make_log(folder: Path, requests: int) -> None:
    """A data folder with an embedded log of three days."""
    clock = [NOON_MS]
    log = await EmbeddedLog.open(folder / "data" / "log", load_topics(), clock_ms=lambda: clock[0])
    for partition in range(PARTITIONS):
        await log.append(JOURNAL, b"", encode(took()), partition=partition)
    for number in range(requests):
        clock[0] = NOON_MS + 3 * DAY_MS * number // requests
        partition = number % PARTITIONS
        event = ended(f"r{number}", epoch=0, org=f"org-{number % 7}")
        last = log.append(JOURNAL, b"", encode(event), partition=partition)
        log.append("audit", b"", encode(audit(f"{number}")), partition=partition)
        if number % 1000 == 0:
            await last
    await log.close()


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    await make_log(tmp_path, FEW)
    return tmp_path


async def rows_of(log: Log) -> dict[str, Any]:
    """All rows of the log by one fold from its start, as one Arrow table each, in order."""
    fold = Fold({})
    for topic in TOPICS:
        for partition in range(log.partitions(topic)):
            async for records in log.scan(topic, partition, 0):
                fold.take(records)
    parts = fold.cut().parts
    return {table: in_order(table, [part.rows for part in parts if part.table == table]) for table in SCHEMAS}


def kept(data: Path, *, closed: bool = False) -> dict[str, Any]:
    """What the manifest counts, or what anyone finds in the folders of closed days, in the same form."""
    files = {table: [data / file.path for file in load(data).of(table)] for table in SCHEMAS}
    if closed:
        files = {table: sorted(data.glob(f"{table}/dt=*/*.parquet")) for table in SCHEMAS}
    return {table: in_order(table, [pq.ParquetFile(path).read() for path in paths]) for table, paths in files.items()}


def in_order(table: str, parts: list[Any]) -> Any:
    rows = pa.concat_tables([SCHEMAS[table].empty_table(), *parts])
    return rows.sort_by([(column, "ascending") for column in KEYS[table]]).combine_chunks()


@pytest.mark.crash
async def test_killed_at_any_moment_it_goes_on_without_a_row_lost_or_doubled(tmp_path: Path) -> None:
    folder = tmp_path
    await make_log(folder, MANY)
    tollgate = Path(sys.executable).with_name("tollgate")
    command = [tollgate, "replay", "--to", "again", "--processes", "2"]
    environment = os.environ | {"TOLLGATE_DATA": "data"}
    draw = random.Random(7)
    begun = time.monotonic()
    subprocess.run([*command[:-3], "alone", *command[-2:]], cwd=folder, env=environment, check=True)
    takes_s = time.monotonic() - begun
    for _ in range(KILLS):
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.3, 1.0) * takes_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command, cwd=folder, env=environment, check=True)
    log = await EmbeddedLog.open_readonly(folder / "data" / "log")
    expected = await rows_of(log)
    await log.close()
    assert kept(folder / "again") == kept(folder / "again", closed=True) == expected
    assert kept(folder / "alone") == kept(folder / "alone", closed=True) == expected
    assert expected["usage"].num_rows == MANY


async def test_processes_make_what_one_makes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "PROCESS_RECORDS", 1)
    open_log = partial(EmbeddedLog.open_readonly, folder / "data" / "log")
    log = await open_log()
    seen: list[tuple[int, int]] = []
    done = await replay(
        log,
        folder / "again",
        open_log=open_log,
        processes=2,
        max_rows=200,
        progress=lambda done, total: seen.append((done, total)),
    )
    expected = await rows_of(log)
    await log.close()
    assert kept(folder / "again") == expected
    assert (done.rows, done.records) == (4 * FEW, 2 * FEW + PARTITIONS)
    assert seen[0] == (0, done.records) and seen[-1] == (done.records, done.records) and seen == sorted(seen)


async def fail_out_of_range() -> Log:
    raise OutOfRange("the log has lost it")


async def die() -> Log:
    os._exit(9)


@pytest.mark.parametrize(
    ("open_log", "error", "what"),
    [(fail_out_of_range, OutOfRange, "has lost it"), (die, LogUnavailable, "ended with 9; the same command goes on")],
)
async def test_what_fails_in_a_process_fails_the_replay(
    folder: Path, monkeypatch: pytest.MonkeyPatch, open_log: Any, error: type[Exception], what: str
) -> None:
    monkeypatch.setattr(replaying, "PROCESS_RECORDS", 1)
    log = await EmbeddedLog.open_readonly(folder / "data" / "log")
    with pytest.raises(error, match=what):
        await replay(log, folder / "again", open_log=open_log, processes=2)
    await log.close()


def test_one_replay_at_a_time_writes_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tollgate.sinks.replay_folder.LOCK_WAIT_S", 0.1)
    with only_replay(tmp_path), pytest.raises(UsageError, match="another replay"), only_replay(tmp_path):
        pass
    with only_replay(tmp_path):
        pass


def test_the_work_is_dealt_so_that_nobody_has_much_more() -> None:
    stretches = [Stretch(JOURNAL, n, Cursor(), size) for n, size in enumerate((5, 5, 4, 3, 3))]
    dealt = shares(stretches, 2)
    assert sorted(sum(each.records for each in share) for share in dealt) == [9, 11]
    assert sorted(each.partition for share in dealt for each in share) == [0, 1, 2, 3, 4]
    assert [len(share) for share in shares(stretches[:1], 4)] == [1]
