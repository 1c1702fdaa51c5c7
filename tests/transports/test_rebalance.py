"""Workers of one group on Kafka: a partition is given up before another worker takes it, and goes on where it was."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.transports.support import PARTITIONS, Place, Processor, append
from tollgate.log import Log

pytestmark = pytest.mark.kafka


@pytest.fixture
def place(kafka: str, tmp_path: Path) -> Place:
    """Kafka only: the embedded log has one process."""
    return Place(tmp_path, kafka)


class Books:
    """What all workers together have done: the timeline, and per partition the offset to go on from."""

    def __init__(self) -> None:
        self.timeline: list[tuple[Any, ...]] = []
        self.following = dict.fromkeys(range(PARTITIONS), 0)

    def of(self, partition: int, *words: str) -> list[tuple[str, str]]:
        """(worker, what) of the partition, in order."""
        return [(worker, word) for worker, word, at, *_ in self.timeline if at == partition and word in words]


class Worker(Processor):
    """A worker that goes on where the books say."""

    def __init__(self, place: Place, log: Log, books: Books, instance: str) -> None:
        super().__init__(place, log, start=books.following.__getitem__, instance=instance)
        self._books = books
        self._instance = instance

    def _note(self, *what: Any) -> None:
        self._books.timeline.append((self._instance, *what))
        if what[0] == "event":
            self._books.following[what[1]] = what[2] + 1
        super()._note(*what)


async def test_partitions_move_between_workers_and_each_event_is_received_once(place: Place, log: Log) -> None:
    books = Books()
    appended = 0

    async def keep_appending() -> None:
        nonlocal appended
        while True:
            for partition in range(PARTITIONS):
                await append(log, place.requests, partition, [b"x"])
            appended += 1
            await asyncio.sleep(0.005)

    appending = asyncio.create_task(keep_appending())
    async with Worker(place, log, books, "a") as a:
        await a.until(lambda it: all(len(it.offsets(p)) > 20 for p in range(PARTITIONS)))
        async with Worker(place, log, books, "b") as b:
            await b.until(lambda it: any(len(it.offsets(p)) > 20 for p in range(PARTITIONS)))
            await a.until(lambda it: len(it.told("take")) > PARTITIONS)
        # A worker with a name of its own is waited for until its session ends.
        await a.until(lambda it: len(it.told("take")) >= 2 * PARTITIONS and it.app.consumer.all_taken.is_set())
        appending.cancel()
        await a.until(lambda _: all(following >= appended for following in books.following.values()))
    for partition in range(PARTITIONS):
        offsets = [what[3] for what in books.timeline if what[1:3] == ("event", partition)]
        assert offsets == list(range(len(offsets)))
        assert len(offsets) >= appended
        owners = books.of(partition, "take", "give")
        assert owners[0] == ("a", "take")
        assert [word for _, word in owners] == ["take", "give"] * (len(owners) // 2)
        assert all(taken[0] == given[0] for taken, given in zip(owners[::2], owners[1::2], strict=True))
    assert any(("b", "take") in books.of(partition, "take") for partition in range(PARTITIONS))


async def test_nobody_receives_events_of_a_partition_that_is_not_its_own(place: Place, log: Log) -> None:
    books = Books()
    async with Worker(place, log, books, "a") as a, Worker(place, log, books, "b") as b:
        await asyncio.gather(a.app.until_ready(), b.app.until_ready())
        await a.until(lambda it: len(it.told("give")) == PARTITIONS and it.app.consumer.all_taken.is_set())
        for partition in range(PARTITIONS):
            await append(log, place.requests, partition, [b"%d" % n for n in range(500)])
        await a.until(lambda _: all(following == 500 for following in books.following.values()))
    for partition in range(PARTITIONS):
        owner: str | None = None
        for worker, word, at, *_ in books.timeline:
            if at == partition:
                if word == "event":
                    assert worker == owner
                owner = {"take": worker, "give": None}.get(word, owner)


async def test_a_take_over_that_a_rebalance_overtakes_is_cancelled_given_up_and_begun_again(
    place: Place, log: Log
) -> None:
    first = True
    cancelled: list[int] = []

    async def start(partition: int) -> int:
        if first:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(partition)
                raise
        return 0

    async with Processor(place, log, start=start, instance="a") as a:
        await a.until(lambda it: len(it.told("take")) == PARTITIONS)
        first = False
        async with Processor(place, log, start=start, instance="b") as b:
            await asyncio.gather(a.app.until_ready(), b.app.until_ready())
            assert sorted(cancelled) == [0, 1, 2]
            assert sorted(a.told("give")) == [0, 1, 2]
            for partition in range(PARTITIONS):
                await append(log, place.requests, partition, [b"x"])
            await a.until(lambda it: len(it.received) + len(b.received) == PARTITIONS)
    assert sorted(a.told("take")[PARTITIONS:] + b.told("take")) == [0, 1, 2]
