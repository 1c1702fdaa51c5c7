import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.log.support import declare
from tollgate.errors import ConfigError, LogUnavailable
from tollgate.log.kafka_topics import apply_kafka, check_kafka
from tollgate.topics import Topics

pytestmark = pytest.mark.kafka


SET_FOR_BROKER = 2  # Kafka's ConfigSource: set for one broker while it runs


@asynccontextmanager
async def admin_of(address: str) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def set_by_hand(address: str, name: str, **config: str) -> None:
    """Have the topic these settings and no others."""
    settings = {key.replace("_", "."): value for key, value in config.items()}
    async with admin_of(address) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)])
    async with asyncio.timeout(10):
        while await own_settings(address, name) != settings:
            await asyncio.sleep(0.02)


async def own_settings(address: str, name: str) -> dict[str, str]:
    async with admin_of(address) as admin:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    return {entry[0]: entry[1] for entry in answer.resources[0][4] if entry[3] == 1}


async def test_applying_creates_what_is_missing_and_then_nothing_differs(kafka: str, topic: str) -> None:
    declared = declare(topic, partitions=3, cleanup_policy="compact", min_cleanable_dirty_ratio="0.1")
    (missing,) = await check_kafka(kafka, declared)
    assert (missing.what, missing.applicable) == ("missing", True)
    assert await apply_kafka(kafka, declared) == [missing]
    assert await check_kafka(kafka, declared) == []
    assert await apply_kafka(kafka, declared) == []


async def test_applying_leaves_alone_what_is_not_declared(kafka: str, topic: str) -> None:
    declared = declare(topic, cleanup_policy="compact", retention_ms="1000")
    await apply_kafka(kafka, declared)
    await set_by_hand(kafka, topic, segment_ms="77000", retention_ms="5")
    differing = {each.setting for each in await check_kafka(kafka, declared)}
    assert differing >= {"retention.ms", "cleanup.policy"}
    await apply_kafka(kafka, declared)
    assert await check_kafka(kafka, declared) == []
    assert (await own_settings(kafka, topic))["segment.ms"] == "77000"


async def test_applying_leaves_alone_what_was_set_for_a_broker_while_it_runs(kafka: str, topic: str) -> None:
    """Such a setting is in force for the topic, too, but is not the topic's own: writing it down would detach it."""
    declared = declare(topic, cleanup_policy="compact", retention_ms="1000")
    async with admin_of(kafka) as admin:
        broker = str((await admin.describe_cluster())["brokers"][0]["node_id"])
        lag = {"log.cleaner.min.compaction.lag.ms": "1234"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, broker, lag)])
        try:
            await apply_kafka(kafka, declared)
            await set_by_hand(kafka, topic, segment_ms="77000")
            async with asyncio.timeout(10):
                while await in_force(admin, topic, "min.compaction.lag.ms") != ("1234", SET_FOR_BROKER):
                    await asyncio.sleep(0.02)

            await apply_kafka(kafka, declared)

            assert await own_settings(kafka, topic) == {**declared[topic].config, "segment.ms": "77000"}
            assert await in_force(admin, topic, "min.compaction.lag.ms") == ("1234", SET_FOR_BROKER)
        finally:
            await admin.alter_configs([ConfigResource(ConfigResourceType.BROKER, broker, {})])


async def in_force(admin: AIOKafkaAdminClient, topic: str, setting: str) -> tuple[str, int]:
    """A topic's setting, and where Kafka has it from."""
    (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    ((value, source),) = [(entry[1], entry[3]) for entry in answer.resources[0][4] if entry[0] == setting]
    return value, source


async def test_a_partition_count_is_reported_and_never_changed(kafka: str, topic: str) -> None:
    await apply_kafka(kafka, declare(topic, partitions=2))
    (difference,) = await apply_kafka(kafka, declare(topic, partitions=4))
    assert not difference.applicable
    assert (difference.declared, difference.actual) == ("4", "2")
    assert await check_kafka(kafka, declare(topic, partitions=2)) == []


async def test_a_topic_that_kafka_refuses_is_an_error_with_its_name(kafka: str, topic: str) -> None:
    with pytest.raises(ConfigError, match=topic):
        await apply_kafka(kafka, declare(topic, cleanup_policy="never"))


async def test_a_setting_that_kafka_refuses_is_an_error_with_the_topics_name(kafka: str, topic: str) -> None:
    await apply_kafka(kafka, declare(topic))
    with pytest.raises(ConfigError, match=topic):
        await apply_kafka(kafka, declare(topic, cleanup_policy="never"))


async def test_no_broker_is_an_error_that_names_the_address() -> None:
    with pytest.raises(LogUnavailable, match=r"127\.0\.0\.1:1"):
        await check_kafka("127.0.0.1:1", Topics(topics={}))
