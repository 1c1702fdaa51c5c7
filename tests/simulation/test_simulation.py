"""The protocol under everything that can happen to it: hundreds of random worlds, each decided by one number.

A run that fails prints its number. `python -m tests.simulation NUMBER --trace` shows it again, step by step; it goes
the same way every time.
"""

import os
import subprocess
import sys
from collections import Counter
from functools import cache

import pytest

from tests.simulation.scenario import DEATHS
from tests.simulation.scenario_kafka import INGRESS_DEATHS, WORKER_DEATHS
from tests.simulation.world import Result
from tests.simulation.worlds import PLANTED, WORLDS

SEEDS = int(os.environ.get("TOLLGATE_SIM_SEEDS", "200"))  # of each world
SEEDS_PER_TEST = 50
# Some bugs show in one run of two hundred: among these each does.
SEEDS_FOR_MUTANTS = {"embedded": range(401, 551), "kafka": range(1, 151)}
SHOWN = 3

# What must have happened in a hundred runs, or that nothing was found there means nothing
CORNERS = {
    "embedded": (
        *("completed", "failed", "cancelled", "abandoned", "rejected", "attempts after the first"),
        *("monthly_budget", "concurrent_requests", "requests_per_minute", "overruns"),
        *("replaced", "invalid records", "streams broken off"),
    ),
    "kafka": (
        *("completed", "failed", "cancelled", "abandoned", "rejected", "attempts after the first"),
        *("take-overs", "evicted alive", "invalid records", "streams broken off"),
        *("handed over", "booked for a runner", "attempted again", "void"),
    ),
}
PLACES = {"embedded": {*DEATHS}, "kafka": {*INGRESS_DEATHS, *WORKER_DEATHS}}


@cache
def run(world: str, seed: int) -> Result:
    """A run of the gateway as it is. Its steps are not kept, for there are many."""
    result = WORLDS[world](str(seed)).run()
    return result if result.violations else Result(result.seed, (), (), result.facts, result.passed)


@pytest.mark.parametrize("first", range(1, SEEDS + 1, SEEDS_PER_TEST))
@pytest.mark.parametrize("world", WORLDS)
def test_no_promise_is_broken_whatever_happens(world, first):
    results = [run(world, seed) for seed in range(first, min(first + SEEDS_PER_TEST, SEEDS + 1))]
    broken = [result for result in results if result.violations]
    assert not broken, "\n".join(
        f"{result.violations[0].rule}: {result.violations[0].text}\n"
        f"    to see it: python -m tests.simulation {result.seed} --world {world} --trace"
        for result in broken[:SHOWN]
    )


@pytest.mark.parametrize("world", WORLDS)
def test_the_runs_come_to_every_corner(world):
    facts, passed = Counter[str](), set[str]()
    for seed in range(1, min(SEEDS, 100) + 1):
        facts.update(run(world, seed).facts)
        passed |= run(world, seed).passed
    assert not PLACES[world] - passed
    assert {what: facts[what] for what in CORNERS[world] if facts[what] <= 10} == {}


@pytest.mark.parametrize("world", WORLDS)
def test_a_run_goes_the_same_way_every_time(world):
    """Also in another process, where sets have another order."""
    seeds = ("1", "2", "3")
    here = [WORLDS[world](seed).run().digest for seed in seeds]
    assert here == [WORLDS[world](seed).run().digest for seed in seeds]
    program = "import sys; from tests.simulation.worlds import WORLDS\n" + (
        "for seed in sys.argv[2:]: print(WORLDS[sys.argv[1]](seed).run().digest)"
    )
    there = subprocess.run(
        [sys.executable, "-c", program, world, *seeds],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split() == here


@pytest.mark.parametrize(("world", "mutant"), [(world, name) for world, planted in PLANTED.items() for name in planted])
def test_a_bug_put_in_on_purpose_is_found(world, mutant):
    seeds = SEEDS_FOR_MUTANTS[world]
    with PLANTED[world][mutant]():
        found = any(WORLDS[world](str(seed)).run().violations for seed in seeds)
    assert found, f"{len(seeds)} runs with the bug '{mutant}' break no promise"
