"""Does the log answer, and what may still wait for it? Pure: no clock, no I/O.

A log that does not answer may not have taken what it was given, so nothing that is new is given to it; what has already
happened must still be written, and waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

# A log is behind when what it was asked for has waited this long. Also the most that the clock below advances at once.
BEHIND_AFTER_S = 2.0

# After an outage a request may be read whose client was refused meanwhile, and its cancellation comes behind it, in the
# next batch of the process that gave up on it. So long is waited for that before a call is made.
SETTLES_S = 1.0

# Pauses between attempts to connect. The longest leaves most of 15 s for what is to be done after it.
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 3.0

Worth: TypeAlias = Literal["new", "passing", "kept"]
"""What a record is worth: it begins something (`new`), is of use only now (`passing`), or must be written (`kept`)."""

# How much of the queue each may fill, so that there is room for what must be written when the rest is turned away.
SHARES: Mapping[Worth, float] = {"new": 0.5, "passing": 0.75, "kept": 1.0}


@dataclass(slots=True)
class Queue:
    """What waits until the log has acknowledged it."""

    records: int = 0
    bytes: int = 0

    def has_room(self, worth: Worth, size: int, *, max_records: int, max_bytes: int) -> bool:
        """May one more record of this size wait? Where nothing waits, any may."""
        share = SHARES[worth]
        return self.records == 0 or (self.records < share * max_records and self.bytes + size <= share * max_bytes)


class Reach:
    """Whether the log answers, told by the oldest of what it was asked and has not answered."""

    def __init__(self, now_s: float) -> None:
        self.silent_s = 0.0
        """For how long the log owes its oldest answer, as of the last look."""
        self._looked_s = now_s
        self._answering_s = 0.0
        self._behind_s = now_s  # when it was last seen to be behind, or not yet known to answer

    @property
    def behind(self) -> bool:
        return self.silent_s > BEHIND_AFTER_S

    def look(self, now_s: float, asked_s: float | None) -> None:
        """It is `now_s`; the oldest question without an answer was asked at `asked_s`, None where there is none."""
        self._answering_s = self.answering_s(now_s)
        self._looked_s = now_s
        self.silent_s = 0.0 if asked_s is None else now_s - asked_s
        if self.behind:
            self._behind_s = now_s

    def settles_in_s(self, now_s: float) -> float:
        """How long until the log has answered for `SETTLES_S`; 0 when it has."""
        return SETTLES_S if self.behind else max(0.0, self._behind_s + SETTLES_S - now_s)

    def answering_s(self, now_s: float) -> float:
        """A clock that stands still while the log is behind, and while nobody looks: this process was halted itself.

        By it one tells how long others have been silent, who could not have been heard meanwhile.
        """
        return self._answering_s + (0.0 if self.behind else min(now_s - self._looked_s, BEHIND_AFTER_S))


def pause_s(failures: int, draw: float) -> float:
    """How long to wait after so many failures in a row; `draw` of [0, 1) keeps many clients from coming all at once."""
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 10))
    return longest * (0.5 + draw / 2)
