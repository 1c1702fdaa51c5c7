"""The public price catalogue: a dated snapshot that lies in the package, and how a model is found in it.

The file is compiled by `python -m tollgate.prices.snapshot` from genai-prices (MIT, see `data/NOTICE`), whose
semantics are kept: the first model of a provider whose rules match the name is the one; of its prices the *last*
that is in force counts, and the first when none is.

Knows neither pricing.yaml nor the clock.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources

import msgspec

from tollgate.prices.price import Amount

_DAY_MS = 86_400_000
_MINUTE_MS = 60_000
_COMPACT_DATE = re.compile(r"-(20\d{2})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class Match(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Matches a name in lower case if any of these does; `all_of` if every one of one of its groups does."""

    equals: tuple[str, ...] = ()
    starts_with: tuple[str, ...] = ()
    ends_with: tuple[str, ...] = ()
    contains: tuple[str, ...] = ()
    regex: tuple[str, ...] = ()
    all_of: tuple[tuple["Match", ...], ...] = ()

    def __call__(self, name: str) -> bool:
        return (
            name in self.equals
            or name.startswith(self.starts_with)
            or name.endswith(self.ends_with)
            or any(part in name for part in self.contains)
            or any(re.search(pattern, name) for pattern in self.regex)
            or any(all(match(name) for match in group) for group in self.all_of)
        )


class When(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """From which UTC midnight a price is in force, or in which minutes of a UTC day: [first, last), also overnight."""

    valid_from: date | None = None
    daily: tuple[int, int] | None = None

    def holds(self, at_ms: int) -> bool:
        if self.valid_from is not None and at_ms < _midnight_ms(self.valid_from):
            return False
        if self.daily is None:
            return True
        start, end = self.daily
        minute = at_ms % _DAY_MS // _MINUTE_MS
        return start <= minute < end if start <= end else minute >= start or minute < end


ALWAYS = When()


class Terms(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Prices in USD by word, and when they are in force. No words: the price is not known."""

    usd: dict[str, Amount] = {}
    when: When = ALWAYS


class Variant(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Prices in place of the standard ones for requests of this `context`, such as {"service_tier": "flex"}."""

    context: dict[str, str]
    usd: dict[str, Amount]
    when: When = ALWAYS


class Model(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One model, under all the names that it goes by, with its prices from the oldest to the newest."""

    id: str
    match: Match
    prices: tuple[Terms, ...]
    context_window: int | None = None
    variants: tuple[Variant, ...] = ()

    def usd(self, at_ms: int, context: Mapping[str, str]) -> dict[str, Amount]:
        """The prices in force; of several variants for one word, the first counts."""
        standard = next((t for t in reversed(self.prices) if t.when.holds(at_ms)), self.prices[0]).usd
        applicable = [
            variant.usd
            for variant in reversed(self.variants)
            if variant.context.items() <= context.items() and variant.when.holds(at_ms)
        ]
        return {word: amount for usd in (standard, *applicable) for word, amount in usd.items()}


class Provider(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A provider, the other names that it goes by, and whose models it resells at their prices (`fallback`)."""

    id: str
    models: tuple[Model, ...]
    match: Match = Match()
    fallback: tuple[str, ...] = ()


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All known models of all known providers, as published on `date`; `source` says by whom."""

    source: str
    date: date
    providers: tuple[Provider, ...]

    def find(self, provider: str, model: str) -> Model | None:
        """The model that these names mean: one of the provider's own, or one that it resells (without variants).

        A compact date in the name (`gpt-5.2-20251211`) is also tried as the dashed one that providers use.
        """
        found = self._provider(provider.lower().strip())
        if found is None:
            return None
        name = model.lower()
        names = dict.fromkeys((name, _COMPACT_DATE.sub(r"-\1-\2-\3", name)))
        return next((hit for name in names for hit in self._hits(found, name)), None)

    def provider_id(self, name: str) -> str:
        """The catalogue's own name of the provider that is called so; the name itself if there is none."""
        found = self._provider(name.lower().strip())
        return name if found is None else found.id

    def _provider(self, name: str) -> Provider | None:
        exact = (provider for provider in self.providers if provider.id == name)
        alias = (provider for provider in self.providers if provider.match(name))
        return next(exact, None) or next(alias, None)

    def _hits(self, provider: Provider, name: str) -> Iterator[Model]:
        yield from (model for model in provider.models if model.match(name))
        for fallback in provider.fallback:
            resold = (other for other in self.providers if other.id == fallback)
            for model in (model for other in resold for model in other.models if model.match(name)):
                yield msgspec.structs.replace(model, variants=())


@cache  # the package does not change while it runs, and prices are read again with every change of the files
def load_catalogue() -> tuple[Catalogue, str]:
    """The catalogue in this package, and the SHA-256 of its bytes."""
    content = (resources.files("tollgate.prices") / "data" / "genai-prices.json").read_bytes()
    return msgspec.json.decode(content, type=Catalogue), hashlib.sha256(content).hexdigest()


def _midnight_ms(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000
