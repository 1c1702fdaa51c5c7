"""The checker is checked: it finds every bug that is planted, and where there is none it finds nothing."""

import pytest

from tests.crash.bugs import BUGS
from tests.crash.kills import spoilt

pytestmark = pytest.mark.crash

TRIES = 6  # a kill must strike between two steps for some bugs to show: not every one does


async def test_where_no_bug_is_planted_nothing_is_found(tmp_path, provider):
    report = await spoilt(tmp_path / "gateway", provider, bug=None, seed=1)

    assert not report.violations, str(report)
    assert report.counted["stale"], "no zombie has spoken"
    assert report.unknown, "no call was cut off"


@pytest.mark.parametrize(("bug", "promise"), [(bug.__name__, promise) for bug, promise in BUGS.items()])
async def test_a_planted_bug_is_found(tmp_path, provider, bug, promise):
    for seed in range(1, TRIES + 1):
        await provider.forget()
        report = await spoilt(tmp_path / f"gateway-{seed}", provider, bug=bug, seed=seed)
        if promise in {violation.promise for violation in report.violations}:
            return
    pytest.fail(str(report))
