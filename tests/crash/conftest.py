"""What every scenario needs: somebody to call."""

from collections.abc import Iterator

import pytest

from tests.crash.provider import Provider, a_provider


@pytest.fixture(scope="session")
def a_running_provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Provider]:
    with a_provider(tmp_path_factory.mktemp("provider")) as provider:
        yield provider


@pytest.fixture
async def provider(a_running_provider: Provider) -> Provider:
    """A provider with an empty ledger."""
    await a_running_provider.forget()
    return a_running_provider
