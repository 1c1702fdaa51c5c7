"""The order of a streamed answer's parts, whatever order the provider mixes them in."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.fixtures import REQUEST_ID
from tollgate.errors import ProviderError
from tollgate.wire import sequence
from tollgate.wire.content import Citation, Delta
from tollgate.wire.sequence import Sequencer


class Log:
    """Writes what happens as one would tell it."""

    def __init__(self):
        self.parts = []

    def open(self, part):
        self.parts.append(part)
        names = f" {part.id} {part.name}" if part.kind == "tool_call" else ""
        return f"[{part.choice}.{part.index} {part.kind}{names}: ".encode()

    def more(self, part, delta):
        assert part is self.parts[-1] or part.choice != self.parts[-1].choice
        return (delta.text + (f"<{delta.signature}>" if delta.signature else "")).encode()

    def close(self, part):
        return b"]"


def text(said, key=0, **more):
    return Delta(text=said, key=key, **more)


def thought(said, key=0, **more):
    return Delta(kind="reasoning", text=said, key=key, **more)


def call(key, arguments="", *, id="", name="", **more):
    return Delta(kind="tool_call", key=key, text=arguments, id=id, name=name, **more)


def told(*deltas):
    """What leaves with each delta, and what only with the end."""
    sequencer = Sequencer(Log(), REQUEST_ID)
    return [sequencer.add(delta).decode() for delta in deltas] + [sequencer.end().decode()]


def test_parts_come_one_after_another_as_they_are():
    assert told(thought("Hm"), thought(".", signature="s"), text("Hello"), text(" there")) == [
        "[0.0 reasoning: Hm",
        ".<s>",
        "][0.1 text: Hello",
        " there",
        "]",
    ]


def test_parts_of_one_kind_are_told_apart_by_their_keys():
    assert "".join(told(thought("a", 0, signature="x"), thought("b", 1, signature="y"))) == (
        "[0.0 reasoning: a<x>][0.1 reasoning: b<y>]"
    )


def test_a_call_leaves_piece_by_piece_once_it_is_known():
    assert told(call(0, id="c", name="f"), call(0, '{"a":'), call(0, "1}")) == [
        "[0.0 tool_call c f: ",
        '{"a":',
        "1}",
        "]",
    ]


def test_arguments_that_come_before_id_and_name_wait_for_them():
    assert told(call(0, '{"a"'), call(0, ":1", name="f"), call(0, "}", id="c")) == [
        "",
        "",
        '[0.0 tool_call c f: {"a":1}',
        "]",
    ]


def test_a_call_begins_when_the_one_before_is_whole():
    assert told(call(0, "{}", id="c", name="f"), call(1, "{", id="d", name="g"), call(1, "}")) == [
        "[0.0 tool_call c f: {}",
        "][0.1 tool_call d g: {",
        "}",
        "]",
    ]


def test_fragments_of_calls_that_come_mixed_are_put_in_order():
    pieces = told(
        call(0, '{"a":', id="c", name="f"),
        call(1, '{"b":', id="d", name="g"),
        call(0, "1"),
        call(1, "2"),
        call(0, "}"),
        call(1, "}"),
    )

    assert pieces[1] == pieces[3] == ""
    assert "".join(pieces) == '[0.0 tool_call c f: {"a":1}][0.1 tool_call d g: {"b":2}]'
    assert pieces[4].startswith("}]"), "the second leaves as soon as the first is whole"


def test_what_waits_behind_a_call_that_is_never_whole_leaves_at_the_end():
    pieces = told(call(0, "{", id="c", name="f"), call(1, "{", id="d", name="g"), text("Hm"), call(1, "}"))

    assert pieces[1:4] == ["", "", ""]
    assert pieces[4] == "][0.1 tool_call d g: {}][0.2 text: Hm]"


def test_a_call_without_arguments_gets_an_empty_object():
    assert told(call(0, id="c", name="f", last=True), call(1, id="d", name="g")) == [
        "[0.0 tool_call c f: {}]",
        "[0.1 tool_call d g: ",
        "{}]",
    ]


def test_a_call_without_id_gets_one_that_no_other_call_has():
    one = "".join(told(call(0, "{}", name="f", last=True), call(1, "{}", name="g")))

    assert one == f"[0.0 tool_call call_{REQUEST_ID.replace('-', '')}_1 f: {{}}]" + (
        f"[0.1 tool_call call_{REQUEST_ID.replace('-', '')}_2 g: {{}}]"
    )


def test_a_signature_of_a_call_is_known_when_it_begins():
    log = Log()
    sequencer = Sequencer(log, REQUEST_ID)

    sequencer.add(call(0, id="c", name="f", signature="s", origin="google"))

    assert (log.parts[0].signature, log.parts[0].origin) == ("s", "google")


def test_a_redacted_thought_is_known_when_it_begins():
    log = Log()
    sequencer = Sequencer(log, REQUEST_ID)

    assert sequencer.add(thought("", redacted="x", origin="anthropic")) == b"[0.0 reasoning: "
    assert (log.parts[0].redacted, log.parts[0].origin) == ("x", "anthropic")


def test_the_end_of_a_part_that_never_began_is_nothing():
    assert told(text("", last=True), thought("", 1, last=True), text("a", 2)) == ["", "", "[0.0 text: a", "]"]


def test_citations_alone_are_a_part():
    assert told(Delta(citations=(Citation(url="https://example.com"),))) == ["[0.0 text: ", "]"]


def test_each_choice_has_an_order_of_its_own():
    assert told(text("a"), text("b", choice=1), text("c"), call(0, "{", choice=1, id="c", name="f"), text("d")) == [
        "[0.0 text: a",
        "[1.0 text: b",
        "c",
        "][1.1 tool_call c f: {",
        "d",
        "]]",
    ]


def test_a_call_has_been_made_in_the_choice_where_it_was():
    sequencer = Sequencer(Log(), REQUEST_ID)
    sequencer.add(text("a"))
    sequencer.add(call(0, choice=1, id="c", name="f"))

    assert [sequencer.has_called(choice) for choice in (0, 1, 2)] == [False, True, False]


@pytest.mark.parametrize(
    "deltas",
    [
        [call(0, "{}", id="c", last=True)],
        [call(0, "{}", id="c", name="f", last=True), call(0, "{}")],
    ],
)
def test_what_no_client_could_be_told_is_the_providers_failure(deltas):
    with pytest.raises(ProviderError, match="tool call"):
        told(*deltas)


def test_a_call_that_has_ended_may_be_followed_by_nothing_said():
    assert told(call(0, "{}", id="c", name="f", last=True), call(0, " ")) == ["[0.0 tool_call c f: {}]", "", ""]


def test_what_waits_is_bounded(monkeypatch):
    monkeypatch.setattr(sequence, "MAX_WAITING_BYTES", 10)

    with pytest.raises(ProviderError, match="10 bytes"):
        told(call(0, "{", id="c", name="f"), *[text("abcd")] * 3)


@st.composite
def mixed_calls(draw):
    """Calls with whole arguments, cut into fragments that keep their order within a call but not among calls."""
    arguments = draw(st.lists(st.dictionaries(st.text("abc", max_size=3), st.integers(0, 9), max_size=2), max_size=4))
    queues = []
    for key, value in enumerate(arguments):
        whole = orjson.dumps(value).decode()
        cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=3)))
        pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        names_at = draw(st.integers(0, len(pieces) - 1))
        queues.append(
            [
                call(key, piece, id=f"c{key}" if at == names_at else "", name="f" if at == names_at else "")
                for at, piece in enumerate(pieces)
            ]
        )
    mixed = []
    while any(queues):
        queue = draw(st.sampled_from([queue for queue in queues if queue]))
        mixed.append(queue.pop(0))
    return arguments, mixed


@given(mixed_calls())
def test_no_mixture_loses_or_joins_anything(case):
    arguments, deltas = case

    out = "".join(told(*deltas))

    found = {}
    for part in out.replace("][", "]\n[").splitlines():
        head, _, body = part.removeprefix("[").removesuffix("]").partition(": ")
        found[head.split()[2]] = orjson.loads(body)
    assert found == {f"c{key}": value for key, value in enumerate(arguments)}
