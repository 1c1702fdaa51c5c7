"""The price book: what a model of a provider costs at a time, by the operator's prices or else the catalogue's.

The prices of the built-in sandbox provider lie in `data/sandbox.yaml`, in the format of `pricing.yaml`, whose rules
go before them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path

import msgspec

from tollgate.errors import ConfigError, why
from tollgate.prices.additions import Addition, load_additions
from tollgate.prices.catalogue import Catalogue, Model, load_catalogue
from tollgate.prices.overrides import Entry, Rule, read_rules
from tollgate.prices.price import Price, compile_price

CACHED_MODELS = 4096
CACHED_PRICES = 4096
MAX_NAME_LENGTH = 256
"""No model has a longer name; names come from clients and are kept in the caches."""

RESELLERS = frozenset({"openrouter", "vercel"})
"""They pass on what the maker of a model charges, and call it `maker/model`."""

_MINUTE_MS = 60_000


class PriceBook:
    """All prices of one version. It never changes: when a price does, a new book takes its place."""

    def __init__(
        self,
        catalogue: Catalogue,
        digest: str,
        rules: tuple[Rule, ...] = (),
        additions: Sequence[Addition] = (),
    ) -> None:
        """`digest` is that of the catalogue and the additions."""
        content = hashlib.sha256(digest.encode() + msgspec.json.encode(rules))
        self.version = f"{catalogue.date}.{content.hexdigest()[:8]}"
        """The day of the catalogue, and a hash of all prices, the operator's included: `2026-11-10.3f2a9c1d`."""
        self._rules = rules
        self._additions = additions
        self._catalogue = catalogue
        self._model = lru_cache(CACHED_MODELS)(self._find)
        self._price_in_minute = lru_cache(CACHED_PRICES)(self._compile)

    @classmethod
    def load(cls, pricing: Path | None = None) -> "PriceBook":
        """The book of this package with the rules in the file `pricing`. Raises `ConfigError`."""
        rules = () if pricing is None else read_rules(_text(pricing), source=str(pricing))
        sandbox = (resources.files("tollgate.prices") / "data" / "sandbox.yaml").read_text("utf-8")
        catalogue, digest = load_catalogue()
        additions, of_additions = load_additions()
        return cls(
            catalogue,
            digest + of_additions,
            rules=(*rules, *read_rules(sandbox, source="sandbox.yaml")),
            additions=additions,
        )

    def price(
        self,
        provider: str,
        model: str,
        at_ms: int,
        *,
        catalogue: str | None = None,
        context: Mapping[str, str] | None = None,
    ) -> Price | None:
        """What the model costs at that time; None when nobody knows, which is never the same as nothing.

        `provider` is the operator's name for it, by which `pricing.yaml` goes; `catalogue` is the name under which
        the catalogue has it, where that is another (`azure-east` may be `azure`). `context` chooses among the
        catalogue's variants, as in {"service_tier": "priority"} or {"processing": "batch"}; one that the catalogue
        does not know is the standard price, and an operator's price is the same in all.
        Prices change at whole minutes only, so that a price just used is one look into a dict.
        """
        if len(model) > MAX_NAME_LENGTH:
            return None
        chosen = frozenset(context.items()) if context else frozenset()
        return self._price_in_minute(provider, model, catalogue or provider, chosen, at_ms // _MINUTE_MS)

    def _compile(
        self, provider: str, model: str, catalogue: str, context: frozenset[tuple[str, str]], minute: int
    ) -> Price | None:
        at_ms = minute * _MINUTE_MS
        known = self._model(catalogue, model)
        window = known.context_window if known else None
        entry = self._entry(f"{provider}/{model}".lower(), at_ms)
        if entry is not None:
            return compile_price(
                entry.usd,
                version=self.version,
                context_window=entry.context_window or window,
                max_output_tokens=entry.max_output_tokens,
                operators_own=True,
            )
        usd = known.usd(at_ms, dict(context)) if known else {}
        provider_id, name = self._catalogue.provider_id(catalogue), model.lower()
        for addition in self._additions:
            if addition.concerns(provider_id, name, at_ms):
                usd = addition.over(usd, dict(context))
        return compile_price(usd, version=self.version, context_window=window)

    def _find(self, catalogue: str, model: str) -> Model | None:
        """The catalogue's model; of a reseller that charges what its suppliers charge, else the supplier's."""
        found = self._catalogue.find(catalogue, model)
        supplier, slash, bare = model.partition("/")
        if found is None and slash and self._catalogue.provider_id(catalogue) in RESELLERS:
            return self._catalogue.find(supplier, bare)
        return found

    def _entry(self, name: str, at_ms: int) -> Entry | None:
        entries = (rule.entry(name, at_ms) for rule in self._rules)
        return next((entry for entry in entries if entry is not None), None)


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {why(error)}") from error
