"""A partition is consumed only by an owner that has taken it over, from the offset that the owner names.

Faust resumes a partition at the group's committed offset, and may already deliver from it while it still seeks.
For the topic that is owned this will not do: what was decided stands in the journal, so the journal says where to
go on, and nothing may be delivered before it was asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from faust.types import TP, ConsumerMessage

from tollgate.errors import OutOfRange
from tollgate.log import Log, Record
from tollgate.processors.transports.batches import Batch
from tollgate.processors.transports.safe_commit import SafeCommit

# What Kafka calls `LogAppendTime`: the log gave the timestamp.
LOG_APPEND_TIME = 1


@dataclass(frozen=True)
class Ownership:
    """Whom a consumer asks about the partitions of `topic`.

    `take_over(partition)` is awaited once per assignment, after the tables are recovered and before the first
    record of the partition is delivered; it returns the offset to start at. Partitions are taken over side by
    side. If the partition is revoked meanwhile, it is cancelled.

    `give_up(partitions)` is awaited once for each take-over that was begun, when the partitions are revoked or the
    app stops: nothing more of them is delivered, and on Kafka no other worker gets them before it returns (within
    the rebalance timeout).

    If either raises, or the topic ends before the offset, the app crashes.
    """

    topic: str
    take_over: Callable[[int], Awaitable[int]]
    give_up: Callable[[set[int]], Awaitable[None]]


class OwnedPartitions(SafeCommit):
    """Consumer mixin: holds the partitions of the owned topic back until their owner has taken them over.

    Partitions of other topics are resumed as Faust does it; those of the owned one are never active for Faust.
    A transport provides `_seek_committed`, reads what is in `_taken`, and hands it over in batches.
    """

    app: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ownership: Ownership = self.app.ownership
        # Of the owned topic: what is assigned, what is being or has been taken over, and what may be consumed.
        self._assigned: set[TP] = set()
        self._take_overs: dict[TP, asyncio.Future[Any]] = {}
        self._taken: set[TP] = set()
        self._batch: tuple[TP, Batch] | None = None  # what the agent has now; the next waits for it
        self.all_taken = asyncio.Event()
        """Set while every assigned partition of the owned topic is being consumed."""

    def take_over_assigned(self) -> None:
        """Begin to take over what is assigned. To be called when the tables are recovered and the flow is on."""
        for tp in self._assigned - self._take_overs.keys():
            self._take_overs[tp] = self.add_future(self._take_over(tp))
        self._note_taken()

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        self.all_taken.clear()
        self._assigned = self._owned(assigned)
        await super().on_partitions_assigned(assigned, generation_id)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self.all_taken.clear()
        self._assigned -= revoked
        self._stop_reading(revoked)
        # Or else a queue that drains would let a partition flow again that nobody has taken over.
        self._buffered_partitions -= revoked
        await super().on_partitions_revoked(revoked)
        await self._give_up(revoked)

    async def on_stop(self) -> None:
        self._stop_reading(set(self._taken))
        await self._give_up(set(self._take_overs))
        await super().on_stop()

    async def seek_to_committed(self) -> Mapping[TP, int]:
        assigned = self.assignment()
        others = assigned - self._owned(assigned)
        return await self._seek_committed(others) if others else {}

    async def _seek_committed(self, tps: set[TP]) -> Mapping[TP, int]:
        """Seek these partitions to where the group has committed, and return where that is."""
        raise NotImplementedError

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        tps = set(tps)
        super().resume_partitions(tps - self._owned(tps))

    def _set_active_tps(self, tps: set[TP]) -> set[TP]:
        return super()._set_active_tps(tps - self._owned(tps))

    async def _take_over(self, tp: TP) -> None:
        offset = await self._within(tp, await self._ownership.take_over(tp.partition))
        self._taken.add(tp)
        self._start_reading(tp, offset)
        self._note_taken()

    def _start_reading(self, tp: TP, offset: int) -> None:
        """Hand over what the partition holds from the offset on."""
        raise NotImplementedError

    def _stop_reading(self, tps: set[TP]) -> None:
        """Hand nothing more over of these; what the agent has of them now ends early."""
        self._taken -= tps
        if self._batch is not None and self._batch[0] in tps:
            self._batch[1].withdraw()

    async def _hand_over(self, tp: TP, records: Sequence[Record]) -> None:
        """Return when the agent is through with the records, or need not be: its partition is given up."""
        batch = Batch(tp.partition, records, partial(self.note_done, tp))
        self._batch = (tp, batch)
        self.note_delivered(tp, records)
        first = records[0]
        message = ConsumerMessage(
            tp.topic,
            tp.partition,
            first.offset,
            first.timestamp_ms / 1000,
            LOG_APPEND_TIME,
            [],
            None,
            cast(Any, batch),
            None,
            tp=tp,
            generation_id=self.app.consumer_generation_id,
        )
        await self.callback(message)
        await batch.over.wait()
        self._batch = None

    async def _within(self, tp: TP, offset: int) -> int:
        """The offset, if the log has it, or the oldest that it has."""
        log: Log = self.app.event_log
        start, end = (await log.starts(tp.topic))[tp.partition], (await log.ends(tp.topic))[tp.partition]
        if offset > end:
            raise OutOfRange(
                f"{tp.topic}/{tp.partition} is to be consumed from offset {offset}, but ends at {end}: its records are "
                "gone, or it was made anew; nothing that it gets now would be handled"
            )
        if offset < start:
            self.log.warning("%s/%d: retention has removed offsets %d to %d unread", *tp, offset, start - 1)
        return max(offset, start)

    async def _give_up(self, tps: set[TP]) -> None:
        begun = {tp: self._take_overs.pop(tp) for tp in tps & self._take_overs.keys()}
        if not begun:
            return
        for take_over in begun.values():
            take_over.cancel()
        await asyncio.wait(begun.values())
        try:
            await self._ownership.give_up({tp.partition for tp in begun})
        except Exception as error:
            # Faust and its Kafka client would log it and carry on.
            await self.crash(error)

    def _note_taken(self) -> None:
        if self._assigned == self._taken:
            self.all_taken.set()

    def _owned(self, tps: Iterable[TP]) -> set[TP]:
        return {tp for tp in tps if tp.topic == self._ownership.topic}
