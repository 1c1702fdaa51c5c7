"""What time it is in a log, told by its answers."""

from hypothesis import given
from hypothesis import strategies as st

from tollgate.log.clock import QUICK_ANSWER_S, LogClock

BROKER_MS = 1_800_000_000_000.0

seconds = st.floats(0, 1_000)
delays = st.floats(0, QUICK_ANSWER_S / 2)


def test_nothing_is_known_before_the_log_has_answered():
    assert LogClock().earliest_ms(5.0) is None


def test_time_goes_on_from_the_newest_answer_whatever_its_clock_says():
    clock = LogClock()
    clock.heard(90_000, asked_s=1.0, now_s=1.5)
    assert clock.earliest_ms(3.5) == 92_000
    clock.heard(30_000, asked_s=4.0, now_s=4.0)  # another leader
    assert clock.earliest_ms(5.0) == 31_000


def test_an_answer_that_took_long_says_nothing():
    clock = LogClock()
    clock.heard(90_000, asked_s=1.0, now_s=1.0)
    clock.heard(91_000, asked_s=2.0, now_s=2.1 + QUICK_ANSWER_S)  # repeated until it was acknowledged
    assert clock.earliest_ms(4.0) == 93_000


@given(ahead_s=st.floats(-1e6, 1e6), asked_s=seconds, there_s=delays, back_s=delays, later_s=seconds, way_s=seconds)
def test_no_record_that_is_appended_later_is_earlier_however_the_clocks_differ(
    ahead_s: float, asked_s: float, there_s: float, back_s: float, later_s: float, way_s: float
):
    def broker_ms(at_s: float) -> int:
        return int(BROKER_MS + (ahead_s + at_s) * 1000)

    clock = LogClock()
    heard_s = asked_s + there_s + back_s
    clock.heard(broker_ms(asked_s + there_s), asked_s=asked_s, now_s=heard_s)
    now_s = heard_s + later_s
    earliest_ms = clock.earliest_ms(now_s)
    assert earliest_ms is not None
    assert earliest_ms - 1 <= broker_ms(now_s + way_s), "whole milliseconds"
    assert broker_ms(now_s) - earliest_ms <= 1000 * QUICK_ANSWER_S + 2, "and it is not far behind"
