"""Many deaths of one gateway, at random moments or at every named step, and what they leave behind."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.crash.checker import Report
from tests.crash.load import MIXED, STREAMS, UNARY, Kind
from tests.crash.provider import Provider
from tests.crash.site import Site
from tests.crash.tampering import forget_offsets, let_a_zombie_speak
from tollgate.failpoints import NAMES

SHORTEST_LIFE_S, LONGEST_LIFE_S = 0.3, 1.5
STOPS = 0.2  # so many of the kills hit a gateway that is stopping, and so many lives more end in order
LONGEST_PATIENCE_S = 0.5
MOST_REQUESTS = 25  # pass a step of theirs before the process dies there
MOST_ROUNDS = 3  # of checkpoints, take-overs and flushes

# Steps on the way of a request: unary ones and streams take them one after the other
OF_A_REQUEST = ("request.", "owner.", "call.", "end.", "costs.", "reply.")
ONLY_IN_STREAMS = ("call.first_content",)


class Kill(NamedTuple):
    """One death: after how many seconds under load, requests sent by then, and what was wrong already."""

    number: int
    after_s: float
    requests: int
    report: Report


async def random_kills(
    folder: Path, provider: Provider, *, kills: int, seed: int, on_kill: Callable[[Kill], None] | None = None
) -> Report:
    """Kill the gateway so many times, let it come to rest, and check everything. With `on_kill`, each time."""
    site = Site(folder, provider, seed=seed)
    chance = random.Random(seed)
    for number in range(1, kills + 1):
        if chance.random() < STOPS:
            await site.live(seconds=chance.uniform(SHORTEST_LIFE_S, LONGEST_LIFE_S), patience_s=None)
        after_s = chance.uniform(SHORTEST_LIFE_S, LONGEST_LIFE_S)
        patience_s = chance.uniform(0.0, LONGEST_PATIENCE_S) if chance.random() < STOPS else 0.0
        await site.live(seconds=after_s, patience_s=patience_s)
        if on_kill is not None:
            on_kill(Kill(number, after_s, site.requests, await site.check(at_rest=False)))
    await site.rest()
    return await site.check_all()


class Step(NamedTuple):
    """Where the process shall die, under which load."""

    failpoint: str
    kinds: tuple[Kind, ...]


def steps(seed: int) -> Iterator[Step]:
    """Every named step, early and late; those of requests once among unary answers and once among streams."""
    chance = random.Random(seed)
    for name in NAMES:
        if name in ONLY_IN_STREAMS:
            loads, most = [STREAMS], MOST_REQUESTS
        elif name.startswith(OF_A_REQUEST):
            loads, most = [UNARY, STREAMS], MOST_REQUESTS
        else:
            loads, most = [MIXED], MOST_ROUNDS
        for kinds in loads:
            yield Step(f"{name}:{chance.randint(1, most)}", kinds)


async def kill_at_every_step(folder: Path, provider: Provider, *, seed: int) -> tuple[list[str], Report]:
    """The steps that were not reached, and what is wrong at the end."""
    site = Site(folder, provider, seed=seed)
    missed = []
    await site.live(seconds=SHORTEST_LIFE_S)  # so that the first take-over finds something open
    for step in steps(seed):
        if not await site.live(failpoint=step.failpoint, kinds=step.kinds):
            missed.append(step.failpoint)
    await site.rest()
    return missed, await site.check_all()


async def spoilt(folder: Path, provider: Provider, *, bug: str | None, seed: int) -> Report:
    """A life that ends in the middle of everything, a zombie's words, a second delivery, and rest; with a bug."""
    site = Site(folder, provider, seed=seed, bug=bug)
    assert await site.live(failpoint="request.appended:130"), "hardly anything was sent"
    let_a_zombie_speak(site.data)
    forget_offsets(site.data)
    await site.rest()
    return await site.check()
