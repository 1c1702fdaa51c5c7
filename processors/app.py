"""The processors as one service: the Faust app with its agent, the owners of partitions, the sockets to providers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple, cast

from faust.types import TableT

from tollgate.log.ends import Ends
from tollgate.log.kafka_security import Security
from tollgate.processors.agents import declare_agents
from tollgate.processors.counts import Counts
from tollgate.processors.metrics import Backlogs
from tollgate.processors.partitions import Partitions
from tollgate.processors.setup import Setup
from tollgate.processors.transports.checkpoint import read_rows, write_rows
from tollgate.processors.transports.faust_app import create_faust_app
from tollgate.processors.transports.ownership import Ownership
from tollgate.processors.world import World

TOPIC = "requests"


class Processors(NamedTuple):
    """The processors at work: what they own, how far they are behind, and what they have counted."""

    partitions: Partitions
    backlogs: Backlogs
    counts: Counts
    setup: Callable[[], Setup]


@asynccontextmanager
async def processors(
    world: World,
    *,
    data: Path,
    instance: str,
    bootstrap_servers: Sequence[str] = (),
    security: Security | None = None,
    ends: Ends,
    on_crash: Callable[[str], None],
) -> AsyncIterator["Processors"]:
    """Run the processors: yields when every assigned partition is taken over; on leaving, calls under way are ended.

    `on_crash` is called if the Faust app dies by itself.
    """
    partitions = Partitions(world)
    app = create_faust_app(
        log=world.log,
        ownership=Ownership(TOPIC, partitions.take_over, partitions.give_up),
        data_dir=data,
        bootstrap_servers=bootstrap_servers,
        security=security,
        instance=instance if bootstrap_servers else None,
    )
    declare_agents(app, partitions)
    table = cast(TableT[bytes, bytes], app.checkpoint)
    partitions.keep_checkpoints(
        lambda partition: read_rows(table, partition), lambda partition, rows: write_rows(table, partition, rows)
    )
    async with _drained(partitions, world.setup().config.server.drain_s), app:
        await app.until_ready()
        watch = asyncio.create_task(_watch(app.until_ended, on_crash))
        checkpoints = asyncio.create_task(partitions.checkpoint_often())
        try:
            yield Processors(partitions, Backlogs(partitions, app, ends), world.counts, world.setup)
        finally:
            for task in (watch, checkpoints):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await partitions.checkpoint()


@asynccontextmanager
async def _drained(partitions: Partitions, patience_s: float) -> AsyncIterator[None]:
    """On leaving, wait for the calls that were handed over."""
    try:
        yield
    finally:
        await partitions.drained(patience_s)


async def _watch(until_ended: Callable[[], object], on_crash: Callable[[str], None]) -> None:
    try:
        await until_ended()  # type: ignore[misc]
        on_crash("the processors stopped")
    except Exception as error:
        on_crash(f"the processors died: {type(error).__name__}: {error}")
