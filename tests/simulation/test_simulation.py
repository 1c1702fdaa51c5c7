"""The protocol under everything that can happen to it: hundreds of random worlds, each decided by one number.

A run that fails prints its number. `python -m tests.simulation NUMBER --trace` shows it again, step by step; it goes
the same way every time.
"""

import os
import subprocess
import sys
from collections import Counter

import pytest

from tests.simulation.scenario import DEATHS
from tests.simulation.scenario_kafka import INGRESS_DEATHS, WORKER_DEATHS
from tests.simulation.world import Result
from tests.simulation.worlds import PLANTED, WORLDS

SEEDS = {"embedded": 200, "kafka": 500}  # by world; more by TOLLGATE_SIM_SEEDS, for each
SEEDS = {world: int(os.environ.get("TOLLGATE_SIM_SEEDS", count)) for world, count in SEEDS.items()}
SEEDS_PER_TEST = 100
# Some bugs show in one run of two hundred: among these each does.
SEEDS_FOR_MUTANTS = {"embedded": range(401, 551), "kafka": range(1, 151)}
# Where the search for the rare ones begins. Any change of the gateway may shuffle runs; then it takes longer, no more.
SEEN_AT = {
    "rows_keep_the_offsets_that_were_expected": 525,
    "obsolete_rows_are_deleted_before_the_mark": 462,
    "a_checkpoint_does_not_wait_for_copies": 456,
    "a_call_needs_no_certainty": 25,
    "an_acknowledgement_is_as_new_as_its_reading": 118,
    "replies_of_older_epochs_are_taken": 110,
    "a_hand_over_forgets_calls_in_the_making": 63,
    "a_report_may_be_of_another_attempt": 27,
    "a_report_is_forgotten_in_a_crash": 27,
    "calls_for_a_dead_ingress_go_on": 29,
}
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


def run(world: str, seed: int) -> Result:
    """A run of the gateway as it is. Its steps are not kept, for there are many."""
    result = WORLDS[world](str(seed)).run()
    return result if result.violations else Result(result.seed, (), (), result.facts, result.passed)


BATCHES = [
    (world, range(first, min(first + SEEDS_PER_TEST, SEEDS[world] + 1)))
    for world in WORLDS
    for first in range(1, SEEDS[world] + 1, SEEDS_PER_TEST)
]


@pytest.mark.parametrize(("world", "seeds"), BATCHES, ids=lambda value: f"{value}".replace(", ", "-"))
def test_no_promise_is_broken_whatever_happens(world, seeds):
    results = [run(world, seed) for seed in seeds]
    broken = [result for result in results if result.violations]
    assert not broken, "\n".join(
        f"{result.violations[0].rule}: {result.violations[0].text}\n"
        f"    to see it: python -m tests.simulation {result.seed} --world {world} --trace"
        for result in broken[:SHOWN]
    )
    if seeds.start == 1:
        assert_they_come_to_every_corner(world, results)


def assert_they_come_to_every_corner(world, results):
    facts, passed = Counter[str](), set[str]()
    for result in results:
        facts.update(result.facts)
        passed |= result.passed
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
    seeds = [SEEN_AT.get(mutant, SEEDS_FOR_MUTANTS[world][0]), *SEEDS_FOR_MUTANTS[world]]
    with PLANTED[world][mutant]():
        found = any(WORLDS[world](str(seed)).run().violations for seed in seeds)
    assert found, f"{len(seeds)} runs with the bug '{mutant}' break no promise"
