"""Admission: what fits is admitted, what does not is told why, and nothing can be overspent."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.config import load_config
from tollgate.errors import Refusal
from tollgate.events import Admitted, Candidate, Ended, Limits, OwnerTook, Request, Usage
from tollgate.money import pusd
from tollgate.prices.book import PriceBook
from tollgate.prices.price import compile_price
from tollgate.processors.admit import Decision, Policy, decide, period_end, period_of
from tollgate.processors.ledger import Ledger, evolve
from tollgate.processors.route.plan import Option, Route
from tollgate.wire import Ask

NOW_MS = 1_795_000_000_000  # 2026-11-18
BOOK = PriceBook.load(None)
PROVIDERS = load_config(None, {}).providers
DOLLAR = pusd("1")
# a token costs a millionth of a dollar to read and four to write
PRICE = compile_price({"input": Decimal(1), "output": Decimal(4)}, version="v", context_window=1000)


def option(price=PRICE, provider="sandbox", *, at_home=True, **more):
    at = PROVIDERS[provider]
    return Option(at, at.accounts[0], "sandbox", price, at.protocol, at_home, **more)


def route(*options):
    return Route(options or (option(),), "priority")


def ask(**given):
    return Ask(**{"model": "sandbox", "stream": False, "input_bound_tokens": 100, "max_output_tokens": 50} | given)


def request(number=1):
    return Request(
        request_id=f"r{number}", org_id="o", key_id="k1", endpoint="/v1/chat/completions", dialect="openai", model="m"
    )


def ledger(*events):
    state = Ledger(0)
    for offset, event in enumerate((OwnerTook(instance="a"), *events)):
        evolve(state, offset, event)
    return state


def asked(state, *, of=None, to=None, limits=None, policy=None, number=1, now_ms=NOW_MS) -> Decision:
    return decide(
        state,
        request(number),
        of or ask(),
        to or route(),
        limits=limits or Limits(),
        policy=policy or Policy(),
        src=number,
        now_ms=now_ms,
        price_version="v",
    )


def budget(usd):
    return Limits(monthly_budget_pusd=pusd(usd))


def test_the_hold_is_the_most_that_the_request_can_cost():
    decision = asked(ledger(), limits=budget("1"))
    assert isinstance(decision.record, Admitted)
    assert decision.record.hold_pusd == 100 * 1_000_000 + 50 * 4_000_000


def test_without_a_budget_nothing_is_held_and_the_bill_is_not_limited():
    assert asked(ledger()).record.hold_pusd is None


def test_no_tokenizer_makes_more_of_a_text_than_the_window_takes():
    long = asked(ledger(), of=ask(input_bound_tokens=1_000_000), limits=budget("1")).record
    assert long.hold_pusd == 1000 * 1_000_000 + 50 * 4_000_000


def test_what_is_held_by_others_cannot_be_spent():
    first = asked(ledger(), limits=budget("0.0004")).record
    second = asked(ledger(first), limits=budget("0.0004"), number=2)
    assert isinstance(second.record, Ended)
    assert (second.record.status, second.record.http_status) == ("rejected", 429)
    assert second.refusal.code == "QUOTA_EXCEEDED"
    assert second.refusal.type == "insufficient_quota"
    assert second.refusal.headers == {"x-should-retry": "false"}
    assert second.refusal.details["held"] == "0.0003"
    assert second.refusal.details["reset_at"] == "2026-12-01T00:00:00Z"


def test_what_fits_to_the_last_pico_dollar_is_admitted():
    assert isinstance(asked(ledger(), limits=Limits(monthly_budget_pusd=300_000_000)).record, Admitted)
    assert isinstance(asked(ledger(), limits=Limits(monthly_budget_pusd=299_999_999)).record, Ended)


def test_a_new_month_has_a_fresh_budget():
    spent = Ended(
        epoch=0,
        request=request(),
        status="completed",
        http_status=200,
        period="2026-10",
        subjects=("key:k1",),
        bill_pusd=DOLLAR,
    )
    assert isinstance(asked(ledger(spent), limits=budget("1")).record, Admitted)


def test_without_max_tokens_what_the_budget_pays_for_is_sent_upstream():
    record = asked(ledger(), of=ask(max_output_tokens=None), limits=budget("0.0002")).record
    assert record.plan[0].max_output_tokens == 25
    assert record.hold_pusd == pusd("0.0002")


def test_without_max_tokens_at_most_the_default_is_sent():
    record = asked(ledger(), of=ask(max_output_tokens=None), limits=budget("9"), policy=Policy(default_max_tokens=7))
    assert record.record.plan[0].max_output_tokens == 7


def test_several_choices_share_what_the_budget_pays_for():
    record = asked(ledger(), of=ask(max_output_tokens=None, choices=5), limits=budget("0.0002")).record
    assert record.plan[0].max_output_tokens == 5


def test_a_budget_must_pay_for_the_shortest_answer_that_can_be_asked_for():
    to = route(option(least_output_tokens=25))
    assert isinstance(asked(ledger(), of=ask(max_output_tokens=None), to=to, limits=budget("0.0002")).record, Admitted)
    refusal = asked(ledger(), of=ask(max_output_tokens=None), to=to, limits=budget("0.000199")).refusal
    assert refusal.code == "QUOTA_EXCEEDED" and "$0.0002" in refusal.message


def test_without_max_tokens_and_without_a_budget_nothing_is_sent_that_was_not_asked():
    assert asked(ledger(), of=ask(max_output_tokens=None)).record.plan[0].max_output_tokens is None


def test_a_protocol_that_insists_on_a_limit_gets_the_default():
    to = route(option(provider="sandbox-anthropic"))
    assert asked(ledger(), of=ask(max_output_tokens=None), to=to).record.plan[0].max_output_tokens == 4096


def test_a_missing_limit_is_refused_under_a_budget_if_the_operator_says_so():
    policy = Policy(reject_missing_max_tokens=True)
    refused = asked(ledger(), of=ask(max_output_tokens=None), limits=budget("1"), policy=policy).refusal
    assert (refused.status, refused.param) == (400, "max_tokens")
    assert asked(ledger(), of=ask(max_output_tokens=None), policy=policy).refusal is None


def test_a_model_without_a_price_is_refused_under_a_budget():
    refused = asked(ledger(), to=route(option(price=None)), limits=budget("1")).refusal
    assert (refused.status, refused.code) == (400, "model_unpriced")
    assert "pricing.yaml" in refused.message


def test_a_fallback_without_a_price_is_left_out_under_a_budget():
    to = route(option(), option(price=None))
    assert len(asked(ledger(), to=to, limits=budget("1")).record.plan) == 1
    assert len(asked(ledger(), to=to).record.plan) == 2


def test_a_model_without_a_price_may_hold_a_fixed_amount():
    policy = Policy(unpriced_hold_pusd=pusd("0.25"))
    record = asked(ledger(), to=route(option(price=None)), limits=budget("1"), policy=policy).record
    assert record.hold_pusd == pusd("0.25")


def test_input_that_cannot_be_bounded_is_refused_under_a_budget_and_names_its_field():
    images = ask(unbounded="messages[0].content[1]")
    refused = asked(ledger(), of=images, limits=budget("1")).refusal
    assert (refused.code, refused.param) == ("cost_unbounded", "messages[0].content[1]")
    assert asked(ledger(), of=images).refusal is None


def test_what_a_translation_leaves_out_counts_only_where_there_is_none():
    search = ask(unbounded_at_home="tools[3]")
    refused = asked(ledger(), of=search, limits=budget("1")).refusal
    assert (refused.code, refused.param) == ("cost_unbounded", "tools[3]")
    assert asked(ledger(), of=search, to=route(option(at_home=False)), limits=budget("1")).refusal is None


def test_what_is_counted_beside_tokens_is_held_too():
    by_image = compile_price({"image": Decimal("0.04")}, version="v")
    three = ask(max_output_tokens=None, limits=Usage(images=3), uncappable="size")
    record = asked(ledger(), of=three, to=route(option(by_image)), limits=budget("1")).record
    assert record.hold_pusd == pusd("0.12")
    assert record.plan[0].max_output_tokens is None


WINDOWLESS = compile_price({"input": Decimal(1), "output": Decimal(4)}, version="v")


def test_where_no_cap_can_be_sent_output_that_is_charged_for_needs_a_limit_of_the_models():
    image = ask(max_output_tokens=None, limits=Usage(images=2), uncappable="size")
    refused = asked(ledger(), of=image, to=route(option(WINDOWLESS)), limits=budget("1")).refusal
    assert (refused.code, refused.param) == ("cost_unbounded", "size")
    assert "max_output_tokens" in refused.message
    assert asked(ledger(), of=image, to=route(option(WINDOWLESS))).refusal is None
    tabulated = asked(ledger(), of=image, to=route(option(WINDOWLESS, most_output_tokens=300)), limits=budget("1"))
    assert tabulated.record.hold_pusd == 100 * 1_000_000 + 2 * 300 * 4_000_000
    own = compile_price({"input": Decimal(1), "output": Decimal(4)}, version="v", max_output_tokens=50)
    assert asked(ledger(), of=image, to=route(option(own)), limits=budget("1")).record.hold_pusd == 500 * 1_000_000


def test_what_a_refused_image_needs_is_all_that_can_come_out():
    image = ask(max_output_tokens=None, limits=Usage(images=1), uncappable="size")
    to = route(option(WINDOWLESS, most_output_tokens=4160))
    refused = asked(ledger(), of=image, to=to, limits=budget("0.001")).refusal
    assert (refused.code, refused.details["needed"]) == ("QUOTA_EXCEEDED", "0.01674")


BY_TIME = compile_price({"audio_minute": Decimal("0.006")}, version="v")
SOUND = ask(max_output_tokens=None, uncappable="file", sound="file")


def test_sound_that_is_charged_by_time_is_held_for_as_long_as_it_can_be():
    told = ask(max_output_tokens=None, uncappable="file", sound="file", limits=Usage(audio_ms=60_000))
    assert asked(ledger(), of=told, to=route(option(BY_TIME)), limits=budget("1")).record.hold_pusd == pusd("0.006")
    refused = asked(ledger(), of=SOUND, to=route(option(BY_TIME)), limits=budget("1")).refusal
    assert (refused.code, refused.param) == ("cost_unbounded", "file")
    assert "WAV" in refused.message


def test_sound_that_is_charged_by_tokens_fills_no_more_than_the_models_window():
    held = asked(ledger(), of=SOUND, limits=budget("1")).record.hold_pusd
    assert held == 1000 * 1_000_000 + 1000 * 4_000_000
    refused = asked(ledger(), of=SOUND, to=route(option(WINDOWLESS)), limits=budget("1")).refusal
    assert (refused.code, refused.param) == ("cost_unbounded", "file")


def test_what_is_free_needs_neither_bound_nor_price():
    free = compile_price({"input": Decimal(0), "output": Decimal(0)}, version="v")
    boundless = ask(unbounded="input[0]")
    assert asked(ledger(), of=boundless, to=route(option(free)), limits=budget("0.01")).record.hold_pusd == 0
    assert asked(ledger(), of=ask(free=True), to=route(option(None)), limits=budget("0.01")).record.hold_pusd == 0


def test_a_dearer_fallback_that_the_budget_does_not_cover_is_left_out():
    dear = option(compile_price({"input": Decimal(1000), "output": Decimal(1000)}, version="v"))
    record = asked(ledger(), to=route(option(), dear), limits=budget("0.0004")).record
    assert len(record.plan) == 1
    assert len(asked(ledger(), to=route(option(), dear), limits=budget("1")).record.plan) == 2


def test_the_dearest_candidate_is_held():
    dear = option(compile_price({"input": Decimal(10), "output": Decimal(10)}, version="v"))
    assert asked(ledger(), to=route(option(), dear), limits=budget("1")).record.hold_pusd == 150 * 10_000_000


def test_a_slot_is_taken_until_the_request_has_ended():
    limits = Limits(concurrent_requests=1)
    first = asked(ledger(), limits=limits).record
    refused = asked(ledger(first), limits=limits, number=2).refusal
    assert (refused.status, refused.type) == (429, "rate_limit_error")
    assert refused.headers["retry-after"] == "1"
    over = Ended(epoch=0, request=request(), status="failed", http_status=502, period="2026-11", subjects=("key:k1",))
    assert asked(ledger(first, over), limits=limits, number=2).refusal is None


def test_a_minute_gives_so_many_requests_and_then_says_when_to_come_back():
    limits = Limits(requests_per_minute=3)
    records = []
    for number in range(3):
        decision = asked(ledger(*records), limits=limits, number=number)
        assert dict(decision.headers)["x-ratelimit-remaining-requests"] == str(2 - number)
        records.append(decision.record)
    refused = asked(ledger(*records), limits=limits, number=4).refusal
    assert refused.details["limit_name"] == "requests_per_minute"
    assert refused.headers["retry-after"] == "20"
    assert asked(ledger(*records), limits=limits, number=4, now_ms=NOW_MS + 19_999).refusal is not None
    assert asked(ledger(*records), limits=limits, number=4, now_ms=NOW_MS + 20_000).refusal is None


def test_a_refusal_of_the_route_is_the_end_of_the_request():
    unknown = Refusal(404, "model_not_found", "no such model", param="model")
    decision = asked(ledger(), to=unknown)
    assert (decision.record.status, decision.record.http_status, decision.record.src) == ("rejected", 404, 1)


@pytest.mark.parametrize(
    ("at_ms", "period"), [(1_793_491_199_999, "2026-10"), (1_793_491_200_000, "2026-11"), (0, "1970-01")]
)
def test_a_period_is_a_month_in_utc(at_ms, period):
    assert period_of(at_ms) == period
    assert period_of(int(period_end(period).timestamp() * 1000) - 1) == period


asks = st.builds(
    ask,
    input_bound_tokens=st.integers(1, 2000),
    max_output_tokens=st.one_of(st.none(), st.integers(1, 500)),
    choices=st.integers(1, 3),
)


@given(st.integers(0, 2_000_000_000), st.lists(st.tuples(asks, st.floats(0, 2)), max_size=25))
def test_whatever_is_asked_and_however_it_ends_the_budget_holds_and_nothing_is_refused_that_fits(limit, steps):
    """Every second request ends at once, at any share of its hold, also beyond it; the bill never is."""
    limits = Limits(monthly_budget_pusd=limit)
    events = []
    for number, (asking, share) in enumerate(steps):
        state = ledger(*events)
        decision = asked(state, of=asking, limits=limits, number=number)
        spent, held = state.spent("key:k1", "2026-11"), state.held("key:k1", "2026-11")
        if isinstance(decision.record, Admitted):
            assert spent + held + decision.record.hold_pusd <= limit
            events.append(decision.record)
            if number % 2:
                bill = min(int(decision.record.hold_pusd * share), decision.record.hold_pusd)
                events.append(
                    Ended(
                        epoch=0,
                        request=request(number),
                        status="completed",
                        http_status=200,
                        period="2026-11",
                        subjects=("key:k1",),
                        bill_pusd=bill,
                    )
                )
        else:
            least = ask(input_bound_tokens=asking.input_bound_tokens, max_output_tokens=asking.max_output_tokens or 1)
            needed = min(least.input_bound_tokens, 1000) * 1_000_000 + (
                asking.choices * least.max_output_tokens * 4_000_000
            )
            assert spent + held + needed > limit


def test_a_plan_keeps_what_the_route_says():
    record = asked(ledger()).record
    assert record.plan == (
        Candidate(provider="sandbox", account="main", model="sandbox", bound_pusd=300_000_000, max_output_tokens=50),
    )
