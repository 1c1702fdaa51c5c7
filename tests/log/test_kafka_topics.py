import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.log.support import declare
from tollgate.errors import ConfigError, LogUnavailable
from tollgate.log.kafka_topics import apply_kafka, check_kafka
from tollgate.topics import Topics

pytestmark = pytest.mark.kafka


async def set_by_hand(address: str, name: str, **config: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        settings = {key.replace("_", "."): value for key, value in config.items()}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, settings)])
    finally:
        await admin.close()
    async with asyncio.timeout(10):
        while await own_settings(address, name) != settings:
            await asyncio.sleep(0.02)


async def own_settings(address: str, name: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        (answer,) = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])
    finally:
        await admin.close()
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
