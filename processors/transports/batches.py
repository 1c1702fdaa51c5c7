"""What Faust carries from a consumer to the agent: not a record at a time, but what one read brought of a partition.

Each event of Faust's passes through a conductor, a queue and a stream, at some 60 µs, whatever is in it. Owners take
records one by one in microseconds, so the records of a read share one event.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import faust

from tollgate.log import Record

# Of one event: a bound on what is decided before anything else has its turn.
BATCH_RECORDS = 100


class Batch:
    """Records of one partition, in their order, each with the function that says that it is done with.

    Iterating ends early when the partition is given up meanwhile: whoever has it then gets the rest from the log.
    """

    def __init__(self, partition: int, records: Sequence[Record], done: Callable[[int], None]) -> None:
        self.partition = partition
        self.over = asyncio.Event()
        """Set when nobody iterates any more, or needs to."""
        self._records = records
        self._done = done
        self._withdrawn = False

    def __iter__(self) -> Iterator[tuple[Record, Callable[[], None]]]:
        try:
            for record in self._records:
                if self._withdrawn:
                    return
                yield record, partial(self._done, record.offset)
        finally:
            self.over.set()

    def withdraw(self) -> None:
        """The partition is given up."""
        self._withdrawn = True
        self.over.set()


class BatchSchema(faust.Schema[None, Batch]):
    """The value of a message is the batch itself."""

    def loads_key(self, *args: Any, **kwargs: Any) -> None:
        return None

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Batch:
        batch: Batch = message.value
        return batch
