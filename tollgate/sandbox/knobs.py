"""Model names: `sandbox`, or `sandbox-<knob>-<knob>…`, as in `sandbox-lat50-chunks20-cut3`. Pure: no clock, no I/O.

| knob | what the provider does |
|---|---|
| `latN` | waits N ms before the head |
| `chunksN` | streams the answer in N pieces (default: one per token) |
| `gapN` | waits N ms between two pieces |
| `tokN` | answers with N output tokens (default: a sentence, picked by the text of the request) |
| `inN` | reports N input tokens, whatever was sent |
| `cachedN` | N of the input tokens were read from the cache |
| `reasonN` | uses N reasoning tokens before the answer; they count against the caller's limit |
| `errN` | answers with HTTP status N (400 to 599) and the dialect's error; 429 comes with `retry-after` |
| `errNxK` | only the first K calls of a chain fail so |
| `cutN` | breaks the connection after N pieces; unary: in the middle of the body |
| `ebandN` | sends an error event after N pieces; unary: an error body under status 200, as some servers do |
| `nousage` | reports no usage |
| `overN` | ignores the caller's token limit and delivers N tokens more (no effect without a limit) |
| `hang` | never answers |

An answer has no more pieces than tokens, so `chunksN` without `tokN` also makes it at least N tokens long.
`cut` and `eband` come after the last piece when the answer has fewer. Of several faults the first in the order `hang`,
`err`, `cut`, `eband` happens. Calls form a chain when they ask for the same model and their `x-request-id` is the same
up to its last dot (`<uuid>.1`, `<uuid>.2`); calls without that header are one chain per model.

Names that begin with `mock-` behave like `sandbox`, and have no knobs. Any other name, an unknown knob, a knob given
twice or out of its range does not exist: 404.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from tollgate.sandbox.request import MAX_NAME_SHOWN, Refused

MODELS = ("sandbox", "mock-gpt")  # what is listed; every other name of the grammar works as well

_MAX_MS = 600_000
_MAX_TOKENS = 1_000_000

# knob → least and greatest number; None for a knob that takes none
RANGES: dict[str, tuple[int, int] | None] = {
    "lat": (0, _MAX_MS),
    "chunks": (1, _MAX_TOKENS),
    "gap": (0, _MAX_MS),
    "tok": (0, _MAX_TOKENS),
    "in": (0, 100_000_000),
    "cached": (0, 100_000_000),
    "reason": (0, _MAX_TOKENS),
    "err": (400, 599),
    "cut": (0, _MAX_TOKENS),
    "eband": (0, _MAX_TOKENS),
    "nousage": None,
    "over": (1, _MAX_TOKENS),
    "hang": None,
}
_KNOB = re.compile(r"([a-z]+)([0-9]{1,9})?(?:x([0-9]{1,9}))?", re.ASCII)


class Knobs(NamedTuple):
    """What a model's name asks for; None and 0 where it does not say. Times in milliseconds."""

    latency_ms: int = 0
    chunks: int | None = None
    gap_ms: int = 0
    tokens: int | None = None
    input_tokens: int | None = None
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    error_status: int | None = None
    failing_calls: int | None = None
    cut_after: int | None = None
    in_band_after: int | None = None
    no_usage: bool = False
    over: int = 0
    hang: bool = False


@lru_cache(maxsize=1024)
def parse_model(name: str) -> Knobs:
    """What the name asks for. Raises `Refused` (404) with the reason when there is no such model."""
    if name.startswith("mock-"):
        return Knobs()
    family, *words = name.split("-")
    if family != "sandbox":
        raise _unknown(name)
    numbers: dict[str, int] = {}
    failing_calls = None
    for word in words:
        knob, number, failing_calls_here = _parse_knob(name, word)
        if knob in numbers:
            raise _unknown(name, f"knob '{knob}' is given twice")
        numbers[knob] = number
        if failing_calls_here is not None:
            failing_calls = failing_calls_here
    return Knobs(
        latency_ms=numbers.get("lat", 0),
        chunks=numbers.get("chunks"),
        gap_ms=numbers.get("gap", 0),
        tokens=numbers.get("tok"),
        input_tokens=numbers.get("in"),
        cached_tokens=numbers.get("cached", 0),
        reasoning_tokens=numbers.get("reason", 0),
        error_status=numbers.get("err"),
        failing_calls=failing_calls,
        cut_after=numbers.get("cut"),
        in_band_after=numbers.get("eband"),
        no_usage="nousage" in numbers,
        over=numbers.get("over", 0),
        hang="hang" in numbers,
    )


def _parse_knob(name: str, word: str) -> tuple[str, int, int | None]:
    """The knob, its number (0 for one that takes none) and the calls that fail, where it says so."""
    match = _KNOB.fullmatch(word)
    knob = match[1] if match else word
    if match is None or knob not in RANGES:
        raise _unknown(name, f"unknown knob '{word[:MAX_NAME_SHOWN]}'")
    span, number, calls = RANGES[knob], match[2], match[3]
    if calls is not None and knob != "err":
        raise _unknown(name, f"knob '{knob}' takes no count of calls")
    if span is None:
        if number is not None:
            raise _unknown(name, f"knob '{knob}' takes no number")
        return knob, 0, None
    least, greatest = span
    if number is None or not least <= int(number) <= greatest:
        raise _unknown(name, f"knob '{knob}' needs a number from {least} to {greatest}")
    return knob, int(number), None if calls is None else int(calls)


def _unknown(name: str, reason: str | None = None) -> Refused:
    shown = name[:MAX_NAME_SHOWN]
    return Refused(404, f"The model '{shown}' does not exist" + (f": {reason}." if reason else "."), param="model")
