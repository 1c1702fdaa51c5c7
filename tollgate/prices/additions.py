"""What the public catalogue lacks or has wrong, laid over it word by word; each addition names its source.

The data is `data/additions.json`. A word that an addition states takes the place of the catalogue's, from its date on
and for its context; the others stay. An addition may also price a model that the catalogue does not know.
"""

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib import resources

import msgspec

from tollgate.prices.catalogue import ALWAYS, When
from tollgate.prices.price import CALL_METERS, METER_OF_WORD, Amount


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For requests of this `context`: prices in place of others, and a `factor` on all prices per token."""

    context: dict[str, str]
    usd: dict[str, Amount] = {}
    factor: Decimal = Decimal(1)


class Addition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices in USD, by word, for the models of a provider of the catalogue; models may have `*` and `?`."""

    provider: str
    models: tuple[str, ...]
    source: str
    usd: dict[str, Amount] = {}
    when: When = ALWAYS
    variants: tuple[Change, ...] = ()

    def concerns(self, provider: str, model: str, at_ms: int) -> bool:
        return (
            provider == self.provider
            and any(fnmatchcase(model, pattern) for pattern in self.models)
            and self.when.holds(at_ms)
        )

    def over(self, usd: Mapping[str, Amount], context: Mapping[str, str]) -> dict[str, Amount]:
        """The prices with this addition laid over them."""
        prices = {**usd, **self.usd}
        for change in self.variants:
            if change.context.items() <= context.items():
                multiplied = {word: _times(word, amount, change.factor) for word, amount in prices.items()}
                prices = {**multiplied, **change.usd}
        return prices


def load_additions() -> tuple[Sequence[Addition], str]:
    """The additions in this package, and the SHA-256 of their bytes."""
    content = (resources.files("tollgate.prices") / "data" / "additions.json").read_bytes()
    return msgspec.json.decode(content, type=tuple[Addition, ...]), hashlib.sha256(content).hexdigest()


def _times(word: str, amount: Amount, factor: Decimal) -> Amount:
    if factor == 1 or METER_OF_WORD[word] in CALL_METERS:
        return amount
    if isinstance(amount, dict):
        return {step: usd * factor for step, usd in amount.items()}
    return amount * factor
