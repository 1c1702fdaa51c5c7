"""A Faust app over either log, set up as the processors set it up, with a list in place of the owner of partitions."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from inspect import isawaitable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from tollgate.log import Log, Record
from tollgate.log.embedded import EmbeddedLog
from tollgate.log.kafka import KafkaLog
from tollgate.log.kafka_topics import apply_kafka
from tollgate.processors.transports.faust_app import ProcessorApp, create_faust_app
from tollgate.processors.transports.ownership import Ownership
from tollgate.topics import Topic, Topics

PARTITIONS = 3
WAIT_S = 20.0
FIRST_MS = 1_700_000_000_000


class Place:
    """A log, and the names of its topics. On Kafka they are the test's own."""

    def __init__(self, folder: Path, server: str | None, name: str = "") -> None:
        self.folder = folder
        self.server = server
        self.name = name or f"test-{uuid.uuid4().hex[:12]}"
        self.requests = f"{self.name}-requests"
        self.changelog = f"{self.name}-state-changelog"
        stamped = {"message.timestamp.type": "LogAppendTime"}
        # Small segments and no patience: Kafka compacts within a second or two.
        compacted = {
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.01",
            "segment.ms": "100",
            "max.compaction.lag.ms": "100",
            "delete.retention.ms": "0",
        }
        self.topics = Topics(
            topics={
                self.requests: Topic(name=self.requests, partitions=PARTITIONS, config=stamped),
                self.changelog: Topic(name=self.changelog, partitions=PARTITIONS, config={**stamped, **compacted}),
            }
        )

    @asynccontextmanager
    async def log(self) -> AsyncIterator[Log]:
        """The log, open; on Kafka with its topics created."""
        log: EmbeddedLog | KafkaLog
        if self.server is None:
            # Each record a millisecond after the one before.
            log = await EmbeddedLog.open(self.folder, self.topics, clock_ms=count(FIRST_MS).__next__)
        else:
            await apply_kafka(self.server, self.topics)
            log = await KafkaLog.connect(self.server, self.topics, client_id="test")
        try:
            yield log
        finally:
            await log.close()

    async def committed(self, partition: int) -> int | None:
        """What the group has committed for the partition of the requests, whoever has the log open."""
        if self.server is None:
            reader = await EmbeddedLog.open_readonly(self.folder)
            try:
                return (await reader.committed(self.name)).get((self.requests, partition))
            finally:
                await reader.close()
        consumer = AIOKafkaConsumer(bootstrap_servers=self.server, group_id=self.name, enable_auto_commit=False)
        await consumer.start()
        try:
            offset: int | None = await consumer.committed(TopicPartition(self.requests, partition))
            return offset
        finally:
            await consumer.stop()

    def app(self, log: Log, ownership: Ownership, *, instance: str = "a") -> ProcessorApp:
        """The app, to which agents can be added."""
        app = create_faust_app(
            log=log,
            ownership=ownership,
            data_dir=self.folder / "faust",
            bootstrap_servers=[self.server] if self.server else (),
            instance=instance if self.server else None,
            name=self.name,
        )
        app.conf.broker_commit_interval = 0.1
        return app


class Received(NamedTuple):
    """A record, and what is to be called when it is done with."""

    record: Record
    ack: Callable[[], None]


class TakeOver(Protocol):
    """What the owner of a test does at a take-over."""

    def __call__(self, partition: int) -> Awaitable[int]: ...


class Processor:
    """What an app was told and has received: `happened` holds ("take", p), ("give", p) and ("event", p, offset)."""

    def __init__(self, place: Place, log: Log, *, start: Callable[[int], int] | TakeOver, instance: str = "a") -> None:
        self.happened: list[tuple[Any, ...]] = []
        self.received: list[Any] = []
        self.handle: Callable[[Any], object] = lambda event: event.ack()
        self._start = start
        self._changed = asyncio.Event()
        self.app = place.app(log, Ownership(place.requests, self._take_over, self._give_up), instance=instance)
        self.app.agent(self.app.owned_topic, name="requests")(self._agent)

    async def __aenter__(self) -> "Processor":
        await self.app.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.app.stop()

    async def until(self, enough: Callable[["Processor"], bool]) -> None:
        """Return when something happened that makes it enough."""
        async with asyncio.timeout(WAIT_S):
            while not enough(self):
                self._changed.clear()
                await self._changed.wait()

    def offsets(self, partition: int) -> list[int]:
        """Of the events received from the partition."""
        return [what[2] for what in self.happened if what[:2] == ("event", partition)]

    def told(self, what: str) -> list[int]:
        """The partitions that were taken ("take") or given up ("give"), in that order."""
        return [partition for word, partition, *_ in self.happened if word == what]

    async def _take_over(self, partition: int) -> int:
        self._note("take", partition)
        offset = self._start(partition)
        return offset if isinstance(offset, int) else await offset

    async def _give_up(self, partitions: set[int]) -> None:
        for partition in sorted(partitions):
            self._note("give", partition)

    async def _agent(self, stream: Any) -> None:
        async for event in stream.noack().events():
            for record, done in event.value:
                received = Received(record, done)
                self.received.append(received)
                self._note("event", record.partition, record.offset)
                handled = self.handle(received)
                if isawaitable(handled):
                    await handled

    def _note(self, *what: Any) -> None:
        self.happened.append(what)
        self._changed.set()


async def append(log: Log, topic: str, partition: int, values: Iterable[bytes | None]) -> None:
    """Append in order; return when all is durable."""
    await asyncio.gather(*(log.append(topic, b"key", value, partition=partition) for value in values))


async def read(log: Log, topic: str, partition: int) -> list[Record]:
    """Everything in the partition."""
    start = (await log.starts(topic))[partition]
    return [record async for batch in log.scan(topic, partition, start) for record in batch]
