"""The Faust agent of the processors: it hands the events of `requests` to the owners of their partitions, in order."""

from tollgate.processors.partitions import Partitions
from tollgate.processors.transports.faust_app import ProcessorApp


def declare_agents(app: ProcessorApp, partitions: Partitions) -> None:
    """To be called once, before the app is started."""

    @app.agent(app.owned_topic, name="requests")
    async def requests(stream):  # type: ignore[no-untyped-def]
        # Owners acknowledge by themselves, when what they decided is durable, and in whatever order that happens.
        async for event in stream.noack().events():
            message = event.message
            value = message.value or b""  # a record without a value is unreadable as any other
            waiting = partitions.receive(
                message.partition, message.offset, int(message.timestamp * 1000), value, event.ack
            )
            if waiting is not None:
                await waiting
