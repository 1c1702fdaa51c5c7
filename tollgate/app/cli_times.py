"""Times as options: a day, or a time with its zone. Pure."""

import re
from datetime import UTC, datetime

from tollgate.errors import UsageError

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
# RFC 3339, section 5.6: what `fromisoformat` reads beyond it would be taken for something else one day
_TIME = re.compile(_DAY.pattern + r"[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})")


def unix_ms(text: str, *, option: str) -> int:
    """The Unix milliseconds of `2026-11-20`, which is the day's beginning in UTC, or of an RFC 3339 time.

    Raises `UsageError` that names the option.
    """
    try:
        if _DAY.fullmatch(text):
            time = datetime.fromisoformat(text).replace(tzinfo=UTC)
        elif _TIME.fullmatch(text):
            time = datetime.fromisoformat(text.upper())
        else:
            raise ValueError
        return max(0, int(time.timestamp() * 1000))
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option}: '{text}' is neither a day (2026-11-20) nor a time with its zone (2026-11-20T09:30:00Z)"
        ) from None
