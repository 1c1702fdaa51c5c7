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

from tests.simulation.embedded import EmbeddedSimulation as Simulation
from tests.simulation.mutants import MUTANTS
from tests.simulation.scenario import DEATHS
from tests.simulation.world import Result

SEEDS = int(os.environ.get("TOLLGATE_SIM_SEEDS", "300"))
SEEDS_PER_TEST = 50
SEEDS_FOR_MUTANTS = range(401, 551)  # one bug shows in one run of two hundred: among these it does
SHOWN = 3


@cache
def run(seed: int) -> Result:
    """A run of the gateway as it is. Its trace is not kept, for there are many."""
    result = Simulation(str(seed)).run()
    return result if result.violations else Result(result.seed, (), (), result.facts, result.passed)


@pytest.mark.parametrize("first", range(1, SEEDS + 1, SEEDS_PER_TEST))
def test_no_promise_is_broken_whatever_happens(first):
    results = [run(seed) for seed in range(first, min(first + SEEDS_PER_TEST, SEEDS + 1))]
    broken = [result for result in results if result.violations]
    assert not broken, "\n".join(
        f"{result.violations[0].rule}: {result.violations[0].text}\n"
        f"    to see it: python -m tests.simulation {result.seed} --trace"
        for result in broken[:SHOWN]
    )


def test_the_runs_come_to_every_corner():
    """Otherwise that nothing was found there means nothing."""
    facts, passed = Counter[str](), set[str]()
    for seed in range(1, min(SEEDS, 100) + 1):
        facts.update(run(seed).facts)
        passed |= run(seed).passed
    assert not set(DEATHS) - passed
    for what in (
        *("completed", "failed", "cancelled", "abandoned", "rejected", "concurrent_requests", "requests_per_minute"),
        *(
            "monthly_budget",
            "replaced",
            "invalid records",
            "overruns",
            "attempts after the first",
            "streams broken off",
        ),
    ):
        assert facts[what] > 10, f"{what}: {facts[what]}"


def test_a_run_goes_the_same_way_every_time():
    """Also in another process, where sets have another order."""
    seeds = ("1", "2", "3")
    here = [Simulation(seed).run().digest for seed in seeds]
    assert here == [Simulation(seed).run().digest for seed in seeds]
    program = "import sys; from tests.simulation.embedded import EmbeddedSimulation as Simulation\n" + (
        "for seed in sys.argv[1:]: print(Simulation(seed).run().digest)"
    )
    there = subprocess.run(
        [sys.executable, "-c", program, *seeds],
        env={**os.environ, "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.split() == here


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_bug_put_in_on_purpose_is_found(mutant):
    with MUTANTS[mutant]():
        found = any(Simulation(str(seed)).run().violations for seed in SEEDS_FOR_MUTANTS)
    assert found, f"{len(SEEDS_FOR_MUTANTS)} runs with the bug '{mutant}' break no promise"
