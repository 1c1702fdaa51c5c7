"""One of several at a time is elected, and another when it goes."""

import asyncio
from uuid import uuid4

import pytest

from tollgate.log.kafka import KafkaLog
from tollgate.log.kafka_topics import apply_kafka
from tollgate.topics import load_topics

pytestmark = pytest.mark.kafka

PATIENCE_S = 20.0


async def test_one_is_elected_and_the_other_when_it_goes(kafka: str):
    await apply_kafka(kafka, load_topics())
    group = f"election-{uuid4()}"
    first = await KafkaLog.connect(kafka, load_topics(), client_id="first")
    second = await KafkaLog.connect(kafka, load_topics(), client_id="second")
    try:
        async with asyncio.timeout(PATIENCE_S), second.standing(group) as later:
            async with first.standing(group) as earlier:
                won = [asyncio.create_task(election.won()) for election in (earlier, later)]
                await asyncio.wait(won, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.sleep(0)
                assert earlier.is_won != later.is_won
                for task in won:
                    task.cancel()
            await later.won()
            assert later.is_won
    finally:
        await first.close()
        await second.close()
