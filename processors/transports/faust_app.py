"""The Faust app of the processors: how it is set up, and what it holds beside its agents."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

import faust
from aiokafka.errors import KafkaError
from faust.tables.manager import TableManager
from faust.types import TopicT
from mode import CrashingSupervisor, ServiceT

from tollgate.errors import LogUnavailable
from tollgate.log import Log
from tollgate.log.kafka_clients import (
    CONNECTION_IDLE_S,
    HEARTBEAT_S,
    METADATA_AGE_S,
    REBALANCE_TIMEOUT_S,
    REQUEST_TIMEOUT_S,
    SESSION_TIMEOUT_S,
)
from tollgate.log.kafka_security import Security
from tollgate.processors.metrics import Undone
from tollgate.processors.transports import checkpoint, embedded, kafka
from tollgate.processors.transports.batches import BatchSchema
from tollgate.processors.transports.ownership import OwnedPartitions, Ownership
from tollgate.processors.transports.safe_commit import SafeCommit

COMMIT_INTERVAL_S = 1.0
MAX_POLL_INTERVAL_S = float(2**31 // 1000 - 1)  # as long as the protocol can say


class ProcessorApp(faust.App):
    """A Faust app whose agents read one topic in batches, partition by partition as each is taken over."""

    def __init__(self, id: str, *, event_log: Log, ownership: Ownership, **options: Any) -> None:
        super().__init__(id, **options)
        self.event_log = event_log
        self.ownership = ownership
        self.owned_topic: TopicT = self.topic(ownership.topic, schema=BatchSchema())
        self.checkpoint = self.Table(
            "state",
            key_type=bytes,
            value_type=bytes,
            store=checkpoint.URL,
            partitions=event_log.partitions(ownership.topic),
        )

    def on_init_dependencies(self) -> Iterable[ServiceT]:
        services = super().on_init_dependencies()
        # Faust adds its monitor to the sensors of each event; nobody reads it.
        self.sensors.remove(self.monitor)
        return services

    def on_rebalance_start(self) -> None:
        super().on_rebalance_start()
        # Without sensors it is empty, and Faust warns of that.
        self._rebalancing_sensor_state = {"sensors": None}

    def on_rebalance_end(self) -> None:
        """The tables are recovered, and what recovery held back may flow."""
        super().on_rebalance_end()
        cast(OwnedPartitions, self.consumer).take_over_assigned()

    @property
    def settled(self) -> bool:
        """Is every partition that is assigned to this process taken over?"""
        return cast(OwnedPartitions, self.consumer).all_taken.is_set()

    def undone(self) -> dict[int, Undone]:
        """See `metrics.Stream`."""
        unfinished = cast(SafeCommit, self.consumer).unfinished()
        return {partition: Undone(*first) for partition, first in unfinished.items()}

    async def start(self) -> None:
        """See `faust.App.start`. Raises `LogUnavailable` when Kafka does not answer."""
        try:
            await super().start()
        except KafkaError as error:
            raise LogUnavailable(f"Faust did not reach Kafka: {error!r}") from error

    async def until_ready(self) -> None:
        """Return when every partition assigned to this process is taken over. Raises why the app crashed."""
        await self.wait(cast(OwnedPartitions, self.consumer).all_taken.wait())
        if isinstance(self.crash_reason, KafkaError):
            raise LogUnavailable(f"Faust has lost Kafka: {self.crash_reason!r}") from self.crash_reason
        if self.crash_reason is not None:
            raise self.crash_reason

    async def until_ended(self) -> None:
        """Return when the app was stopped. Raises why it crashed."""
        await self.wait_until_stopped()
        if self.crash_reason is not None:
            raise self.crash_reason


class PromptTableManager(TableManager):
    """Faust's table manager without its wait of a second for tables that are declared late: ours are not."""

    async def on_start(self) -> None:
        if not self.should_stop:
            await self._update_channels()
            await self.recovery.start()


def create_faust_app(
    *,
    log: Log,
    ownership: Ownership,
    data_dir: Path,
    bootstrap_servers: Sequence[str] = (),
    security: Security | None = None,
    instance: str | None = None,
    name: str = "tollgate",
    session_timeout_s: float = SESSION_TIMEOUT_S,
    heartbeat_interval_s: float = HEARTBEAT_S,
) -> ProcessorApp:
    """Set a Faust app up on `log`; agents are to be declared before it is started.

    Without `bootstrap_servers`, `log` must be the open `EmbeddedLog`, and Faust runs over it. With them, Faust has
    connections of its own to Kafka, made as `security` says, and `instance` names this worker for as long as its group
    lives: a restart under the same name within the session timeout gets its partitions back without a rebalance.
    Every topic must exist, the changelog `<name>-state-changelog` among them. Faust puts its folders into
    `data_dir` (it keeps nothing in them). The log is not closed with the app.
    """
    if bootstrap_servers:
        broker = [f"{kafka.SCHEME}://{server}" for server in bootstrap_servers]
    else:
        broker = [f"{embedded.SCHEME}://"]
    return ProcessorApp(
        name,
        event_log=log,
        ownership=ownership,
        broker=broker,
        broker_credentials=kafka.credentials(security) if security is not None else None,
        datadir=data_dir,
        autodiscover=False,
        web_enabled=False,
        agent_supervisor=CrashingSupervisor,
        TableManager=PromptTableManager,
        topic_disable_leader=True,
        topic_partitions=log.partitions(ownership.topic),
        table_standby_replicas=0,
        # Events in flight are in the journal or come again: neither a stop nor a rebalance waits for them.
        stream_wait_empty=False,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_request_timeout=REQUEST_TIMEOUT_S,
        broker_session_timeout=session_timeout_s,
        broker_heartbeat_interval=heartbeat_interval_s,
        # Faust's own consumer has nothing to fetch most of the time: only its heartbeat says that the process lives.
        broker_max_poll_interval=MAX_POLL_INTERVAL_S,
        broker_rebalance_timeout=REBALANCE_TIMEOUT_S,
        consumer_metadata_max_age_ms=int(METADATA_AGE_S * 1000),
        consumer_connections_max_idle_ms=int(CONNECTION_IDLE_S * 1000),
        consumer_group_instance_id=instance,
        producer_request_timeout=REQUEST_TIMEOUT_S,
        producer_metadata_max_age_ms=int(METADATA_AGE_S * 1000),
        producer_connections_max_idle_ms=int(CONNECTION_IDLE_S * 1000),
    )
