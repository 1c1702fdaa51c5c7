"""Rate limits as providers tell them in headers, in one form."""

import re

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.wire import recordings
from tollgate.wire.rate_limits import MAX_WINDOWS, Window, share_left, windows

DATE = "Wed, 19 Aug 2026 14:34:30 GMT"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param(
            {
                "x-ratelimit-limit-requests": "500",
                "x-ratelimit-remaining-requests": "499",
                "x-ratelimit-reset-requests": "120ms",
                "x-ratelimit-limit-tokens": "30000",
                "x-ratelimit-remaining-tokens": "29000",
                "x-ratelimit-reset-tokens": "1m30.5s",
            },
            {Window("requests", 499, 500, 0.12), Window("tokens", 29000, 30000, 90.5)},
            id="OpenAI",
        ),
        pytest.param(
            {"x-ratelimit-remaining-tokens": "99998", "x-ratelimit-reset-tokens": "7", "x-ratelimit-key": "gpt-5"},
            {Window("tokens", 99998, None, 7.0)},
            id="Azure",
        ),
        pytest.param(
            {
                "anthropic-ratelimit-input-tokens-limit": "400000",
                "anthropic-ratelimit-input-tokens-remaining": "100000",
                "anthropic-ratelimit-input-tokens-reset": "2026-08-19T14:35:00Z",
                "date": DATE,
            },
            {Window("input_tokens", 100000, 400000, 30.0)},
            id="Anthropic",
        ),
        pytest.param(
            {"anthropic-ratelimit-requests-remaining": "4", "anthropic-ratelimit-requests-reset": "2026-08-19T14:35Z"},
            {Window("requests", 4, None, None)},
            id="without a date the reset is not known",
        ),
        pytest.param(
            {
                "x-ratelimit-limit-req-minute": "5",
                "x-ratelimit-remaining-req-minute": "4",
                "x-ratelimit-limit-tokens-month": "1000000000",
                "x-ratelimit-remaining-tokens-month": "999993918",
                "x-ratelimit-tokens-query-cost": "68",
            },
            {Window("requests", 4, 5), Window("tokens_per_month", 999993918, 1000000000)},
            id="Mistral",
        ),
        pytest.param(
            {"ratelimitbysize-limit": "500000", "ratelimitbysize-remaining": "342032", "ratelimitbysize-reset": "60"},
            {Window("tokens", 342032, 500000, 60.0)},
            id="Mistral, formerly",
        ),
        pytest.param(
            {
                "x-ratelimit-limit": "1",
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": "1787150100000",
                "date": DATE,
            },
            {Window("requests", 0, 1, 30.0)},
            id="OpenRouter",
        ),
        pytest.param({"x-ratelimit-remaining-requests": "many", "retry-after": "3"}, set(), id="nonsense"),
    ],
)
def test_limits_are_read_whoever_writes_them(headers, expected):
    assert set(windows(headers)) == expected


def test_the_share_left_is_that_of_the_limit_nearest_its_end():
    assert share_left((Window("requests", 50, 100), Window("tokens", 1, 10), Window("images", 0))) == 0.1
    assert share_left((Window("tokens", 5),)) is None
    assert share_left((Window("tokens", 7, 5),)) == 1.0


@example({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "253402300800"})
@example({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "9" * 400})
@given(
    st.dictionaries(
        st.from_regex(
            r"(anthropic|x)-ratelimit(bysize)?-(limit|remaining|reset|tokens|requests)(-[a-z_]{0,9}){0,2}",
            fullmatch=True,
        ),
        st.text(max_size=12) | st.sampled_from(["9" * 30, "1e9", "-1", "1h2m3s4ms", "2026-13-01", "٣", "253402300801"]),
        max_size=40,
    )
)
def test_whatever_the_headers_hold_nothing_is_raised(headers):
    found = windows(headers)
    assert len(found) <= MAX_WINDOWS
    assert share_left(found) is None or 0 <= share_left(found) <= 1


@pytest.mark.skipif(not recordings.exists(), reason=recordings.MISSING)
def test_every_recorded_header_that_says_what_remains_is_read():
    told = re.compile(r".*ratelimit.*remaining.*")
    for path in sorted(recordings.FOLDER.glob("*.jsonl")):
        for line in path.read_bytes().splitlines():
            headers = {
                name.lower(): value for name, value in (orjson.loads(line).get("response_headers") or {}).items()
            }
            stated = [name for name, value in headers.items() if told.fullmatch(name) and value.isdecimal()]
            assert bool(windows(headers)) == bool(stated), path.name
