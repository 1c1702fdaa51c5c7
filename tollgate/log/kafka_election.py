"""One of several processes at a time: whoever Kafka assigns the one partition of a topic is elected.

An election may be held by two for a moment, when one has not yet noticed that its session ended. So it says who should
work, not who may: what the elected writes must be fenced by itself, as the manifest of the sink is.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import ConsumerRebalanceListener
from aiokafka.errors import KafkaError

from tollgate.errors import LogUnavailable

from .kafka_clients import new_member

LOOK_EVERY_S = 1.0


class Election(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """This process's candidacy."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self._won = asyncio.Event()
        self._lost = asyncio.Event()
        self._lost.set()

    async def won(self) -> None:
        """Return while this process is the elected one."""
        await self._won.wait()

    async def lost(self) -> None:
        """Return when it is not."""
        await self._lost.wait()

    @property
    def is_won(self) -> bool:
        return self._won.is_set()

    async def hold(self) -> None:
        """For ever. Raises `LogUnavailable` when the candidacy is over: the client has met an error that does not pass,
        and pauses until somebody has seen it.
        """
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                self._consumer._coordinator.check_errors()
            except KafkaError as error:
                raise LogUnavailable(f"the candidacy has ended: {error!r}") from error

    def on_partitions_assigned(self, assigned: Any) -> None:
        if assigned:
            self._lost.clear()
            self._won.set()

    def on_partitions_revoked(self, revoked: Any) -> None:
        self._won.clear()
        self._lost.set()


@asynccontextmanager
async def standing(options: Mapping[str, Any], *, group: str, topic: str) -> AsyncIterator[Election]:
    """Stand for election in the consumer group `group`; `topic` has one partition, of which nothing is read."""
    consumer = new_member(options, group)
    election = Election(consumer)
    consumer.subscribe([topic], listener=election)
    try:
        await consumer.start()
        yield election
    except KafkaError as error:
        raise LogUnavailable(f"the election in group '{group}' failed: {error!r}") from error
    finally:
        await consumer.stop()
