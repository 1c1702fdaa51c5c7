"""Prices as their providers published them, worked out by hand, and which price counts."""

from datetime import UTC, datetime

import pytest

from tollgate.config import BUILT_IN
from tollgate.errors import ConfigError
from tollgate.events import Usage
from tollgate.money import pusd
from tollgate.prices.book import MAX_NAME_LENGTH, PriceBook
from tollgate.prices.rate import rate

BOOK = PriceBook.load()


def at(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


NOW = at("2026-11-10")


@pytest.fixture
def book(tmp_path):
    def load(text):
        path = tmp_path / "pricing.yaml"
        path.write_text(text)
        return PriceBook.load(path)

    return load


def cost_pusd(price, **usage):
    return sum(line.cost_pusd for line in rate(Usage(**usage), price))


# Prices that can be looked up ----------------------------------------------------------------------------------------


def test_gpt_4o_has_a_price_for_cached_input():
    # USD per million: input 2.50, cached 1.25, output 10.00
    price = BOOK.price("openai", "gpt-4o", NOW)
    cost = cost_pusd(price, input_tokens=1_000, cache_read_tokens=2_000, output_tokens=300, reasoning_tokens=50)
    assert cost == pusd("0.0025") + pusd("0.0025") + pusd("0.003") + pusd("0.0005")


def test_claude_prices_cache_writes_by_their_lifetime():
    # USD per million: input 3, read 0.30, write 3.75 (5 minutes) and 6.00 (1 hour), output 15; 10 per 1,000 searches
    price = BOOK.price("anthropic", "claude-sonnet-4-5-20250929", NOW)
    cost = cost_pusd(
        price,
        input_tokens=100,
        cache_read_tokens=10_000,
        cache_write_5m_tokens=1_000,
        cache_write_1h_tokens=2_000,
        cache_write_tokens=4,
        output_tokens=200,
        web_searches=3,
    )
    by_hand = ["0.0003", "0.003", "0.00375", "0.012", "0.000015", "0.003", "0.03"]
    assert cost == sum(pusd(usd) for usd in by_hand)


@pytest.mark.parametrize(
    ("input_tokens", "usd"), [(200_000, "0.25"), (200_001, "0.5000025")]
)  # 1.25 up to 200,000 tokens, 2.50 beyond
def test_gemini_is_dearer_as_a_whole_beyond_200_000_tokens(input_tokens, usd):
    price = BOOK.price("google", "gemini-2.5-pro", NOW)
    assert cost_pusd(price, input_tokens=input_tokens) == pusd(usd)


@pytest.mark.parametrize(
    ("time", "usd"),
    [("00:29:59", "0.135"), ("00:30:00", "0.27"), ("16:29:59", "0.27"), ("16:30:00", "0.135")],
)
def test_deepseek_was_cheaper_at_night(time, usd):
    price = BOOK.price("deepseek", "deepseek-chat", at(f"2025-03-01T{time}"))
    assert cost_pusd(price, input_tokens=1_000_000) == pusd(usd)


@pytest.mark.parametrize(("time", "usd"), [("2025-06-09T23:59:59.999", "50"), ("2025-06-10T00:00:00", "10")])
def test_o3_before_and_after_its_price_was_cut(time, usd):
    price = BOOK.price("openai", "o3", at(time))
    assert cost_pusd(price, input_tokens=1_000_000, output_tokens=1_000_000) == pusd(usd)


def test_the_service_tier_chooses_a_variant_and_an_unknown_one_is_the_standard():
    standard, priority, batch, unknown = (
        BOOK.price("openai", "gpt-4o", NOW, context=context)
        for context in (None, {"service_tier": "priority"}, {"processing": "batch"}, {"service_tier": "scale"})
    )
    million = {"input_tokens": 1_000_000}
    costs = [cost_pusd(price, **million) for price in (standard, priority, batch, unknown)]
    assert costs == [pusd("2.5"), pusd("4.25"), pusd("1.25"), pusd("2.5")]


def test_the_sandbox_is_priced():
    for model in ("sandbox", "sandbox-lat50-chunks20", "mock-gpt"):
        price = BOOK.price("sandbox", model, NOW)
        assert (price.context_window, price.max_output_tokens) == (128_000, 4_096)
        million = 1_000_000
        for meter, usd in {
            "input_tokens": "1.00",
            "cache_read_tokens": "0.10",
            "cache_write_5m_tokens": "1.25",
            "cache_write_1h_tokens": "1.25",
            "output_tokens": "4.00",
            "reasoning_tokens": "4.00",
        }.items():
            assert cost_pusd(price, **{meter: million}) == pusd(usd)


# Unknown is not zero -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "no-such-model"),
        ("no-such-provider", "gpt-4o"),
        ("sandbox", "gpt-4o"),
        ("openai", "x" * (MAX_NAME_LENGTH + 1)),
        ("groq", "whisper-large-v3"),  # by the hour of audio, which is not metered
        ("github-copilot", "gpt-4o"),  # listed without a price
    ],
)
def test_a_model_without_a_known_price_has_none(provider, model):
    assert BOOK.price(provider, model, NOW) is None


