"""What one seed decides of a run in the world of Kafka: what there is, and which weather. See `scenario`.

What matters most is rare where everything can happen. So each run has its own weather, in which something is frequent.
"""

from dataclasses import dataclass, replace
from random import Random

from tests.simulation.provider import Manners
from tests.simulation.scenario import DEATHS, FaultKind, Scenario, new_knobs, new_scenario

# The stages lie in different processes
INGRESS_DEATHS = ("request.appended",)
WORKER_DEATHS = tuple(place for place in DEATHS if place not in (*INGRESS_DEATHS, "landed.control"))

# Providers whose answers outlast sessions, patience and hand-overs
SLOW = Manners(error=0.1, cut=0.05, latency_s=10.0, pause_s=0.2, connect_s=0.5)
SLOWER = Manners(error=0.1, latency_s=3.0, pause_s=0.5, connect_s=0.001)
LONGEST = Manners(error=0.05, latency_s=2.0, pause_s=3.0)
UNRELIABLE = Manners(error=0.6, cut=0.1, latency_s=2.0, pause_s=0.1)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What there is."""

    workers: int
    ingresses: int
    session_s: float  # after so long without a word a member of the group is taken for dead
    drain_s: float  # how long a worker that is told to stop lets its calls run
    reply_mishaps: float  # the share of replies that are lost; as many come twice


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What is frequent."""

    faults: tuple[FaultKind, ...]
    most_faults: int
    most_clients: int
    manners: tuple[Manners | None, ...]  # None: any
    sessions_s: tuple[float, ...] = (1.0, 3.0, 6.0)
    timeouts_s: tuple[float, ...] = (3.0, 40.0)
    deaths: tuple[float, ...] = (0.0, 0.2)
    reply_mishaps: tuple[float, ...] = (0.0,)
    patient: bool = False  # clients ask for long streams, and wait for them


MIXED = Weather(
    faults=(
        *("stop", "rebalance", "rebalance", "halt", "halt between check and call", "halt in a take-over"),
        *("kill", "kill", "cut off", "late acks", "lost acks", "redeliver", "clock", "lost rows"),
        *("halt runner", "kill runner", "kill ingress", "halt ingress", "cut off ingress"),
    ),
    most_faults=6,
    most_clients=20,
    manners=(None, SLOW),
    deaths=(0.0, 0.2, 0.5),
)
# Owners that were replaced, and work on
ZOMBIES = Weather(
    faults=("cut off", "cut off", "halt", "halt between check and call", "halt in a take-over", "late acks"),
    most_faults=6,
    most_clients=12,
    manners=(SLOW, SLOWER),
    sessions_s=(1.0,),
    timeouts_s=(40.0,),
    patient=True,
)
# The partition goes from hand to hand
RESTLESS = Weather(
    faults=("rebalances", "rebalances", "rebalance", "stop", "kill", "kill", "redeliver", "kill runner"),
    most_faults=10,
    most_clients=15,
    manners=(UNRELIABLE, SLOW),
    sessions_s=(1.0, 3.0),
)
# Calls last longer than anybody's patience
LONG = Weather(
    faults=("rebalance", "rebalance", "stop", "halt runner", "kill runner", "kill ingress", "kill ingress"),
    most_faults=4,
    most_clients=6,
    manners=(LONGEST,),
    timeouts_s=(60.0,),
    deaths=(0.0,),
    patient=True,
)
# Replies are lost, workers before their last bytes, and requests come late
FORGETFUL = Weather(
    faults=("kill", "kill", "stop", "cut off", "halt ingress", *("cut off ingress",) * 3),
    most_faults=6,
    most_clients=20,
    manners=(None,),
    deaths=(0.5, 0.9),
    reply_mishaps=(0.0, 0.02),
)
WEATHERS = (MIXED, ZOMBIES, ZOMBIES, RESTLESS, LONG, FORGETFUL)


def kafka_scenario(seed: str) -> tuple[Scenario, Cluster]:
    """The scenario of a seed, and where it takes place."""
    chance = Random(f"{seed}/scenario")
    weather = chance.choice(WEATHERS)
    cluster = Cluster(
        workers=chance.randint(2, 3),
        ingresses=chance.randint(1, 2),
        session_s=chance.choice(weather.sessions_s),
        drain_s=chance.choice((1.0, 5.0, 30.0)),
        reply_mishaps=chance.choice(weather.reply_mishaps),
    )
    knobs = new_knobs(chance, duration_s=chance.choice((10.0, 20.0)))
    knobs = replace(
        knobs,
        one_order=False,
        manners=chance.choice(weather.manners) or knobs.manners,
        timeout_s=chance.choice(weather.timeouts_s),
        restart_s=chance.choice((0.1, 1.0, 10.0)),
        checkpoint_s=chance.choice((1.0, 2.0)),
        failpoints=chance.choice(weather.deaths),
    )
    made = new_scenario(
        chance, knobs, weather.faults, most_clients=weather.most_clients, most_faults=weather.most_faults
    )
    clients = tuple(
        replace(client, stream=True, max_tokens=60, patience_s=None, patience_pieces=None, deadline_s=60.0)
        if weather.patient and chance.random() < 0.8
        else replace(client, deadline_s=chance.choice((5.0, 30.0, 60.0)))
        for client in made.clients
    )
    return replace(made, clients=clients), cluster
