"""What `gateway.yaml` may say, and what the program makes of it.

`GatewayFile` and the structs under it are the file, key by key; each key's description here is the one in
`docs/settings.md` and in the JSON Schema. `Config` is what the rest of the program reads: providers have names,
accounts and addresses filled in, and the built-in sandbox is among them. Only keys that do something are here.
"""

import difflib
import fnmatch
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, get_args

import msgspec
from msgspec import Meta

from tollgate.accounts import Account
from tollgate.errors import ConfigError, Mistakes
from tollgate.events import Dialect
from tollgate.log.kafka_security import Security
from tollgate.money import pusd
from tollgate.presets import NO_KEY, Preset, preset_at, presets
from tollgate.secret import Secret, Secrets, first_run_secrets
from tollgate.settings_file import Settings, read_settings
from tollgate.wire import Quirks
from tollgate.wire.endpoints import COUNTER, SERVED, EndpointName

__all__ = [
    "Account",
    "Config",
    "GatewayFile",
    "LimitsConfig",
    "LogConfig",
    "Provider",
    "ProviderFile",
    "RateLimiting",
    "RoutingConfig",
    "Secret",
    "Secrets",
    "ServerConfig",
    "first_run_secrets",
    "load_config",
]

MAX_TIMEOUT_S = 24 * 3600
MAX_RPM = 1_000_000
REMEMBERED_MODELS = 4096  # by name, and by whose list was looked through: who serves them

_PROVIDER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_BASE_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")
_KAFKA = re.compile(r"kafka://[^\s,/]+:\d{1,5}(,[^\s,/]+:\d{1,5})*")

