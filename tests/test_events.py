"""Events outlive the code: what was ever written still reads, and what cannot be read says why."""

import json
from pathlib import Path

import msgspec
import pytest

from tollgate import events
from tollgate.app.docs_events import event_types, page, schemas, tag_of
from tollgate.errors import Unreadable
from tollgate.events import CancelRequested, decode, encode
from tollgate.topics import load_topics

ROOT = Path(__file__).parents[1]
WRITTEN = sorted((ROOT / "tests/golden/events").glob("*.json"))


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_every_version_ever_written_still_reads(path):
    event = decode(path.read_bytes())
    assert decode(encode(event)) == event


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.stem)
def test_the_newest_version_keeps_every_field_that_was_written(path):
    """A field that is dropped or renamed without a new version would lose what stands on the log."""
    event = decode(path.read_bytes())
    if tag_of(type(event)) == path.stem:
        assert json.loads(encode(event)) == json.loads(path.read_bytes())


def test_there_is_a_golden_file_of_every_event_as_it_is_written_now():
    assert {tag_of(event) for event in event_types()} <= {path.stem for path in WRITTEN}


def test_a_field_of_a_newer_writer_is_passed_over():
    event = decode(b'{"type":"cancel_requested.1","request_id":"r","reason":"x","of_tomorrow":[1]}')
    assert event == CancelRequested(request_id="r", reason="x")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b'{"type":"cancel_requested.2","request_id":"r"}', "cancel_requested.2"),
        (b'{"type":"of_tomorrow.1"}', "of_tomorrow.1"),
        (b'{"type":"cancel_requested.1"}', "request_id"),
        (b"garbage", "not an event"),
        (b"", "not an event"),
        (b"\xff\xfe\x00", "not an event"),
        (b"[]", "not an event"),
        (b'{"type":7}', "not an event"),
        (b'{"type":"nonsense"}', "not an event"),
        (b"[" * 100_000, "not an event"),
    ],
)
def test_what_cannot_be_read_is_named(value, says):
    with pytest.raises(Unreadable, match=says):
        decode(value)


def test_an_old_version_is_brought_up_to_date(monkeypatch):
    upcast = {("cancel_requested", 0): lambda facts: {**facts, "reason": facts["why"]}}
    monkeypatch.setattr(events, "UPCASTERS", upcast)
    old = b'{"type":"cancel_requested.0","request_id":"r","why":"gone"}'
    assert decode(old) == CancelRequested(request_id="r", reason="gone")


def test_the_page_of_events_is_up_to_date():
    assert (ROOT / "docs/events.md").read_text() == page(), "run `make docs` and commit docs/events.md"


def test_the_schemas_are_up_to_date():
    written = {path.stem: json.loads(path.read_bytes()) for path in (ROOT / "docs/schemas").glob("*.json")}
    made = json.loads(msgspec.json.encode(dict(schemas())))
    assert written == made, "run `make docs` and commit docs/schemas"


def test_every_event_belongs_to_exactly_one_topic():
    declared = [name for topic in load_topics() for name in topic.events]
    assert sorted(declared) == sorted(tag_of(event).rpartition(".")[0] for event in event_types())


def test_no_event_carries_a_float():
    """Money is whole pico-dollars, and times are whole milliseconds."""
    for tag, schema in schemas():
        assert '"number"' not in msgspec.json.encode(schema).decode(), tag
