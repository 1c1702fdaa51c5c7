"""What a provider's usage says beyond counts: what the call cost, and which of its prices was meant. Pure.

Where a cost is stated, and in which unit:

| `cost` | USD; with `is_byok` the router's fee, on top of `upstream_inference_cost` | OpenRouter, tollgate |
| `cost.total_cost` | USD | Perplexity |
| `cost_in_usd_ticks` | 10⁻¹⁰ USD | xAI |
"""

from decimal import Decimal

import orjson

from tollgate.money import pusd
from tollgate.wire import Body

MAX_COST_USD = 1_000_000  # more than that is not the cost of one call
TICKS_PER_USD = 10**10

# What may choose among the prices of a model: the field, of the answer or of its usage → its name in the price book
_CHOOSERS = frozenset({"service_tier", "speed", "inference_geo", "search_context_size"})
_NOTHING_SPECIAL = frozenset({"default", "standard", "auto", "not_available", "global"})


def stated_cost_pusd(block: Body) -> int | None:
    """What the usage block says that the call cost, in pico-dollars, half to even; None when it does not say so."""
    if (ticks := _usd(block.get("cost_in_usd_ticks"))) is not None:
        return _checked(ticks / TICKS_PER_USD)
    cost = block.get("cost")
    if isinstance(cost, dict):
        return _checked(_usd(cost.get("total_cost")))
    usd = _usd(cost)
    if usd is not None and block.get("is_byok") is True:
        details = block.get("cost_details")
        upstream = _usd(details.get("upstream_inference_cost")) if isinstance(details, dict) else None
        usd = None if upstream is None else usd + upstream
    return _checked(usd)


def price_context(*sources: Body) -> dict[str, str]:
    """What the answer says of how it was served, as the price book wants it; what is served ordinarily says nothing.

    `sources` are the answer and its usage block.
    """
    found = {
        name: value
        for source in sources
        for name, value in source.items()
        if name in _CHOOSERS and isinstance(value, str) and value not in _NOTHING_SPECIAL
    }
    if found.get("service_tier") == "batch":
        found["processing"] = found.pop("service_tier")
    return found


def _usd(value: object) -> Decimal | None:
    """The number as it was written: the shortest decimal that reads back as the same float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(orjson.dumps(value).decode()) if value == value and abs(value) != float("inf") else None


def _checked(usd: Decimal | None) -> int | None:
    return None if usd is None or not 0 <= usd <= MAX_COST_USD else pusd(usd)
