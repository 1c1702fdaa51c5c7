"""Commit no offset at or above one that is still being worked on.

Faust 0.15 takes the first run of consecutive acknowledged offsets for finished, whatever lies before it, and
treats every hole in a topic as acknowledged up to and including the next record. With events acknowledged out
of order it therefore commits past events that are still running, and a crash loses them
(github.com/faust-streaming/faust/issues/606). Here the deliveries themselves say what is unfinished.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from faust.transport.consumer import Consumer
from faust.types import TP

from tollgate.log import Record


class SafeCommit(Consumer):
    """Consumer mixin: the offset to commit is the first one delivered but not acknowledged.

    Where everything delivered is acknowledged, it is the one after the last delivered. So every event at or above
    the committed offset may be seen again after a crash, and every event below it was acknowledged.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Offsets in the order of delivery, which is that of the log; a dict because it finds and keeps order.
        self._unfinished: defaultdict[TP, dict[int, int]] = defaultdict(dict)  # with the records' times
        self._following: dict[TP, int] = {}
        super().__init__(*args, **kwargs)

    def note_delivered(self, tp: TP, records: Sequence[Record]) -> None:
        """These are being worked on from now on, each until `note_done` is called for it."""
        unfinished = self._unfinished[tp]
        for record in records:
            unfinished[record.offset] = record.timestamp_ms
        self._following[tp] = records[-1].offset + 1

    def note_done(self, tp: TP, offset: int) -> None:
        """The record need not be delivered again. What was forgotten in the meantime is left alone."""
        if self._unfinished[tp].pop(offset, None) is not None:
            self._acked[tp].append(offset)  # where Faust looks whether there is anything to commit

    def _new_offset(self, tp: TP) -> int | None:
        self._acked.pop(tp, None)
        return next(iter(self._unfinished[tp]), self._following.get(tp))

    def unfinished(self) -> dict[int, tuple[int, int | None]]:
        """By partition: the first offset that is not done with, and its record's time in Unix milliseconds.

        Where everything delivered is done with: the offset after the last delivered, and None.
        """
        return {
            tp.partition: next(iter(self._unfinished[tp].items()), (following, None))
            for tp, following in self._following.items()
        }

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
