"""What one seed decides before a run begins: who asks for what and when, and what goes wrong."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

from tests.simulation.clients import Client
from tests.simulation.log import STATE, Latency
from tests.simulation.provider import Manners
from tollgate.events import Limits
from tollgate.failpoints import NAMES

ORDINARY_DAY_MS = 1_794_000_000_000  # 2026-11-06
MONTH_END_MS = 1_796_083_200_000  # 2026-12-01, 00:00 UTC

_STEPS = ("request.", "owner.", "call.", "end.", "costs.", "reply.", "checkpoint.", "takeover.")
_TOPICS = ("requests", "completions", "completions", "costs", "control", STATE, STATE, STATE)

# Where a life can end: at the failpoints of the protocol, or after some record has landed and before the next
DEATHS = (*(name for name in NAMES if name.startswith(_STEPS)), *(f"landed.{topic}" for topic in _TOPICS))

FaultKind = Literal[
    "kill",  # SIGKILL, and a restart
    "stop",  # SIGTERM, and a restart
    "replace",  # a second process takes over, while the first lives on and knows nothing
    "lost acks",  # what is appended may be in the log, but nobody is told
    "redeliver",  # the events of `requests` come again from an earlier offset
    "clock",  # the wall clock jumps
    "lost rows",  # SIGKILL, and the checkpoint is gone with it
    # Kafka's own
    "rebalance",  # the partition goes to another worker, or to the same once more, in order
    "rebalances",  # and whenever it was taken over, for a while
    "halt",  # SIGSTOP of the owner, and SIGCONT
    "halt between check and call",  # the same, between the last look at who owns the partition and the call
    "halt in a take-over",  # of the next that takes over, when its epoch is durable and nothing else
    "cut off",  # the group does not hear of the owner, which works on
    "late acks",  # the owner's appends have landed, and it hears of it much later
    "halt runner",  # SIGSTOP of a worker that still runs a call which it has handed over
    "kill runner",
    "kill ingress",  # and a restart on its name
    "halt ingress",
    "cut off ingress",  # what it appends to `requests` lands much later
]
EMBEDDED_FAULTS: tuple[FaultKind, ...] = (
    *("stop", "stop", "replace", "replace", "replace"),
    *("kill", "lost acks", "redeliver", "clock", "lost rows"),
)


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong. `size` says how much of it, from 0 to 1."""

    at_s: float
    kind: FaultKind
    size: float


@dataclass(frozen=True)
class LimitChange:
    """Somebody gives a key other limits."""

    at_s: float
    key_id: str
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class Knobs:
    """How the world behaves during one run."""

    begins_ms: int
    duration_s: float
    tick_s: float  # of the clock: what falls into one tick happens at one instant
    one_order: bool  # the log keeps one order over all topics, as the embedded one does
    latency: Latency
    checkpoint_s: float
    restart_s: float
    manners: Manners
    timeout_s: float
    balanced: bool
    failpoints: float  # the share of lives that die at one of `DEATHS`


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """All that happens from outside."""

    knobs: Knobs
    keys: dict[str, Limits]
    clients: tuple[Client, ...]
    changes: tuple[LimitChange, ...]
    faults: tuple[Fault, ...]


def embedded_scenario(seed: str) -> Scenario:
    """The scenario of a seed in the world of the embedded log."""
    chance = Random(f"{seed}/scenario")
    knobs = new_knobs(chance, duration_s=chance.choice((2.0, 6.0, 12.0)))
    return new_scenario(chance, knobs, EMBEDDED_FAULTS, most_clients=30)


