"""Commit no offset at or above one that is still being worked on.

Faust 0.15 takes the first run of consecutive acknowledged offsets for finished, whatever lies before it, and
treats every hole in a topic as acknowledged up to and including the next record. With events acknowledged out
of order it therefore commits past events that are still running, and a crash loses them
(github.com/faust-streaming/faust/issues/606). Here the deliveries themselves say what is unfinished.
"""

from collections import defaultdict
from collections.abc import Awaitable, Mapping
from typing import Any

from faust.transport.consumer import Consumer
from faust.types import TP, Message


class SafeCommit(Consumer):
    """Consumer mixin: the offset to commit is the first one delivered but not acknowledged.

    Where everything delivered is acknowledged, it is the one after the last delivered. So every event at or above
    the committed offset may be seen again after a crash, and every event below it was acknowledged.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Offsets in the order of delivery, which is that of the log; a dict because it finds and keeps order.
        self._unfinished: defaultdict[TP, dict[int, float]] = defaultdict(dict)  # with the records' times
        self._following: dict[TP, int] = {}
        super().__init__(*args, **kwargs)
        self._deliver = self.callback
        self.callback = self._note_and_deliver

    def _note_and_deliver(self, message: Message) -> Awaitable[Any]:
        if self.app.topics.acks_enabled_for(message.topic):
            self._unfinished[message.tp][message.offset] = message.timestamp
            self._following[message.tp] = message.offset + 1
        return self._deliver(message)

    def _new_offset(self, tp: TP) -> int | None:
        # Not `ack`: Faust's compiled streams acknowledge by writing to `_acked` themselves.
        acknowledged = self._acked.pop(tp, ())
        self._acked_index.pop(tp, None)
        unfinished = self._unfinished[tp]
        for offset in acknowledged:
            unfinished.pop(offset, None)
        return next(iter(unfinished), self._following.get(tp))

    def unfinished(self, topic: str) -> dict[int, tuple[int, float | None]]:
        """By partition: the first offset that is not acknowledged, and its record's time in Unix seconds.

        Where everything delivered is acknowledged: the offset after the last delivered, and None.
        """
        found: dict[int, tuple[int, float | None]] = {}
        for tp, following in self._following.items():
            if tp.topic == topic:
                acknowledged = set(self._acked.get(tp, ()))
                waiting = (entry for entry in self._unfinished[tp].items() if entry[0] not in acknowledged)
                found[tp.partition] = next(waiting, None) or (following, None)
        return found

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Holes need no notes: what was not delivered is not unfinished."""

    async def seek_to_committed(self) -> Mapping[TP, int]:
        offsets = await super().seek_to_committed()  # type: ignore[safe-super]
        self._forget(offsets)
        return offsets

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        await super().on_partitions_revoked(revoked)
        self._forget(revoked)

    def _forget(self, tps: Mapping[TP, int] | set[TP]) -> None:
        """What these partitions deliver next is a new reading: older deliveries no longer hold a commit back."""
        for tp in tps:
            self._unfinished.pop(tp, None)
            self._following.pop(tp, None)
