"""Kafka's `cleanup.policy: compact` for the embedded log: which records a newer one of the same key has replaced.

Offsets are kept, and the newest record of a partition stays, whatever it is. Blocking: it runs in a thread, in
slices, so that other readers take turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .storage import Storage

# One slice of reading; one step of deleting between two groups of appends; and the records of one pass.
SLICE_ROWS = 5_000
REMOVE_ROWS = 250
PASS_ROWS = 200_000
# A log is compacted before it is used where more than this share may be superseded.
RATIO_AT_OPEN = 0.5


def is_due(*, end: int, cleaned: int, kept: int, ratio: float) -> bool:
    """Whether the records not yet looked at are more than `ratio` of all; `kept` is what is left of the others."""
    dirty = end - cleaned
    return dirty > 1 and dirty > ratio * (dirty + kept)


@dataclass
class Pass:
    """One look over a partition: first `learn` from `cleaned` to `end`, then `judge` from its start to `end`."""

    storage: Storage
    cleaned: int
    end: int
    tombstones_before_ms: int
    newest: dict[bytes, int] = field(default_factory=dict)
    kept: int = 0

    def learn(self, first: int) -> int:
        """Note the newest record of each key in a slice; return the id after it. All ids are those of the table."""
        rows = self.storage.keys(first=first, end=self.end, max_rows=SLICE_ROWS)
        for id, key, _, _ in rows:
            if key is not None:
                self.newest[key] = id
        return self._after(rows)

    def judge(self, first: int) -> tuple[list[int], int]:
        """What a slice holds that can go, and the id after it.

        A tombstone goes once it is old enough for every reader to have seen it, and has been passed once before:
        so it is never the newest record, for a pass begins with at least two that are new.
        """
        rows = self.storage.keys(first=first, end=self.end, max_rows=SLICE_ROWS)
        doomed = [
            id
            for id, key, tombstone, timestamp_ms in rows
            if key is not None
            and (
                self.newest.get(key, id) > id
                or (tombstone and id < self.cleaned and timestamp_ms < self.tombstones_before_ms)
            )
        ]
        self.kept += len(rows) - len(doomed)
        return doomed, self._after(rows)

    def _after(self, rows: Sequence[tuple[int, bytes | None, bool, int]]) -> int:
        return rows[-1][0] + 1 if len(rows) == SLICE_ROWS else self.end
