"""The Faust agent of the processors: it hands the events of `requests` to the owners of their partitions, in order."""

import asyncio

from tollgate.processors.partitions import Partitions
from tollgate.processors.transports.batches import Batch
from tollgate.processors.transports.faust_app import ProcessorApp

DECIDE_AT_ONCE = 16  # events, before answers and calls have their turn


def declare_agents(app: ProcessorApp, partitions: Partitions) -> None:
    """To be called once, before the app is started."""

    @app.agent(app.owned_topic, name="requests")
    async def requests(stream):  # type: ignore[no-untyped-def]
        # Owners acknowledge by themselves, when what they decided is durable, and in whatever order that happens.
        async for event in stream.noack().events():
            batch: Batch = event.value
            for number, (record, done) in enumerate(batch, start=1):
                value = record.value or b""  # a record without a value is unreadable as any other
                waiting = partitions.receive(batch.partition, record.offset, record.timestamp_ms, value, done)
                if waiting is not None:
                    await waiting
                if number % DECIDE_AT_ONCE == 0:
                    await asyncio.sleep(0)
