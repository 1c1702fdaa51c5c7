"""What a usage block states beyond counts: the cost of the call, and which of the model's prices was meant."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.wire import Meter, Quirks, openai
from tollgate.wire.stated import MAX_COST_USD, price_context, stated_cost_pusd

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("block", "pusd"),
    [
        ({"cost": 5.37e-06, "is_byok": False}, 5_370_000),
        ({"cost": 0}, 0),
        ({"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}}, 2_100_000_000),
        ({"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": None}}, None),
        ({"cost": {"total_cost": 0.00515, "request_cost": 0.005}}, 5_150_000_000),
        ({"cost_in_usd_ticks": 1_176_500}, 117_650_000),
        ({"cost": 0.1, "cost_in_usd_ticks": 1}, 100),
        ({"cost": "0.1"}, None),
        ({"cost": True}, None),
        ({"cost": -0.01}, None),
        ({"cost": math.nan}, None),
        ({"cost": math.inf}, None),
        ({"cost": MAX_COST_USD * 2}, None),
        ({}, None),
    ],
)
def test_a_stated_cost_is_read_to_the_pico_dollar(block, pusd):
    assert stated_cost_pusd(block) == pusd


@given(st.dictionaries(st.sampled_from(["cost", "cost_in_usd_ticks", "is_byok", "cost_details"]), JSON))
def test_whatever_it_holds_a_block_states_an_amount_or_nothing(block):
    stated = stated_cost_pusd(block)
    assert stated is None or 0 <= stated <= MAX_COST_USD * 10**12


def test_only_a_provider_that_is_known_to_state_costs_is_believed():
    answer = {"choices": [], "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 1, "cost": 0.5}}
    believed, not_believed = Meter(), Meter()
    openai.read_answer(answer, believed, Quirks(states_cost=True))
    openai.read_answer(answer, not_believed, Quirks())
    assert (believed.stated_cost_pusd, not_believed.stated_cost_pusd) == (500_000_000_000, None)


@pytest.mark.parametrize(
    ("sources", "context"),
    [
        (({"service_tier": "priority"}, {}), {"service_tier": "priority"}),
        (({"service_tier": "default"}, {"service_tier": None}), {}),
        (({}, {"service_tier": "batch", "inference_geo": "us"}), {"processing": "batch", "inference_geo": "us"}),
        (({}, {"service_tier": "standard", "inference_geo": "not_available"}), {}),
        (({}, {"search_context_size": "low"}), {"search_context_size": "low"}),
        (({"service_tier": 7},), {}),
    ],
)
def test_what_chose_the_price_is_said_only_where_it_is_not_the_ordinary_one(sources, context):
    assert price_context(*sources) == context
