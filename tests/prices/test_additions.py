"""What is laid over the catalogue: which words it replaces, when, and for whom."""

from datetime import UTC, datetime

from tollgate.events import Usage
from tollgate.prices.additions import load_additions
from tollgate.prices.book import PriceBook
from tollgate.prices.catalogue import load_catalogue
from tollgate.prices.rate import rate

BOOK = PriceBook.load()
PLAIN = PriceBook(*load_catalogue())
NOW = int(datetime(2026, 11, 10, tzinfo=UTC).timestamp() * 1000)
IN_2025 = int(datetime(2025, 6, 1, tzinfo=UTC).timestamp() * 1000)


def cost_pusd(price, **usage):
    return sum(line.cost_pusd for line in rate(Usage(**usage), price))


def test_every_addition_names_its_source_and_changes_something():
    additions, _ = load_additions()
    for addition in additions:
        assert addition.source.startswith("https://")
        assert addition.usd or addition.variants


def test_the_fee_of_a_search_depends_on_its_size_and_is_the_dearest_where_that_is_not_known():
    fees = [
        BOOK.price("perplexity", "sonar", NOW, context=context).tiers[0].unit_pusd["request"]
        for context in ({"search_context_size": "low"}, {"search_context_size": "medium"}, {})
    ]
    assert fees == [5_000_000_000, 8_000_000_000, 12_000_000_000]


def test_inference_in_the_us_multiplies_what_tokens_cost_and_not_what_searches_do():
    usual = BOOK.price("anthropic", "claude-opus-4-6", NOW)
    in_us = BOOK.price("anthropic", "claude-opus-4-6", NOW, context={"inference_geo": "us"})
    assert 10 * cost_pusd(in_us, input_tokens=1_000, output_tokens=10) == 11 * cost_pusd(
        usual, input_tokens=1_000, output_tokens=10
    )
    assert cost_pusd(in_us, web_searches=1) == cost_pusd(usual, web_searches=1)


def test_a_free_model_has_a_price_which_is_nothing():
    price = BOOK.price("openrouter", "someone/model-of-tomorrow:free", NOW)
    assert cost_pusd(price, input_tokens=10**6, output_tokens=10**6) == 0
    assert all(line.cost_source == "computed" for line in rate(Usage(input_tokens=1), price))


def test_an_addition_counts_from_its_date_on():
    name = "anthropic/claude-3.5-sonnet"
    assert BOOK.price("openrouter", name, IN_2025).tiers == PLAIN.price("openrouter", name, IN_2025).tiers
    assert BOOK.price("openrouter", name, NOW).tiers[0].unit_pusd["output_tokens"] == 30_000_000


def test_what_a_reseller_does_not_list_costs_what_its_maker_charges():
    assert BOOK.price("openrouter", "openai/text-embedding-3-small", NOW).tiers[0].unit_pusd["input_tokens"] == 20_000
    assert BOOK.price("openrouter", "nobody/text-embedding-3-small", NOW) is None
    assert BOOK.price("together", "openai/text-embedding-3-small", NOW) is None


def test_the_version_of_the_book_covers_the_additions():
    assert BOOK.version != PriceBook(*load_catalogue()).version
