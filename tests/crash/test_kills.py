"""The gateway is killed, again and again, under load: nothing is lost, doubled, overspent or left open.

`TOLLGATE_CRASH_KILLS` and `TOLLGATE_CRASH_SEED` change how often and which; `python -m tests.crash` shows each kill.
"""

import os

import pytest

from tests.crash.kills import kill_at_every_step, random_kills

pytestmark = pytest.mark.crash

KILLS = int(os.environ.get("TOLLGATE_CRASH_KILLS", "20"))
SEED = int(os.environ.get("TOLLGATE_CRASH_SEED", "1"))


async def test_the_books_balance_after_kills_at_random_moments(tmp_path, provider):
    report = await random_kills(tmp_path / "gateway", provider, kills=KILLS, seed=SEED)

    assert not report.violations, str(report)
    assert report.counted["completed"] > 10 * KILLS
    assert report.counted["abandoned"] > KILLS, "hardly anything was under way when the gateway died"
    assert all(report.counted.get(status) for status in ("failed", "cancelled", "rejected"))


async def test_the_books_balance_after_a_kill_at_every_named_step(tmp_path, provider):
    missed, report = await kill_at_every_step(tmp_path / "gateway", provider, seed=SEED)

    assert not missed, "these steps were never reached"
    assert not report.violations, str(report)
