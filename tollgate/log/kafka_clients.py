"""How clients talk to Kafka: what aiokafka would choose by itself, spelt out once for all connections of a process.

An outage is survived by repeating. What repeats for ever here is given up by whoever asked; and nothing waits longer
than a request's time-out for a broker that has gone without a word.
"""

from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from .kafka_security import Security

# A request without an answer has failed, and its connection with it. Longer than the session below, because joining a
# group waits for members that are gone; short enough that one such wait fits into a recovery of 15 s.
REQUEST_TIMEOUT_S = 10.0
# Before a request is repeated, and before a connection is made again.
RETRY_PAUSE_S = 0.25
# Leaders that have moved are noticed by errors; this is for partitions nobody talks to.
METADATA_AGE_S = 60.0
# Less than the brokers' own (connections.max.idle.ms, 10 minutes), so that none is closed under a request.
CONNECTION_IDLE_S = 540.0

# Of a group's members. A broker gives the partitions of a silent one to others after the session.
SESSION_TIMEOUT_S = 6.0
HEARTBEAT_S = 1.5
REBALANCE_TIMEOUT_S = 30.0

# A batch takes further records up to here; a larger record has a batch of its own.
BATCH_BYTES = 256 << 10
# One read. The broker sends a record that is larger all the same.
READ_ROWS = 1_000
READ_BYTES = 4 << 20
# The same of a range, which is read as fast as it can be: more at a time falls out of the processor's cache meanwhile.
SCAN_BYTES = 1 << 20
# A fetch that found nothing returns after this.
FETCH_WAIT_S = 0.5

Options = Mapping[str, Any]


def connection_options(brokers: str, *, client_id: str, security: Security) -> Options:
    """What every client is given."""
    return {
        "bootstrap_servers": brokers,
        "client_id": client_id,
        "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
        "retry_backoff_ms": int(RETRY_PAUSE_S * 1000),
        "metadata_max_age_ms": int(METADATA_AGE_S * 1000),
        "connections_max_idle_ms": int(CONNECTION_IDLE_S * 1000),
        **security.options(),
    }


def new_producer(options: Options, *, idempotent: bool, patience_s: float) -> AIOKafkaProducer:
    """A producer that waits for all replicas that are in sync, and repeats for up to `patience_s`."""
    producer = AIOKafkaProducer(
        acks="all", enable_idempotence=idempotent, linger_ms=0, max_batch_size=BATCH_BYTES, **options
    )
    # A batch that finds its partition without a leader fails once it is older than this, by default a request's
    # time-out: after the first longer outage of a partition nobody would know what became of it.
    producer._message_accumulator._batch_ttl = patience_s
    return producer


def new_consumer(options: Options) -> AIOKafkaConsumer:
    """A consumer outside of any group."""
    return AIOKafkaConsumer(
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        fetch_min_bytes=1,
        fetch_max_wait_ms=int(FETCH_WAIT_S * 1000),
        max_partition_fetch_bytes=READ_BYTES,
        **options,
    )


def new_member(options: Options, group: str) -> AIOKafkaConsumer:
    """A consumer that is in a group for its assignment only, and fetches nothing.

    It has no `group_instance_id`: one that stops is to leave at once, and not when its session ends.
    """
    return AIOKafkaConsumer(
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        session_timeout_ms=int(SESSION_TIMEOUT_S * 1000),
        heartbeat_interval_ms=int(HEARTBEAT_S * 1000),
        rebalance_timeout_ms=int(REBALANCE_TIMEOUT_S * 1000),
        max_poll_interval_ms=2**31 - 1,  # nothing is polled: only the heartbeat says that the process lives
        **options,
    )
