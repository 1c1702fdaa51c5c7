"""Logs to test with: the same openers for both adapters."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.log.support import Open
from tollgate.log import Log
from tollgate.log.embedded import EmbeddedLog
from tollgate.log.kafka import KafkaLog
from tollgate.log.kafka_topics import apply_kafka
from tollgate.topics import Topics


@pytest.fixture
def topic() -> str:
    """A name that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
async def open_log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Open the test's log with some topics: the same log each time. What is left open is closed in the end."""
    opened: list[Log] = []

    async def open_embedded(topics: Topics) -> Log:
        opened.append(await EmbeddedLog.open(tmp_path, topics))
        return opened[-1]

    async def open_kafka(topics: Topics) -> Log:
        address = request.getfixturevalue("kafka")
        await apply_kafka(address, topics)
        opened.append(await KafkaLog.connect(address, topics, client_id="test"))
        return opened[-1]

    if request.param == "kafka":
        request.getfixturevalue("kafka")
    yield open_kafka if request.param == "kafka" else open_embedded
    for log in opened:
        await log.close()
