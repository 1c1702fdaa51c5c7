"""What tests of several areas share: a Kafka broker, started when the first test marked `kafka` runs, and a summary."""

import gc
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.kafka_broker import HOW_TO_GET, KafkaBroker, KafkaUnavailable

RUNNING = os.environ.get("TOLLGATE_TEST_KAFKA")
REQUIRED = os.environ.get("TOLLGATE_REQUIRE_KAFKA") == "1"

# Where tests are marked `kafka`. With `-m kafka` nothing else is imported, which takes longer than some of them.
ON_KAFKA = [
    Path(__file__).parent / name for name in ("app/test_kafka_security.py", "chaos", "log", "roles", "transports")
]

# An example that waits for a processor is no failure. What Hypothesis sets by itself where CI runs stays.
settings.register_profile("tollgate", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tollgate")

SUMMARY = "summary"  # what a test records under this name is printed at the end of the run, one line each

_BROKER = pytest.StashKey[KafkaBroker | KafkaUnavailable]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if config.option.markexpr != "kafka" or not collection_path.name.startswith("test_"):
        return None
    return None if _is_on_kafka(collection_path) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first: then those that kill processes, and last those that need Kafka.

    Where several processes share them, what takes long must not begin at the end.
    """
    slow_last = -1 if "PYTEST_XDIST_WORKER" in os.environ else 1
    on_kafka = [item for item in items if item.get_closest_marker("kafka")]
    items.sort(key=lambda item: slow_last * bool(item.get_closest_marker("crash")))
    items.sort(key=lambda item: bool(item.get_closest_marker("kafka")))
    for item in on_kafka:
        if not _is_on_kafka(item.path):
            raise pytest.UsageError(f"{item.nodeid} needs Kafka: it belongs into one of ON_KAFKA, see {__file__}")


def pytest_collection_finish() -> None:
    """What was imported stays: the collector need not look through all of it, again and again."""
    gc.collect()
    gc.freeze()


def _is_on_kafka(path: Path) -> bool:
    return any(path.is_relative_to(place) for place in ON_KAFKA)


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
    gc.unfreeze()  # what is spared at the very end, extension modules take for leaked, and say so
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
    if isinstance(broker, KafkaUnavailable):
        _go_without(broker)
    return broker


@pytest.fixture(scope="session")
def start_broker() -> Callable[[], KafkaBroker]:
    """Start another broker, for one test or module alone, which stops it."""

    def start() -> KafkaBroker:
        try:
            return KafkaBroker().start()
        except KafkaUnavailable as error:
            _go_without(error)

    return start


def _go_without(why: KafkaUnavailable) -> NoReturn:
    """Skip the test, or fail it where Kafka must be there."""
    if REQUIRED:
        pytest.fail(f"TOLLGATE_REQUIRE_KAFKA=1, but {why}", pytrace=False)
    pytest.skip(f"no Kafka: {why}. To run these: {HOW_TO_GET}, or TOLLGATE_TEST_KAFKA=host:port")
