"""How far a worker is behind: told by what was delivered and not decided, and by where the log ends."""

import time
from types import SimpleNamespace
from typing import Any

from tollgate.processors.metrics import Backlog, Backlogs, Undone


class Reading:
    """A partition with 10 events on the log, of which the test says what was delivered."""

    settled = True

    def __init__(self, undone: dict[int, Undone]) -> None:
        self.at = undone

    def undone(self) -> dict[int, Undone]:
        return self.at


def backlogs(reading: Reading, *, decided: int = -1, end: int = 10) -> Backlogs:
    owner = SimpleNamespace(partition=0, ledger=SimpleNamespace(decided=decided))
    partitions: Any = SimpleNamespace(owners=[owner])
    ends: Any = SimpleNamespace(of=lambda topic: {0: end})
    return Backlogs(partitions, reading, ends)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_whoever_has_decided_everything_is_not_behind():
    assert backlogs(Reading({0: Undone(10, None)})).look() == {0: Backlog(0, 0.0)}


def test_the_oldest_undecided_event_says_how_old_the_queue_is():
    (found,) = backlogs(Reading({0: Undone(4, now_ms() - 2_000)})).look().values()
    assert found.records == 6
    assert 2.0 <= found.age_s < 3.0


def test_what_is_on_the_log_and_not_read_ages_from_its_first_sight():
    reading = Reading({0: Undone(4, None)})
    looked = backlogs(reading)
    assert looked.look()[0].age_s == 0.0
    time.sleep(0.02)
    assert looked.look()[0].age_s >= 0.02
    reading.at = {0: Undone(5, None)}
    assert looked.look() == {0: Backlog(5, 0.0)}


def test_a_partition_that_was_just_taken_over_is_behind_by_what_its_journal_has_not_decided():
    assert backlogs(Reading({}), decided=6).look()[0].records == 3


def test_the_ends_may_be_older_than_the_reading():
    assert backlogs(Reading({0: Undone(12, None)})).look() == {0: Backlog(0, 0.0)}
