"""The log as it lies on a broker, read by a plain consumer as plain JSON: nothing of the code that wrote it is used."""

import asyncio
from collections import defaultdict

import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from tests.crash.evidence import TOPICS, Entry, Fields

FETCH_MS = 300
PARTITIONS = 6  # of each topic of the books, as topics.yaml declares them


class Tail:
    """What the topics of the books hold so far; each `read` goes on where the last one stopped."""

    def __init__(self, broker: str) -> None:
        self._broker = broker
        self._consumer: AIOKafkaConsumer | None = None
        self._reading = asyncio.Lock()
        self._entries: dict[TopicPartition, list[Entry]] = defaultdict(list)

    async def start(self) -> None:
        self._consumer = AIOKafkaConsumer(bootstrap_servers=self._broker, group_id=None, enable_auto_commit=False)
        await self._consumer.start()
        self._consumer.assign([TopicPartition(topic, number) for topic in TOPICS for number in range(PARTITIONS)])
        await self._consumer.seek_to_beginning()

    async def close(self) -> None:
        if self._consumer is not None:
            await self._consumer.stop()

    async def read(self) -> None:
        """Read to the end as of now. Raises what aiokafka raises where no broker answers."""
        consumer = self._consumer
        assert consumer is not None
        async with self._reading:
            ends = await consumer.end_offsets(consumer.assignment())
            while any([await consumer.position(source) < end for source, end in ends.items()]):
                for source, records in (await consumer.getmany(timeout_ms=FETCH_MS)).items():
                    self._entries[source] += [
                        Entry(source.partition, record.offset, record.timestamp, _event(record.value))
                        for record in records
                    ]

    def topic(self, name: str) -> list[Entry]:
        """Its records, by partition and offset."""
        sources = sorted(source for source in self._entries if source.topic == name)
        return [entry for source in sources for entry in self._entries[source]]

    def ends(self) -> dict[str, Fields]:
        """The ends of requests, whoever wrote them, by request; a record that names none is none."""
        events = [entry.event for entry in self.topic("completions") if entry.kind == "ended"]
        return {event["request"]["request_id"]: event for event in events if event.get("request")}

    @property
    def take_overs(self) -> int:
        """How often a worker has taken a partition."""
        return sum(entry.kind == "owner_took" for entry in self.topic("completions"))

    def owner(self, partition: int) -> str:
        """The name of the worker that took the partition last."""
        journal = self._entries[TopicPartition("completions", partition)]
        return next((entry.event["instance"] for entry in reversed(journal) if entry.kind == "owner_took"), "")


def _event(value: bytes | None) -> Fields:
    """The event; of a record that is none, an event of no kind, so that its place and time are known."""
    try:
        event = orjson.loads(value or b"")
    except orjson.JSONDecodeError:
        event = None
    return event if isinstance(event, dict) and isinstance(event.get("type"), str) else {"type": "unreadable.0"}
