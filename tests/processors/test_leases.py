"""A limit that partitions share is never exceeded, whatever is lost, repeated or late, and hardly anything of it is."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.events import LeaseAnswered, LeaseAsked, OwnerTook
from tollgate.processors.leases import ASK_AGAIN_S, DENIED_S, LEASE_S, SHARES, Lent, Share, grant, lend
from tollgate.processors.ledger import Ledger, evolve
from tollgate.processors.rates import MINUTE_US, RateLimit

T0_MS = 1_795_000_000_000


def limit(per_minute: int) -> RateLimit:
    return RateLimit("global", per_minute, "global_requests_per_minute", "This gateway")


# The owner's side -----------------------------------------------------------------------------------------------------


NOW_US = T0_MS * 1000
LEASE_US = int(LEASE_S * 1_000_000)


@pytest.mark.parametrize("per_minute", [1, 2, 7, 50, 1000])
@pytest.mark.parametrize("at_a_time", [1, 3, 1000])
def test_a_full_bucket_gives_exactly_the_limit(per_minute: int, at_a_time: int):
    state, total = Lent(), 0
    for step in range(per_minute + 5):
        given_out = grant(state, NOW_US + step * 10, per_minute=per_minute, wanted=at_a_time)
        state, total = given_out.state, total + given_out.granted
    assert total == per_minute


@pytest.mark.parametrize("later_us", [0, 500_000, LEASE_US, 10 * LEASE_US])
def test_what_is_refused_is_told_when_it_can_be_had(later_us: int):
    now_us = NOW_US + later_us
    state = grant(Lent(), NOW_US, per_minute=60, wanted=60).state
    state = grant(state, now_us, per_minute=60, wanted=60).state
    denied = grant(state, now_us, per_minute=60, wanted=1)
    assert denied.granted == 0
    assert denied.state.live == grant(state, now_us, per_minute=60, wanted=1).state.live
    due_us = now_us + denied.retry_ms * 1000
    assert grant(state, due_us - 1000, per_minute=60, wanted=1).granted == 0
    assert grant(state, due_us, per_minute=60, wanted=1).granted == 1


def test_what_was_given_in_part_says_when_there_is_more():
    given_out = grant(Lent(), NOW_US, per_minute=60, wanted=61)
    assert given_out.granted == 60
    assert given_out.retry_ms >= 1000


def test_a_lease_that_is_over_counts_as_taken_at_its_end():
    state = grant(Lent(), NOW_US, per_minute=60, wanted=60).state
    (until_us, units) = state.live[0]
    assert (units, until_us - NOW_US >= LEASE_US) == (60, True)
    full_at_us = until_us + 60 * MINUTE_US // 60
    assert grant(state, full_at_us - 1, per_minute=60, wanted=60).granted == 59
    assert grant(state, full_at_us, per_minute=60, wanted=60).granted == 60


def test_however_many_leases_there_are_the_state_stays_small():
    state = Lent()
    for step in range(500):
        state = grant(state, NOW_US + step * 10_000, per_minute=600_000, wanted=1).state
    assert len(state.live) <= LEASE_US // 250_000 + 2


# The asker's side -----------------------------------------------------------------------------------------------------


def with_units(units: int, per_minute: int = 6000, now_s: float = 100.0) -> Share:
    share = Share(limit(per_minute))
    share.ask(1, now_s)
    assert share.answer(1, units, 0, now_s + 0.01)
    return share


def test_units_are_taken_one_by_one_and_end_with_their_lease():
    share = with_units(2)
    share.take(100.1)
    assert share.left(100.0 + LEASE_S - 0.01) == 1
    assert share.left(100.0 + LEASE_S) == 0


def test_a_lease_ends_two_seconds_after_the_question_however_late_the_answer_came():
    share = Share(limit(60))
    share.ask(1, 100.0)
    assert share.answer(1, 5, 0, 101.9)
    assert (share.left(101.95), share.left(102.0)) == (5, 0)


def test_an_answer_counts_once_and_only_for_the_open_question():
    share = with_units(3)
    assert share.answer(1, 3, 0, 100.1) is False
    share.ask(2, 100.2)
    share.ask(3, 100.9)
    assert share.answer(2, 9, 0, 101.0) is False
    assert share.left(101.0) == 3


def test_nothing_is_asked_for_without_need_and_one_question_at_a_time():
    share = Share(limit(6000))
    assert share.wanted(100.0, waiting=0) == 0
    assert share.wanted(100.0, waiting=3) == 3
    share.ask(1, 100.0)
    assert share.wanted(100.1, waiting=5) == 0
    assert share.wanted(100.0 + ASK_AGAIN_S, waiting=5) == 5


def test_a_limit_that_is_exhausted_is_left_alone_until_there_is_more():
    share = Share(limit(60))
    share.ask(1, 100.0)
    share.answer(1, 0, 700, 100.0)
    assert share.denied_ms(100.1) == pytest.approx(600, abs=1)
    assert share.wanted(100.6, waiting=1) == 0
    assert share.wanted(100.71, waiting=1) == 1
    share.ask(2, 100.71)
    share.answer(2, 0, 1, 100.71)
    assert share.denied_ms(100.71) == pytest.approx(DENIED_S * 1000, abs=1)


def test_a_steady_load_has_its_next_share_before_the_present_one_is_used_up():
    share, now_s, number, waited = Share(limit(60_000)), 100.0, 0, 0
    answers: list[tuple[float, int, int]] = []
    for step in range(4_000):  # 200 requests a second for 20 s; an answer takes 30 ms
        now_s = 100.0 + step * 0.005
        while answers and answers[0][0] <= now_s:
            _, which, units = answers.pop(0)
            share.answer(which, units, 0, now_s)
        waiting = 0
        if share.left(now_s):
            share.take(now_s)
        else:
            waited, waiting = waited + 1, 1
        if wanted := share.wanted(now_s, waiting=waiting):
            number += 1
            share.ask(number, now_s)
            answers.append((now_s + 0.03, number, wanted))
        if step == 1_000:
            waited = 0  # it knows the load by now
    assert waited == 0
    assert number < 20 * 20  # and asks for more than one at a time


def test_one_asks_ahead_for_a_fiftieth_of_the_limit_at_most():
    share = with_units(1000, per_minute=1000)
    for _ in range(1000):
        share.take(100.5)
    assert share.wanted(100.5, waiting=0) == 1000 // SHARES


# Both sides, and everything that can happen between them --------------------------------------------------------------


@dataclass
class Site:
    """Askers and an owner; messages in flight; what was spent, and when."""

    per_minute: int
    now_ms: int = T0_MS
    offset: int = 0
    ledger: Ledger = field(default_factory=lambda: Ledger(0))
    shares: list[Share] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    questions: int = 0
    flying: list[tuple[int, LeaseAsked | LeaseAnswered]] = field(default_factory=list)
    spent_ms: list[int] = field(default_factory=list)
    denied: int = 0

    def clock_s(self, asker: int) -> float:
        """No two clocks have anything in common."""
        return self.now_ms / 1000 - T0_MS / 1000 + 977.0 * (asker + 1)

    def append(self, event: object) -> None:
        evolve(self.ledger, self.offset, event)  # type: ignore[arg-type]
        self.offset += 1

    def take_over(self) -> None:
        """The limit gets another owner, whose state is the journal's."""
        self.append(OwnerTook(instance="w"))

    def request(self, asker: int, waiting: int = 1) -> bool:
        share, now_s = self.shares[asker], self.clock_s(asker)
        taken = bool(share.left(now_s))
        if taken:
            share.take(now_s)
            self.spent_ms.append(self.now_ms)
        if wanted := share.wanted(now_s, waiting=0 if taken else waiting):
            self.questions += 1
            share.ask(self.questions, now_s)
            question = LeaseAsked(
                limit="global",
                per_minute=self.per_minute,
                wanted=wanted,
                partition=asker,
                epoch=self.epochs[asker],
                question=self.questions,
            )
            self.flying.append((asker, question))
        return taken

    def deliver(self, index: int, *, again: bool = False, durable: bool = True) -> None:
        asker, message = self.flying[index] if again else self.flying.pop(index)
        if isinstance(message, LeaseAnswered):
            if message.epoch == self.epochs[asker]:
                self.shares[asker].answer(message.question, message.granted, message.retry_ms, self.clock_s(asker))
            return
        granted, answer = lend(self.ledger, message, self.now_ms * 1000)
        if granted is not None:
            if not durable:  # the owner dies before its record is: nothing was given
                return
            self.append(granted)
        self.flying.append((asker, answer))

    def restart(self, asker: int) -> None:
        self.shares[asker] = Share(limit(self.per_minute))
        self.epochs[asker] += 1