Timeout = Annotated[float, Meta(gt=0, le=MAX_TIMEOUT_S)]
FallbackReason = Literal[
    "rate_limit",
    "quota",
    "auth",
    "context_window",
    "content_filter",
    "timeout",
    "overloaded",
    "server_error",
    "connection",
    "not_found",
]


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of the file: every key is known, and what was read never changes."""


class LogConfig(_Section, frozen=True, kw_only=True):
    """Where events are kept."""

    broker: Annotated[
        str,
        Meta(
            description="`embedded`: one database in the data folder, one process. "
            "`kafka://host:9092`, or several as `kafka://a:9092,b:9092`: a Kafka cluster."
        ),
    ] = "embedded"
    durability: Annotated[
        Literal["power", "process"],
        Meta(
            description="Embedded log only. `power`: every group of appends is forced to the disk before anything "
            "depends on it. `process`: survives the death of the process, but a power cut may lose the last moments."
        ),
    ] = "power"
    security: Annotated[Security, Meta(description="Kafka only. How to connect to the brokers.")] = Security()

    @property
    def embedded(self) -> bool:
        return self.broker == "embedded"

    @property
    def bootstrap_servers(self) -> tuple[str, ...]:
        """`host:port` of the Kafka brokers to begin with; none on the embedded log."""
        return () if self.embedded else tuple(self.broker.removeprefix("kafka://").split(","))


class ServerConfig(_Section, frozen=True, kw_only=True):
    """The HTTP door: where it listens and how much it lets in."""

    host: Annotated[str, Meta(min_length=1, description="The address to listen on; `0.0.0.0` for all.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="The port to listen on; 0 takes a free one.")] = 8080
    max_body_mb: Annotated[
        int, Meta(ge=1, le=32, description="The largest request body, in MiB; a larger one is answered 413.")
    ] = 32
    max_in_flight: Annotated[
        int,
        Meta(ge=1, le=100_000, description="Requests under way at once; more are answered 503 with `Retry-After`."),
    ] = 2000
    request_deadline_s: Annotated[
        Timeout, Meta(description="Seconds after which a request that has not ended is ended as abandoned.")
    ] = 600
    leave_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="Seconds for which a gateway that was told to stop still takes requests, while `/readyz` says "
            "503 already: longer than a balancer needs to see that.",
        ),
    ] = 0
    drain_s: Annotated[
        Timeout, Meta(description="Seconds that a stopping gateway gives to the requests under way after that.")
    ] = 30


class ProviderFile(_Section, frozen=True, kw_only=True):
    """A place that serves models. The key above is its name, as in `provider/model`."""

    models: Annotated[
        tuple[str, ...],
        Meta(description="The models that it serves, by name or with `*` and `?`: `[gpt-4o, gpt-4.1*]`."),
    ]
    protocol: Annotated[
        Dialect | None, Meta(description="The API that it speaks. Not needed for a provider that is known by name.")
    ] = None
    preset: Annotated[
        str | None,
        Meta(
            description="The known provider that this is, such as `groq`; see docs/providers.md. Default: the "
            "provider's name, if that is one and nothing here contradicts it."
        ),
    ] = None
    base_url: Annotated[
        str | None,
        Meta(
            description="Where its API lies. Default: that of the preset, or the protocol's own, "
            "such as `https://api.openai.com/v1`. Vertex AI speaks `gemini` at `https://REGION-aiplatform.googleapis.com/"
            "v1/projects/PROJECT/locations/REGION/publishers/google`."
        ),
    ] = None
    api_key: Annotated[
        Secret | None,
        Meta(description="The key of its only account, named `main`, best as `${NAME}`. Instead of `accounts`."),
    ] = None
    accounts: Annotated[
        tuple[Account, ...], Meta(description="Several accounts that share the calls. Instead of `api_key`.")
    ] = ()
    priority: Annotated[
        int, Meta(ge=0, le=1_000_000, description="Order among providers of the same model; the lowest is tried first.")
    ] = 100
    timeout_seconds: Annotated[Timeout, Meta(description="The longest that one call may take, to its last byte.")] = 600
    connect_timeout_seconds: Annotated[Timeout, Meta(description="The longest that connecting may take.")] = 10
    max_retries: Annotated[
        int,
        Meta(ge=0, le=10, description="Further attempts here, after one that failed, before the next candidate."),
    ] = 2
    price_provider: Annotated[
        str | None,
        Meta(description="The name under which its prices are looked up. Default: the provider's name."),
    ] = None
    quirks: Annotated[
        Quirks | None,
        Meta(description="How it departs from its protocol. Default: what is known of the provider, or else nothing."),
    ] = None
    endpoints: Annotated[
        tuple[EndpointName, ...] | None,
        Meta(
            description="The endpoints that it serves itself: `[chat, responses]`. A conversation in another form is "
            "translated to its protocol. Default: what is known of the provider, or else those of its protocol."
        ),
    ] = None


class RoutingConfig(_Section, frozen=True, kw_only=True):
    """Which provider gets a request, and what follows when it fails."""

    default: Annotated[
        Literal["priority", "balanced"],
        Meta(
            description="`priority`: the provider with the lowest `priority` first. "
            "`balanced`: drawn by the weights of the accounts."
        ),
    ] = "priority"
    fallbacks: Annotated[
        dict[str, tuple[str, ...]],
        Meta(description="Models to try, in order, when every provider of a model has failed: `{gpt-4o: [gpt-4.1]}`."),
    ] = {}
    fallback_on: Annotated[
        tuple[FallbackReason, ...],
        Meta(description="The failures that lead to the next attempt; any other is the client's answer."),
    ] = ("rate_limit", "overloaded", "timeout", "server_error", "connection")


class RateLimiting(_Section, frozen=True, kw_only=True):
    """Requests per minute, whoever makes them: buckets that refill evenly. Keys have limits of their own besides."""

    global_rpm: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_RPM)] | None,
        Meta(description="Of the whole gateway, all its processes together. Without it there is no such limit."),
    ] = None
    per_model_rpm: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_RPM)] | None,
        Meta(description="Of each model, by the name under which its provider knows it, all keys together."),
    ] = None
    per_user_rpm: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_RPM)] | None,
        Meta(
            description="Of each end user of an organisation, as requests name them (`user`, `metadata.user_id`); "
            "requests that name none are not counted."
        ),
    ] = None

    @property
    def shared(self) -> bool:
        """Is there a limit that all partitions share?"""
        return self.global_rpm is not None or self.per_model_rpm is not None


class LimitsConfig(_Section, frozen=True, kw_only=True):
    """What happens where a request's cost has no natural bound."""

    on_missing_max_tokens: Annotated[
        Literal["cap", "reject"],
        Meta(
            description="A request under a budget that names no output limit: `cap` sends what the budget allows, "
            "at most `default_max_tokens`; `reject` refuses it."
        ),
    ] = "cap"
    default_max_tokens: Annotated[
        int,
        Meta(ge=1, le=10_000_000, description="The output limit sent upstream under a budget when none was asked for."),
    ] = 4096
    unpriced: Annotated[
        Literal["refuse", "hold"],
        Meta(description="A model without a price: `refuse` it, or `hold` a fixed amount of the budget while it runs."),
    ] = "refuse"
    unpriced_hold_usd: Annotated[Decimal, Meta(description="What `unpriced: hold` holds per request, in USD.")] = (
        Decimal("1.00")
    )

    @property
    def unpriced_hold_pusd(self) -> int:
        return pusd(self.unpriced_hold_usd)


