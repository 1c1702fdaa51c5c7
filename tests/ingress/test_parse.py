"""JSON is read strictly, and a refusal says what and where without showing what was sent."""

import json
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.errors import Refusal
from tollgate.ingress import parse
from tollgate.ingress.parse import MAX_DEPTH, parse_exact, parse_object


def refusal(body: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        parse_object(body)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (b"", "invalid_json", "empty"),
        (b'{"model": "x"', "invalid_json", "at byte 13 of 13"),
        (b'{"model": "x",}', "invalid_json", "at byte 13 of 15"),
        (b"{'model': 1}", "invalid_json", "at byte 1 "),
        (b'{"a": NaN}', "invalid_json", "at byte 6 "),
        (b'{"a": Infinity}', "invalid_json", "at byte 6 "),
        (b'{"a": 1e999}', "invalid_json", "at byte 6 "),
        (b'{"a": "\\ud800"}', "invalid_json", "surrogate"),
        (b'{"a": "\x01"}', "invalid_json", "control character"),
        (b'{"a": 1} {}', "invalid_json", "after document"),
        (b"\xef\xbb\xbf{}", "invalid_json", "BOM"),
        ('{"é": 1,}'.encode(), "invalid_json", "at byte 8 "),  # bytes are counted, not characters
        (b'{"a": "\xff"}', "invalid_utf8", "byte 7 (0xff)"),
        (b'{"a": "\xed\xa0\x80"}', "invalid_utf8", "byte 7"),
        (b"[]", "invalid_json", "an array"),
        (b'"x"', "invalid_json", "a string"),
        (b"true", "invalid_json", "true or false"),
        (b"null", "invalid_json", "null"),
        (b"1", "invalid_json", "a number"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(body: bytes, code: str, said: str):
    refused = refusal(body)
    assert refused.code == code
    assert said in refused.message


def test_what_is_whole_is_read_as_it_is():
    assert parse_object('{"a": ["é", null, 1.5, {}]}'.encode()) == {"a": ["é", None, 1.5, {}]}


# Keys that are there twice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "a", "model": "b"}',
        '{"x": {"model": 1, "y": [{"model": 2, "model": 2}]}}',
        '{"model": ":::", "model": ""}',
        '{"model": "a", "mod\\u0065l": "b"}',  # one key in two spellings
        '{"model": "\\u003a\\u003A", "model": 1}',  # two escaped colons that make up for the lost one
        '{"a": "\\u003a", "model": {"b": 1}, "model": 1}',
    ],
)
def test_a_key_that_is_there_twice_is_refused_by_name_at_any_depth(body: str):
    refused = refusal(body.encode())
    assert (refused.code, refused.param) == ("duplicate_key", "model")
    assert "'model'" in refused.message


members = st.lists(st.tuples(st.text(alphabet='ab:"\\é', max_size=2), st.deferred(lambda: values)), max_size=4)
values: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(-9, 9),
    st.text(alphabet='a:"\\{é', max_size=4),
    st.lists(st.deferred(lambda: values), max_size=3),
    members.map(tuple),
)


def has_twice(value: Any) -> bool:
    if isinstance(value, tuple):
        names = [name for name, _ in value]
        return len(set(names)) < len(names) or any(has_twice(inner) for _, inner in value)
    return isinstance(value, list) and any(map(has_twice, value))


def written(value: Any, draw: Any) -> str:
    """JSON as other writers may put it: with spaces, and with any character escaped."""
    match value:
        case tuple():
            inner = (f"{written(name, draw)} :{written(each, draw)}" for name, each in value)
            return "{ " + " , ".join(inner) + " }"
        case list():
            return "[" + ",\n".join(written(each, draw) for each in value) + "]"
        case str():
            escaped = [f"\\u{ord(c):04x}" if draw(st.booleans()) else json.dumps(c)[1:-1] for c in value]
            return '"' + "".join(escaped) + '"'
        case _:
            return json.dumps(value)


@given(members.map(tuple), st.data())
def test_exactly_the_bodies_with_a_key_twice_are_refused(content: Any, data: st.DataObject):
    body = written(content, data.draw).encode()
    if has_twice(content):
        assert refusal(body).code == "duplicate_key"
    else:
        assert parse_object(body) == orjson.loads(body)


# Depth ---------------------------------------------------------------------------------------------------------------


def nested(depth: int, *, arrays: bool) -> bytes:
    if arrays:
        return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    return b'{"a":' * depth + b"1" + b"}" * depth


@pytest.mark.parametrize("arrays", [True, False])
def test_the_deepest_body_that_is_taken_is_as_deep_as_said(arrays: bool):
    assert parse_object(nested(MAX_DEPTH, arrays=arrays))
    refused = refusal(nested(MAX_DEPTH + 1, arrays=arrays))
    assert refused.code == "json_too_deep"
    assert str(MAX_DEPTH) in refused.message


@pytest.mark.parametrize("depth", [300, 1024, 1025, 100_000])
def test_however_deep_it_is_a_refusal_with_the_place_of_the_first_level_too_many(depth: int):
    assert f"at byte {5 + MAX_DEPTH - 1}" in refusal(nested(depth, arrays=True)).message


def test_brackets_in_strings_are_not_levels():
    body = b'{"a": "' + b"[" * 1000 + b'\\"[[", "b": ' + b"[" * 300 + b"]" * 300 + b"}"
    assert f"at byte {body.index(b'b') + 4 + MAX_DEPTH - 1}" in refusal(body).message


def test_looking_for_the_place_takes_no_longer_because_of_quotes_in_a_string(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parse, "LOCATE_BYTES", 1 << 20)
    # 300,000 escaped quotes in a string whose end is cut off: read once, not once for each of them
    body = b'{"a": "' + b'\\"' * 600_000 + b'", "b": ' + b"[" * 300 + b"]" * 300 + b"}"
    assert "at byte" not in refusal(body).message


# What is not shown ---------------------------------------------------------------------------------------------------


def test_no_refusal_shows_what_is_in_the_body():
    canary = "CANARY"
    for body in (f'{{"a": "{canary}"', f'{{"a": "{canary}", }}', f'["{canary}"]', f'{{"b": 1, "b": "{canary}"}}'):
        assert canary not in refusal(body.encode()).message


def test_a_key_is_shown_shortened_and_printable():
    refused = refusal(orjson.dumps({"\n" + "x" * 500: 1})[:-1] + b',"\\n' + b"x" * 500 + b'":1}')
    assert len(refused.message) < 200
    assert "\n" not in refused.message


# Exact numbers -------------------------------------------------------------------------------------------------------


def test_amounts_keep_every_decimal():
    assert parse_exact(b'{"usd": 0.1000000000000000055, "n": 3}') == {"usd": Decimal("0.1000000000000000055"), "n": 3}


def test_exact_reading_is_as_strict():
    with pytest.raises(Refusal):
        parse_exact(b'{"usd": 1, "usd": 2}')
