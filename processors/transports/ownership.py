"""A partition is consumed only by an owner that has taken it over, from the offset that the owner names.

Faust resumes a partition at the group's committed offset, and may already deliver from it while it still seeks.
For the topic that is owned this will not do: what was decided stands in the journal, so the journal says where to
go on, and nothing may be delivered before it was asked.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from faust.transport.consumer import Consumer
from faust.types import TP

from tollgate.errors import OutOfRange
from tollgate.log import Log


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


class OwnedPartitions(Consumer):
    """Consumer mixin: holds the partitions of the owned topic back until their owner has taken them over.

    Partitions of other topics are resumed as Faust does it. A transport provides `_seek_committed`.
    """

    app: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ownership: Ownership = self.app.ownership
        # Of the owned topic: what is assigned, what is being or has been taken over, and what may be consumed.
        self._assigned: set[TP] = set()
        self._take_overs: dict[TP, asyncio.Future[Any]] = {}
        self._taken: set[TP] = set()
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
        self._taken -= revoked
        # Or else a queue that drains would let a partition flow again that nobody has taken over.
        self._buffered_partitions -= revoked
        await super().on_partitions_revoked(revoked)
        await self._give_up(revoked)

    async def on_stop(self) -> None:
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
        super().resume_partitions(tps - (self._owned(tps) - self._taken))

    def _set_active_tps(self, tps: set[TP]) -> set[TP]:
        return super()._set_active_tps(tps - self._owned(tps))

    async def _take_over(self, tp: TP) -> None:
        offset = await self._within(tp, await self._ownership.take_over(tp.partition))
        await self.seek_wait({tp: offset})
        self._taken.add(tp)
        self.resume_partitions({tp})
        self._note_taken()

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
