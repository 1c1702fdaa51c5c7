"""Times as people and JSON write them."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS, _LAST_MS = -62_135_596_800_000, 253_402_300_799_999  # of the years 1 and 9999


def iso(at_ms: int) -> str:
    """A time as people and JSON write it (RFC 3339, UTC, milliseconds); one of no calendar year is the nearest that is.

    It never raises: what is on the log is shown for ever, to every owner that begins there.
    """
    at_ms = min(max(at_ms, _FIRST_MS), _LAST_MS)
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
