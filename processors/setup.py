"""What the operator has set, as the processors use it: configuration, prices, and the ways to the providers."""

from collections.abc import Mapping

import msgspec

from tollgate.config import Config
from tollgate.prices.book import PriceBook
from tollgate.processors.admit import Policy
from tollgate.processors.upstream import Transport


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """What is set as of one moment. It never changes: another one takes its place.

    A request keeps the one with which it was admitted, whatever is set until its end.
    """

    config: Config
    book: PriceBook
    transports: Mapping[tuple[str, str], Transport]
    policy: Policy
    fallback_on: frozenset[str]


def setup_of(config: Config, book: PriceBook, transports: Mapping[tuple[str, str], Transport]) -> Setup:
    """The whole of it, with what follows from the configuration worked out once."""
    limits = config.limits
    return Setup(
        config=config,
        book=book,
        transports=transports,
        policy=Policy(
            default_max_tokens=limits.default_max_tokens,
            reject_missing_max_tokens=limits.on_missing_max_tokens == "reject",
            unpriced_hold_pusd=limits.unpriced_hold_pusd if limits.unpriced == "hold" else None,
            per_user_rpm=config.rate_limiting.per_user_rpm,
        ),
        fallback_on=frozenset(config.routing.fallback_on),
    )
