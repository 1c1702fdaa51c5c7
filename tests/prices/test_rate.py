"""Costs by hand, and the properties that budgets rest on."""

from dataclasses import dataclass
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.events import CostLine, Usage
from tollgate.prices.price import (
    CALL_METERS,
    INPUT_METERS,
    MEASURES,
    METER_OF_WORD,
    OUTPUT_METERS,
    Price,
    Tier,
    unit_pusd,
)
from tollgate.prices.rate import UNLIMITED_OUTPUT, affordable_output, bill, bound_pusd, estimate_line, rate, unpriced

FLAT = Price(version="v1", tiers=(Tier(above=0, unit_pusd={"input_tokens": 3, "output_tokens": 7, "request": 11}),))
STEPPED = Price(
    version="v1",
    tiers=(
        Tier(above=0, unit_pusd={"input_tokens": 3, "cache_read_tokens": 1, "output_tokens": 7}),
        Tier(above=100, unit_pusd={"input_tokens": 6, "cache_read_tokens": 2, "output_tokens": 9}),
    ),
)


def cost(lines):
    return sum(line.cost_pusd for line in lines)


# Rating --------------------------------------------------------------------------------------------------------------


def test_there_is_a_line_for_each_class_used_and_one_for_the_fee():
    assert rate(Usage(input_tokens=10, output_tokens=2), FLAT) == (
        CostLine(meter="input_tokens", quantity=10, unit_price_pusd=3, cost_pusd=30, price_version="v1"),
        CostLine(meter="output_tokens", quantity=2, unit_price_pusd=7, cost_pusd=14, price_version="v1"),
        CostLine(meter="request", quantity=1, unit_price_pusd=11, cost_pusd=11, price_version="v1"),
    )


def test_a_call_without_a_token_still_costs_the_fee():
    assert [line.meter for line in rate(Usage(), FLAT)] == ["request"]


def test_a_class_without_a_price_is_a_line_that_says_so():
    searches = rate(Usage(web_searches=2), FLAT)[0]
    assert (searches.quantity, searches.cost_pusd, searches.cost_source) == (2, 0, "unpriced")


def test_a_price_of_zero_is_a_known_price():
    free = Price(version="v1", tiers=(Tier(above=0, unit_pusd={"input_tokens": 0}),))
    (line,) = rate(Usage(input_tokens=5), free)
    assert (line.cost_pusd, line.cost_source) == (0, "computed")


def test_the_source_of_the_usage_is_kept_in_every_line():
    lines = rate(Usage(input_tokens=1, output_tokens=1), FLAT, source="estimated")
    assert {line.cost_source for line in lines} == {"estimated"}


@pytest.mark.parametrize(("fresh", "cached", "cost_pusd"), [(60, 40, 60 * 3 + 40), (61, 40, 61 * 6 + 40 * 2)])
def test_one_token_more_than_the_step_reprices_the_whole_request_and_cached_tokens_count(fresh, cached, cost_pusd):
    assert cost(rate(Usage(input_tokens=fresh, cache_read_tokens=cached), STEPPED)) == cost_pusd


def test_usage_of_an_unknown_model_keeps_its_quantities_to_be_rated_later():
    assert unpriced(Usage(input_tokens=10, reasoning_tokens=2), version="v1") == (
        CostLine(
            meter="input_tokens",
            quantity=10,
            unit_price_pusd=0,
            cost_pusd=0,
            price_version="v1",
            cost_source="unpriced",
        ),
        CostLine(
            meter="reasoning_tokens",
            quantity=2,
            unit_price_pusd=0,
            cost_pusd=0,
            price_version="v1",
            cost_source="unpriced",
        ),
    )


def test_an_unknown_outcome_is_one_estimated_line_that_nobody_is_billed_for():
    assert estimate_line(500, "v1") == CostLine(
        meter="estimate",
        quantity=1,
        unit_price_pusd=500,
        cost_pusd=500,
        bill_pusd=0,
        price_version="v1",
        cost_source="estimated",
    )


def test_every_class_of_usage_is_input_output_or_by_the_call():
    assert set(Usage.__struct_fields__) == {*INPUT_METERS, *OUTPUT_METERS, *CALL_METERS, *MEASURES} - {"request"}
    assert set(METER_OF_WORD.values()) == {*INPUT_METERS, *OUTPUT_METERS, *CALL_METERS, *MEASURES}


@pytest.mark.parametrize(
    ("units", "meters"),
    [
        ({"images": 40}, ["images"]),
        ({"input_tokens": 3, "output_image_tokens": 7}, ["input_tokens", "output_image_tokens"]),
        ({"input_tokens": 3, "output_image_tokens": 7, "images": 1}, ["input_tokens", "output_image_tokens", "images"]),
        ({}, ["input_tokens", "output_image_tokens", "images"]),
    ],
)
def test_a_model_is_charged_by_tokens_or_by_the_image(units, meters):
    price = Price(version="v1", tiers=(Tier(above=0, unit_pusd=units),))
    lines = rate(Usage(input_tokens=10, output_image_tokens=100, images=1), price)
    assert [line.meter for line in lines] == meters
    assert {line.cost_source for line in lines} == {"computed" if units else "unpriced"}


