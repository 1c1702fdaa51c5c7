"""What Faust does around a rebalance, done here by hand: the embedded log has one only when topics are added."""

import asyncio
from pathlib import Path

import pytest

from tests.transports.support import PARTITIONS, Place, Processor, append
from tollgate.log import Log
from tollgate.processors.transports.ownership import Ownership


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """The embedded log only."""
    return Place(tmp_path, None)


async def test_a_new_subscription_gives_every_partition_up_and_takes_it_over_again(place: Place, log: Log) -> None:
    starts = {0: 0, 1: 0, 2: 0}
    async with Processor(place, log, start=starts.__getitem__) as processor:
        await append(log, place.requests, 0, [b"%d" % n for n in range(5)])
        await processor.until(lambda it: len(it.received) == 5)
        starts[0] = 3
        await processor.app.consumer.subscribe([place.requests, place.changelog])
        await processor.until(lambda it: len(it.told("take")) == 2 * PARTITIONS)
        await processor.until(lambda it: len(it.received) == 7)
    assert processor.offsets(0) == [0, 1, 2, 3, 4, 3, 4]
    assert sorted(processor.told("give")) == [0, 0, 1, 1, 2, 2]
    between = processor.happened.index(("give", 0))
    assert ("take", 0) in processor.happened[between:]


async def test_what_waits_in_a_full_queue_at_a_rebalance_is_not_received_after_it(place: Place, log: Log) -> None:
    await append(log, place.requests, 0, [b"%d" % n for n in range(50)])
    starts = {0: 0, 1: 0, 2: 0}
    working = asyncio.Event()
    processor = Processor(place, log, start=starts.__getitem__)
    processor.handle = lambda event: working.wait()
    processor.app.conf.stream_buffer_maxsize = 4
    async with processor:
        await processor.until(lambda it: len(it.received) == 1)
        await asyncio.sleep(0.05)  # the consumer fills the queue, and waits there
        starts[0] = 40
        await processor.app.consumer.subscribe([place.requests, place.changelog])
        await processor.until(lambda it: len(it.told("take")) == 2 * PARTITIONS)
        working.set()
        await processor.until(lambda it: it.offsets(0)[-1] == 49)
    assert processor.offsets(0) == [0, *range(40, 50)]


async def test_a_recovery_that_was_overtaken_lets_nothing_flow(place: Place, log: Log) -> None:
    """Faust resumes everything when a recovery ends, also while its partitions are being revoked."""
    async with Processor(place, log, start=lambda partition: 0) as processor:
        await processor.app.until_ready()
        consumer, assigned = processor.app.consumer, processor.app.consumer.assignment()
        await consumer.on_partitions_revoked(assigned)
        consumer.resume_partitions(assigned)
        processor.app.flow_control.resume()
        consumer.resume_flow()
        consumer.take_over_assigned()
        consumer._paused_partitions.clear()  # as for partitions that are new here
        consumer._set_active_tps(assigned)
        await append(log, place.requests, 0, [b"x"])
        await asyncio.sleep(0.05)
        assert processor.received == []
        assert sorted(processor.told("give")) == sorted(processor.told("take")) == [0, 1, 2]


async def test_a_seek_of_fausts_own_leaves_the_owned_partitions_where_they_are(place: Place, log: Log) -> None:
    """It does so when a fetch ends while the flow is off; nothing was committed here, so it would begin anew."""
    processor = Processor(place, log, start=lambda partition: 0)
    processor.handle = lambda event: None
    async with processor:
        await append(log, place.requests, 0, [b"a", b"b"])
        await processor.until(lambda it: len(it.received) == 2)
        await processor.app.consumer.perform_seek()
        await append(log, place.requests, 0, [b"c"])
        await processor.until(lambda it: it.received[-1].record.value == b"c")
    assert processor.offsets(0) == [0, 1, 2]


async def test_a_give_up_that_fails_crashes_the_app(place: Place, log: Log) -> None:
    async def give_up(partitions: set[int]) -> None:
        raise RuntimeError("the journal cannot be written")

    async def take_over(partition: int) -> int:
        return 0

    app = place.app(log, Ownership(place.requests, take_over, give_up))
    app.agent(app.owned_topic, name="requests")(lambda stream: stream)
    async with app:
        await app.until_ready()
        await app.consumer.on_partitions_revoked(app.consumer.assignment())
        with pytest.raises(RuntimeError, match="the journal cannot be written"):
            await app.until_ended()
