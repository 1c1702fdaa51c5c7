"""When a log is behind, what may still wait for it, and when it is tried again."""

from hypothesis import given
from hypothesis import strategies as st

from tollgate.log.reach import BEHIND_AFTER_S, LONGEST_PAUSE_S, SETTLES_S, SHARES, Queue, Reach, Worth, pause_s

LATE_S = BEHIND_AFTER_S + 0.1
HALF_FULL = int(SHARES["new"] * 100)


def has_room(queue: Queue, worth: Worth, size: int = 10) -> bool:
    return queue.has_room(worth, size, max_records=100, max_bytes=1_000)


def test_a_log_is_behind_when_its_oldest_answer_is_overdue_and_no_longer_when_it_came():
    reach = Reach(0.0)
    reach.look(10.0, 10.0 - BEHIND_AFTER_S)
    assert not reach.behind
    reach.look(10.1, 10.1 - LATE_S)
    assert (reach.behind, round(reach.silent_s, 3)) == (True, LATE_S)
    reach.look(10.2, 10.1)
    assert not reach.behind
    reach.look(10.3, None)
    assert (reach.behind, reach.silent_s) == (False, 0.0)


def test_the_clock_stands_still_while_the_log_is_behind():
    reach = Reach(0.0)
    for second in range(1, 4):
        reach.look(second, None)
    assert reach.answering_s(3.5) == 3.5
    for second in range(4, 40):
        reach.look(second, 3.0)  # asked then, and not answered since
    assert reach.answering_s(40.0) == 6.0, "the outage counts until it was noticed"
    reach.look(40.0, None)
    assert reach.answering_s(41.0) == 7.0


def test_a_log_has_settled_when_it_has_answered_for_a_while_after_its_start_or_an_outage():
    reach = Reach(0.0)
    assert reach.settles_in_s(0.25) == SETTLES_S - 0.25
    reach.look(1.0, None)
    assert reach.settles_in_s(1.0) == 0.0
    reach.look(20.0, 10.0)
    assert reach.settles_in_s(20.1) == SETTLES_S
    reach.look(20.25, None)
    assert reach.settles_in_s(20.5) == SETTLES_S - 0.5
    assert reach.settles_in_s(20.0 + SETTLES_S) == 0.0


def test_a_process_that_was_halted_itself_has_not_heard_others_be_silent():
    reach = Reach(0.0)
    reach.look(1.0, None)
    reach.look(61.0, None)
    assert reach.answering_s(61.0) == 1.0 + BEHIND_AFTER_S


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=30))
def test_the_clock_never_goes_back_nor_faster_than_time(steps: list[tuple[float, bool]]):
    reach, now_s, asked_s, before_s = Reach(0.0), 0.0, None, 0.0
    for step_s, answered in steps:
        asked_s = None if answered else now_s if asked_s is None else asked_s
        now_s += step_s
        reach.look(now_s, asked_s)
        assert 0.0 <= reach.answering_s(now_s) - before_s <= step_s + 1e-9
        before_s = reach.answering_s(now_s)


def test_what_is_new_is_refused_first_and_what_has_happened_last():
    queue = Queue(records=HALF_FULL - 1, bytes=0)
    assert all(has_room(queue, worth) for worth in SHARES)
    queue.records = HALF_FULL
    assert [worth for worth in SHARES if has_room(queue, worth)] == ["passing", "kept"]
    queue.records = 75
    assert [worth for worth in SHARES if has_room(queue, worth)] == ["kept"]
    queue.records = 100
    assert not any(has_room(queue, worth) for worth in SHARES)


def test_bytes_are_bounded_as_records_are_but_a_large_record_fits_where_nothing_waits():
    assert has_room(Queue(records=1, bytes=490), "new")
    assert not has_room(Queue(records=1, bytes=491), "new")
    assert has_room(Queue(records=1, bytes=990), "kept")
    assert not has_room(Queue(records=1, bytes=991), "kept")
    assert has_room(Queue(), "new", size=5_000)


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_pauses_grow_to_a_bound_and_are_never_the_same_for_all(failures: int, draw: float):
    assert 0.1 < pause_s(failures, draw) <= LONGEST_PAUSE_S
    assert pause_s(failures + 1, draw) >= pause_s(failures, draw)
    assert pause_s(failures, 0.9) > pause_s(failures, 0.1)