def test_sound_is_priced_by_the_minute_and_counted_by_the_millisecond():
    assert unit_pusd("audio_ms", Decimal("0.006")) * 60_000 == 6 * 10**9
    assert unit_pusd("characters", Decimal(15)) == 15_000_000
    assert unit_pusd("images", Decimal("0.04")) == 4 * 10**10


# Properties ----------------------------------------------------------------------------------------------------------

pusd = st.integers(0, 10**8)


@st.composite
def prices(draw):
    meters = st.sampled_from([*INPUT_METERS, *OUTPUT_METERS, *CALL_METERS, *MEASURES])
    starts = sorted({0, *draw(st.lists(st.integers(1, 300_000), max_size=3))})
    return Price(
        version="v1",
        tiers=tuple(Tier(above=start, unit_pusd=draw(st.dictionaries(meters, pusd))) for start in starts),
    )


@dataclass
class Call:
    """What was used, and limits that it keeps to."""

    usage: Usage
    input_tokens: int
    output_tokens: int
    web_searches: int
    measures: Usage


@st.composite
def calls(draw):
    usage = Usage(**{meter: draw(st.integers(0, 200_000)) for meter in Usage.__struct_fields__})
    measures = Usage(**{meter: getattr(usage, meter) + draw(st.sampled_from([0, 1, 500])) for meter in MEASURES})

    def limit(*meters):
        return sum(getattr(usage, meter) for meter in meters) + draw(st.sampled_from([0, 1, 50_000]))

    return Call(usage, limit(*INPUT_METERS), limit(*OUTPUT_METERS), limit("web_searches"), measures)


@given(prices(), calls())
def test_no_usage_within_the_limits_costs_more_than_the_bound(price, call):
    bound = bound_pusd(
        price,
        input_tokens=call.input_tokens,
        output_tokens=call.output_tokens,
        web_searches=call.web_searches,
        limits=call.measures,
    )
    assert cost(rate(call.usage, price)) <= bound


def test_the_bound_jumps_where_the_first_request_of_the_dearer_tier_can_be():
    assert bound_pusd(STEPPED, input_tokens=100, output_tokens=10) == 100 * 3 + 10 * 7
    assert bound_pusd(STEPPED, input_tokens=101, output_tokens=10) == 101 * 6 + 10 * 9


@given(prices(), st.integers(0, 400_000), st.integers(0, 10**13))
def test_the_affordable_output_fits_and_one_token_more_does_not(price, input_tokens, budget_pusd):
    output_tokens = affordable_output(price, input_tokens=input_tokens, budget_pusd=budget_pusd)

    def bound(output_tokens):
        return bound_pusd(price, input_tokens=input_tokens, output_tokens=output_tokens)

    if bound(0) > budget_pusd:
        assert output_tokens == 0
        return
    assert bound(output_tokens) <= budget_pusd
    assert output_tokens == UNLIMITED_OUTPUT or bound(output_tokens + 1) > budget_pusd


def test_nothing_is_affordable_without_money_for_the_input():
    assert affordable_output(FLAT, input_tokens=10, budget_pusd=40) == 0
    assert affordable_output(FLAT, input_tokens=10, budget_pusd=41) == 0
    assert affordable_output(FLAT, input_tokens=10, budget_pusd=48) == 1


def test_output_that_costs_nothing_is_affordable_without_limit():
    free = Price(version="v1", tiers=(Tier(above=0, unit_pusd={"input_tokens": 1, "output_tokens": 0}),))
    assert affordable_output(free, input_tokens=5, budget_pusd=5) == UNLIMITED_OUTPUT
    assert affordable_output(free, input_tokens=6, budget_pusd=5) == 0


@given(prices(), calls(), st.none() | st.integers(0, 10**14))
def test_the_bill_is_the_smaller_of_cost_and_hold_and_changes_nothing_else(price, call, hold_pusd):
    lines = rate(call.usage, price)
    billed = bill(lines, hold_pusd)
    assert sum(line.bill_pusd for line in billed) == min(cost(lines), cost(lines) if hold_pusd is None else hold_pusd)
    assert all(0 <= line.bill_pusd <= line.cost_pusd for line in billed)
    assert tuple(msgspec.structs.replace(line, bill_pusd=0) for line in billed) == lines


def test_bills_are_filled_in_order_and_the_rest_is_an_overrun():
    lines = rate(Usage(input_tokens=10, output_tokens=2), FLAT)
    assert [line.bill_pusd for line in bill(lines, 40)] == [30, 10, 0]
