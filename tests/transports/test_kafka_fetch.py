"""Fetches and seeks of the Kafka consumer do not overtake each other; no broker is asked."""

import asyncio
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP

from tollgate.processors.transports.kafka import Consumer

PARTITION = TP("requests", 0)


@pytest.fixture
async def consumer() -> Any:
    """A consumer without a client: each test says what its thread would do."""
    consumer: Any = object.__new__(Consumer)
    consumer.app = SimpleNamespace(consumer_generation_id=1)
    consumer._fetching = asyncio.Lock()
    consumer._thread = SimpleNamespace()
    return consumer


async def test_a_fetch_asks_for_what_was_active_when_it_began(consumer: Any) -> None:
    asked: list[set[TP]] = []

    async def fetch(active: set[TP], timeout: float) -> Mapping[TP, list[str]]:
        active_partitions.clear()
        asked.append(set(active))
        return {PARTITION: ["record"]}

    active_partitions = {PARTITION}
    consumer._thread.getmany = fetch
    assert await consumer._getmany(active_partitions, 1.0) == {PARTITION: ["record"]}
    assert asked == [{PARTITION}]
    assert await consumer._getmany(set(), 1.0) == {}


async def test_what_was_fetched_across_a_rebalance_is_thrown_away(consumer: Any) -> None:
    async def fetch(active: set[TP], timeout: float) -> Mapping[TP, list[str]]:
        consumer.app.consumer_generation_id += 1
        return {PARTITION: ["of the life before"]}

    consumer._thread.getmany = fetch
    assert await consumer._getmany({PARTITION}, 1.0) == {}


async def test_a_seek_waits_for_the_fetch_under_way(consumer: Any) -> None:
    happened: list[str] = []
    fetching, answered = asyncio.Event(), asyncio.Event()

    async def fetch(active: set[TP], timeout: float) -> Mapping[TP, list[str]]:
        fetching.set()
        await answered.wait()
        happened.append("fetched")
        return {}

    async def seek(partitions: Mapping[TP, int]) -> None:
        happened.append("sought")

    consumer._thread.getmany, consumer._thread.seek_wait = fetch, seek
    fetch_task = asyncio.create_task(consumer._getmany({PARTITION}, 1.0))
    await fetching.wait()
    seek_task = asyncio.create_task(consumer.seek_wait({PARTITION: 5}))
    await asyncio.sleep(0)
    answered.set()
    await asyncio.gather(fetch_task, seek_task)
    assert happened == ["fetched", "sought"]
