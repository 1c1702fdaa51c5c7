"""What a provider's answer says of its rate limits, from any provider's headers, in one form. Pure.

| provider | headers | `reset` is |
|---|---|---|
| OpenAI, Groq | `x-ratelimit-{limit,remaining,reset}-{requests,tokens,…}` | a duration, `1m30s`, `12ms` |
| Azure, Mistral, Hugging Face | the same, some with a period: `-req-minute`, `-requests-day` | seconds, or absent |
| Anthropic | `anthropic-ratelimit-{requests,tokens,input-tokens,…}-{limit,remaining,reset}` | a time (RFC 3339) |
| Together, OpenRouter | `x-ratelimit-{limit,remaining,reset}` | Unix time in seconds or milliseconds |
| Mistral, formerly | `x-ratelimitbysize-{limit,remaining}-{minute,month}`, `ratelimitbysize-…` | seconds |
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

MAX_WINDOWS = 16  # of one answer; more are not looked at

_FORMS = (
    re.compile(r"anthropic-ratelimit-(?P<counts>[a-z-]+)-(?P<what>limit|remaining|reset)"),
    re.compile(r"x-ratelimit-(?P<what>limit|remaining|reset)(-(?P<counts>[a-z_-]+))?"),
    re.compile(r"x-ratelimitbysize-(?P<what>limit|remaining|reset)-(?P<counts>[a-z]+)"),
    re.compile(r"ratelimitbysize-(?P<what>limit|remaining|reset)"),
)
_PERIODS = ("minute", "hour", "day", "month", "10-second")
_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m(?!s))?(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
_FIRST_UNIX_S, _FIRST_UNIX_MS = 10**9, 10**12  # a number from here on is a time, not a wait


class Window(NamedTuple):
    """One limit as it stands. `counts` is what it counts: `requests`, `tokens`, `input_tokens`, `tokens_per_day`, …

    `limit` and `resets_in_s` are None where the provider does not say.
    """

    counts: str
    remaining: int
    limit: int | None = None
    resets_in_s: float | None = None


def windows(headers: Mapping[str, str]) -> tuple[Window, ...]:
    """The limits that an answer's headers (names in lower case) tell. The unreadable is left out."""
    found: dict[str, dict[str, str]] = {}
    for name, value in headers.items():
        if "ratelimit" not in name:
            continue
        match = next((match for form in _FORMS if (match := form.fullmatch(name))), None)
        if match is not None and len(found) < MAX_WINDOWS:
            groups = match.groupdict()
            found.setdefault(_counts(name, groups.get("counts")), {})[groups["what"]] = value
    stated = ((counts, _whole(said.get("remaining")), said) for counts, said in found.items())
    return tuple(
        Window(counts, remaining, _whole(said.get("limit")), _wait_s(said.get("reset"), headers))
        for counts, remaining, said in stated
        if remaining is not None
    )


def share_left(found: tuple[Window, ...]) -> float | None:
    """How much is left of the limit that is nearest its end, from 0 to 1; None when none is known."""
    shares = [window.remaining / window.limit for window in found if window.limit]
    return max(0.0, min(1.0, *shares)) if shares else None


def _counts(name: str, counts: str | None) -> str:
    if "bysize" in name:
        counts = f"tokens-{counts}" if counts else "tokens"
    counts = (counts or "requests").replace("_", "-")
    period = next((period for period in _PERIODS if counts.endswith(f"-{period}")), None)
    if period is not None:
        counts = counts.removesuffix(f"-{period}")
    counts = {"req": "requests"}.get(counts, counts).replace("-", "_")
    return counts if period in (None, "minute") else f"{counts}_per_{period.replace('-', '_')}"


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"\d{1,20}", text) else None


def _wait_s(text: str | None, headers: Mapping[str, str]) -> float | None:
    if text is None:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", text):
        number = float(text)
        if number < _FIRST_UNIX_S:
            return number
        try:
            moment = datetime.fromtimestamp(number / (1000 if number >= _FIRST_UNIX_MS else 1), UTC)
        except (OverflowError, ValueError, OSError):  # after the year 9999
            return None
        return _until(moment, headers)
    if (match := _DURATION.fullmatch(text)) is not None:
        days, hours, minutes, seconds, millis = (float(part or 0) for part in match.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds + millis / 1000
    try:
        return _until(datetime.fromisoformat(text), headers)
    except ValueError:
        return None


def _until(moment: datetime, headers: Mapping[str, str]) -> float | None:
    """From the answer's own date, so that no clock is needed."""
    try:
        return max(0.0, (moment - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, TypeError, ValueError):
        return None
