"""What the tests of the logs share besides fixtures."""

from collections.abc import Awaitable, Callable

from tollgate.log import Log, Record
from tollgate.topics import Topic, Topics

# Large enough for the largest record that the tests append.
MAX_MESSAGE_BYTES = 8 << 20

Open = Callable[[Topics], Awaitable[Log]]


def declare(name: str, *, partitions: int = 1, **config: str) -> Topics:
    """One topic; settings are named with underscores for dots."""
    settings = {key.replace("_", "."): value for key, value in config.items()}
    settings.setdefault("max.message.bytes", str(MAX_MESSAGE_BYTES))
    settings.setdefault("message.timestamp.type", "LogAppendTime")
    return Topics(topics={name: Topic(name=name, partitions=partitions, config=settings)})


async def read(log: Log, topic: str, partition: int = 0, start: int = 0, end: int | None = None) -> list[Record]:
    """All records of a scan."""
    return [record async for batch in log.scan(topic, partition, start, end) for record in batch]