def site(per_minute: int, askers: int) -> Site:
    made = Site(per_minute)
    for _ in range(askers):
        made.shares.append(Share(limit(per_minute)))
        made.epochs.append(0)
    made.take_over()
    return made


def excess(spent_ms: list[int], per_minute: int) -> int:
    """By how many microseconds the worst request came too early for a bucket of the limit; 0 is none."""
    interval_us, tat_us, worst = -(-MINUTE_US // per_minute), 0, 0
    for at_ms in spent_ms:
        tat_us = max(tat_us, at_ms * 1000) + interval_us
        worst = max(worst, tat_us - at_ms * 1000 - per_minute * interval_us)
    return worst


ASKERS = 3
steps = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.sampled_from([1, 20, 90, 400, 1999, 2000, 2001, 9000, 61_000])),
        st.tuples(st.just("ask"), st.integers(0, ASKERS - 1)),
        st.tuples(st.just("burst"), st.integers(0, ASKERS - 1)),
        st.tuples(st.sampled_from(["deliver", "repeat", "lose", "deliver and die"]), st.integers(0, 50)),
        st.tuples(st.just("restart"), st.integers(0, ASKERS - 1)),
        st.tuples(st.just("take over"), st.just(0)),
    ),
    max_size=120,
)


@settings(max_examples=400)
@given(st.sampled_from([1, 2, 3, 10, 97, 600]), steps)
def test_no_window_sees_more_than_the_bucket_whatever_happens(per_minute: int, steps: list[tuple[str, int]]):
    world = site(per_minute, ASKERS)
    for what, number in steps:
        index = number % len(world.flying) if world.flying else None
        match what:
            case "wait":
                world.now_ms += number
            case "ask":
                world.request(number)
            case "burst":
                for _ in range(20):
                    world.request(number, waiting=20)
            case "restart":
                world.restart(number)
            case "take over":
                world.take_over()
            case _ if index is None:
                pass
            case "deliver":
                world.deliver(index)
            case "repeat":
                world.deliver(index, again=True)
            case "lose":
                world.flying.pop(index)
            case "deliver and die":
                world.deliver(index, durable=False)
                world.take_over()
    assert excess(world.spent_ms, per_minute) == 0


@pytest.mark.parametrize("per_minute", [60, 600, 6000])
def test_under_a_steady_load_above_the_limit_it_is_used_to_nine_tenths_and_more(per_minute: int):
    world = site(per_minute, ASKERS)
    minutes, due = 3, []
    for step in range(minutes * 60 * 50):  # every 20 ms, which is how long a message takes
        world.now_ms += 20
        for _ in range(len(due)):
            world.deliver(0)
        due = list(world.flying)
        for _ in range(max(1, per_minute // 1500)):  # about twice the limit at each
            world.request(step % ASKERS)
    refill = per_minute * minutes
    assert excess(world.spent_ms, per_minute) == 0
    assert len(world.spent_ms) >= 0.95 * (per_minute + refill)
    assert len(world.spent_ms) <= per_minute + refill