class GatewayFile(_Section, frozen=True, kw_only=True):
    """`gateway.yaml`, key by key. Every key is optional."""

    log: Annotated[LogConfig, Meta(description="Where events are kept.")] = LogConfig()
    server: Annotated[ServerConfig, Meta(description="The HTTP door.")] = ServerConfig()
    sandbox: Annotated[
        bool,
        Meta(description="The built-in provider of `sandbox*`, which needs no account; its prices are made up."),
    ] = True
    providers: Annotated[dict[str, ProviderFile], Meta(description="The providers, by name.")] = {}
    routing: Annotated[RoutingConfig, Meta(description="Which provider gets a request.")] = RoutingConfig()
    rate_limiting: Annotated[RateLimiting, Meta(description="Requests per minute, whoever makes them.")] = (
        RateLimiting()
    )
    limits: Annotated[LimitsConfig, Meta(description="Bounds on what a request may cost.")] = LimitsConfig()
    content: Annotated[
        Literal["none"],
        Meta(description="What is kept of prompts and answers after the request's end: `none`."),
    ] = "none"


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as the program uses it: nothing is left to be filled in, and there is at least one account.

    `builtin` says that calls stay in the process: `sandbox` is the sandbox's ASGI application, not a socket.
    """

    name: str
    protocol: Dialect
    base_url: str  # without a slash at the end
    accounts: tuple[Account, ...]
    models: tuple[str, ...]
    priority: int
    timeout_seconds: float
    connect_timeout_seconds: float
    max_retries: int
    price_provider: str
    quirks: Quirks = Quirks()
    endpoints: frozenset[EndpointName] = frozenset()  # those that it serves itself
    builtin: Literal["sandbox"] | None = None

    def serves(self, model: str) -> bool:
        """Is the model, by its bare name, among those that the operator listed?"""
        return _is_among(model, self.models)


@lru_cache(REMEMBERED_MODELS)
def _is_among(model: str, patterns: tuple[str, ...]) -> bool:
    """Each request asks this of every provider."""
    return any(fnmatch.fnmatchcase(model, pattern) for pattern in patterns)


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration of a gateway. `providers` is in the order of the file, the built-in ones last."""

    log: LogConfig
    server: ServerConfig
    providers: dict[str, Provider]
    routing: RoutingConfig
    limits: LimitsConfig
    rate_limiting: RateLimiting = RateLimiting()
    content: Literal["none"]


def load_config(path: Path | None, env: Mapping[str, str]) -> Config:
    """The configuration in the file at `path`; without one, the defaults.

    `env` is what `${NAME}` refers to. Raises `ConfigError` with file, line, key and the way
    out of every mistake.
    """
    if path is None:
        return _config(Settings(GatewayFile(), "gateway.yaml", {}))
    return _config(read_settings(path, GatewayFile, env))