# Whose price counts --------------------------------------------------------------------------------------------------


def test_the_operators_price_replaces_the_catalogues_whole_but_keeps_its_limits(book):
    price = book("models: {openai/gpt-4o: {input: 2, output: 8}}").price("openai", "gpt-4o", NOW)
    assert price.tiers[0].unit_pusd["cache_read_tokens"] == pusd("0.000002")  # as input: no price of its own
    assert "web_searches" not in price.tiers[0].unit_pusd
    assert price.context_window == 128_000


def test_an_operators_price_has_fees_by_the_call_and_limits(book):
    written = "{input: 1, output: 2, request: 0.01, web_search: 0.05, context_window: 1000, max_output_tokens: 10}"
    price = book(f"models: {{local/m: {written}}}").price("local", "m", NOW)
    assert cost_pusd(price, web_searches=2) == pusd("0.11")
    assert (price.context_window, price.max_output_tokens) == (1_000, 10)


def test_the_most_specific_key_counts_and_case_does_not(book):
    prices = book(
        """
        models:
          "*/*": {input: 1, output: 0}
          "azure-east/gpt-*": {input: 2, output: 0}
          "Azure-East/GPT-4o": {input: 3, output: 0}
          "sandbox/mock-gpt": {input: 4, output: 0}
        """
    )

    def input_usd(provider, model):
        return cost_pusd(prices.price(provider, model, NOW), input_tokens=1_000_000) // 10**12

    assert input_usd("azure-east", "gpt-4o") == 3
    assert input_usd("azure-east", "GPT-5") == 2
    assert input_usd("azure-west", "gpt-4o") == 1
    assert input_usd("sandbox", "mock-gpt") == 4


def test_a_dated_entry_counts_from_its_day_on_and_before_it_the_next_key_does(book):
    prices = book(
        """
        models:
          "local/m":
            - {valid_from: 2026-11-01, input: 2, output: 0}
            - {valid_from: 2026-12-01, input: 1, output: 0}
          "local/*": {input: 9, output: 0}
        """
    )

    def input_usd(time):
        return cost_pusd(prices.price("local", "m", at(time)), input_tokens=1_000_000) // 10**12

    assert input_usd("2026-10-31T23:59:59.999") == 9
    assert input_usd("2026-11-01T00:00:00") == 2
    assert input_usd("2026-12-01T00:00:00") == 1


def test_a_provider_under_another_name_can_be_told_which_one_it_is(book):
    prices = book("models: {azure-east/gpt-5: {input: 7, output: 7}}")
    assert prices.price("azure-east", "gpt-4o", NOW) is None
    assert prices.price("azure-east", "gpt-4o", NOW, catalogue="azure") == prices.price("azure", "gpt-4o", NOW)
    own = prices.price("azure-east", "gpt-5", NOW, catalogue="azure")
    assert cost_pusd(own, input_tokens=1_000_000) == pusd(7)


# Versions ------------------------------------------------------------------------------------------------------------


def test_the_version_names_the_day_of_the_catalogue_and_changes_with_any_price(book):
    versions = [
        BOOK.version,
        book("models: {a/m: {input: 1, output: 1}}").version,
        book("models: {a/m: {input: 1, output: 2}}").version,
    ]
    assert len(set(versions)) == 3
    assert all(version.startswith("2026-11-10.") and len(version) == 19 for version in versions)


def test_the_version_stays_when_only_the_text_around_the_prices_changes(book):
    assert book("").version == BOOK.version
    first = book("models: {a/m: {input: 1, output: 2}}").version
    assert book("# ours\nmodels:\n  a/m:\n    output: 2\n    input: 1\n").version == first


def test_every_price_names_its_book():
    assert BOOK.price("openai", "gpt-4o", NOW).version == BOOK.version


def test_a_file_that_cannot_be_read_is_a_configuration_error(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        PriceBook.load(tmp_path / "none.yaml")


@pytest.mark.parametrize("provider", BUILT_IN, ids=lambda provider: provider.name)
def test_the_sandbox_has_a_price_in_every_protocol(provider):
    price = BOOK.price(provider.name, "sandbox", NOW, catalogue=provider.price_provider)
    assert cost_pusd(price, input_tokens=1, output_tokens=1) == 5_000_000
