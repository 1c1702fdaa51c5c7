"""Faust over Kafka: the transport `tollgate+kafka://`, Faust's own with safe commits and owned partitions."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, cast

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faust import SASLCredentials, SSLCredentials
from faust.transport.drivers import TRANSPORTS, aiokafka
from faust.types import TP
from faust.types.auth import CredentialsT
from mode import Service

from tollgate.log.kafka_clients import RETRY_PAUSE_S
from tollgate.log.kafka_reader import Reader
from tollgate.log.kafka_security import Security
from tollgate.processors.transports.batches import BATCH_RECORDS
from tollgate.processors.transports.ownership import OwnedPartitions

SCHEME = "tollgate+kafka"

# A fetch that finds nothing returns after this long. Kafka answers one request of a connection after the other, so
# whatever recovery and a take-over ask or seek waits behind it; Faust's own 1.5 s made each start 3 s longer.
FETCH_WAIT_S = 0.1
MEMBERSHIP_EVERY_S = 1.0


def credentials(security: Security) -> CredentialsT | None:
    """What Faust's connections show the brokers; None: nothing, unencrypted. Raises `ConfigError`."""
    context = security.ssl_context()
    if security.sasl:
        assert security.password is not None
        return SASLCredentials(
            username=security.username,
            password=security.password.reveal(),
            mechanism=security.mechanism,
            ssl_context=context,
        )
    return SSLCredentials(context) if context is not None else None


class Producer(aiokafka.Producer):
    """Faust's producer, idempotent, and waiting for all replicas that are in sync."""

    def _settings_extra(self) -> Mapping[str, Any]:
        return {"acks": "all", "enable_idempotence": True}

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics are declared in topics.yaml and exist before the app starts."""


class ConsumerThread(aiokafka.AIOKafkaConsumerThread):
    """The thread in which the group's member lives, so that a busy loop does not cost its membership."""

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        # The owned topic is read by the reader. Here it would be fetched again, and kept for nobody.
        owned = [TopicPartition(tp.topic, tp.partition) for tp in cast(OwnedPartitions, self.consumer)._owned(assigned)]
        self._ensure_consumer().pause(*owned)
        await super().on_partitions_assigned(assigned, generation_id)

    def _create_worker_consumer(self, transport: aiokafka.Transport) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust gives constants and has no settings for these; the client reads them when it is started.
        consumer._fetch_max_wait_ms = int(FETCH_WAIT_S * 1000)
        consumer._retry_backoff_ms = int(RETRY_PAUSE_S * 1000)
        return consumer

    async def check_membership(self) -> None:
        """Raise what ended the membership in the group, if something did. In the thread."""
        self._ensure_consumer()._coordinator.check_errors()


class Consumer(OwnedPartitions, aiokafka.Consumer):
    """Faust's consumer: a member of the group, which recovers the tables, and beside it a reader of the owned topic.

    The reader fetches in the loop where its records are handled. By Faust's own way each record would cross from the
    thread's loop to this one, 0.3 ms for each fetch, and wait there for the interpreter lock.

    A partition that is given up and taken over again must not deliver what was fetched before the seek. So a
    fetch asks for what is active when it begins, a seek waits for the fetch that is under way, and a fetch that
    has seen a rebalance is thrown away: the seek that follows reads those records again.
    """

    _thread: ConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetching = asyncio.Lock()
        self._resumed = asyncio.Event()
        self._reader: Reader = self.app.event_log.reader(self._ownership.topic)

    async def on_first_start(self) -> None:
        await self._reader.start()
        self.add_future(self._read_owned())
        await super().on_first_start()

    async def on_stop(self) -> None:
        await super().on_stop()
        await self._reader.stop()

    async def _read_owned(self) -> None:
        while not self.should_stop:
            partition, records = await self._reader.read(BATCH_RECORDS)
            await self._hand_over(TP(self._ownership.topic, partition), records)

    def _start_reading(self, tp: TP, offset: int) -> None:
        self._reader.begin(tp.partition, offset)

    def _stop_reading(self, tps: set[TP]) -> None:
        self._reader.end({tp.partition for tp in self._owned(tps)})
        super()._stop_reading(tps)

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    @Service.task
    async def _watch_membership(self) -> None:
        """The client pauses after an error that it cannot mend until somebody has seen it, which Faust does not do."""
        while not self.should_stop:
            await self.sleep(MEMBERSHIP_EVERY_S)
            if not self.should_stop:
                try:
                    await self._thread.call_thread(self._thread.check_membership)
                except KafkaError as error:
                    await self.crash(error)

    async def _wait_next_records(self, timeout: float) -> tuple[Mapping[TP, list[Any]] | None, set[TP] | None]:
        # Faust sleeps for a second where nothing is active; a take-over should be felt at once.
        self._resumed.clear()
        if not self._get_active_partitions():
            await self.wait(self._resumed.wait())
        return await super()._wait_next_records(timeout)

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:
        async with self._fetching:
            wanted = set(active_partitions or ())
            if not wanted:
                return {}
            generation = self.app.consumer_generation_id
            records = await super()._getmany(wanted, min(timeout, FETCH_WAIT_S))
            if generation != self.app.consumer_generation_id:
                return {}
            return records

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        async with self._fetching:
            await super().seek_wait(partitions)

    async def _seek_committed(self, tps: set[TP]) -> Mapping[TP, int]:
        consumer = self._thread._ensure_consumer()
        async with self._fetching:
            partitions = [TopicPartition(tp.topic, tp.partition) for tp in tps]
            return cast(Mapping[TP, int], await self._thread.call_thread(consumer.seek_to_committed, *partitions))

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        super().resume_partitions(tps)
        self._resumed.set()

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics are declared in topics.yaml and exist before the app starts."""

    async def verify_all_partitions_active(self) -> None:
        """Do not guess from sensors, which are off, whether a stream is slow: it logs errors on an idle topic."""


class Transport(aiokafka.Transport):
    """Kafka."""

    Consumer: ClassVar[type[Any]] = Consumer
    Producer: ClassVar[type[Any]] = Producer


TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"
