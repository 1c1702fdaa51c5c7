"""What the log on Kafka does beyond the port."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from tests.kafka_broker import KafkaBroker
from tests.log.support import declare, read
from tollgate.errors import AppendUnknown, ConfigError, LogUnavailable, OutOfRange
from tollgate.log import kafka as module
from tollgate.log.kafka import KafkaLog
from tollgate.log.kafka_topics import apply_kafka
from tollgate.topics import Topics


@pytest.fixture
async def log(kafka: str, topic: str) -> AsyncIterator[KafkaLog]:
    await apply_kafka(kafka, declare(topic))
    log = await KafkaLog.connect(kafka, declare(topic), client_id="test")
    yield log
    await log.close()


async def test_no_broker_is_an_error_that_names_the_address() -> None:
    with pytest.raises(LogUnavailable, match=r"no Kafka broker answers at 127\.0\.0\.1:1"):
        await KafkaLog.connect("127.0.0.1:1", Topics(topics={}), client_id="test")


@pytest.mark.kafka
async def test_topics_must_be_there_with_their_partitions(kafka: str, topic: str) -> None:
    with pytest.raises(ConfigError, match=f"'{topic}' is missing in Kafka .* declared are 1"):
        await KafkaLog.connect(kafka, declare(topic), client_id="test")
    await apply_kafka(kafka, declare(topic, partitions=2))
    with pytest.raises(ConfigError, match=f"'{topic}' has 2 partitions in Kafka .* declared are 3"):
        await KafkaLog.connect(kafka, declare(topic, partitions=3), client_id="test")


@pytest.mark.kafka
async def test_a_scan_ends_behind_offsets_that_hold_no_record(kafka: str, topic: str, log: KafkaLog) -> None:
    await log.append(topic, b"k", b"first")
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=topic)
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(topic, b"committed", partition=0)
    await producer.begin_transaction()
    await producer.send_and_wait(topic, b"aborted", partition=0)
    await producer.abort_transaction()
    await producer.stop()
    async with asyncio.timeout(10):  # each transaction ends with a marker, which takes an offset, a little later
        while (await log.ends(topic))[0] != 5:
            await asyncio.sleep(0.05)
    assert [record.value for record in await read(log, topic)] == [b"first", b"committed"]
    assert (await log.append(topic, b"k", b"last")).offset == 5


@pytest.mark.kafka
async def test_an_offset_that_was_removed_is_out_of_range(kafka: str, topic: str, log: KafkaLog) -> None:
    await asyncio.gather(*(log.append(topic, b"k", b"%d" % i) for i in range(10)))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=4)})
    await admin.close()
    assert await log.starts(topic) == {0: 4}
    assert [record.offset for record in await read(log, topic, start=4)] == [4, 5, 6, 7, 8, 9]
    with pytest.raises(OutOfRange, match=f"{topic}/0: 3"):
        await read(log, topic, start=3)
    with pytest.raises(OutOfRange, match=f"{topic}/0: 0"):
        await anext(aiter(log.follow(topic, {0: 0})))


@pytest.mark.kafka
async def test_batches_hold_what_gathers_while_another_is_under_way(topic: str, log: KafkaLog) -> None:
    values = [b"%d" % i * 2000 for i in range(1000)]
    positions = await asyncio.gather(*(log.append(topic, b"k", value) for value in values))
    stamps = {position.timestamp_ms for position in positions}
    assert len(stamps) < 100, "the broker stamps batches, and there are few"
    assert [record.value for record in await read(log, topic)] == values


@pytest.mark.kafka
async def test_appends_that_nobody_acknowledges_are_unknown_and_end_the_log(
    topic: str, kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_EVERY_S", 0.05)
    await apply_kafka(kafka_broker.address, declare(topic))
    log = await KafkaLog.connect(kafka_broker.address, declare(topic), client_id="test", append_timeout_s=0.5)
    await log.append(topic, b"k", b"before")
    kafka_broker.freeze(True)
    try:
        under_way = log.append(topic, b"k", b"under way")
        await asyncio.sleep(0.01)
        behind = log.append(topic, b"k", b"behind it")
        for future in (under_way, behind):
            with pytest.raises(AppendUnknown, match="no acknowledgement in 0 s"):
                await future
        assert isinstance(log.failed.result(), AppendUnknown)
        with pytest.raises(AppendUnknown):
            await log.append(topic, b"k", b"refused")
    finally:
        kafka_broker.freeze(False)
    await log.close()


@pytest.mark.kafka
async def test_while_the_broker_does_not_answer_nothing_new_is_taken_and_what_was_taken_lands_afterwards(
    topic: str, kafka_broker: KafkaBroker
) -> None:
    await apply_kafka(kafka_broker.address, declare(topic))
    log = KafkaLog(kafka_broker.address, declare(topic), client_id="test", patient=True)
    assert log.waits_for() == "the log: no broker has answered yet"
    with pytest.raises(LogUnavailable, match="no Kafka broker has answered"):
        await log.append(topic, b"k", b"too early")
    await log.until_open()
    assert log.earliest_ms(topic, 0) is None
    before = await log.append(topic, b"k", b"before")
    earliest_ms = log.earliest_ms(topic, 0)
    assert earliest_ms is None or before.timestamp_ms <= earliest_ms  # None: the answer took too long
    following = log.follow(topic, {0: 0})
    assert [record.value for record in await anext(following)] == [b"before"]
    kafka_broker.freeze(True)
    try:
        async with asyncio.timeout(10):
            while log.waits_for() is None:  # noticed though nobody appends
                await asyncio.sleep(0.05)
        with pytest.raises(LogUnavailable, match="has not answered for"):
            await log.append(topic, b"k", b"new", worth="new")
        kept = log.append(topic, b"k", b"kept")
        asked = asyncio.ensure_future(log.ends(topic))
        done, _ = await asyncio.wait({kept, asked}, timeout=0.5)
        assert not done
    finally:
        kafka_broker.freeze(False)
    async with asyncio.timeout(20):
        assert (await kept).offset == 1
        assert [record.value for record in await anext(following)] == [b"kept"]
        assert (await asked)[0] in (1, 2)
        while log.waits_for() is not None:
            await asyncio.sleep(0.05)
    await following.aclose()
    await log.close()


@pytest.mark.kafka
async def test_a_log_that_is_closed_while_nobody_acknowledges_says_so_in_the_end(
    topic: str, kafka_broker: KafkaBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_TIMEOUT_S", 0.5)
    await apply_kafka(kafka_broker.address, declare(topic))
    log = await KafkaLog.connect(kafka_broker.address, declare(topic), client_id="test")
    await log.append(topic, b"k", b"before")
    kafka_broker.freeze(True)
    try:
        waiting = log.append(topic, b"k", b"waiting")
        with pytest.raises(AppendUnknown, match="1 records were given up"):
            await log.close()
        with pytest.raises(AppendUnknown):
            await waiting
    finally:
        kafka_broker.freeze(False)
