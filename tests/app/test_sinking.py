"""What is said when the sink cannot go on."""

from pathlib import Path

from tollgate.app.sinking import _failed
from tollgate.errors import LogUnavailable


def test_a_full_disk_is_told_with_its_place():
    full = OSError(28, "No space left on device")
    assert _failed(Path("data"), full) == "the sink failed: data: No space left on device"
    full.filename = "data/usage/x.parquet"
    assert _failed(Path("data"), full) == "the sink failed: data/usage/x.parquet: No space left on device"


def test_what_the_log_says_is_told_as_it_is():
    assert _failed(Path("data"), LogUnavailable("the log is closed")) == "the sink failed: the log is closed"