def check_broker(broker: str) -> str:
    """`broker` if it is one. Raises `ValueError` that says what is."""
    if broker != "embedded" and not _KAFKA.fullmatch(broker):
        raise ValueError("must be 'embedded' or kafka://host:port[,host:port...], for instance kafka://localhost:9092")
    return broker


def _config(settings: Settings[GatewayFile]) -> Config:
    file = settings.values
    mistakes = Mistakes()
    with mistakes:
        try:
            check_broker(file.log.broker)
        except ValueError as error:
            raise settings.error(("log", "broker"), str(error)) from None
    with mistakes:
        if contradiction := file.log.security.contradiction():
            raise settings.error(("log", "security", contradiction.key), contradiction.why)
    with mistakes:
        if not file.limits.unpriced_hold_usd.is_finite() or file.limits.unpriced_hold_usd <= 0:
            raise settings.error(("limits", "unpriced_hold_usd"), "must be more than 0, for instance 1.00")
    providers = _providers(settings, mistakes)
    mistakes.tell()
    if not providers:
        raise settings.error(("providers",), "is empty and 'sandbox' is false: there is nothing to send requests to")
    _check_fallbacks(settings, providers, mistakes)
    mistakes.tell()
    return Config(
        log=file.log,
        server=file.server,
        providers=providers,
        routing=file.routing,
        limits=file.limits,
        rate_limiting=file.rate_limiting,
        content=file.content,
    )


def _providers(settings: Settings[GatewayFile], mistakes: Mistakes) -> dict[str, Provider]:
    """Those of the file, and the built-in ones."""
    providers = {}
    for name, given in settings.values.providers.items():
        with mistakes:
            providers[name] = _provider(name, given, settings)
    for sandbox in BUILT_IN if settings.values.sandbox else ():
        with mistakes:
            if sandbox.name in providers:
                raise settings.error(
                    ("providers", sandbox.name),
                    "is the name of the built-in provider; choose another, or switch that off with 'sandbox: false'",
                )
            providers[sandbox.name] = sandbox
    return providers


def _provider(name: str, given: ProviderFile, settings: Settings[GatewayFile]) -> Provider:
    def wrong(key: str | None, message: str) -> ConfigError:
        return settings.error(("providers", name, *([key] if key else [])), message)

    if not _PROVIDER_NAME.fullmatch(name):
        raise wrong(None, "is not a provider's name: use small letters, digits, '-' and '_'")
    if name == COUNTER:
        raise wrong(None, "is the gateway's own name in the books; choose another")
    if not given.models:
        raise wrong("models", "must name the models that it serves, for instance [gpt-4o, gpt-4.1*]")
    if given.base_url is not None and not _BASE_URL.fullmatch(given.base_url):
        raise wrong("base_url", "must be http(s)://host[:port][/path] without user, query or fragment")
    if given.api_key is not None and given.accounts:
        raise wrong(
            "accounts", "cannot stand beside 'api_key'; put that key into the list, or keep only one of the two"
        )
    names = [account.name for account in given.accounts]
    if len(set(names)) < len(names):
        raise wrong("accounts", "must have different names: the books tell accounts apart by them")
    preset = _preset(name, given, wrong)
    protocol = given.protocol or preset.protocol
    base_url = (given.base_url or preset.base_url or "").rstrip("/")
    if not base_url:
        raise wrong(None, "needs a base_url: every customer of this provider has an address of its own")
    accounts = given.accounts or (Account(name="main", api_key=given.api_key),)
    for account in accounts:
        if len(account.credentials) > 1:
            raise wrong("accounts", f"{account.name!r} has {' and '.join(account.credentials)}; keep one of them")
        if contradiction := account.contradiction():
            raise wrong("accounts", f"{account.name!r}: {contradiction}")
    has_credentials = all(account.credentials or account.managed for account in accounts)
    if given.base_url is None and preset.key != NO_KEY and not has_credentials:
        raise wrong(
            None,
            f"needs an api_key: {base_url} answers nobody without one; for one that is set through the management API "
            "write 'accounts: [{name: main, managed: true}]'",
        )
    return Provider(
        name=name,
        protocol=protocol,
        base_url=base_url,
        accounts=accounts,
        models=given.models,
        priority=given.priority,
        timeout_seconds=given.timeout_seconds,
        connect_timeout_seconds=given.connect_timeout_seconds,
        max_retries=given.max_retries,
        price_provider=given.price_provider or preset.prices or given.preset or name,
        quirks=preset.quirks if given.quirks is None else given.quirks,
        endpoints=_endpoints(given, preset),
    )


