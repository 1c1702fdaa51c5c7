"""One of several processes at a time: whoever Kafka assigns the one partition of a topic is elected.

An election may be held by two for a moment, when one has not yet noticed that its session ended. So it says who should
work, not who may: what the elected writes must be fenced by itself, as the manifest of the sink is.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener

SESSION_TIMEOUT_S = 6.0
HEARTBEAT_S = 1.5


class Election(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """This process's candidacy."""

    def __init__(self) -> None:
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
    election = Election()
    consumer = AIOKafkaConsumer(
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        session_timeout_ms=int(SESSION_TIMEOUT_S * 1000),
        heartbeat_interval_ms=int(HEARTBEAT_S * 1000),
        max_poll_interval_ms=2**31 - 1,  # nothing is polled: only the heartbeat says that the process lives
        **options,
    )
    consumer.subscribe([topic], listener=election)
    await consumer.start()
    try:
        yield election
    finally:
        await consumer.stop()
