"""What tests of several areas share."""

import os
from collections.abc import Iterator

import pytest

from tests.kafka_broker import HOW_TO_GET, KafkaBroker, KafkaUnavailable

SLOW = ("kafka", "crash")  # the slowest first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is fast runs first, so that a mistake is told early; then the crashes, then everything on Kafka."""
    items.sort(key=lambda item: [item.get_closest_marker(mark) is not None for mark in SLOW])


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """A broker of the tests' own, which they may freeze."""
    broker = KafkaBroker()
    try:
        broker.start()
    except KafkaUnavailable as error:
        if os.environ.get("TOLLGATE_REQUIRE_KAFKA") == "1":
            pytest.fail(f"TOLLGATE_REQUIRE_KAFKA=1, but {error}", pytrace=False)
        pytest.skip(f"the tests on Kafka need Java 17 and Maven, or TOLLGATE_TEST_KAFKA=host:port ({HOW_TO_GET})")
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> str:
    """The address of a Kafka broker: that of TOLLGATE_TEST_KAFKA, or of one started for the session.

    Topics must be named so that no two tests share one.
    """
    running = os.environ.get("TOLLGATE_TEST_KAFKA")
    if running:
        return running
    address: str = request.getfixturevalue("kafka_broker").address
    return address
