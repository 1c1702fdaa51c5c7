"""The gateway in front of the recordings, for the tests of a module."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.sdk.replay import Exchange, exchanges
from tests.sdk.site import FILES, Place, running
from tests.wire import recordings


@pytest.fixture(scope="module")
def recorded() -> dict[str, list[Exchange]]:
    if not recordings.exists():
        pytest.skip(recordings.MISSING)
    return {name: list(exchanges(name)) for name in FILES}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(recorded: dict[str, list[Exchange]], tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with running(recorded, tmp_path_factory.mktemp("gateway")) as place:
        yield place
