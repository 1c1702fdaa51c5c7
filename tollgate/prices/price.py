"""What one unit of everything that a model can be charged for costs: written in USD, compiled to whole pico-dollars.

Prices are written as providers publish them: USD per million tokens or characters, per call, per image, or per minute
of sound. A million tokens at 1 USD are
1,000,000 pico-dollars each, so a published price of up to six decimals is exact; a finer one is rounded half to even,
once, here. Everything after this module is a product of integers.

Pure: no clock, no I/O.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TypeAlias

import msgspec

from tollgate import money
from tollgate.events import Usage

Amount: TypeAlias = Decimal | dict[int, Decimal]
"""USD, or by length: {0: base, 200000: dearer} is dearer for the *whole* request once its total input, caches
included, is more than 200,000 tokens."""

INPUT_METERS = (
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_write_tokens",
    "input_audio_tokens",
    "input_image_tokens",
)
OUTPUT_METERS = ("output_tokens", "reasoning_tokens", "output_audio_tokens", "output_image_tokens")
CALL_METERS = ("web_searches", "request", "images")

# Other measures of what tokens may measure too: a model is charged by one or the other
MEASURES = ("images", "characters", "audio_ms")
_MS_PER_MINUTE = 60_000

# What each price is called in pricing.yaml and in the catalogue → the meter that it is for
METER_OF_WORD = {
    "input": "input_tokens",
    "cache_read": "cache_read_tokens",
    "cache_write": "cache_write_tokens",
    "cache_write_5m": "cache_write_5m_tokens",
    "cache_write_1h": "cache_write_1h_tokens",
    "input_audio": "input_audio_tokens",
    "input_image": "input_image_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
    "output_audio": "output_audio_tokens",
    "output_image": "output_image_tokens",
    "web_search": "web_searches",
    "request": "request",
    "image": "images",
    "characters": "characters",
    "audio_minute": "audio_ms",
}

# A meter without a price of its own costs what this one costs; those in front are settled first
PRICED_AS = {
    "cache_read_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "cache_write_5m_tokens": "cache_write_tokens",
    "cache_write_1h_tokens": "cache_write_tokens",
    "input_audio_tokens": "input_tokens",
    "input_image_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
    "output_audio_tokens": "output_tokens",
    "output_image_tokens": "output_tokens",
}


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """The prices of a request whose total input is more than `above` tokens; `unit_pusd` is by meter.

    A meter that is missing here has no known price, which is not the same as a price of 0.
    """

    above: int
    unit_pusd: dict[str, int]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """All prices of one model at one time, and the limits of the model where they are known.

    `tiers` has at least one, in rising order of `above`, the first above 0.
    `version` is that of the price book, and goes into every cost line. `operators_own` says that the operator has set
    this price, so that no other counts.
    """

    version: str
    tiers: tuple[Tier, ...]
    context_window: int | None = None
    max_output_tokens: int | None = None
    operators_own: bool = False

    def tier(self, usage: Usage) -> Tier:
        """The tier that prices the whole of a request, by its input tokens of all classes."""
        if len(self.tiers) == 1:
            return self.tiers[0]
        input_tokens = sum(getattr(usage, meter) for meter in INPUT_METERS)
        for tier in reversed(self.tiers):
            if input_tokens > tier.above:
                return tier
        return self.tiers[0]

    def tiers_within(self, input_tokens: int) -> tuple[Tier, ...]:
        """Every tier that a request of at most so many input tokens can fall into."""
        return tuple(tier for tier in self.tiers if tier.above < input_tokens) or self.tiers[:1]

    @property
    def is_free(self) -> bool:
        """Does nothing of it cost anything?"""
        return not any(unit for tier in self.tiers for unit in tier.unit_pusd.values())

    def charges(self, meters: Iterable[str]) -> bool:
        """Is any of these charged for?"""
        return any(tier.unit_pusd.get(meter) for tier in self.tiers for meter in meters)

    def covers(self, usage: Usage) -> bool:
        """Has each class of the usage that is not zero a price?"""
        return all(meter in self.tiers[0].unit_pusd for meter, count in counted(usage))


def compile_price(
    usd: Mapping[str, Amount],
    *,
    version: str,
    context_window: int | None = None,
    max_output_tokens: int | None = None,
    operators_own: bool = False,
) -> Price | None:
    """The price that the words in `usd` (keys of `METER_OF_WORD`) state; None when they state nothing."""
    if not usd:
        return None
    starts = {0}.union(*(amount for amount in usd.values() if isinstance(amount, dict)))
    return Price(
        version=version,
        tiers=tuple(
            Tier(above=start, unit_pusd=_units({word: _at(amount, start) for word, amount in usd.items()}))
            for start in sorted(starts)
        ),
        context_window=context_window,
        max_output_tokens=max_output_tokens,
        operators_own=operators_own,
    )


def counted(usage: Usage) -> list[tuple[str, int]]:
    """Meter and quantity of each class that is not zero."""
    counts: tuple[int, ...] = msgspec.structs.astuple(usage)
    return [(meter, count) for meter, count in zip(usage.__struct_fields__, counts, strict=True) if count]


def unit_pusd(meter: str, usd: Decimal) -> int:
    """Pico-dollars per token or character, per call or image, or per millisecond of a published price."""
    if meter in CALL_METERS:
        return money.pusd(usd)
    return money.pusd(usd / _MS_PER_MINUTE if meter == "audio_ms" else usd.scaleb(-6))


def _at(amount: Amount, start: int) -> Decimal:
    if isinstance(amount, Decimal):
        return amount
    return amount[max(step for step in amount if step <= start)]


def _units(usd: Mapping[str, Decimal]) -> dict[str, int]:
    units = {METER_OF_WORD[word]: unit_pusd(METER_OF_WORD[word], amount) for word, amount in usd.items()}
    for meter, fallback in PRICED_AS.items():
        if meter not in units and fallback in units:
            units[meter] = units[fallback]
    return units
