"""What time it is in a log whose broker tells the time, as its answers say. Pure: no clock, no I/O."""

# An answer that took longer says too little: the record may have got its time at the beginning of it.
QUICK_ANSWER_S = 1.0


class LogClock:
    """The clock of one partition, as far as it is known to a process with another clock.

    A record got its time before its writer heard of it. So from then on it is at least as late in the log as that time
    and what has passed since, however the two clocks differ. Each answer counts anew: a partition may get another
    leader, with another clock.
    """

    __slots__ = ("_ahead_ms",)

    def __init__(self) -> None:
        self._ahead_ms: float | None = None

    def heard(self, timestamp_ms: int, *, asked_s: float, now_s: float) -> None:
        """A record that was appended at `asked_s` has this time, as is known `now_s`."""
        if now_s - asked_s <= QUICK_ANSWER_S:
            self._ahead_ms = timestamp_ms - now_s * 1000

    def earliest_ms(self, now_s: float) -> int | None:
        """The least that the log's time can be now; None where nothing was heard of it."""
        return None if self._ahead_ms is None else int(self._ahead_ms + now_s * 1000)
