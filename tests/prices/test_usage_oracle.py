"""Usage blocks of real answers: the classes read here, priced, cost what genai-prices says that they cost.

The oracle (`usage_oracle.genai-prices.jsonl`) holds, for each block, what genai-prices makes of it for each provider
and API whose extractor can read it. Rows on which it is wrong, or knows other prices than the catalogue, are named.
"""

from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import orjson
import pytest

from tests.conftest import SUMMARY
from tests.wire import recordings
from tollgate.money import PUSD_PER_USD
from tollgate.prices.book import PriceBook
from tollgate.prices.catalogue import load_catalogue
from tollgate.prices.price import CALL_METERS
from tollgate.prices.rate import rate
from tollgate.wire import anthropic, gemini, openai
from tollgate.wire.responses import usage as responses

if not recordings.exists():
    pytest.skip(recordings.MISSING, allow_module_level=True)

BOOK = PriceBook(*load_catalogue())
ORACLE_MS = int(datetime(2026, 8, 20, 12, tzinfo=UTC).timestamp() * 1000)  # when it was made
ROUNDING_PUSD = 1_000  # the oracle has prices finer than a pico-dollar per token
MIN_APIS = 20

_ITERATIONS = "genai-prices counts the top level only, which leaves out passes that are charged (compaction, advisor)"
_CHANGED = "the catalogue here knows another price for that day than the one of August did"
_WRITES = "genai-prices does not read cache writes in Azure's answers"
EXPLAINED = {
    "b260bf4fcf439f5b": _ITERATIONS,
    "35ac1a2c2f1cf081": _ITERATIONS,
    "782e1170989d576c": _ITERATIONS,
    "c8173bbaa1382667": _CHANGED,
    "405a904e8efa5eb8": _CHANGED,
    "ae9fdcef1417ddfd": _CHANGED,
    "97f878428f64585a": _CHANGED,
    "5b10a0f7af4ce75a": _CHANGED,
    "c1883706eea3af6f": _CHANGED,
    "3d2173fd2ce83b46": _CHANGED,
    "b20a3514f21dde4f": _CHANGED,
    "93c450d4a2eebeb2": _WRITES,
    "c9b6477b8888fd34": _WRITES,
}


def chat(body):
    return openai.read_usage(body["usage"])


def response(body):
    return responses.read_usage(body["usage"])


def generate_content(body):
    return gemini.read_usage(body["usageMetadata"])


def messages(body):
    return anthropic.read_usage(body["usage"])


# By provider and API of the oracle: only those that are the provider's own format
READERS = {
    ("anthropic", "default"): messages,
    ("aws", "anthropic"): messages,
    ("azure", "anthropic"): messages,
    ("google", "anthropic"): messages,
    ("cerebras", "chat"): chat,
    ("deepseek", "chat"): chat,
    ("google", "chat"): chat,
    ("google", "default"): generate_content,
    ("groq", "default"): chat,
    ("mistral", "default"): chat,
    ("azure", "chat"): chat,
    ("openai", "chat"): chat,
    ("openai", "embeddings"): chat,
    ("azure", "embeddings"): chat,
    ("openrouter", "chat"): chat,
    ("ovhcloud", "chat"): chat,
    ("zai", "chat"): chat,
    ("zhipuai", "chat"): chat,
    ("huggingface", "chat"): chat,
    ("openai", "responses"): response,
    ("azure", "responses"): response,
}


def cases():
    """(id, provider, API, model, body, cost in USD) for each price of the oracle whose format is read here."""
    for line in (recordings.FOLDER / "usage_oracle.genai-prices.jsonl").read_bytes().splitlines():
        row = orjson.loads(line)
        for one in (one for extracted in row["extracted"] for one in extracted["extractors"]):
            provider, api = one["provider_id"], one["api_flavor"]
            of_a_chat = "completion_tokens" in row["body"].get("usage", {})
            if "input_price" not in one or (api == "embeddings" and of_a_chat):
                continue
            reader = READERS.get((provider.partition("_")[0], api))
            if reader is not None:
                usd = Decimal(one["input_price"]) + Decimal(one["output_price"])
                yield row["id"], provider, api, row["model"], reader(row["body"]), usd


def tokens_cost_pusd(provider, model, usage):
    """Without fees per call and search, which the oracle leaves out."""
    price = BOOK.price(provider, model, ORACLE_MS)
    lines = rate(usage, price) if price is not None else ()
    return sum(line.cost_pusd for line in lines if line.meter not in CALL_METERS)


def test_every_usage_costs_what_the_oracle_says_or_it_is_explained(record_property):
    tried, missed = Counter(), {}
    for id, provider, api, model, usage, usd in cases():
        tried[f"{provider} {api}"] += 1
        if abs(tokens_cost_pusd(provider, model, usage) - usd * PUSD_PER_USD) > ROUNDING_PUSD:
            missed.setdefault(id, set()).add(f"{provider} {api}")
    exact = tried.total() - sum(map(len, missed.values()))
    record_property(SUMMARY, f"usage blocks against genai-prices       {exact}/{tried.total()} equal")
    assert set(missed) == set(EXPLAINED)
    assert len(tried) >= MIN_APIS
