"""Faust over the embedded log: the transport `embedded://`.

One process, one member of the group, no broker: every partition of every topic is assigned to this consumer. The
log is the app's `event_log`, opened and closed by whoever made the app.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from typing import Any, ClassVar, cast

from faust.assignor.client_assignment import ClientAssignment
from faust.transport import base
from faust.transport.drivers import TRANSPORTS
from faust.types import TP, ConsumerMessage, HeadersArg, RecordMetadata
from mode import ServiceT

from tollgate.log import Headers, Position, Record
from tollgate.log.embedded import EmbeddedLog
from tollgate.processors.transports.batches import BATCH_RECORDS
from tollgate.processors.transports.ownership import LOG_APPEND_TIME, OwnedPartitions

SCHEME = "embedded"


class Producer(base.Producer):
    """Appends to the embedded log."""

    def __post_init__(self) -> None:
        self._event_log: EmbeddedLog = cast(Any, self.app).event_log
        self._last: asyncio.Future[Position] | None = None

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> Awaitable[RecordMetadata]:
        """Append at once; the future returned is done when the record is durable. The log gives the timestamp."""
        return self._append(topic, key, value, partition, headers)

    async def send_and_wait(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        timestamp: float | None,
        headers: HeadersArg | None,
        *,
        transactional_id: str | None = None,
    ) -> RecordMetadata:
        """Append, and return when the record is durable."""
        return await self._append(topic, key, value, partition, headers)

    async def flush(self) -> None:
        """Return when everything sent so far is durable. Raises what the last append raised."""
        await self.buffer.flush()
        if self._last is not None:
            await asyncio.wait({self._last})
            self._last.result()

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics are declared in topics.yaml, and there are no others."""

    def key_partition(self, topic: str, key: bytes) -> TP:
        return TP(topic, self._event_log.partition_for(topic, key))

    def supports_headers(self) -> bool:
        return True

    def _append(
        self,
        topic: str,
        key: bytes | None,
        value: bytes | None,
        partition: int | None,
        headers: HeadersArg | None,
    ) -> asyncio.Future[RecordMetadata]:
        appended = self._event_log.append(topic, key, value, partition=partition, headers=_headers(headers))
        # The log's futures are done in the order of the appends, so the last one stands for all.
        self._last = appended
        sent: asyncio.Future[RecordMetadata] = self.loop.create_future()
        appended.add_done_callback(partial(_resolve, sent, topic))
        return sent


