"""A gateway of six processes on a Kafka of its own is disturbed under load, and every promise holds.

The most telling faults at shorter lengths; `make chaos` runs all of them in full.
"""

from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from tests.chaos import bugs, faults
from tests.chaos.rounds import Round, run_round
from tests.chaos.site import Site, open_site

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.crash,
    pytest.mark.asyncio(loop_scope="module"),
]

in_short = partial(run_round, undisturbed_s=1.0, reconcile=False)  # the books are compared when all is over

# On a machine so busy that for two seconds nobody hears which keys are revoked, the gateway lets nobody in
BUSY = ("503 not_ready", "503 control_state_unknown")
FROZEN_S = 12.0  # longer than the session, so that another takes over
BUG_SETTLE_S = 5.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with open_site(tmp_path_factory.mktemp("chaos")) as site:
        yield site


def nothing_is_broken(done: Round) -> bool:
    assert done.requests > 20, "hardly anything was asked"
    assert not done.violations, "\n".join(str(violation) for violation in done.violations)
    return True


async def test_a_killed_worker_costs_nobody_an_answer_that_had_not_begun(site):
    assert nothing_is_broken(await in_short(site, faults.worker_killed))


async def test_a_killed_ingress_takes_its_own_clients_with_it_and_nothing_else(site):
    done = await in_short(site, partial(faults.ingress_killed, streams=50))
    assert nothing_is_broken(done)
    assert done.failed.keys() <= {"connection lost", "connection lost in the answer", *BUSY}


async def test_what_a_frozen_worker_does_when_it_wakes_counts_for_nothing(site):
    done = await in_short(site, partial(faults.owning_worker_frozen, seconds=FROZEN_S))
    assert nothing_is_broken(done)
    assert done.counted["stale"], "the frozen worker has said nothing"


async def test_a_rolling_restart_is_noticed_by_nobody(site):
    done = await in_short(site, faults.rolling_restart, reconcile=True, replay=True)
    assert nothing_is_broken(done)
    assert not done.failed


async def test_a_planted_bug_is_found(site):
    fault, promise = bugs.BUGS[bugs.a_lost_call_costs_nothing]
    await site.plant(bugs.a_lost_call_costs_nothing.__name__, site.of("worker"))
    done = await in_short(site, faults.FAULTS[fault], settle_s=BUG_SETTLE_S)
    assert promise in {violation.promise for violation in done.violations}
