"""The engine here and genai-prices, from whose data the catalogue comes, agree to the pico-dollar.

Stated exceptions:
- A price that is finer than a pico-dollar per unit is rounded here: at most half a pico-dollar per unit apart.
- What genai-prices calls free because it knows no price, or prices in units that are not metered here (hours of
  audio, pages, characters), has no price here.
- Tokens of video, citations, and searches of files are priced there and not metered here; cached audio and images
  are metered as cache reads. No usage that can be stated here contains them.
"""

from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from genai_prices import data_snapshot
from genai_prices import types as theirs
from genai_prices.data import providers
from genai_prices.data_units import unit_data
from hypothesis import given, settings
from hypothesis import strategies as st

from tollgate.events import Usage
from tollgate.prices.book import PriceBook
from tollgate.prices.catalogue import load_catalogue
from tollgate.prices.price import INPUT_METERS, OUTPUT_METERS
from tollgate.prices.rate import rate
from tollgate.prices.snapshot import TARGET, WORDS, compile_catalogue, render

BOOK = PriceBook(*load_catalogue())  # what is laid over the catalogue has tests of its own
CATALOGUE, _ = load_catalogue()
MODELS = [(provider, model) for provider in providers for model in provider.models]
SNAPSHOT = data_snapshot.get_snapshot()
TOKENS = [key for key, unit in unit_data.items() if unit["dimensions"]["family"] == "tokens"]
CONTEXTS = [
    None,
    {"processing": "batch"},
    {"service_tier": "default"},
    {"service_tier": "flex"},
    {"service_tier": "priority"},
    {"service_tier": "fast"},
    {"speed": "fast"},
    {"service_tier": "priority", "processing": "batch"},
]
# Before and after every kind of change in the data: years, a day, DeepSeek's hours
TIMES = [
    datetime(2024, 1, 1, tzinfo=UTC),
    datetime(2025, 6, 10, tzinfo=UTC),
    datetime(2026, 11, 10, 0, 15, tzinfo=UTC),
    datetime(2026, 11, 10, 3, 59, tzinfo=UTC),
    datetime(2026, 11, 10, 12, 0, tzinfo=UTC),
]


def their_usage(usage):
    """Their totals include what ours keeps apart; what we cannot state is said to be 0, so that they need not guess."""
    writes = usage.cache_write_tokens + usage.cache_write_5m_tokens + usage.cache_write_1h_tokens
    return theirs.Usage(
        **dict.fromkeys(TOKENS, 0)
        | {
            "input_tokens": sum(getattr(usage, meter) for meter in INPUT_METERS),
            "cache_read_tokens": usage.cache_read_tokens,
            "cache_write_tokens": writes,
            "cache_write_5m_tokens": usage.cache_write_5m_tokens,
            "cache_write_1h_tokens": usage.cache_write_1h_tokens,
            "input_audio_tokens": usage.input_audio_tokens,
            "input_image_tokens": usage.input_image_tokens,
            "output_tokens": sum(getattr(usage, meter) for meter in OUTPUT_METERS),
            "output_reasoning_tokens": usage.reasoning_tokens,
            "output_audio_tokens": usage.output_audio_tokens,
            "output_image_tokens": usage.output_image_tokens,
            "web_searches": usage.web_searches,
        }
    )


def assert_same_cost(provider, name, usage, at, context):
    try:
        calculation = SNAPSHOT.calc(their_usage(usage), name, provider.id, None, at, context)
    except LookupError:
        assert BOOK.price(provider.id, name, _ms(at), context=context) is None
        return
    price = BOOK.price(provider.id, name, _ms(at), context=context)
    stated = {
        key: value for key, value in calculation.model_price.__dict__.items() if key in WORDS and value is not None
    }
    assert (price is None) == (not stated)
    if price is None:
        return
    lines = rate(usage, price)
    apart = abs(calculation.total_price * 10**12 - sum(line.cost_pusd for line in lines))
    assert apart <= (Decimal(sum(line.quantity for line in lines)) / 2 if _is_finer_than_a_pico_dollar(stated) else 0)


def _ms(at):
    return int(at.timestamp() * 1000)


def _is_finer_than_a_pico_dollar(stated):
    amounts = []
    for value in stated.values():
        tiers = [tier.price for tier in value.tiers] if isinstance(value, theirs.TieredPrices) else []
        amounts += [value.base, *tiers] if tiers else [value]
    return any(amount * 10**6 % 1 for amount in amounts)


usages = st.builds(
    Usage,
    **dict.fromkeys(Usage.__struct_fields__, st.sampled_from([0, 0, 1, 999, 33_333, 200_000]) | st.integers(0, 10**6)),
)
moments = st.datetimes(datetime(2023, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))


@settings(max_examples=500)
@given(st.sampled_from(MODELS), usages, moments, st.sampled_from(CONTEXTS))
def test_any_usage_of_any_model_at_any_time_costs_the_same(provider_model, usage, at, context):
    provider, model = provider_model
    assert_same_cost(provider, model.id, usage, at, context)


@pytest.mark.parametrize("at", TIMES, ids=lambda at: f"{at:%Y-%m-%dT%H:%M}")
def test_every_model_costs_the_same(at):
    usage = Usage(
        **{meter: 10_007 * (place + 1) for place, meter in enumerate((*INPUT_METERS, *OUTPUT_METERS))},
        web_searches=3,
    )
    for provider, model in MODELS:
        assert_same_cost(provider, model.id, usage, at, None)


@pytest.mark.parametrize("context", CONTEXTS[1:], ids=str)
def test_every_variant_costs_the_same(context):
    usage = Usage(input_tokens=1_000, cache_read_tokens=300_000, cache_write_1h_tokens=50, output_tokens=70)
    for provider, model in MODELS:
        if model.price_variants:
            assert_same_cost(provider, model.id, usage, TIMES[-1], context)


def test_resold_models_and_other_names_of_providers_are_found_alike():
    refs = [model.id for provider, model in MODELS if provider.id in ("openai", "anthropic")]
    refs += ["gpt-5.2-20251211", "GPT-4o", "claude-sonnet-4-5-20250929", "gpt-4o-2024-08-06"]
    usage = Usage(input_tokens=1_000, output_tokens=100)
    for alias in ("azure", "google", "my-anthropic", " OpenAI ", "vertex", "bedrock", "xai", "mistralai"):
        provider = theirs.Provider(id=alias, name=alias, api_pattern="")
        for ref in refs:
            assert_same_cost(provider, ref, usage, TIMES[-1], {"service_tier": "priority"})


def test_most_models_have_a_price():
    priced = [1 for provider, model in MODELS if BOOK.price(provider.id, model.id, _ms(TIMES[-1]))]
    assert len(priced) > 2000


def test_the_snapshot_is_what_the_tool_makes_of_the_installed_version():
    made = compile_catalogue(providers, source=CATALOGUE.source, date=CATALOGUE.date)
    assert CATALOGUE.date == date(2026, 11, 10)
    assert render(made) == TARGET.read_bytes()
