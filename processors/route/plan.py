"""Where a request can be sent, in order. A plan is the whole order of attempts, so fallback is no second mechanism.

Pure: prices, catalogue and chance (`draw`) come in; nothing is called.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from tollgate.config import Account, Config, Provider
from tollgate.errors import Refusal
from tollgate.events import Dialect
from tollgate.prices.book import PriceBook
from tollgate.prices.price import Price
from tollgate.wire import Body
from tollgate.wire.endpoints import COUNTER, Endpoint
from tollgate.wire.exchange import least_output_tokens

MAX_ATTEMPTS = 10
FIRST_BACKOFF_MS = 250
MAX_BACKOFF_MS = 8_000

_Item = TypeVar("_Item")


# The gateway itself, as the books name it where it has counted tokens
_COUNTER = Provider(
    name=COUNTER,
    protocol="anthropic",
    base_url="",
    accounts=(Account(name="main"),),
    models=(),
    priority=0,
    timeout_seconds=1,
    connect_timeout_seconds=1,
    max_retries=0,
    price_provider=COUNTER,
)


class Option(msgspec.Struct, frozen=True):
    """One attempt that could be made; `price` is None where the model is unpriced.

    `least_output_tokens` is the lowest cap on output that the protocol takes, `most_output_tokens` what the model can
    give where none can be sent, per choice; None where its price knows at best.
    """

    provider: Provider
    account: Account
    model: str
    price: Price | None
    protocol: Dialect  # in which it is asked
    at_home: bool  # that is the client's dialect, so that the request is passed on
    backoff_ms: int = 0
    least_output_tokens: int = 1
    most_output_tokens: int | None = None


class Route(NamedTuple):
    """The attempts in order, never empty, and why in this order."""

    options: tuple[Option, ...]
    reason: str


def plan(
    model: str, body: Body, *, endpoint: Endpoint, config: Config, book: PriceBook, at_ms: int, draw: float
) -> Route | Refusal:
    """The route for a model as the client named it: `model`, or `provider/model` to insist on one provider.

    Providers that do not serve the endpoint, or to which the request cannot be translated, are left out; when none
    remains, the refusal says why.
    """
    chances = _chances(draw)
    options: list[Option] = []
    refusal: Refusal | None = None
    for name in (model, *config.routing.fallbacks.get(model, ())):
        for provider, upstream_model in _servers(name, endpoint, config, chances):
            protocol = endpoint.protocol(provider.protocol, provider.endpoints)
            if protocol is None:
                refusal = refusal or _not_served(model, endpoint)
                continue
            refused = endpoint.cannot_carry(protocol, body, model=upstream_model, quirks=provider.quirks)
            if refused is None:
                price = book.price(provider.name, upstream_model, at_ms, catalogue=provider.price_provider)
                option = Option(
                    provider,
                    provider.accounts[0],
                    upstream_model,
                    price,
                    protocol,
                    at_home=protocol == endpoint.dialect,
                    least_output_tokens=least_output_tokens(protocol, provider.quirks),
                    most_output_tokens=endpoint.most_output_tokens(body, upstream_model),
                )
                options += _attempts(option, chances, draw)
            else:
                refusal = refusal or refused
    if options:
        return Route(tuple(options[:MAX_ATTEMPTS]), config.routing.default)
    if refusal is not None and endpoint.answered_here:
        return Route((Option(_COUNTER, _COUNTER.accounts[0], model, None, endpoint.dialect, at_home=True),), "counted")
    return refusal or unknown_model(model)


def unknown_model(model: str) -> Refusal:
    return Refusal(
        404,
        "model_not_found",
        f"The model {model!r} is not served here; GET /v1/models lists those that are.",
        param="model",
    )


def _not_served(model: str, endpoint: Endpoint) -> Refusal:
    return Refusal(
        400,
        "endpoint_not_served",
        f"No provider of the model {model!r} serves {endpoint.path}. Those that do can say so: "
        f"'endpoints: [{endpoint.name}, ...]' in gateway.yaml.",
        param="model",
    )


def _chances(draw: float) -> Iterator[float]:
    """More numbers in [0, 1) that follow from one. Seeded when the first is asked for, as few plans have a choice."""
    yield from iter(Random(draw).random, None)  # noqa: S311  (balancing, not secrecy)


def _servers(
    model: str, endpoint: Endpoint, config: Config, chances: Iterator[float]
) -> Iterator[tuple[Provider, str]]:
    prefix, slash, rest = model.partition("/")
    named = config.providers.get(prefix) if slash else None
    if named is not None and named.serves(rest):
        yield named, rest
        return
    dialect = endpoint.dialect
    serving = [provider for provider in config.providers.values() if provider.serves(model)]
    twins = [one for one in serving if one.builtin and endpoint.protocol(one.protocol, one.endpoints) == dialect]
    if twins:  # the sandbox is there once per dialect; others would only translate what these say themselves
        serving = [provider for provider in serving if not provider.builtin or provider in twins]
    yield from ((provider, model) for provider in ORDERS[config.routing.default](serving, dialect, chances))


def _attempts(option: Option, chances: Iterator[float], draw: float) -> Iterator[Option]:
    """The option on each account in turn, as often as the provider may be tried."""
    provider = option.provider
    accounts = _weighted(provider.accounts, [account.weight for account in provider.accounts], chances)
    jitter = 0.5 + draw / 2  # it keeps requests apart, not the attempts of one
    for index in range(1 + provider.max_retries):
        again = index - len(accounts)  # how often this account was tried already, less one round
        wait = min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2**again) if again >= 0 else 0
        yield replace(option, account=accounts[index % len(accounts)], backoff_ms=int(wait * jitter))


def _priority(providers: Sequence[Provider], dialect: Dialect, chances: Iterator[float]) -> list[Provider]:
    """Lowest `priority` first; among equals one that speaks the client's dialect, then the order of the file."""
    return sorted(providers, key=lambda provider: (provider.priority, provider.protocol != dialect))


def _balanced(providers: Sequence[Provider], dialect: Dialect, chances: Iterator[float]) -> list[Provider]:
    """Drawn by the weights of the accounts."""
    return _weighted(providers, [sum(account.weight for account in p.accounts) for p in providers], chances)


def _weighted(items: Sequence[_Item], weights: Sequence[int], chances: Iterator[float]) -> list[_Item]:
    """A random order in which the chance to stand first is the share of the weights (Efraimidis and Spirakis, 2006)."""
    if len(items) == 1:
        return list(items)
    keys = [next(chances) ** (1 / weight) for weight in weights]
    return [items[index] for index in sorted(range(len(items)), key=keys.__getitem__, reverse=True)]


Order = Callable[[Sequence[Provider], Dialect, Iterator[float]], list[Provider]]
ORDERS: Mapping[str, Order] = {"priority": _priority, "balanced": _balanced}
