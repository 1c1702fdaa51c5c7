"""Which offset may be committed, given what was delivered and what was acknowledged."""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from faust.transport.consumer import Consumer
from faust.types import TP, ConsumerMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.transports.support import Place, Processor
from tollgate.log import Record

PARTITION = TP("requests", 0)


class Case(NamedTuple):
    """Offsets in the order in which they were delivered and acknowledged, what is safe, and what Faust commits."""

    committed: int | None
    delivered: Iterable[int]
    acknowledged: Iterable[int]
    safe: int | None
    faust: int | None


CASES = {
    "everything is done": Case(None, range(5), range(5), safe=5, faust=5),
    "nothing is done": Case(None, range(5), [], safe=0, faust=None),
    "the first is running, and nothing was committed yet": Case(None, range(5), [3], safe=0, faust=4),
    "the first is running": Case(10, range(10, 13), [11], safe=10, faust=12),
    "one in the middle is running": Case(10, range(10, 15), [13, 10, 11], safe=12, faust=12),
    "acknowledged backwards": Case(10, range(10, 15), [14, 13, 12, 11, 10], safe=15, faust=15),
    "a record follows a hole and is running": Case(10, [10, 15, 16], [10, 16], safe=15, faust=17),
    "what was acknowledged was delivered by nobody": Case(10, [], [12], safe=None, faust=None),
}


@pytest.fixture
async def consumer(tmp_path: Path) -> AsyncIterator[Any]:
    """A consumer that is not started, and that delivers to nobody."""
    place = Place(tmp_path, None)
    async with place.log() as log:
        consumer = new_consumer(Processor(place, log, start=lambda partition: 0))
        yield consumer


def new_consumer(processor: Processor) -> Any:
    consumer: Any = processor.app.consumer
    consumer.app.topics._acking_topics.add(PARTITION.topic)
    return consumer


def record(offset: int, partition: int = 0) -> Record:
    return Record("requests", partition, offset, 1_000 + offset, None, b"")


def message(offset: int) -> ConsumerMessage:
    """As Faust itself would acknowledge it."""
    return ConsumerMessage(PARTITION.topic, PARTITION.partition, offset, 0.0, 1, [], None, b"", None, tp=PARTITION)


def play(consumer: Any, case: Case) -> None:
    """Deliver, and be done with some of it."""
    for offset in case.delivered:
        consumer.note_delivered(PARTITION, [record(offset)])
    for offset in case.acknowledged:
        consumer.note_done(PARTITION, offset)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_the_offset_to_commit_is_that_of_the_first_event_still_running(consumer: Any, case: Case) -> None:
    play(consumer, case)
    assert consumer._new_offset(PARTITION) == case.safe
    running = case.safe in case.delivered
    seen = {0: (case.safe, 1_000 + (case.safe or 0) if running else None)}
    assert consumer.unfinished() == ({} if case.safe is None else seen)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_what_faust_itself_would_commit(consumer: Any, case: Case) -> None:
    """Once this fails, Faust has changed: where it is never above what is safe, ours is no longer needed."""
    consumer._committed_offset[PARTITION] = case.committed
    before: int | None = None
    for offset in case.delivered:
        if before is not None and offset - before > 1:
            await Consumer._add_gap(consumer, PARTITION, before + 1, offset)
        before = offset
    for offset in case.acknowledged:
        consumer.ack(message(offset))
    assert Consumer._new_offset(consumer, PARTITION) == case.faust


async def test_an_offset_is_offered_until_it_moves(consumer: Any) -> None:
    play(consumer, Case(None, range(3), [0, 2], safe=1, faust=None))
    assert [consumer._new_offset(PARTITION) for _ in range(2)] == [1, 1]
    consumer.note_done(PARTITION, 1)
    assert consumer._new_offset(PARTITION) == 3


async def test_a_revoked_partition_starts_anew(consumer: Any) -> None:
    play(consumer, Case(None, range(10), [], safe=0, faust=None))
    consumer._forget({PARTITION})
    consumer.note_delivered(PARTITION, [record(4)])
    consumer.note_done(PARTITION, 4)
    assert consumer._new_offset(PARTITION) == 5


async def test_partitions_do_not_hold_each_other_back(consumer: Any) -> None:
    play(consumer, Case(None, range(10), [], safe=0, faust=None))
    other = TP("requests", 1)
    consumer.note_delivered(other, [record(7, 1)])
    consumer.note_done(other, 7)
    assert (consumer._new_offset(PARTITION), consumer._new_offset(other)) == (0, 8)


async def test_what_is_done_with_after_it_was_forgotten_changes_nothing(consumer: Any) -> None:
    play(consumer, Case(None, range(10), [], safe=0, faust=None))
    consumer._forget({PARTITION})
    consumer.note_done(PARTITION, 3)
    assert consumer._new_offset(PARTITION) is None
    assert PARTITION not in consumer._acked


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
async def test_no_order_of_deliveries_acknowledgements_and_commits_passes_a_running_event(
    consumer: Any, data: st.DataObject
) -> None:
    consumer._forget({PARTITION})
    consumer._acked.clear()
    consumer._acked_index.clear()
    consumer._committed_offset[PARTITION] = None
    running: list[int] = []
    following = 0
    for step in data.draw(st.lists(st.sampled_from(["deliver", "acknowledge", "commit"]), max_size=40)):
        if step == "deliver":
            offset = following + data.draw(st.sampled_from([0, 0, 0, 1, 5]))
            following = offset + 1
            running.append(offset)
            consumer.note_delivered(PARTITION, [record(offset)])
        elif step == "acknowledge" and running:
            consumer.note_done(PARTITION, running.pop(data.draw(st.integers(0, len(running) - 1))))
        elif step == "commit" and following:
            offset = consumer._new_offset(PARTITION)
            assert offset == min(running, default=following)
            if consumer._should_commit(PARTITION, offset):
                consumer._committed_offset[PARTITION] = offset
    if following:
        assert consumer._new_offset(PARTITION) == min(running, default=following)
