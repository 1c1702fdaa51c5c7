"""One connection before all others, to tell in words why Kafka cannot be used: it is away, or refuses something.

aiokafka's clients log why they did not connect and raise that they did not; and a topic that may not be described looks
to them like one that does not exist.
"""

import asyncio
import logging
import ssl
from collections import defaultdict
from collections.abc import Collection, Mapping
from operator import itemgetter
from typing import Any, Literal

import msgspec
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.group import HeartbeatRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from tollgate.errors import ConfigError, LogUnavailable, TollgateError

from .kafka_security import Security

TIMEOUT_S = 5.0  # for each broker that is tried

Operation = Literal["Read", "Write", "Describe", "DescribeConfigs"]

# In the words that kafka-acls takes, and Kafka's numbers for them (org.apache.kafka.common.acl.AclOperation).
OPERATIONS: Mapping[Operation, int] = {"Read": 3, "Write": 4, "Describe": 8, "DescribeConfigs": 10}

# What a broker answers in place of a set of operations that it does not tell.
UNTOLD = -(2**31)

log = logging.getLogger("tollgate")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What a client is going to do: the operations on each topic, and the consumer groups that it joins."""

    topics: Mapping[str, Collection[Operation]] = {}
    groups: Collection[str] = ()


async def check_access(brokers: str, security: Security, access: Access, *, client_id: str) -> None:
    """Return when a broker of "host:port,host:port" answers and lets the client do all of `access`.

    Topics that do not exist are passed over.
    Raises `ConfigError` that names what to check or to grant, `LogUnavailable` when no broker answers.
    """
    connection = await _connect(brokers, security, client_id)
    try:
        denied = [*await _denied_topics(connection, access.topics), *await _denied_groups(connection, access.groups)]
    except (KafkaError, OSError, TimeoutError) as error:
        raise explained(error, brokers, security) from error
    finally:
        await connection.close()
    if denied:
        raise ConfigError(
            f"Kafka at {brokers} does not allow {security.who} to do what it must: {'; '.join(denied)}. Grant it with "
            "kafka-acls; see Kafka security in docs/operations.md"
        )


def warn_of_exposure(brokers: str, security: Security) -> None:
    """Say in the log what others can see or do on the way to the brokers, if they can. To be called once."""
    if exposure := security.exposure(brokers):
        log.warning("%s", exposure)


async def _connect(brokers: str, security: Security, client_id: str) -> Any:
    options = security.options()
    problem: TollgateError = LogUnavailable(f"no Kafka broker is named by {brokers!r}")
    for host, port, _ in collect_hosts(brokers):
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await create_conn(
                    host, port, client_id=client_id, request_timeout_ms=int(TIMEOUT_S * 1000), **options
                )
        except (KafkaError, OSError, TimeoutError) as error:
            problem = explained(error, f"{host}:{port}", security)
            problem.__cause__ = error
            if isinstance(problem, ConfigError):  # true of the other brokers too, which may lock the user out
                break
    raise problem


def explained(error: BaseException, broker: str, security: Security) -> TollgateError:
    """The same error, saying what to check. Pure."""
    match _tls_error(error) or error:
        case ssl.SSLCertVerificationError() as refused:
            return ConfigError(
                f"the certificate of Kafka at {broker} is not accepted: {refused.verify_message}; check "
                "log.security.ca_file, and the broker's name in log.broker"
            )
        case ssl.SSLError() as refused:
            return ConfigError(
                f"no TLS with Kafka at {broker}: {refused.strerror}; check log.security.cert_file and "
                "key_file if it asks for a client's certificate"
            )
        case SaslAuthenticationFailed():
            return ConfigError(
                f"Kafka at {broker} does not accept {security.who} by {security.mechanism}; check "
                "log.security.username, password and mechanism"
            )
        case UnsupportedSaslMechanismError():
            return ConfigError(f"Kafka at {broker} does not take {security.mechanism}; check log.security.mechanism")
        case IllegalSaslStateError():
            return ConfigError(f"Kafka at {broker} asks for no user there; check log.security.protocol and the port")
        case KafkaConnectionError() | ConnectionResetError() | ConnectionAbortedError():
            return LogUnavailable(
                f"Kafka at {broker} closed the connection; check that log.security.protocol, {security.protocol}, is "
                "what it speaks at that port"
            )
    return LogUnavailable(f"no Kafka broker answers at {broker}: {str(error) or type(error).__name__}")


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """The error of TLS behind that of the client, if there is one."""
    while error is not None and not isinstance(error, ssl.SSLError):
        error = error.__cause__
    return error


async def _denied_topics(connection: Any, topics: Mapping[str, Collection[Operation]]) -> list[str]:
    """What the client may not do with topics, in words."""
    try:
        answer = await connection.send(_TopicsRequest(sorted(topics)))
    except NotImplementedError:  # a broker before Kafka 2.3 does not tell; it will refuse when it comes to that
        return []
    denied: defaultdict[Operation, list[str]] = defaultdict(list)
    for code, topic, _, _, allowed in sorted(answer.topics, key=itemgetter(1)):
        if code in (0, TopicAuthorizationFailedError.errno):
            for operation in not_in(allowed if code == 0 else 0, topics[topic]):
                denied[operation].append(topic)
    return [f"{operation} on {_named('topic', denied[operation])}" for operation in OPERATIONS if operation in denied]


async def _denied_groups(connection: Any, groups: Collection[str]) -> list[str]:
    """What the client may not do with consumer groups, in words.

    Told by a heartbeat of nobody: a broker looks at the right to it before all else, also one that does not coordinate
    the group.
    """
    denied = []
    for group in sorted(groups):
        answer = await connection.send(HeartbeatRequest(group, -1, ""))
        if answer.error_code == GroupAuthorizationFailedError.errno:
            denied.append(group)
    return [f"Read on {_named('group', denied)}"] if denied else []


def not_in(allowed: int, wanted: Collection[Operation]) -> list[Operation]:
    """The wanted operations whose bits are not in Kafka's set of those that are allowed. Pure."""
    if allowed == UNTOLD:
        return []
    return [operation for operation, number in OPERATIONS.items() if operation in wanted and not allowed >> number & 1]


def _named(kind: str, names: Collection[str]) -> str:
    return f"{kind}{'s' if len(names) > 1 else ''} {', '.join(names)}"


# Metadata, version 8 (Kafka 2.3): the first in which a broker tells what the client is allowed; aiokafka ends at 5.


class _TopicsResponse(Response):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8")))),
        ("cluster", String("utf-8")),
        ("controller", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("name", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("in_sync", Array(Int32)),
                        ("offline", Array(Int32)),
                    ),
                ),
                ("allowed", Int32),
            ),
        ),
        ("allowed_on_cluster", Int32),
    )


class _TopicsStruct(RequestStruct):  # type: ignore[misc]
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _TopicsResponse
    SCHEMA = Schema(
        ("topics", Array(String("utf-8"))),
        ("create_missing", Boolean),
        ("tell_allowed_on_cluster", Boolean),
        ("tell_allowed_on_topics", Boolean),
    )


class _TopicsRequest(Request[_TopicsStruct]):  # type: ignore[misc]
    API_KEY = 3

    def __init__(self, topics: list[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[_TopicsStruct]) -> _TopicsStruct:
        return request_struct_class(self._topics, False, False, True)
