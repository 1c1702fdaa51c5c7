"""What a broker's answer holds: batches, of which some lie across the borders of what was asked for."""

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from tollgate.log import Record
from tollgate.log.kafka_fetch import unpack

SOURCE = TopicPartition("completions", 3)


def batch(first: int, count: int) -> bytes:
    """Records of the offsets from `first` on, as a broker keeps them."""
    builder = DefaultRecordBatchBuilder(2, 0, False, -1, -1, -1, 1 << 16)
    for delta in range(count):
        builder.append(delta, 1000 + first + delta, b"acme", b"%d" % (first + delta), [("a", b"b")] if delta else [])
    data = bytearray(builder.build())
    data[:8] = first.to_bytes(8, "big")
    return bytes(data)


def record(offset: int, first: int) -> Record:
    headers = (("a", b"b"),) if offset != first else ()
    return Record("completions", 3, offset, 1000 + offset, b"acme", b"%d" % offset, headers)


@pytest.mark.parametrize(("start", "end"), [(0, 99), (0, 10), (2, 99), (2, 4), (5, 7), (3, 3), (9, 10)])
def test_only_what_was_asked_for_is_taken(start: int, end: int) -> None:
    data = batch(0, 5) + batch(5, 5)
    expected = [record(offset, 0 if offset < 5 else 5) for offset in range(10) if start <= offset < end]
    assert unpack(data, SOURCE, start, end) == (expected, 10)


def test_a_batch_that_was_cut_off_is_left_for_the_next_time() -> None:
    whole = batch(0, 5)
    assert unpack(whole + batch(5, 5)[:-1], SOURCE, 0, 99)[1] == 5
    assert unpack(whole[:-1], SOURCE, 0, 99) == ([], 0)


def test_a_batch_that_was_changed_on_its_way_is_refused() -> None:
    data = bytearray(batch(0, 5))
    data[-1] ^= 1
    with pytest.raises(CorruptRecordException):
        unpack(bytes(data), SOURCE, 0, 99)
