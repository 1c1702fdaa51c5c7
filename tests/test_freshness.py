"""Nobody is let in on the strength of a fold that may be too old, and one clock alone says how old it is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.log.support import declare
from tollgate.control import TOPIC, Control, catch_up, follow_control
from tollgate.errors import LogUnavailable
from tollgate.events import ControlBeat, decode, encode
from tollgate.freshness import BEAT_S, MAX_AGE_S, Freshness, beat
from tollgate.log import Log
from tollgate.log.embedded import EmbeddedLog

BEAT = encode(ControlBeat(at_ms=0))


class Clock:
    """A monotonic clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Reader:
    """A process that folds the topic, and knows how old its fold is."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.clock = Clock()
        self.control = Control()
        self.freshness = Freshness(clock_s=self.clock, patience_s=0.05)
        self.tasks: list[asyncio.Task[None]] = []

    def follow(self) -> None:
        self.tasks.append(asyncio.create_task(follow_control(self.log, self.control)))

    def watch(self, log: Log | None = None) -> None:
        self.tasks.append(asyncio.create_task(self.freshness.keep(log or self.log, self.control)))

    async def until_asked(self) -> None:
        """Return when the question about the end has been answered."""
        for _ in range(20):
            await asyncio.sleep(0.001)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[Log]:
    log = await EmbeddedLog.open(tmp_path, declare(TOPIC))
    yield log
    await log.close()


@pytest.fixture
async def reader(log: Log) -> AsyncIterator[Reader]:
    reader = Reader(log)
    yield reader
    for task in reader.tasks:
        task.cancel()
    await asyncio.gather(*reader.tasks, return_exceptions=True)


async def test_nothing_is_known_before_something_new_was_read(reader: Reader):
    reader.follow()
    reader.watch()
    await reader.until_asked()
    assert reader.freshness.stale
    assert await reader.freshness.regained() is False
    await reader.log.append(TOPIC, b"beat", BEAT)
    assert await reader.freshness.regained() is True


async def test_what_was_there_before_the_question_proves_nothing(reader: Reader):
    await reader.log.append(TOPIC, b"beat", BEAT)
    reader.follow()
    reader.watch()
    assert await reader.freshness.regained() is False


async def test_everything_is_known_up_to_the_question_not_up_to_the_answer(reader: Reader):
    reader.follow()
    reader.watch()
    await reader.until_asked()
    reader.clock.now_s += 0.75 * MAX_AGE_S
    await reader.log.append(TOPIC, b"beat", BEAT)
    assert await reader.freshness.regained() is True
    reader.clock.now_s += 0.5 * MAX_AGE_S
    assert reader.freshness.stale


async def test_a_process_that_was_halted_trusts_nothing_that_came_meanwhile(reader: Reader):
    reader.watch()
    await reader.until_asked()
    reader.clock.now_s += 30  # SIGSTOP, SIGCONT; then it reads what has been waiting for it
    await reader.log.append(TOPIC, b"beat", BEAT)
    reader.follow()
    assert await reader.freshness.regained() is False
    await reader.log.append(TOPIC, b"beat", BEAT)
    assert await reader.freshness.regained() is True


async def test_without_anything_new_the_fold_is_stale_within_a_second(reader: Reader):
    reader.follow()
    reader.watch()
    await reader.until_asked()
    await reader.log.append(TOPIC, b"beat", BEAT)
    assert await reader.freshness.regained()
    reader.clock.now_s += MAX_AGE_S + 0.001
    assert reader.freshness.stale


async def test_a_broker_that_does_not_answer_is_asked_again(reader: Reader):
    class Deaf:
        def __init__(self) -> None:
            self.asked = 0

        async def ends(self, topic: str) -> dict[int, int]:
            self.asked += 1
            if self.asked == 1:
                raise LogUnavailable("no broker")
            return await reader.log.ends(topic)

    deaf = Deaf()
    reader.follow()
    reader.watch(deaf)  # type: ignore[arg-type]
    while deaf.asked < 2:
        await asyncio.sleep(0.01)
    await reader.until_asked()
    await reader.log.append(TOPIC, b"beat", BEAT)
    assert await reader.freshness.regained() is True


async def test_a_fold_of_which_this_process_is_the_only_writer_is_always_fresh():
    assert not Freshness.always().stale
    assert Freshness.always().everywhere_s == 0


async def test_workers_beat_where_nothing_else_is_written_and_one_of_them_is_enough(reader: Reader):
    reader.follow()
    for draw in (lambda: 0.0, lambda: 1.0):
        reader.tasks.append(asyncio.create_task(beat(reader.log, reader.control, draw=draw, now_ms=lambda: 7)))
    await asyncio.sleep(4 * BEAT_S)
    await catch_up(reader.log, reader.control)
    records = [record async for batch in reader.log.scan(TOPIC, 0, 0) for record in batch]
    assert {decode(record.value or b"") for record in records} == {ControlBeat(at_ms=7)}
    assert 1 <= len(records) <= 6


async def test_a_log_that_is_full_for_a_moment_does_not_end_the_beats(reader: Reader):
    class Full:
        def __init__(self) -> None:
            self.refused = 0

        async def append(self, topic: str, key: bytes, value: bytes) -> object:
            if not self.refused:
                self.refused += 1
                raise LogUnavailable("many records wait already")
            return await reader.log.append(topic, key, value)

    full = Full()
    reader.follow()
    reader.tasks.append(asyncio.create_task(beat(full, reader.control, draw=lambda: 0.0, now_ms=lambda: 7)))  # type: ignore[arg-type]
    assert await reader.control.wait_for(1, timeout_s=10 * BEAT_S)
    assert full.refused == 1
