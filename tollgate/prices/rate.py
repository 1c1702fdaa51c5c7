"""What a call costs, what it can cost at most, and what of it is billed.

    usage × price   → cost lines      `rate`, or `unpriced` when nobody knows the price
    limits × price  → an upper bound  `bound_pusd`, and its inverse `affordable_output`
    cost lines, hold → bills          `bill`

Pure: no clock, no I/O; integers only, so every product and sum is exact.
"""

from collections.abc import Iterable, Sequence

import msgspec

from tollgate.events import CostLine, CostSource, Usage
from tollgate.prices.price import INPUT_METERS, MEASURES, OUTPUT_METERS, Price, Tier, counted

_NOTHING = Usage()
UNLIMITED_OUTPUT = 2**31 - 1
"""What `affordable_output` answers where output costs nothing: more tokens than any model can send."""


def rate(usage: Usage, price: Price, *, source: CostSource = "computed") -> tuple[CostLine, ...]:
    """One line for each class of `usage` that is not zero, and one for the fee per call where there is one.

    The tier is chosen by the total input, caches included, and holds for the whole request.
    A class for which the model has no price is a line of cost 0 marked `unpriced`. Images, characters and sound are
    counted beside tokens: where the model is charged by one of the two, the other is no line. Nothing is billed yet.
    """
    units = price.tier(usage).unit_pusd
    counts = counted(usage)
    charged = {meter in MEASURES for meter, _ in counts if meter in units}
    lines = [
        _line(meter, quantity, units.get(meter), source=source, version=price.version)
        for meter, quantity in counts
        if meter in units or (meter not in MEASURES) not in charged
    ]
    if fee_pusd := units.get("request"):
        lines.append(_line("request", 1, fee_pusd, source=source, version=price.version))
    return tuple(lines)


def unpriced(usage: Usage, *, version: str = "") -> tuple[CostLine, ...]:
    """The lines of a call to a model that the price book `version` does not know: quantities to be rated later."""
    return tuple(_line(meter, quantity, None, source="unpriced", version=version) for meter, quantity in counted(usage))


def estimate_line(bound_pusd: int, version: str) -> CostLine:
    """The line of a call whose outcome is unknown: its cost is at most `bound_pusd`, and nobody is billed for it."""
    return CostLine(
        meter="estimate",
        quantity=1,
        unit_price_pusd=bound_pusd,
        cost_pusd=bound_pusd,
        price_version=version,
        cost_source="estimated",
    )


def stated_line(cost_pusd: int, version: str) -> CostLine:
    """The line of a call whose provider says itself what it cost."""
    return CostLine(
        meter="stated",
        quantity=1,
        unit_price_pusd=cost_pusd,
        cost_pusd=cost_pusd,
        price_version=version,
        cost_source="provider_reported",
    )


def bound_pusd(
    price: Price, *, input_tokens: int, output_tokens: int, web_searches: int = 0, limits: Usage = _NOTHING
) -> int:
    """The most that a call within these limits can cost: for no usage within them does `rate` add up to more.

    Every input token is taken at the dearest input class (a cache write of one hour, audio) and every output token
    at the dearest output class, of the dearest tier that so much input can reach; `limits` are the most of the measures
    beside tokens. It never falls when a limit grows.
    What has no price counts nothing here, as it does in `rate`.
    """
    tiers = price.tiers_within(input_tokens)
    beside_tokens_pusd: int = sum(
        count * _dearest(tiers, (meter,)) for meter in MEASURES if (count := getattr(limits, meter))
    )
    return (
        input_tokens * _dearest(tiers, INPUT_METERS)
        + output_tokens * _dearest(tiers, OUTPUT_METERS)
        + (web_searches * _dearest(tiers, ("web_searches",)) if web_searches else 0)
        + beside_tokens_pusd
        + _dearest(tiers, ("request",))
    )


def affordable_output(price: Price, *, input_tokens: int, budget_pusd: int, web_searches: int = 0) -> int:
    """The largest number of output tokens whose `bound_pusd` is within the budget; 0 when not even the first is.

    `UNLIMITED_OUTPUT` where the input fits and output costs nothing.
    """
    rest_pusd = budget_pusd - bound_pusd(price, input_tokens=input_tokens, output_tokens=0, web_searches=web_searches)
    if rest_pusd < 0:
        return 0
    unit_pusd = _dearest(price.tiers_within(input_tokens), OUTPUT_METERS)
    return rest_pusd // unit_pusd if unit_pusd else UNLIMITED_OUTPUT


def bill(lines: Iterable[CostLine], hold_pusd: int | None) -> tuple[CostLine, ...]:
    """The same lines with their bills set: in order, each is billed in full until the hold is used up.

    The bills add up to the smaller of cost and hold. Cost without bill is an overrun, and stays with the operator.
    None is a request without a hold: everything is billed.
    """
    billed = []
    left_pusd = hold_pusd
    for line in lines:
        bill_pusd = line.cost_pusd if left_pusd is None else min(line.cost_pusd, left_pusd)
        if left_pusd is not None:
            left_pusd -= bill_pusd
        billed.append(msgspec.structs.replace(line, bill_pusd=bill_pusd))
    return tuple(billed)


def _line(meter: str, quantity: int, unit_pusd: int | None, *, source: CostSource, version: str) -> CostLine:
    return CostLine(
        meter=meter,
        quantity=quantity,
        unit_price_pusd=unit_pusd or 0,
        cost_pusd=quantity * (unit_pusd or 0),
        price_version=version,
        cost_source="unpriced" if unit_pusd is None else source,
    )


def _dearest(tiers: Sequence[Tier], meters: Sequence[str]) -> int:
    return max(tier.unit_pusd.get(meter, 0) for tier in tiers for meter in meters)