def _endpoints(given: ProviderFile, preset: Preset) -> frozenset[EndpointName]:
    said = given.endpoints if given.endpoints is not None else preset.endpoints
    return SERVED.get(preset.protocol, frozenset()) if said is None else frozenset(said)


def _preset(name: str, given: ProviderFile, wrong: Callable[[str | None, str], ConfigError]) -> Preset:
    """What is known of the provider: by its preset, by its name where nothing contradicts that, or by its address."""
    known = presets()
    if given.preset is not None:
        if given.preset not in known:
            close = difflib.get_close_matches(given.preset, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise wrong("preset", f"names {given.preset!r}, which is not known; {hint}")
        preset = known[given.preset]
        if given.protocol not in (None, preset.protocol):
            raise wrong("protocol", f"contradicts the preset {given.preset!r}, which speaks {preset.protocol}")
        return preset
    if (by_name := known.get(name)) is not None and given.protocol in (None, by_name.protocol):
        mine = by_name.base_url
        if given.base_url is None or mine is None or given.base_url.rstrip("/") == mine or given.protocol is None:
            return by_name
    if given.protocol is None:
        raise wrong(None, "needs 'protocol', which says what API it speaks: " + " or ".join(get_args(Dialect)))
    default = known[given.protocol]
    if given.base_url is None:
        return default
    return preset_at(given.base_url.rstrip("/"), given.protocol) or Preset(protocol=given.protocol, key=NO_KEY)


def _check_fallbacks(settings: Settings[GatewayFile], providers: Mapping[str, Provider], mistakes: Mistakes) -> None:
    for model, others in settings.values.routing.fallbacks.items():
        for name in (model, *others):
            with mistakes:
                if not _is_served(name, providers):
                    raise settings.error(
                        ("routing", "fallbacks", model),
                        f"names {name!r}, which no provider serves; add it to the 'models' of one",
                    )


def _is_served(model: str, providers: Mapping[str, Provider]) -> bool:
    provider, slash, bare = model.partition("/")
    if slash and provider in providers:
        return providers[provider].serves(bare)
    return any(provider.serves(model) for provider in providers.values())


def _sandbox(name: str, protocol: Dialect, base_url: str) -> Provider:
    return Provider(
        name=name,
        protocol=protocol,
        base_url=base_url,
        accounts=(Account(name="main"),),
        models=("sandbox*",),
        priority=1000,  # after a provider of the operator's that serves the same names
        timeout_seconds=600,
        connect_timeout_seconds=10,
        max_retries=0,
        price_provider="sandbox",
        endpoints=SERVED[protocol] - {"embed_content", "batch_embed_contents"},  # made by its twin of OpenAI's protocol
        builtin="sandbox",
    )


# One per dialect, so that either passes through without translation.
BUILT_IN = (
    _sandbox("sandbox", "openai", "http://sandbox/v1"),
    _sandbox("sandbox-anthropic", "anthropic", "http://sandbox"),
    _sandbox("sandbox-responses", "responses", "http://sandbox/v1"),
    _sandbox("sandbox-gemini", "gemini", "http://sandbox/v1beta"),
)
