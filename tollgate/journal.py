"""Which records of the journal count: the rule that all its readers share.

The journal is the topic `completions`. A writer begins on a partition with `OwnerTook`, whose offset is its epoch, and
puts that epoch into all that it writes. A record is valid if its epoch is the offset of the last `OwnerTook` before
it in its partition; what a writer says after another has taken over does not count. So a reader keeps one integer
beside its position, and all readers agree.

Pure: no clock, no I/O.
"""

from tollgate.events import Event, OwnerTook

JOURNAL = "completions"
NO_EPOCH = -1  # nobody has taken the partition yet


def epoch_after(epoch: int, offset: int, event: Event) -> int:
    """The epoch in force behind `event`, which lies at `offset`; `epoch` was in force before it."""
    return offset if type(event) is OwnerTook else epoch


def valid(epoch: int, event: Event) -> bool:
    """Does `event` count where `epoch` is in force? A take-over always does; what is not of the journal never."""
    if type(event) is OwnerTook:
        return True
    return epoch != NO_EPOCH and getattr(event, "epoch", NO_EPOCH) == epoch
