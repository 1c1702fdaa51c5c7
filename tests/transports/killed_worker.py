"""A process to be killed: goes on at the committed offset, works on all events at once, and notes each when done.

    python -m tests.transports.killed_worker FOLDER SERVER NAME NOTES safe|faust slow|quick

It starts at what the group has committed, so that only the commits decide what is seen again. `slow` never finishes
every seventh event; `quick` finishes all that are left and ends.
"""

import asyncio
import os
import random
import sys
from pathlib import Path
from typing import Any

from faust.transport.consumer import Consumer

from tests.transports.support import Place, Processor
from tollgate.processors.transports.safe_commit import SafeCommit

EVENTS = 500
SLOW_EVERY = 7


async def main(folder: str, server: str, name: str, notes: str, commits: str, pace: str) -> None:
    if commits == "faust":
        SafeCommit._new_offset = Consumer._new_offset  # type: ignore[method-assign]
        SafeCommit._add_gap = Consumer._add_gap  # type: ignore[method-assign]
    place = Place(Path(folder), server or None, name)
    finished = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    left = asyncio.Semaphore(0)
    start = 0

    async def work(event: Any) -> None:
        offset = event.record.offset
        slow = pace == "slow" and offset % SLOW_EVERY == 0
        await asyncio.sleep(3600 if slow else random.uniform(0, 0.2))
        os.write(finished, b"%d\n" % offset)
        event.ack()
        left.release()

    async with place.log() as log:

        async def committed(partition: int) -> int:
            nonlocal start
            offset = await place.committed(partition) or 0
            if partition == 0:
                start = offset
            return offset

        processor = Processor(place, log, start=committed)
        tasks = set()
        processor.handle = lambda event: tasks.add(asyncio.create_task(work(event)))
        async with processor:
            await processor.app.until_ready()
            for _ in range(start, EVENTS):
                await left.acquire()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
