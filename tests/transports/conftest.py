"""A place for each test: an embedded log in a folder of its own, or topics of its own on Kafka."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.transports.support import Place
from tollgate.log import Log


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where the test's log is; nothing is in it yet."""
    return Place(tmp_path, request.getfixturevalue("kafka") if request.param == "kafka" else None)


@pytest.fixture
async def log(place: Place) -> AsyncIterator[Log]:
    """The log of that place, open."""
    async with place.log() as log:
        yield log
