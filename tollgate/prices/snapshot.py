"""Compiles the price catalogue of this package from the genai-prices that is installed: a tool for developers.

    python -m tollgate.prices.snapshot --date 2026-11-10

`--date` is the day on which that version was published. The same version and date always give the same bytes, one
model per line, so that a new snapshot can be read as a diff. Nothing at run time imports this module or genai-prices.
"""

import argparse
import datetime
from collections.abc import Iterable, Mapping
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
from genai_prices import types as theirs
from genai_prices.data import providers

from tollgate.prices.catalogue import ALWAYS, Catalogue, Match, Model, Provider, Terms, Variant, When
from tollgate.prices.price import Amount

TARGET = Path(__file__).parent / "data" / "genai-prices.json"

# Their price keys → our words and the number of units that their price is for, over that of ours: a million tokens,
# or one call. What else they price (hours, pages, characters, video …) is not metered here and is left out.
WORDS = {
    "input_mtok": ("input", 1),
    "cache_read_mtok": ("cache_read", 1),
    "cache_write_mtok": ("cache_write", 1),
    "cache_write_5m_mtok": ("cache_write_5m", 1),
    "cache_write_1h_mtok": ("cache_write_1h", 1),
    "input_audio_mtok": ("input_audio", 1),
    "input_image_mtok": ("input_image", 1),
    "output_mtok": ("output", 1),
    "output_reasoning_mtok": ("reasoning", 1),
    "output_audio_mtok": ("output_audio", 1),
    "output_image_mtok": ("output_image", 1),
    "web_searches_kcount": ("web_search", 1000),
    "requests_kcount": ("request", 1000),
}
_CLAUSES = {
    theirs.ClauseEquals: "equals",
    theirs.ClauseStartsWith: "starts_with",
    theirs.ClauseEndsWith: "ends_with",
    theirs.ClauseContains: "contains",
}


def compile_catalogue(theirs_all: Iterable[theirs.Provider], *, source: str, date: datetime.date) -> Catalogue:
    """Their catalogue in our shape. Raises `ValueError` for what our shape cannot say."""
    return Catalogue(source=source, date=date, providers=tuple(_provider(provider) for provider in theirs_all))


def render(catalogue: Catalogue) -> bytes:
    """JSON with one model per line."""
    encode = msgspec.json.Encoder(decimal_format="number").encode
    providers_lines = []
    for provider in catalogue.providers:
        head = encode(msgspec.structs.replace(provider, models=()))
        models = b",\n".join(encode(model) for model in provider.models)
        providers_lines.append(head.replace(b'"models":[]', b'"models":[\n' + models + b"\n]"))
    head = encode(msgspec.structs.replace(catalogue, providers=()))
    body = b",\n".join(providers_lines)
    return head.replace(b'"providers":[]', b'"providers":[\n' + body + b"\n]") + b"\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile the price catalogue from the installed genai-prices.")
    parser.add_argument("--date", required=True, type=datetime.date.fromisoformat, help="when it was published")
    date = parser.parse_args().date
    version = metadata.version("genai-prices")
    source = f"genai-prices {version}, MIT licence, Copyright (c) Pydantic Services Inc. 2025 to present"
    catalogue = compile_catalogue(providers, source=source, date=date)
    TARGET.write_bytes(render(catalogue))
    models = sum(len(provider.models) for provider in catalogue.providers)
    print(f"{TARGET}: {len(catalogue.providers)} providers, {models} models, {TARGET.stat().st_size} bytes")


def _provider(provider: theirs.Provider) -> Provider:
    return Provider(
        id=provider.id,
        match=_match(provider.provider_match) if provider.provider_match else Match(),
        fallback=tuple(provider.fallback_model_providers or ()),
        models=tuple(_model(model) for model in provider.models),
    )


def _model(model: theirs.ModelInfo) -> Model:
    prices = model.prices if isinstance(model.prices, list) else [theirs.ConditionalPrice(prices=model.prices)]
    variants = [
        Variant(context=variant.when, usd=_usd(variant.prices), when=_when(variant.constraint))
        for variant in model.price_variants or ()
    ]
    return Model(
        id=model.id,
        match=_match(model.match),
        context_window=model.context_window,
        prices=tuple(Terms(usd=_usd(each.prices), when=_when(each.constraint)) for each in prices),
        variants=tuple(variant for variant in variants if variant.usd),
    )


def _match(clause: Any) -> Match:
    """All alternatives of a tree of clauses, gathered by kind."""
    found: dict[str, list[Any]] = {}
    pending = [clause]
    while pending:
        clause = pending.pop(0)
        if isinstance(clause, theirs.ClauseOr):
            pending.extend(clause.or_)
        elif isinstance(clause, theirs.ClauseAnd):
            found.setdefault("all_of", []).append(tuple(_match(each) for each in clause.and_))
        elif isinstance(clause, theirs.ClauseRegex):
            found.setdefault("regex", []).append(clause.regex)
        else:
            kind = _CLAUSES[type(clause)]
            found.setdefault(kind, []).append(getattr(clause, kind).lower())
    return msgspec.convert(found, Match)


def _when(constraint: theirs.StartDateConstraint | theirs.TimeOfDateConstraint | None) -> When:
    if constraint is None:
        return ALWAYS
    if isinstance(constraint, theirs.StartDateConstraint):
        return When(valid_from=constraint.start_date)
    return When(daily=(_minute(constraint.start_time), _minute(constraint.end_time)))


def _minute(time: datetime.time) -> int:
    if time.utcoffset() or time.second or time.microsecond:
        raise ValueError(f"prices change at whole minutes of UTC, not at {time}")
    return time.hour * 60 + time.minute


def _usd(prices: theirs.ModelPrice) -> dict[str, Amount]:
    stated: Mapping[str, Decimal | theirs.TieredPrices | None] = prices.__dict__
    return {word: _amount(stated[key], units) for key, (word, units) in WORDS.items() if stated.get(key) is not None}


def _amount(price: Decimal | theirs.TieredPrices | None, units: int) -> Amount:
    if isinstance(price, theirs.TieredPrices):
        return {0: price.base / units, **{tier.start: tier.price / units for tier in price.tiers}}
    assert price is not None
    return price / units


if __name__ == "__main__":
    main()
