"""What can still be known of a partition whose beginning retention has removed."""

from tollgate.errors import Unreadable
from tollgate.events import OwnerTook, decode
from tollgate.journal import JOURNAL, NO_EPOCH
from tollgate.log import Log


async def epoch_at(log: Log, partition: int, start: int) -> int:
    """The epoch in force at the offset `start` of the journal, when the take-over that made it may be gone.

    It is the highest one that a record names before the next take-over: epochs grow, so those of writers that were
    fenced before are lower. Where no record names one, nothing counts until the next take-over anyhow.
    """
    epoch = NO_EPOCH
    async for records in log.scan(JOURNAL, partition, start):
        for record in records:
            try:
                event = decode(record.value or b"")
            except Unreadable:
                continue
            if type(event) is OwnerTook:
                return epoch
            epoch = max(epoch, getattr(event, "epoch", NO_EPOCH))
    return epoch
