"""What tests of several areas share: a Kafka broker, started when the first test marked `kafka` runs, and a summary."""

import os

import pytest

from tests.kafka_broker import HOW_TO_GET, KafkaBroker, KafkaUnavailable

RUNNING = os.environ.get("TOLLGATE_TEST_KAFKA")
REQUIRED = os.environ.get("TOLLGATE_REQUIRE_KAFKA") == "1"

SUMMARY = "summary"  # what a test records under this name is printed at the end of the run, one line each

_BROKER = pytest.StashKey[KafkaBroker | KafkaUnavailable]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: then those that kill processes, and last those that need Kafka."""
    items.sort(key=lambda item: 2 * bool(item.get_closest_marker("kafka")) + bool(item.get_closest_marker("crash")))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip the tests on Kafka where there is none: from one place, so that the summary says so in one line."""
    if item.get_closest_marker("kafka") is not None and RUNNING is None:
        _own_broker(item.config)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests have to tell beyond that they passed, wherever they ran."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    lines = [text for report in reports for name, text in report.user_properties if name == SUMMARY]
    if lines:
        terminalreporter.section("what was measured")
        terminalreporter.write("\n".join(map(str, lines)) + "\n")


def pytest_unconfigure(config: pytest.Config) -> None:
    broker = config.stash.get(_BROKER, None)
    if isinstance(broker, KafkaBroker):
        broker.stop()


@pytest.fixture
def kafka_broker(request: pytest.FixtureRequest) -> KafkaBroker:
    """A broker of the tests' own, which they may freeze."""
    return _own_broker(request.config)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> str:
    """The address of a Kafka broker: that of TOLLGATE_TEST_KAFKA, or of one started for the session.

    For tests marked `kafka`. Topics must be named so that no two tests share one.
    """
    return RUNNING or _own_broker(request.config).address


def _own_broker(config: pytest.Config) -> KafkaBroker:
    if _BROKER not in config.stash:
        try:
            config.stash[_BROKER] = KafkaBroker().start()
        except KafkaUnavailable as error:
            config.stash[_BROKER] = error
    broker = config.stash[_BROKER]
    if isinstance(broker, KafkaBroker):
        return broker
    if REQUIRED:
        pytest.fail(f"TOLLGATE_REQUIRE_KAFKA=1, but {broker}", pytrace=False)
    pytest.skip(f"no Kafka: {broker}. To run these: {HOW_TO_GET}, or TOLLGATE_TEST_KAFKA=host:port")
