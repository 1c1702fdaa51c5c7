"""What every run has in common: which providers there are, what they cost, and where data keys lie."""

from datetime import date

from tests.simulation.books import PRICES_PUSD
from tollgate.config import Account, Config, LimitsConfig, LogConfig, Provider, RoutingConfig, ServerConfig
from tollgate.prices.book import PriceBook
from tollgate.prices.catalogue import Catalogue
from tollgate.prices.overrides import read_rules


class Seals:
    """Data keys in memory; they outlive every process."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}

    def save(self, seal_id: str, wrapped: bytes) -> None:
        self._keys[seal_id] = wrapped

    def load(self, seal_id: str) -> bytes | None:
        return self._keys.get(seal_id)

    async def wait_for(self, seal_id: str, *, timeout_s: float) -> bool:
        """Whoever makes a key has it here at once."""
        return seal_id in self._keys

    def drop_before(self, hour: int) -> None:
        """Nothing of a run is that old."""


def gateway_config(*, balanced: bool, timeout_s: float) -> Config:
    """Three providers of two protocols; some models have one that can stand in for them, in the other dialect too."""
    places = (
        ("alpha", "openai", ("one",), ("m-open", "m-both")),
        ("beta", "openai", ("one", "two"), ("m-open",)),
        ("gamma", "anthropic", ("one",), ("m-claude", "m-both")),
    )
    providers = {
        name: Provider(
            name=name,
            protocol=protocol,
            base_url=f"https://{name}.test",
            accounts=tuple(Account(name=account) for account in accounts),
            models=models,
            priority=priority,
            timeout_seconds=timeout_s,
            connect_timeout_seconds=timeout_s,
            max_retries=1,
            price_provider=name,
        )
        for priority, (name, protocol, accounts, models) in enumerate(places)
    }
    return Config(
        log=LogConfig(),
        server=ServerConfig(),
        providers=providers,
        routing=RoutingConfig(
            default="balanced" if balanced else "priority", fallbacks={"m-claude": ("m-open",), "m-open": ("m-both",)}
        ),
        limits=LimitsConfig(default_max_tokens=60),
        content="none",
    )


def _price_book() -> PriceBook:
    """The prices that the books know, as an operator writes them: USD per million tokens."""
    prices = "".join(
        f'  "{name}/*": {{input: {read // 10**6}, output: {written // 10**6}}}\n'
        for name, (read, written) in PRICES_PUSD.items()
    )
    nothing = Catalogue(source="simulation", date=date(2026, 1, 1), providers=())
    return PriceBook(nothing, "simulation", read_rules(f"models:\n{prices}"))


BOOK = _price_book()