def new_scenario(
    chance: Random, knobs: Knobs, kinds: Sequence[FaultKind], *, most_clients: int, most_faults: int = 6
) -> Scenario:
    """Clients with keys, changes of limits, and faults of these kinds."""
    keys = {f"k{number}": _limits(chance) for number in range(chance.randint(1, 3))}
    clients = tuple(
        _client(chance, number, knobs, list(keys))
        for number in range(chance.randint(min(5, most_clients), most_clients))
    )
    changes = [
        LimitChange(chance.random() * knobs.duration_s, chance.choice(list(keys)), _limits(chance))
        for _ in range(chance.choice((0, 0, 0, 1, 3)))
    ]
    faults = [
        Fault(chance.random() * knobs.duration_s, chance.choice(kinds), chance.random())
        for _ in range(chance.randint(0, most_faults))
    ]
    return Scenario(
        knobs=knobs,
        keys=keys,
        clients=clients,
        changes=tuple(sorted(changes, key=lambda change: change.at_s)),
        faults=tuple(sorted(faults, key=lambda fault: fault.at_s)),
    )


def new_knobs(chance: Random, *, duration_s: float) -> Knobs:
    """A world's ways, any of them."""
    begins_ms = ORDINARY_DAY_MS
    if chance.random() < 0.4:
        begins_ms = MONTH_END_MS - int(chance.random() * duration_s * 1000)
    return Knobs(
        begins_ms=begins_ms,
        duration_s=duration_s,
        tick_s=chance.choice((1e-6, 1e-3, 1e-2)),
        one_order=chance.random() < 0.5,
        latency=Latency(typical_s=chance.choice((0.0005, 0.005, 0.02)), slow=chance.choice((0.0, 0.02, 0.1))),
        checkpoint_s=chance.choice((0.1, 0.3, 1.0)),
        restart_s=chance.choice((0.0, 0.1, 1.0)),
        manners=_manners(chance),
        timeout_s=chance.choice((0.5, 3.0)),
        balanced=chance.random() < 0.5,
        failpoints=chance.choice((0.0, 0.5, 0.9)),
    )


def _manners(chance: Random) -> Manners:
    if chance.random() < 0.3:
        return Manners(latency_s=0.1, pause_s=0.01)
    return Manners(
        error=chance.random() * 0.3,
        refused=chance.random() * 0.1,
        cut=chance.random() * 0.2,
        hang=chance.random() * 0.05,
        overrun=chance.choice((0.0, 0.5)),
        silent=chance.choice((0.0, 0.1)),
        latency_s=chance.choice((0.05, 0.5, 2.0)),
        pause_s=chance.choice((0.001, 0.05, 0.2)),
    )


def _limits(chance: Random) -> Limits:
    """Budgets of a few requests: most runs reach the last cent."""
    return Limits(
        monthly_budget_pusd=chance.choice((None, int(chance.triangular(3e8, 2e10, 2e9)))),
        requests_per_minute=chance.choice((None, None, None, 6, 30, 600)),
        concurrent_requests=chance.choice((None, None, None, 1, 3)),
    )


def _client(chance: Random, number: int, knobs: Knobs, keys: list[str]) -> Client:
    request_id = f"01990000-0000-7000-8000-{number:012x}"
    dialect = chance.choice(("openai", "openai", "anthropic"))
    model = chance.choice(("m-open", "m-claude", "m-both", "alpha/m-open"))
    client = Client(
        number=number,
        request_id=request_id,
        key_id=chance.choice(keys),
        at_s=chance.random() ** chance.choice((1, 3)) * knobs.duration_s,
        dialect=dialect,
        model=model,
        stream=chance.random() < 0.5,
        words=chance.randint(1, 20),
        max_tokens=chance.choice((None, 1, 5, 20, 60) if dialect == "openai" else (None, 0, 5, 20, 60)),
        deadline_s=chance.choice((1.0, 8.0, 30.0)),
        patience_s=chance.choice((None, None, None, chance.random() * 3)),
        patience_pieces=chance.choice((None, None, None, chance.randint(1, 8))),
        leaves_at_end=chance.random() < 0.08,
    )
    if client.max_tokens == 0 and model != "m-claude":  # only Anthropic's protocol takes it
        client.max_tokens = 1
    return client
