"""The running sink: what is on the log is in Parquet, once, whatever happens to the process."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tests.sinks.journals import DAY_MS, NOON_MS, MemoryLog, audit, ended, kept, told, took
from tollgate.errors import Fenced, OutOfRange
from tollgate.events import DeadLetter, decode
from tollgate.journal import JOURNAL
from tollgate.log.embedded import EmbeddedLog
from tollgate.log.ends import Ends
from tollgate.sinks.fold import TOPICS
from tollgate.sinks.metrics import SinkMetrics
from tollgate.sinks.sink import Sink
from tollgate.topics import load_topics

WAIT_S = 10.0
SOON_S = 0.01


def filled(requests: int = 20, partitions: int = 2) -> MemoryLog:
    log = MemoryLog(partitions)
    for number in range(partitions):
        log.put(took(), number)
    for number in range(requests):
        log.put(ended(f"r{number}"), number % partitions)
        log.put(audit(str(number)), number % partitions, "audit")
    return log


async def run_to_the_end(log: Any, data: Path, **options: Any) -> Sink:
    """A sink that takes what is there and stops."""
    sink = Sink(log, data, clock_ms=lambda: NOON_MS, **options)
    running = asyncio.create_task(sink.run())
    await sink.drain(WAIT_S)
    await running
    return sink


async def test_everything_on_the_log_comes_to_parquet(tmp_path: Path) -> None:
    log = filled()
    sink = await run_to_the_end(log, tmp_path)
    assert kept(tmp_path) == told(log)
    assert (sink.rows_written, sink.rows_waiting, await sink.lag(), sink.committed_ms) == (80, 0, 0, NOON_MS)


async def test_it_goes_on_where_it_was(tmp_path: Path) -> None:
    log = filled()
    await run_to_the_end(log, tmp_path)
    log.put(took())
    log.put(ended("zombie", epoch=0))
    log.put(ended("next", epoch=11))
    sink = await run_to_the_end(log, tmp_path)
    assert sink.rows_written == 3
    assert kept(tmp_path) == told(log)


async def test_rows_are_written_by_time_without_being_asked(tmp_path: Path) -> None:
    log = filled()
    sink = Sink(log, tmp_path, flush_s=SOON_S)
    running = asyncio.create_task(sink.run())
    while await sink.lag():
        await asyncio.sleep(SOON_S)
    assert kept(tmp_path) == told(log)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_rows_are_written_when_they_are_many(tmp_path: Path) -> None:
    sink = await run_to_the_end(filled(60), tmp_path, flush_rows=20)
    assert sink.manifest.state.number > 5
    assert sink.rows_written == 240


async def test_a_gap_in_the_offsets_is_no_loss(tmp_path: Path) -> None:
    log = MemoryLog()
    log.put(took(), skip=3)
    log.put(ended("r1", epoch=3), skip=10)
    await run_to_the_end(log, tmp_path)
    log.put(ended("r2", epoch=3), skip=1)
    await run_to_the_end(log, tmp_path)
    assert [row["log_offset"] for row in kept(tmp_path)["usage"]] == [14, 16]


async def test_what_makes_no_row_is_put_aside_whole(tmp_path: Path) -> None:
    log = filled()
    log.put(b'{"type":"ended.99"}', 1)
    sink = await run_to_the_end(log, tmp_path)
    [record] = log.records["dead-letters", 0]
    letter = decode(record.value or b"")
    assert isinstance(letter, DeadLetter)
    assert (letter.topic, letter.partition, letter.offset) == (JOURNAL, 1, 11)
    assert letter.value == b'{"type":"ended.99"}'
    assert sink.records_skipped == 1
    assert kept(tmp_path) == told(log)


async def test_a_second_sink_is_fenced_and_doubles_nothing(tmp_path: Path) -> None:
    log = filled()
    first, second = Sink(log, tmp_path, flush_s=SOON_S), Sink(log, tmp_path, flush_s=SOON_S)
    results = await asyncio.gather(
        *(asyncio.wait_for(sink.run(), WAIT_S) for sink in (first, second)),
        stop_the_other(log, first, second),
        return_exceptions=True,
    )
    assert sum(isinstance(result, Fenced) for result in results) == 1
    assert kept(tmp_path) == told(log)


async def stop_the_other(log: MemoryLog, *sinks: Sink) -> None:
    """Once one sink has been fenced, drain the one that is left."""
    fed = 0
    while not any(sink._stopped.is_set() for sink in sinks):
        log.put(ended(f"more{fed}"))
        fed += 1
        await asyncio.sleep(SOON_S)
    await asyncio.gather(*(sink.drain(WAIT_S) for sink in sinks))


async def test_a_position_that_retention_has_removed_stops_the_sink(tmp_path: Path) -> None:
    log = filled()
    log.first[JOURNAL, 1] = 3
    with pytest.raises(OutOfRange):
        await asyncio.wait_for(Sink(log, tmp_path).run(), WAIT_S)


async def test_a_full_disk_stops_the_sink_and_loses_nothing(tmp_path: Path) -> None:
    log = filled()

    def full(name: str) -> None:
        if name == "sink.before_commit":
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        await asyncio.wait_for(Sink(log, tmp_path, flush_s=SOON_S, failpoint=full).run(), WAIT_S)
    await run_to_the_end(log, tmp_path)
    assert kept(tmp_path) == told(log)


async def test_draining_ends_in_time_when_the_log_does_not(tmp_path: Path) -> None:
    log = filled()
    log.ends = unreachable  # type: ignore[method-assign]
    sink = Sink(log, tmp_path)
    running = asyncio.create_task(sink.run())
    while sink.rows_waiting < 40:  # as many records, of which no rows are made yet
        await asyncio.sleep(SOON_S)
    await sink.drain(SOON_S)
    await running
    assert kept(tmp_path) == told(log)


async def unreachable(topic: str) -> dict[int, int]:
    return {0: 10**6}


async def test_yesterday_is_closed_by_the_clock(tmp_path: Path) -> None:
    log = filled()
    await run_to_the_end(log, tmp_path)
    tomorrow = Sink(log, tmp_path, clock_ms=lambda: NOON_MS + DAY_MS)
    await tomorrow.tidy()
    assert kept(tmp_path) == kept(tmp_path, closed=True) == told(log)


async def test_a_day_stays_open_while_a_partition_has_not_been_read_past_it(tmp_path: Path) -> None:
    log = filled()
    await run_to_the_end(log, tmp_path)
    log.put(ended("unread"), 1)
    await Sink(log, tmp_path, clock_ms=lambda: NOON_MS + DAY_MS).tidy()
    assert kept(tmp_path, closed=True)["usage"] == []


async def test_a_compaction_that_fails_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = filled()
    await run_to_the_end(log, tmp_path)
    for path in tmp_path.glob("usage/_live/*"):
        path.write_bytes(b"rotten")
    await Sink(log, tmp_path, clock_ms=lambda: NOON_MS + DAY_MS).tidy()
    assert "a compaction failed" in caplog.text


class Crash(BaseException):
    """The process dies here."""


@pytest.mark.parametrize(
    "step", ["sink.before_write", "sink.after_write", "sink.after_rename", "sink.before_commit", "sink.after_commit"]
)
@pytest.mark.parametrize("time", [1, 3])
async def test_a_crash_at_any_step_loses_and_doubles_nothing(tmp_path: Path, step: str, time: int) -> None:
    log = filled(60)
    reached = 0

    def crash(name: str) -> None:
        nonlocal reached
        reached += name == step
        if reached == time:
            raise Crash

    with pytest.raises(Crash):
        await asyncio.wait_for(Sink(log, tmp_path, flush_rows=20, flush_s=SOON_S, failpoint=crash).run(), WAIT_S)
    whole = told(log)
    assert all(row in whole["usage"] for row in kept(tmp_path)["usage"])
    await run_to_the_end(log, tmp_path)
    assert kept(tmp_path) == whole


async def test_it_reads_the_embedded_log(tmp_path: Path) -> None:
    log = await EmbeddedLog.open(tmp_path / "log", load_topics(), durability="process", clock_ms=lambda: NOON_MS)
    running_on = tmp_path / "data"
    sink = Sink(log, running_on, flush_s=SOON_S)
    running = asyncio.create_task(sink.run())
    memory = filled(100, partitions=6)
    for (topic, number), records in memory.records.items():
        for record in records:
            await log.append(topic, record.key, record.value, partition=number)
    await sink.drain(WAIT_S)
    await running
    await log.close()
    assert kept(running_on) == told(memory)


async def test_its_metrics_say_how_far_it_is_behind(tmp_path: Path) -> None:
    log = filled()
    sink = await run_to_the_end(log, tmp_path)
    log.put(ended("next", epoch=0), 1)
    ends = Ends(log, TOPICS)  # type: ignore[arg-type]
    await ends.refresh()
    active: list[Sink | None] = [sink]
    registry = CollectorRegistry()
    registry.register(SinkMetrics(lambda: active[0], ends))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"tollgate_sink_{name}", labels)

    behind, level = {"topic": JOURNAL, "partition": "1"}, {"topic": JOURNAL, "partition": "0"}
    assert (value("lag_records", **behind), value("lag_records", **level)) == (1, 0)
    assert (value("lag_seconds", **behind) or 0) > 0
    assert (value("lag_seconds", **level), value("active"), value("rows_total")) == (0, 1, 80)
    active[0] = None
    assert (value("active"), value("lag_records", **behind)) == (0, None)
