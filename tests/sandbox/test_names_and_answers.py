"""Model names, answers and token counts: the pure half of the sandbox."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.sandbox import knobs
from tollgate.sandbox.answer import SENTENCES, compose
from tollgate.sandbox.knobs import RANGES, Knobs, parse_model
from tollgate.sandbox.request import Ask, Refused, measure


def ask(
    *,
    max_tokens: int | None = None,
    stop: tuple[bytes, ...] = (),
    fingerprint: int = 0,
    input_tokens: int = 10,
) -> Ask:
    return Ask(
        model="sandbox",
        stream=False,
        max_tokens=max_tokens,
        stop=stop,
        choices=1,
        include_usage=False,
        input_tokens=input_tokens,
        fingerprint=fingerprint,
    )


def test_a_name_sets_every_knob():
    name = "sandbox-lat1-chunks2-gap3-tok4-in5-cached6-reason7-err500x8-cut9-eband10-nousage-over11-hang"
    assert parse_model(name) == Knobs(
        latency_ms=1,
        chunks=2,
        gap_ms=3,
        tokens=4,
        input_tokens=5,
        cached_tokens=6,
        reasoning_tokens=7,
        error_status=500,
        failing_calls=8,
        cut_after=9,
        in_band_after=10,
        no_usage=True,
        over=11,
        hang=True,
    )


def test_plain_and_mock_names_have_no_knobs():
    assert parse_model("sandbox") == parse_model("mock-gpt") == parse_model("mock-lat50") == Knobs()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gpt-4o", "'gpt-4o' does not exist."),
        ("sandboxed", "'sandboxed' does not exist."),
        ("sandbox-fast", "unknown knob 'fast'"),
        ("sandbox-lat50-", "unknown knob ''"),
        ("sandbox-lat", "knob 'lat' needs a number from 0 to"),
        ("sandbox-lat-5", "knob 'lat' needs a number"),
        ("sandbox-lat600001", "knob 'lat' needs a number from 0 to 600000"),
        ("sandbox-lat1-lat1", "knob 'lat' is given twice"),
        ("sandbox-chunks0", "knob 'chunks' needs a number from 1"),
        ("sandbox-err200", "knob 'err' needs a number from 400 to 599"),
        ("sandbox-cut1x2", "knob 'cut' takes no count of calls"),
        ("sandbox-nousage1", "knob 'nousage' takes no number"),
        ("sandbox-LAT5", "unknown knob 'LAT5'"),
        ("sandbox-lat٣", "unknown knob 'lat٣'"),
    ],
)
def test_a_name_outside_the_grammar_is_not_found_and_says_why(name, reason):
    with pytest.raises(Refused) as refused:
        parse_model(name)
    assert refused.value.status == 404
    assert reason in refused.value.message


def test_every_knob_is_in_the_documented_table():
    documented = set(re.findall(r"^\| `([a-z]+)N?(?:xK)?` \|", knobs.__doc__, re.MULTILINE))
    assert documented == set(RANGES)


def test_the_same_request_gets_the_same_answer_and_others_differ():
    answers = [compose(ask(fingerprint=number), Knobs()).text for number in range(len(SENTENCES))]
    assert answers == [sentence.decode() for sentence in SENTENCES]
    assert compose(ask(fingerprint=3), Knobs()).text == answers[3]


@given(
    tokens=st.integers(0, 300) | st.none(),
    chunks=st.integers(1, 300) | st.none(),
    max_tokens=st.integers(1, 300) | st.none(),
    reasoning=st.integers(0, 50),
    over=st.sampled_from([0, 5]),
    fingerprint=st.integers(0, 2**32 - 1),
    stop=st.sampled_from([(), (b"answer",), (b" ", b"the"), (b"absent words",)]),
)
def test_an_answer_keeps_its_own_count(tokens, chunks, max_tokens, reasoning, over, fingerprint, stop):
    wanted = Knobs(tokens=tokens, chunks=chunks, reasoning_tokens=reasoning, over=over)
    answer = compose(ask(max_tokens=max_tokens, fingerprint=fingerprint, stop=stop), wanted)
    assert len(answer.text.split()) == answer.output_tokens == sum(answer.sizes)
    assert len(answer.pieces) == len(answer.sizes)
    assert all(answer.sizes)
    total = answer.output_tokens + answer.reasoning_tokens
    if max_tokens is not None and not over:
        assert total <= max_tokens
    if max_tokens is not None and over and not stop:
        assert total == max_tokens + over
    if not stop:
        assert len(answer.pieces) == min(chunks or answer.output_tokens, answer.output_tokens)
    assert not any(sequence in answer.text.encode() for sequence in stop)


@pytest.mark.parametrize(
    ("max_tokens", "finish"), [(None, "done"), (13, "done"), (12, "limit"), (3, "limit"), (2, "limit")]
)
def test_the_limit_ends_only_an_answer_that_is_longer(max_tokens, finish):
    answer = compose(ask(max_tokens=max_tokens), Knobs(tokens=10, reasoning_tokens=3))
    assert answer.finish == finish


def test_chunks_are_as_equal_as_they_can_be():
    answer = compose(ask(), Knobs(tokens=10, chunks=4))
    assert sorted(answer.sizes) == [2, 2, 3, 3]


def test_asking_for_chunks_makes_the_answer_long_enough():
    answer = compose(ask(), Knobs(chunks=100))
    assert (len(answer.pieces), answer.output_tokens) == (100, 100)


def test_the_first_stop_sequence_in_the_answer_ends_it():
    answer = compose(ask(stop=(b"sentence", b"your")), Knobs())
    assert answer.text == "The sandbox has read"
    assert (answer.finish, answer.stop_sequence) == ("stop_sequence", "your")


def test_cached_tokens_are_a_part_of_the_input():
    answer = compose(ask(input_tokens=10), Knobs(cached_tokens=4))
    assert (answer.input_tokens, answer.cached_tokens) == (6, 4)
    answer = compose(ask(), Knobs(input_tokens=100, cached_tokens=1000))
    assert (answer.input_tokens, answer.cached_tokens) == (0, 100)


@given(contents=st.lists(st.text() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}))))
def test_input_tokens_never_exceed_the_bytes_of_the_text_plus_8_per_message(contents):
    tokens, _ = measure(contents, messages=len(contents))
    texts = [part["text"] for content in contents if isinstance(content, list) for part in content]
    texts += [content for content in contents if isinstance(content, str)]
    assert 3 * len(contents) <= tokens <= sum(len(text.encode()) for text in texts) + 8 * len(contents)


def test_input_tokens_are_words_of_text_in_parts_and_tool_results_too():
    contents = [
        "one two",
        [{"type": "text", "text": "three"}, {"type": "image_url", "image_url": {"url": "data:x y z"}}],
        [{"type": "tool_result", "content": [{"type": "text", "text": "four five"}]}],
        None,
    ]
    assert measure(contents, messages=4)[0] == 5 + 3 * 4


def test_text_may_be_nested_without_end():
    content: object = "word"
    for _ in range(5000):
        content = [{"content": content}]
    assert measure([content], messages=1)[0] == 4
