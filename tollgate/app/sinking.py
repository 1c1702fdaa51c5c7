"""The sink of a process: the only one on the embedded log; on Kafka one of several, the others waiting to take over."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from tollgate.errors import Fenced, TollgateError, why
from tollgate.failpoints import reached
from tollgate.log import Log
from tollgate.log.kafka_election import Election
from tollgate.sinks.sink import Sink

DRAIN_S = 10.0
GROUP = "tollgate-sink"
RETRY_S = 1.0  # after another sink was found at work although this one is elected

log = logging.getLogger(__name__)

Fatal = Callable[[str], None]
AtWork = Callable[[Sink | None], None]  # is told which sink works in this process


@asynccontextmanager
async def sinking(source: Log, data: Path, fatal: Fatal, at_work: AtWork) -> AsyncIterator[None]:
    """Run the sink; on leaving, it writes what the log holds by then."""
    sink = Sink(source, data, failpoint=reached)
    at_work(sink)
    stopping = False

    async def watched() -> None:
        try:
            await sink.run()
        except (TollgateError, OSError) as error:
            fatal(_failed(data, error))
        if not stopping:
            fatal("the sink ended")

    task = asyncio.create_task(watched())
    try:
        yield
    finally:
        stopping = True
        await sink.drain(DRAIN_S)
        await task


@asynccontextmanager
async def sinking_if_elected(
    source: Log, data: Path, election: Election, fatal: Fatal, at_work: AtWork
) -> AsyncIterator[None]:
    """Run the sink while this process is elected. A sink that is fenced by another waits until it is elected again.

    The manifest, not the election, keeps two sinks from writing one row twice.
    """
    active: Sink | None = None

    async def rounds() -> None:
        nonlocal active
        while True:
            await election.won()
            active = Sink(source, data, failpoint=reached)
            log.info("this process is the active sink")
            at_work(active)
            await _until_replaced(active, election)
            active = None
            at_work(None)
            await asyncio.sleep(RETRY_S)

    async def watched() -> None:
        try:
            await rounds()
        except (TollgateError, OSError) as error:
            fatal(_failed(data, error))

    task = asyncio.create_task(watched())
    try:
        yield
    finally:
        if active is not None:
            with suppress(Fenced):
                await active.drain(DRAIN_S)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _failed(data: Path, error: Exception) -> str:
    """Why the sink ended, and at which file or folder: a full disk says neither by itself."""
    place = f"{error.filename or data}: " if isinstance(error, OSError) else ""
    return f"the sink failed: {place}{why(error)}"


async def _until_replaced(sink: Sink, election: Election) -> None:
    running, lost = asyncio.create_task(sink.run()), asyncio.create_task(election.lost())
    try:
        await asyncio.wait({running, lost}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            with suppress(Fenced):
                running.result()
    finally:
        for task in (running, lost):
            task.cancel()
            with suppress(asyncio.CancelledError, Fenced):
                await task