class Consumer(OwnedPartitions):
    """Reads every partition of the topics subscribed to, in one plain loop, and records before they are durable: what
    comes of an event takes effect only when a record that was appended after it is durable, and then so is the event.

    Faust's own loop makes two tasks for each message, so that a rebalance can cut a delivery short. Here nobody
    else can want the partitions: they are assigned once, at the start.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._event_log: EmbeddedLog = self.app.event_log
        self._group = str(self.app.conf.id)
        self._positions: dict[TP, int] = {}
        self._fresh: set[TP] = set()  # what may have records beyond its position
        self._wake = asyncio.Event()

    async def subscribe(self, topics: Iterable[str]) -> None:
        """Assign every partition of these topics. Returns before that is done."""
        # Not awaited here: the assignment waits for the conductor, and the conductor for this to return.
        self.add_future(self._rebalance(set(topics)))

    async def _rebalance(self, topics: set[str]) -> None:
        app = self.app
        app.on_rebalance_start()
        if self._positions:
            await self.on_partitions_revoked(self.assignment())
        partitions = {topic: list(range(self._event_log.partitions(topic))) for topic in topics}
        assigned = {TP(topic, number) for topic, numbers in partitions.items() for number in numbers}
        self._positions = dict.fromkeys(assigned, 0)
        self._fresh = set(assigned)
        for topic in topics - app.tables.changelog_topics:
            self._event_log.listen(topic, partial(self._note, topic))
        assignor = app.assignor
        assignor._assignment = ClientAssignment(actives=partitions, standbys={})
        assignor._active_tps, assignor._standby_tps = assigned, set()
        app.consumer_generation_id += 1
        await self.on_partitions_assigned(assigned, app.consumer_generation_id)

    def _note(self, topic: str, partition: int) -> None:
        self._fresh.add(TP(topic, partition))
        self._wake.set()

    async def _drain_messages(self, fetcher: ServiceT) -> None:
        try:
            while not (self.should_stop or fetcher.should_stop):
                self._wake.clear()
                more = False
                for tp in self._fresh & self._readable:
                    if self.flow_active:
                        more |= await self._take_turn(tp)
                if more:
                    await asyncio.sleep(0)
                else:
                    await self._wake.wait()
        except asyncio.CancelledError:
            if not self.app.should_stop:
                raise

    async def _take_turn(self, tp: TP) -> bool:
        """Deliver what `tp` has, up to a turn's share; False when there is nothing more to deliver."""
        position = self._positions[tp]
        records = self._event_log.tail(tp.topic, tp.partition, position, BATCH_RECORDS)
        if records is None:
            records = await self._read(tp, position, self.highwater(tp))
        if not (self.flow_active and tp in self._readable and self._positions[tp] == position):
            return True
        if tp in self._taken:
            for start in range(0, len(records), BATCH_RECORDS):
                if self._positions[tp] != position:
                    return True
                batch = records[start : start + BATCH_RECORDS]
                self._positions[tp] = position = batch[-1].offset + 1
                await self._hand_over(tp, batch)
        else:
            await self._recover(tp, records)
        if self._positions[tp] < self._event_log.taken(tp.topic, tp.partition):
            return True
        self._fresh.discard(tp)
        return False

    async def _recover(self, tp: TP, records: Sequence[Record]) -> None:
        """Deliver records of the changelog, for as long as Faust wants them and seeks nowhere else."""
        position = self._positions[tp]
        for record in records:
            if not (self.flow_active and tp in self._active_partitions and self._positions[tp] == position):
                return
            self._positions[tp] = position = record.offset + 1
            await self.callback(self._to_message(tp, record))

    @property
    def _readable(self) -> set[TP]:
        return self._taken | self._active_partitions

    def _start_reading(self, tp: TP, offset: int) -> None:
        self._positions[tp] = max(offset, self._event_log.start(tp.topic, tp.partition))
        self._note(tp.topic, tp.partition)

    async def _read(self, tp: TP, position: int, end: int) -> list[Record]:
        """The next batch from the disk."""
        async with aclosing(cast(Any, self._event_log.scan(tp.topic, tp.partition, position, end))) as batches:
            async for records in batches:
                return list(records)
        # Compaction has removed every one of them.
        self._positions[tp] = end
        return []

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Mapping[TP, list[Any]]:
        raise NotImplementedError("this consumer drains the log itself")

    def _to_message(self, tp: TP, record: Record) -> ConsumerMessage:
        return ConsumerMessage(
            record.topic,
            record.partition,
            record.offset,
            record.timestamp_ms / 1000,
            LOG_APPEND_TIME,
            list(record.headers),
            record.key,
            record.value,
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )

    def on_buffer_full(self, tp: TP) -> None:
        """Leave the partition as it is: the loop waits at the full queue, which Faust bounds."""

    def on_buffer_drop(self, tp: TP) -> None:
        """See `on_buffer_full`."""

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        super().resume_partitions(tps)
        self._wake.set()

    def resume_flow(self) -> None:
        super().resume_flow()
        self._wake.set()

    async def _seek(self, partition: TP, offset: int) -> None:
        # To recover, Faust seeks to the record before the one that it wants.
        self._positions[partition] = max(offset, self._event_log.start(partition.topic, partition.partition))
        self._note(partition.topic, partition.partition)

    async def seek_wait(self, partitions: Mapping[TP, int]) -> None:
        for tp, offset in partitions.items():
            await self._seek(tp, offset)

    async def seek_to_beginning(self, *partitions: TP) -> None:
        await self.seek_wait(await self.earliest_offsets(*partitions))

    async def _seek_committed(self, tps: set[TP]) -> Mapping[TP, int]:
        committed = await self._event_log.committed(self._group)
        earliest = await self.earliest_offsets(*tps)
        offsets = {tp: max(committed.get((tp.topic, tp.partition), 0), earliest[tp]) for tp in tps}
        await self.seek_wait(offsets)
        return offsets

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        # An event may be done with before it is durable: a request that nobody waits for any more.
        durable = {(tp.topic, tp.partition): min(offset, self.highwater(tp)) for tp, offset in offsets.items()}
        await self._event_log.commit_offsets(self._group, durable)
        return True

    def assignment(self) -> set[TP]:
        return set(self._positions)

    async def position(self, tp: TP) -> int | None:
        return self._positions.get(tp)

    def highwater(self, tp: TP) -> int:
        return self._event_log.end(tp.topic, tp.partition)

    async def highwaters(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: self.highwater(tp) for tp in partitions}

    async def earliest_offsets(self, *partitions: TP) -> Mapping[TP, int]:
        return {tp: self._event_log.start(tp.topic, tp.partition) for tp in partitions}

    def topic_partitions(self, topic: str) -> int | None:
        return self._event_log.partitions(topic)

    def key_partition(self, topic: str, key: bytes | None, partition: int | None = None) -> int | None:
        if partition is not None:
            return partition
        return self._event_log.partition_for(topic, key) if key is not None else 0

    async def create_topic(self, *args: Any, **kwargs: Any) -> None:
        """Topics are declared in topics.yaml, and there are no others."""

    def _new_topicpartition(self, topic: str, partition: int) -> TP:
        return TP(topic, partition)


class Transport(base.Transport):
    """What Faust calls a broker: the embedded log of this process."""

    Consumer: ClassVar[type[Any]] = Consumer
    Producer: ClassVar[type[Any]] = Producer
    driver_version = "embedded"


def _headers(headers: HeadersArg | None) -> Headers:
    if not headers:
        return ()
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return tuple((name, value) for name, value in pairs)


def _resolve(sent: asyncio.Future[RecordMetadata], topic: str, appended: asyncio.Future[Position]) -> None:
    if sent.done():
        return
    error = appended.exception()
    if error is not None:
        sent.set_exception(error)
        return
    at = appended.result()
    sent.set_result(
        RecordMetadata(topic, at.partition, TP(topic, at.partition), at.offset, at.timestamp_ms, LOG_APPEND_TIME)
    )


TRANSPORTS.aliases[SCHEME] = f"{__name__}:Transport"
