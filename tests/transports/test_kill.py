"""A killed process: no event that was not finished may be below what it had committed."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.transports.killed_worker import EVENTS, SLOW_EVERY
from tests.transports.support import Place, append

pytestmark = pytest.mark.crash

WAIT_S = 30.0
QUICK = {n for n in range(EVENTS) if n % SLOW_EVERY}


async def run_killed_and_again(place: Place, commits: str) -> set[int]:
    """The events that were finished by a worker killed in the midst of them and by the one started after it."""
    notes = place.folder / "notes"
    notes.touch()
    async with place.log() as log:
        await append(log, place.requests, 0, [b"%d" % n for n in range(EVENTS)])
    command = [sys.executable, "-m", "tests.transports.killed_worker"]
    command += [str(place.folder), place.server or "", place.name, str(notes), commits]
    first = await asyncio.create_subprocess_exec(*command, "slow")
    async with asyncio.timeout(WAIT_S):
        while finished(notes) != QUICK or await place.committed(0) is None:
            assert first.returncode is None
            await asyncio.sleep(0.05)
    first.kill()
    assert await first.wait() == -9
    second = await asyncio.create_subprocess_exec(*command, "quick")
    assert await asyncio.wait_for(second.wait(), WAIT_S) == 0
    return finished(notes)


def finished(notes: Path) -> set[int]:
    return {int(line) for line in notes.read_text().splitlines()}


async def test_every_event_is_finished_though_the_process_was_killed(place: Place) -> None:
    assert await run_killed_and_again(place, "safe") == set(range(EVENTS))


async def test_with_the_commits_of_faust_events_are_lost(place: Place) -> None:
    """Why the mixin is there. Once nothing is lost any more, it can go."""
    lost = set(range(EVENTS)) - await run_killed_and_again(place, "faust")
    assert lost
    assert all(n % SLOW_EVERY == 0 for n in lost)
