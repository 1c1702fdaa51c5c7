"""One fault after the other on one site, each followed by rest and judgement."""

import asyncio
import time
from collections import Counter
from functools import partial
from typing import NamedTuple

from aiokafka.errors import KafkaError

from tests.chaos.faults import QUICK, Fault
from tests.chaos.site import ORGANISATIONS, SETTLE_S, Site
from tests.crash.fold import Violation

UNDISTURBED_S = 3.0  # of load, before a fault and after it
RECOVERS_IN_S = 15.0  # that is promised
RECOVERY_S = 90.0  # then it will not recover
AGAIN_S = 0.2
POLL_S = 0.01

# 0: told to stop; 3: no broker at its start; 75: it wants to read the truth from the log; below 0: killed by a fault
EXITS = (0, 3, 75, -9, -15)


class Round(NamedTuple):
    """What came of one fault. `failed` is by class; `recovery_s` is the time from the end of the fault until every
    organisation had a success again, None if that never came; `take_overs` are of partitions; `calls_again` are
    requests of which a call was made once more, because its process was lost; `exits` are those of processes, by role
    and code; `counted` is what the checker has looked at, and what was held back, since the start."""

    fault: str
    duration_s: float
    requests: int
    failed: dict[str, int]
    violations: list[Violation]
    recovery_s: float | None
    take_overs: int
    calls_again: int
    exits: dict[str, int]
    counted: dict[str, int]


async def run_round(
    site: Site,
    fault: Fault,
    *,
    undisturbed_s: float = UNDISTURBED_S,
    settle_s: float = SETTLE_S,
    reconcile: bool = True,
    replay: bool = False,
) -> Round:
    """Have it happen under load, let everything come to rest, and judge."""
    name = fault.func.__name__ if isinstance(fault, partial) else fault.__name__
    first = len(site.traffic.asked)
    await site.tail.read()
    exits, take_overs = site.exits, site.tail.take_overs
    began = time.monotonic()
    site.traffic.flow()
    await asyncio.sleep(undisturbed_s)
    try:
        await fault(site)
    except (TimeoutError, KafkaError, AssertionError) as error:
        site.blame("fault", name, f"{type(error).__name__}: {error}")
    over = time.monotonic()
    recovery_s = await _recovery(site, over)
    if recovery_s is None or recovery_s > RECOVERS_IN_S:
        took = f"more than {RECOVERY_S:g}" if recovery_s is None else f"{recovery_s:.1f}"
        site.blame("recovery", name, f"it took {took} s until every organisation had a success")
    await site.watched()
    await asyncio.sleep(undisturbed_s)
    await site.traffic.ebb()
    duration_s = time.monotonic() - began
    exits = site.exits - exits
    for (role, code), count in exits.items():
        if code not in EXITS:
            site.blame("exit", role, f"ended {count} times with {code}")
    violations, report = await site.judge(settle_s=settle_s, reconcile=reconcile, replay=replay)
    asked = site.traffic.asked[first:]
    outcomes = (await site.outcomes(asked)).values()
    failures = Counter(failure for each in asked if (failure := each.failure()) is not None)
    return Round(
        fault=name,
        duration_s=duration_s,
        requests=len(asked),
        failed=dict(failures.most_common()),
        violations=violations,
        recovery_s=recovery_s,
        take_overs=site.tail.take_overs - take_overs,
        calls_again=sum("abandoned" in attempts[:-1] for attempts in outcomes),
        exits={f"{role} {code}": count for (role, code), count in sorted(exits.items())},
        counted={**report.counted, "held back": site.traffic.held_back, "acknowledgements lost": site.proxy.lost},
    )


async def _recovery(site: Site, over: float) -> float | None:
    """Seconds from `over` until each organisation, asking again and again, had a success; None if that never came."""
    try:
        async with asyncio.timeout(RECOVERY_S):
            ends = await asyncio.gather(*(_first_success(site, org) for org in ORGANISATIONS))
    except TimeoutError:
        return None
    return max(ends) - over


async def _first_success(site: Site, org: str) -> float:
    while True:
        (asked,) = site.ask(QUICK, 1, org=org)
        while not asked.ended_s:
            await asyncio.sleep(POLL_S)
        if asked.ok:
            return asked.ended_s
        await asyncio.sleep(AGAIN_S)
