"""What the embedded log promises beyond the port."""

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.log.support import declare, read
from tollgate.errors import AppendUnknown, ConfigError, LogLocked, LogUnavailable, OutOfRange, UsageError
from tollgate.log import compaction, embedded, embedded_reader, embedded_upkeep
from tollgate.log.embedded import EmbeddedLog
from tollgate.log.embedded_reader import EmbeddedReader
from tollgate.log.storage import Storage
from tollgate.topics import Topics

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def compacted(name: str, *, delete_retention_ms: int = DAY_MS) -> Topics:
    return declare(
        name,
        cleanup_policy="compact",
        min_cleanable_dirty_ratio="0.1",
        delete_retention_ms=str(delete_retention_ms),
    )


async def test_a_second_process_is_refused_and_told_who_has_the_log(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    script = (
        "import asyncio, sys, pathlib; from tollgate.log.embedded import EmbeddedLog; "
        "from tollgate.topics import Topics; "
        "asyncio.run(EmbeddedLog.open(pathlib.Path(sys.argv[1]), Topics(topics={})))"
    )
    second = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    said = f"the log is in use by process {os.getpid()}: stop it, or name another folder with TOLLGATE_DATA"
    assert f"LogLocked: {tmp_path}: {said}" in second.stderr
    await log.close()
    await (await EmbeddedLog.open(tmp_path, declare("t"))).close()


async def test_the_log_can_be_opened_after_an_opening_that_failed(tmp_path: Path) -> None:
    await (await EmbeddedLog.open(tmp_path, declare("t", partitions=2))).close()
    with pytest.raises(ConfigError):
        await EmbeddedLog.open(tmp_path, declare("t", partitions=3))
    log = await EmbeddedLog.open(tmp_path, declare("t", partitions=2))
    with pytest.raises(LogLocked):
        await EmbeddedLog.open(tmp_path, declare("t", partitions=2))
    await log.close()


async def test_a_partition_count_is_fixed_for_the_life_of_a_log(tmp_path: Path) -> None:
    await (await EmbeddedLog.open(tmp_path, declare("t", partitions=6))).close()
    with pytest.raises(ConfigError) as raised:
        await EmbeddedLog.open(tmp_path, declare("t", partitions=8))
    assert str(raised.value) == (
        f"topics.yaml: 't' has 8 partitions, the log in {tmp_path} has 6; the count is fixed for the life of a log"
    )


async def test_a_topic_declared_later_is_added(tmp_path: Path) -> None:
    await (await EmbeddedLog.open(tmp_path, declare("first"))).close()
    both = Topics(topics={**declare("first").topics, **declare("second", partitions=3).topics})
    log = await EmbeddedLog.open(tmp_path, both)
    assert (await log.append("second", None, b"v", partition=2)).offset == 0
    assert await read(log, "first") == []
    await log.close()


async def test_a_log_of_a_later_version_is_not_touched(tmp_path: Path) -> None:
    await (await EmbeddedLog.open(tmp_path, declare("t"))).close()
    with sqlite3.connect(tmp_path / "log.db") as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    for opening in (EmbeddedLog.open(tmp_path, declare("t")), EmbeddedLog.open_readonly(tmp_path)):
        with pytest.raises(ConfigError, match="is a log of version 9; this program reads version 1"):
            await opening


WRITER = """
import asyncio, pathlib, sys
from tests.log.support import declare
from tollgate.log.embedded import EmbeddedLog

async def main():
    log = await EmbeddedLog.open(pathlib.Path(sys.argv[1]), declare("t", partitions=3))
    def report(appended):
        position = appended.result()
        print(position.partition, position.offset, flush=True)
    for i in range(1_000_000):
        log.append("t", b"%d" % i, b"%d " % i * 50).add_done_callback(report)
        if i % 20 == 0:
            await asyncio.sleep(0.001)

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 150, 700])
async def test_what_was_acknowledged_outlives_kill_9(tmp_path: Path, after: int) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    said = [writer.stdout.readline() for _ in range(after)]
    writer.send_signal(signal.SIGKILL)
    rest, _ = writer.communicate()
    acknowledged = [tuple(map(int, line.split())) for line in (*said, *rest.splitlines()) if len(line.split()) == 2]
    assert len(acknowledged) >= after

    log = await EmbeddedLog.open(tmp_path, declare("t", partitions=3))
    kept = {partition: await read(log, "t", partition) for partition in range(3)}
    for partition, records in kept.items():
        assert [record.offset for record in records] == list(range(len(records)))
        assert all(record.value == record.key + b" " + (record.key + b" ") * 49 for record in records if record.key)
        assert all(offset < len(records) for of, offset in acknowledged if of == partition)
    assert (await log.append("t", None, b"next")).offset == len(kept[0])
    await log.close()


async def test_a_commit_that_fails_ends_the_log(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    await log.append("t", b"k", b"fits")
    # A full disk: SQLite may add no page.
    pages = await log._write(lambda: log._writer_storage._connection.execute("PRAGMA max_page_count = 1").fetchone()[0])
    doomed = [log.append("t", b"k", b"x" * 4096 * (pages + 1))]
    await asyncio.sleep(0)
    doomed.append(log.append("t", b"k", b"behind it"))
    following = asyncio.ensure_future(anext(aiter(log.follow("t", {0: 1}))))
    for future in doomed:
        with pytest.raises(AppendUnknown, match="disk is full"):
            await future
    assert "disk is full" in str(log.failed.result())
    with pytest.raises(AppendUnknown):
        await following
    with pytest.raises(AppendUnknown):
        await log.append("t", b"k", b"fits as well")
    with pytest.raises(AppendUnknown):
        await log.commit_offsets("group", {("t", 0): 1})
    await log.close()

    log = await EmbeddedLog.open(tmp_path, declare("t"))
    assert [record.value for record in await read(log, "t")] == [b"fits"]
    await log.close()


async def test_a_failed_offset_commit_ends_the_log_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    log = await EmbeddedLog.open(tmp_path, declare("t"))
    monkeypatch.setattr(Storage, "commit_offsets", fail)
    with pytest.raises(AppendUnknown, match="disk I/O error"):
        await log.commit_offsets("group", {("t", 0): 1})
    assert log.failed.done()
    await log.close()


async def test_a_record_is_invisible_to_readers_until_it_is_durable(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    appended = log.append("t", b"k", b"v")
    assert log.end("t", 0) == 0
    assert await read(log, "t", 0) == []
    position = await appended
    assert log.end("t", 0) == 1
    assert [record.offset for record in await read(log, "t", 0)] == [position.offset]
    await log.close()


async def test_a_listener_has_a_record_at_once_and_its_answer_becomes_durable_with_it(tmp_path: Path) -> None:
    topics = declare("cause").topics | declare("effect").topics
    log = await EmbeddedLog.open(tmp_path, Topics(topics=topics))
    heard = asyncio.Event()
    log.listen("cause", lambda partition: heard.set())
    seen = log.news

    cause = log.append("cause", b"k", b"v")
    await heard.wait()
    assert (log.end("cause", 0), log.taken("cause", 0)) == (0, 1)
    assert [record.value for record in log.tail("cause", 0, 0, 10) or ()] == [b"v"]
    await log.append("effect", b"k", b"v")

    assert cause.done() and log.news == seen + 1
    await log.close()


async def test_what_lingers_is_written_in_the_end_though_nothing_follows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "LINGER_S", 0.001)
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    for value in (b"1", b"2"):
        await log.append("t", b"k", value, linger=True)
    assert [record.value for record in await read(log, "t", 0)] == [b"1", b"2"]
    await log.close()


async def test_what_lingers_is_written_with_what_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LINGER_S", 3600)
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    for _ in range(3):  # while one group is being written, the next one gathers
        seen = log.news
        lingering = log.append("t", b"k", b"v", linger=True)
        await asyncio.sleep(0)
        assert log.news == seen
        await log.append("t", b"k", b"v")
        assert lingering.done() and log.news == seen + 1
    await log.close()


async def test_a_closing_log_writes_what_lingers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LINGER_S", 3600)
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    lingering = log.append("t", b"k", b"v", linger=True)
    await asyncio.sleep(0)
    assert not lingering.done()
    await log.close()
    assert lingering.done()


async def test_appends_of_one_turn_are_one_transaction(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, declare("t", partitions=2))
    seen = log.news
    await asyncio.gather(*(log.append("t", b"%d" % i, b"v") for i in range(1000)))
    assert log.news == seen + 1
    await log.close()


async def test_news_of_a_topic_wake_all_who_wait_for_it_and_nobody_else(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, Topics(topics=declare("t").topics | declare("other").topics))
    seen = log.news
    waiting = [asyncio.create_task(log.wait_news(seen, "t")) for _ in range(3)]
    other = asyncio.create_task(log.wait_news(seen, "other"))
    await asyncio.sleep(0)
    waiting.pop().cancel()
    await log.append("t", b"k", b"v")
    assert await asyncio.gather(*waiting) == [seen + 1] * 2
    assert await log.wait_news(seen, "t") == seen + 1
    assert not other.done()
    await log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await other


async def test_memory_holds_the_newest_records_and_the_disk_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "TAIL_BYTES", 20_000)
    log = await EmbeddedLog.open(tmp_path, declare("t", partitions=2))
    for i in range(100):
        await log.append("t", None, b"%d" % i * 100, partition=i % 2)
    assert log.tail("t", 0, 0, 10) is None
    assert [record.offset for record in log.tail("t", 0, 45, 3) or ()] == [45, 46, 47]
    assert log.tail("t", 0, 50, 10) == []
    assert [record.offset for record in await read(log, "t", 0)] == list(range(50))
    seen = 0
    async for batch in log.follow("t", {0: 0, 1: 0}):
        seen += len(batch)
        if seen == 100:
            break
    await log.close()


async def test_a_record_larger_than_the_memory_for_readers_is_read_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "TAIL_BYTES", 1000)
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    await log.append("t", b"k", b"x" * 5000)
    assert log.tail("t", 0, 0, 1) is None
    assert [record.value for record in await read(log, "t")] == [b"x" * 5000]
    await log.close()


async def test_reads_from_disk_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    await asyncio.gather(*(log.append("t", b"k", b"x" * 100) for _ in range(100)))
    await log.close()
    monkeypatch.setattr(embedded_reader, "READ_ROWS", 30)
    reader = await EmbeddedLog.open_readonly(tmp_path)
    assert [len(batch) async for batch in reader.scan("t", 0, 0)] == [30, 30, 30, 10]
    monkeypatch.setattr(embedded_reader, "READ_BYTES", 1010)
    assert [len(batch) async for batch in reader.scan("t", 0, 0)] == [10] * 10
    await reader.close()


async def test_time_does_not_go_back_when_the_clock_does(tmp_path: Path) -> None:
    clock = iter([100, 50, 120])
    log = await EmbeddedLog.open(tmp_path, declare("t"), clock_ms=lambda: next(clock))
    stamps = [(await log.append("t", b"k", b"v")).timestamp_ms for _ in range(3)]
    await log.close()
    log = await EmbeddedLog.open(tmp_path, declare("t"), clock_ms=lambda: 7)
    stamps.append((await log.append("t", b"k", b"v")).timestamp_ms)
    assert stamps == [100, 100, 120, 120]
    await log.close()


async def test_positions_of_consumer_groups_outlive_the_process(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, declare("t", partitions=2))
    await log.commit_offsets("one", {("t", 0): 5, ("t", 1): 7})
    await log.commit_offsets("one", {("t", 0): 6})
    await log.commit_offsets("two", {("t", 0): 1})
    await log.close()
    log = await EmbeddedLog.open(tmp_path, declare("t", partitions=2))
    assert await log.committed("one") == {("t", 0): 6, ("t", 1): 7}
    assert await log.committed("three") == {}
    await log.close()


async def test_a_tool_reads_while_the_log_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_reader, "POLL_S", 0.001)
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    await log.append("t", b"k", b"0")
    reader = await EmbeddedLog.open_readonly(tmp_path)
    assert [record.value for record in await read(reader, "t")] == [b"0"]
    await log.append("t", b"k", b"1")
    assert await reader.ends("t") == {0: 2}
    following = aiter(reader.follow("t", {0: 1}))
    assert [record.value for record in await anext(following)] == [b"1"]
    await log.append("t", b"k", b"2")
    assert [record.value for record in await anext(following)] == [b"2"]
    await log.close()
    assert [record.value for record in await read(reader, "t")] == [b"0", b"1", b"2"]
    with pytest.raises(UsageError, match="for reading only"):
        reader.append("t", b"k", b"v")
    await reader.close()


async def test_a_tool_reads_when_no_gateway_runs_and_says_so_where_there_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(str(tmp_path))):
        await EmbeddedLog.open_readonly(tmp_path)
    log = await EmbeddedLog.open(tmp_path, declare("t", partitions=2))
    await log.append("t", b"k", b"v", partition=1)
    await log.close()
    reader = await EmbeddedLog.open_readonly(tmp_path)
    assert type(reader) is EmbeddedReader
    assert reader.partitions("t") == 2
    assert len(await read(reader, "t", 1)) == 1
    await reader.close()


async def test_retention_removes_what_is_old_but_never_the_newest(tmp_path: Path) -> None:
    clock = count(start=1_000_000, step=HOUR_MS)
    log = await EmbeddedLog.open(tmp_path, declare("t", retention_ms=str(DAY_MS)), clock_ms=lambda: next(clock))
    positions = [await log.append("t", b"k", b"v") for _ in range(48)]
    await log.maintain(positions[-1].timestamp_ms)
    assert await log.starts("t") == {0: 23}
    assert [record.offset for record in await read(log, "t", start=23)] == list(range(23, 48))
    with pytest.raises(OutOfRange):
        await read(log, "t", start=22)
    await log.maintain(positions[-1].timestamp_ms + 100 * DAY_MS)
    assert await log.starts("t") == {0: 47}
    assert await log.ends("t") == {0: 48}
    await log.close()
    log = await EmbeddedLog.open(tmp_path, declare("t"))
    assert await log.starts("t") == {0: 47}
    assert (await log.append("t", b"k", b"v")).offset == 48
    await log.close()


async def test_retention_is_bounded_per_call_and_goes_on_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded_upkeep, "EXPIRE_ROWS", 10)
    monkeypatch.setattr(embedded_upkeep, "EXPIRE_STEPS", 3)
    log = await EmbeddedLog.open(tmp_path, declare("t", retention_ms="1000"), clock_ms=lambda: 0)
    await asyncio.gather(*(log.append("t", b"k", b"v") for _ in range(50)))
    await log.maintain(DAY_MS)
    assert await log.starts("t") == {0: 30}
    await log.maintain(DAY_MS)
    assert await log.starts("t") == {0: 49}
    await log.close()


async def test_a_follower_that_retention_overtakes_is_told(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, declare("t", retention_ms="1000"), clock_ms=lambda: 0)
    await asyncio.gather(*(log.append("t", b"k", b"v") for _ in range(1500)))
    following = aiter(log.follow("t", {0: 0}))
    await anext(following)
    await log.maintain(DAY_MS)
    with pytest.raises(OutOfRange):
        await anext(following)
    await log.close()


async def test_a_tool_that_retention_overtakes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_reader, "READ_ROWS", 10)
    log = await EmbeddedLog.open(tmp_path, declare("t", retention_ms="1000"), clock_ms=lambda: 0)
    await asyncio.gather(*(log.append("t", b"k", b"v") for _ in range(50)))
    reader = await EmbeddedLog.open_readonly(tmp_path)
    scanning = aiter(reader.scan("t", 0, 0))
    assert len(await anext(scanning)) == 10
    await log.maintain(DAY_MS)
    with pytest.raises(OutOfRange, match="which holds 49 to 50"):
        await anext(scanning)
    await reader.close()
    await log.close()


async def test_compaction_keeps_the_newest_of_each_key_with_its_offset(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, compacted("t"))
    for i in range(100):
        await log.append("t", b"%d" % (i % 3), b"%d" % i)
    await log.append("t", b"other", b"x")
    await log.maintain(now := embedded.now_ms())
    await log.close()
    log = await EmbeddedLog.open(tmp_path, compacted("t"))
    assert [(r.offset, r.value) for r in await read(log, "t")] == [(97, b"97"), (98, b"98"), (99, b"99"), (100, b"x")]
    assert await log.starts("t") == {0: 0}
    assert [record.offset for record in await read(log, "t", start=5, end=99)] == [97, 98]
    assert await log.offset_at("t", 0, 0) == 97
    await log.maintain(now)
    assert (await log.append("t", b"0", b"v")).offset == 101
    await log.close()


async def test_a_tombstone_stays_for_its_time_and_the_newest_record_for_ever(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, compacted("t", delete_retention_ms=DAY_MS), clock_ms=lambda: HOUR_MS)

    async def kept() -> list[int]:
        reader = await EmbeddedLog.open_readonly(tmp_path)
        offsets = [record.offset for record in await read(reader, "t")]
        await reader.close()
        return offsets

    for key, value in ((b"a", b"v"), (b"a", None), (b"b", b"v"), (b"b", None)):
        await log.append("t", key, value)
    await log.maintain(2 * HOUR_MS)
    assert await kept() == [1, 3]
    await log.append("t", b"c", b"1")
    await log.append("t", b"c", None)
    await log.maintain(2 * HOUR_MS)
    assert await kept() == [1, 3, 5]
    await log.append("t", b"d", b"1")
    await log.append("t", b"d", None)
    await log.maintain(3 * DAY_MS)
    assert await kept() == [7], "old tombstones that an earlier pass had seen are gone; the newest record stays"
    await log.append("t", b"e", b"1")
    await log.append("t", b"e", None)
    await log.append("t", b"f", b"1")
    await log.maintain(3 * DAY_MS)
    assert await kept() == [9, 10], "however old, a tombstone stays for the pass that sees it first"
    await log.close()


async def test_a_log_that_is_mostly_superseded_is_compacted_when_it_is_opened(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path, compacted("t"))
    await asyncio.gather(*(log.append("t", b"k", b"%d" % i) for i in range(500)))
    await log.close()
    log = await EmbeddedLog.open(tmp_path, compacted("t"))
    assert [record.value for record in await read(log, "t")] == [b"499"]
    await log.close()


async def test_appends_go_on_during_maintenance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "SLICE_ROWS", 50)
    monkeypatch.setattr(compaction, "REMOVE_ROWS", 10)
    log = await EmbeddedLog.open(tmp_path, compacted("t"))
    await asyncio.gather(*(log.append("t", b"%d" % (i % 7), b"v") for i in range(2000)))
    maintaining = asyncio.create_task(log.maintain(embedded.now_ms()))
    appended = 0
    while not maintaining.done():
        await log.append("t", b"%d" % (appended % 7), b"new")
        appended += 1
    await maintaining
    assert appended > 10
    await log.maintain(embedded.now_ms())
    await log.close()
    reader = await EmbeddedLog.open_readonly(tmp_path)
    newest = await read(reader, "t")
    assert len({record.key for record in newest}) == 7
    assert (await reader.ends("t"))[0] == 2000 + appended == newest[-1].offset + 1
    await reader.close()


@settings(max_examples=25)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.sampled_from([b"v", None])),
            st.just("maintain"),
            st.just("reopen"),
        ),
        max_size=30,
    )
)
async def test_compaction_never_changes_what_a_fold_of_the_log_says(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bytes, bytes | None] | str]
) -> None:
    folder = tmp_path_factory.mktemp("log")
    topics = compacted("t", delete_retention_ms=0)
    clock = count()
    expected: dict[bytes, bytes | None] = {}
    last = -1
    log = await EmbeddedLog.open(folder, topics, durability="process", clock_ms=clock.__next__)
    for step in steps:
        if step == "maintain":
            await log.maintain(next(clock) + 1)
        elif step == "reopen":
            await log.close()
            log = await EmbeddedLog.open(folder, topics, durability="process", clock_ms=clock.__next__)
        else:
            key, value = step[0], step[1]
            assert isinstance(key, bytes) and not isinstance(value, str)
            last = (await log.append("t", key, value)).offset
            expected[key] = value
    await log.close()
    reader = await EmbeddedLog.open_readonly(folder)
    records = await read(reader, "t")
    await reader.close()
    folded = {record.key: record.value for record in records}
    assert {k: v for k, v in folded.items() if v is not None} == {k: v for k, v in expected.items() if v is not None}
    assert last == (records[-1].offset if records else -1)
