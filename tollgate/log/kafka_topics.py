"""Making the topics of a Kafka cluster match topics.yaml, and saying where they do not."""

import asyncio
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import ClusterAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError, for_code

from tollgate.errors import ConfigError, LogUnavailable
from tollgate.topics import ActualTopic, Difference, Topics, plan

from .kafka_access import Access, check_access, warn_of_exposure
from .kafka_security import Security

REQUEST_TIMEOUT_S = 15.0
VISIBLE_TIMEOUT_S = 10.0
VISIBLE_POLL_S = 0.05
CLIENT_ID = "tollgate-topics"

# Kafka's ConfigSource: what was set for the topic itself, unlike what it takes from its broker.
_SET_FOR_TOPIC = 1
_TOPIC_EXISTS = 36


async def check_kafka(brokers: str, topics: Topics, security: Security | None = None) -> list[Difference]:
    """Where the cluster differs from the declarations. Raises `LogUnavailable` and `ConfigError`."""
    async with _admin(brokers, topics, security) as admin:
        return plan(topics, await _actual(admin, topics))


async def apply_kafka(
    brokers: str, topics: Topics, security: Security | None = None, *, unset: Collection[str] = ()
) -> list[Difference]:
    """Create what is missing and set what is declared; return what differed before.

    What the declarations do not name is left as it is, but for the settings to be `unset`. A number of partitions is
    never changed: such a difference is returned, with `applicable` false, and stays.
    Raises `LogUnavailable` when no broker answers, `ConfigError` when one refuses.
    """
    async with _admin(brokers, topics, security) as admin:
        actual = await _actual(admin, topics)
        differences = plan(topics, actual)
        await _create(admin, topics, [each.topic for each in differences if each.what == "missing"])
        altered = {each.topic for each in differences if each.what == "config"}
        altered |= {name for name, found in actual.items() if not found.own.keys().isdisjoint(unset)}
        await _alter(admin, topics, actual, altered, unset)
        await _until_visible(admin, topics)
        return differences


async def _until_visible(admin: Any, topics: Topics) -> None:
    """Wait for the brokers, which hear from the controller a moment after it has answered."""
    deadline = time.monotonic() + VISIBLE_TIMEOUT_S
    while any(each.applicable for each in plan(topics, await _actual(admin, topics))):
        if time.monotonic() > deadline:
            raise LogUnavailable("Kafka took the settings of topics.yaml, but does not show them")
        await asyncio.sleep(VISIBLE_POLL_S)


async def _create(admin: Any, topics: Topics, names: list[str]) -> None:
    if not names:
        return
    new = [
        NewTopic(
            name=name,
            num_partitions=topics[name].partitions,
            replication_factor=topics.replication_factor,
            topic_configs=topics[name].config,
        )
        for name in names
    ]
    answer = await admin.create_topics(new)
    for name, code, *message in answer.topic_errors:
        if code not in (0, _TOPIC_EXISTS):
            reason = " ".join([for_code(code).__name__, *filter(None, message)])
            raise ConfigError(f"topics.yaml: Kafka would not create '{name}': {_refusal(code, 'Create') or reason}")


async def _alter(
    admin: Any, topics: Topics, actual: Mapping[str, ActualTopic], names: set[str], unset: Collection[str]
) -> None:
    """Write whole configurations: this request of Kafka's resets whatever it does not name."""
    if not names:
        return
    resources = [
        ConfigResource(
            ConfigResourceType.TOPIC,
            name,
            {key: value for key, value in actual[name].own.items() if key not in unset} | topics[name].config,
        )
        for name in sorted(names)
    ]
    for answer in await admin.alter_configs(resources):
        for code, message, _, name in answer.resources:
            if code != 0:
                reason = _refusal(code, "AlterConfigs") or message or for_code(code).__name__
                raise ConfigError(f"topics.yaml: Kafka would not configure '{name}': {reason}")


def _refusal(code: int, operation: str) -> str | None:
    """What to grant, if that is why Kafka refused."""
    if code in (TopicAuthorizationFailedError.errno, ClusterAuthorizationFailedError.errno):
        return f"grant this user {operation} on the topic"
    return None


async def _actual(admin: Any, topics: Topics) -> dict[str, ActualTopic]:
    """The declared topics that the cluster has."""
    names = set(await admin.list_topics()) & {topic.name for topic in topics}
    if not names:
        return {}
    partitions = {each["topic"]: len(each["partitions"]) for each in await admin.describe_topics(sorted(names))}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
    actual = {}
    for answer in await admin.describe_configs(resources):
        for code, message, _, name, entries in answer.resources:
            if code != 0:
                raise ConfigError(f"topics.yaml: Kafka would not describe '{name}': {message}")
            actual[name] = ActualTopic(
                partitions=partitions[name],
                config={entry[0]: entry[1] for entry in entries},
                own={entry[0]: entry[1] for entry in entries if entry[3] == _SET_FOR_TOPIC},
            )
    return actual


@asynccontextmanager
async def _admin(brokers: str, topics: Topics, security: Security | None) -> AsyncIterator[Any]:
    security = security or Security()
    # A topic that this client may not see would be taken for a missing one.
    access = Access(topics={topic.name: ("Describe", "DescribeConfigs") for topic in topics})
    warn_of_exposure(brokers, security)
    await check_access(brokers, security, access, client_id=CLIENT_ID)
    admin = AIOKafkaAdminClient(
        bootstrap_servers=brokers,
        client_id=CLIENT_ID,
        request_timeout_ms=int(REQUEST_TIMEOUT_S * 1000),
        **security.options(),
    )
    try:
        await admin.start()
        yield admin
    except KafkaError as error:
        raise LogUnavailable(f"no Kafka broker answers at {brokers}: {error!r}") from error
    finally:
        await admin.close()
