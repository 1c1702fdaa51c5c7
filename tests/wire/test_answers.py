"""Answers between the dialects, whole and streamed: calls, thoughts, refusals, citations, several choices."""

from typing import Any

import pytest
from anthropic.types import Message, RawMessageStreamEvent
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import TypeAdapter

from tests.wire.fixtures import (
    ANTHROPIC_UNARY,
    CITATION,
    CLAUDE,
    DIALECTS,
    DONE,
    EXTRAS,
    OPENAI_UNARY,
    REQUEST_ID,
    ROLE,
    TOLD_STREAMS,
    by_event,
    call,
    came,
    chunk,
    every_stream,
    failure,
    payloads,
    start,
    stream,
    unary,
)
from tests.wire.said import SAID
from tollgate.errors import ProviderError
from tollgate.events import Usage
from tollgate.wire import Meter, Quirks, anthropic, openai
from tollgate.wire.content import Delta
from tollgate.wire.sequence import Sequencer

ANTHROPIC_EVENT = TypeAdapter(RawMessageStreamEvent)


def deltas(out: bytes) -> list[Any]:
    """What each chunk adds, without roles and finishes."""
    found = [payload["choices"][0]["delta"] for payload in payloads(out) if payload["choices"]]
    return [delta for delta in found if delta and "role" not in delta]


def blocks(out: bytes) -> list[Any]:
    """Events of blocks, shortened: starts as (index, block), deltas and stops as (index, what)."""
    found = []
    for payload in payloads(out):
        match payload["type"]:
            case "content_block_start":
                found.append((payload["index"], payload["content_block"]))
            case "content_block_delta":
                found.append((payload["index"], payload["delta"]))
            case "content_block_stop":
                found.append((payload["index"], "stop"))
    return found


def json_delta(text: str) -> Any:
    return {"type": "input_json_delta", "partial_json": text}


# Streams ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", DIALECTS)
@pytest.mark.parametrize(("provider", "name"), every_stream(TOLD_STREAMS))
def test_every_stream_says_the_same_in_every_dialect(client, provider, name):
    whole = TOLD_STREAMS[provider][name]

    out, _ = stream(client, provider, [whole])

    assert SAID[client](payloads(out)) == SAID[provider](came(whole))


def test_two_calls_become_blocks():
    out, _ = stream("anthropic", "openai", [TOLD_STREAMS["openai"]["text and two calls"]])

    assert blocks(out) == [
        (0, {"type": "text", "text": ""}),
        (0, {"type": "text_delta", "text": "Hello"}),
        (0, "stop"),
        (1, {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}}),
        (1, json_delta('{"city":')),
        (1, json_delta('"Paris"}')),
        (1, "stop"),
        (2, {"type": "tool_use", "id": "call_2", "name": "weather", "input": {}}),
        (2, json_delta('{"city":"Rome"}')),
        (2, "stop"),
    ]
    assert payloads(out)[-2]["delta"]["stop_reason"] == "tool_use"


def test_blocks_become_calls_that_are_counted_among_themselves():
    out, _ = stream("openai", "anthropic", [TOLD_STREAMS["anthropic"]["text and two tool uses"]])

    assert deltas(out)[2:] == [
        {
            "tool_calls": [
                {"index": 0, "id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"city":'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]},
        {
            "tool_calls": [
                {"index": 1, "id": "toolu_2", "type": "function", "function": {"name": "weather", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 1, "function": {"arguments": '{"city":"Rome"}'}}]},
    ]
    assert payloads(out)[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_content_of_a_call_leaves_at_once():
    exchange = start("anthropic", "openai", stream=True)

    counts = [len(payloads(exchange.feed(piece))) for piece in by_event(TOLD_STREAMS["openai"]["tool call"])[:4]]

    assert counts == [0, 2, 1, 1], "the role waits; then start of message and block, and each fragment alone"


def test_a_call_without_arguments_is_a_call_with_none():
    out, _ = stream("openai", "anthropic", [TOLD_STREAMS["anthropic"]["tool use without input"]])
    assert deltas(out)[-1] == {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]}

    out, _ = stream("anthropic", "openai", [TOLD_STREAMS["openai"]["call without id or arguments"]])
    start, delta, _ = blocks(out)
    assert start[1]["id"] == f"call_{REQUEST_ID.replace('-', '')}_1"
    assert delta == (0, json_delta("{}"))
    assert payloads(out)[-2]["delta"]["stop_reason"] == "tool_use", "whatever the server called it"


def test_an_id_that_anthropics_clients_would_refuse_is_packed():
    whole = ROLE + call(0, "{}", id="functions.weather:0", name="weather") + chunk({}, "tool_calls") + DONE

    out, _ = stream("anthropic", "openai", [whole])

    packed = blocks(out)[0][1]["id"]
    assert packed.startswith("tgid_") and packed.replace("_", "").replace("-", "").isalnum()


def test_thoughts_become_a_block_of_thinking():
    out, _ = stream("anthropic", "openai", [TOLD_STREAMS["openai"]["thoughts"]])

    assert blocks(out)[:4] == [
        (0, {"type": "thinking", "thinking": "", "signature": ""}),
        (0, {"type": "thinking_delta", "thinking": "Hm"}),
        (0, {"type": "thinking_delta", "thinking": "."}),
        (0, "stop"),
    ]


def test_signed_thoughts_keep_their_signature_and_redacted_ones_their_data():
    out, _ = stream("anthropic", "openai", [TOLD_STREAMS["openai"]["signed thoughts"]])

    assert blocks(out)[:6] == [
        (0, {"type": "thinking", "thinking": "", "signature": ""}),
        (0, {"type": "thinking_delta", "thinking": "Hm."}),
        (0, {"type": "signature_delta", "signature": "c2ln"}),
        (0, "stop"),
        (1, {"type": "redacted_thinking", "data": "ZW5j"}),
        (1, "stop"),
    ]


def test_blocks_of_thinking_become_thoughts_with_details_to_hand_back():
    out, _ = stream("openai", "anthropic", [TOLD_STREAMS["anthropic"]["thinking"]])

    detail = {"type": "reasoning.text", "format": CLAUDE, "index": 0}
    assert deltas(out)[:2] == [
        {"reasoning_content": "Hm.", "reasoning_details": [detail | {"text": "Hm."}]},
        {"reasoning_details": [detail | {"text": "", "signature": "c2ln"}]},
    ]
    out, _ = stream("openai", "anthropic", [TOLD_STREAMS["anthropic"]["redacted thinking"]])
    encrypted = {"type": "reasoning.encrypted", "data": "ZW5j", "format": CLAUDE, "index": 0}
    assert deltas(out)[0] == {"reasoning_details": [encrypted]}


def test_a_signature_of_a_call_goes_before_it_as_a_block():
    out, _ = stream("anthropic", "openai", [TOLD_STREAMS["openai"]["call with a signature"]])

    assert blocks(out)[:3] == [
        (0, {"type": "redacted_thinking", "data": "tollgate:google:call:Zm9v"}),
        (0, "stop"),
        (1, {"type": "tool_use", "id": "call_1", "name": "now", "input": {}}),
    ]


def test_a_refusal_is_text_with_a_reason_to_stop():
    out, _ = stream("anthropic", "openai", [TOLD_STREAMS["openai"]["refusal"]])

    assert "".join(delta.get("text", "") for _, delta in blocks(out)[1:-1]) == "I can't."
    assert payloads(out)[-2]["delta"]["stop_reason"] == "refusal"


def test_citations_of_pages_go_both_ways():
    out, _ = stream("openai", "anthropic", [TOLD_STREAMS["anthropic"]["search and citations"]])
    assert deltas(out)[-1] == {
        "annotations": [
            {
                "type": "url_citation",
                "url_citation": {"start_index": 5, "end_index": 5, "title": "X", "url": "https://example.com"},
            }
        ]
    }
    assert payloads(out)[-1]["tollgate"]["dropped"] == [
        "content[].server_tool_use",
        "content[].web_search_tool_result",
    ]

    out, _ = stream("anthropic", "openai", [TOLD_STREAMS["openai"]["citations"]])
    citation = CITATION | {"cited_text": "", "encrypted_index": ""}
    assert blocks(out)[2] == (0, {"type": "citations_delta", "citation": citation})


def test_probabilities_and_choices_that_only_one_dialect_has_stay_in_it():
    out, exchange = stream("openai", "openai", [chunk({"content": "a"}, index=1) + chunk({}, "stop") + DONE], n=1)

    assert payloads(out)[0]["choices"][0]["index"] == 1
    assert exchange.dropped == ()


def test_another_choice_that_nobody_asked_for_is_not_told_to_anthropics_clients():
    whole = ROLE + chunk({"content": "a"}) + chunk({"content": "b"}, index=1) + chunk({}, "stop") + DONE

    out, _ = stream("anthropic", "openai", [whole])

    assert SAID["anthropic"](payloads(out)).text == "a"


@pytest.mark.parametrize("broken", [chunk({"tool_calls": ["x"]}), call(0, "{}", id="call_1")])
def test_calls_that_cannot_be_read_are_the_providers_failure(broken):
    _, error = failure("anthropic", "openai", [ROLE + broken + chunk({}, "stop") + DONE])

    assert error.error_class == "server_error"


# Unary --------------------------------------------------------------------------------------------------------------


def openai_answer(message: Any, finish: str = "stop", **more: Any) -> Any:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish, **more}
    return OPENAI_UNARY | {"choices": [choice]}


def anthropic_answer(*content: Any, stop_reason: str = "end_turn") -> Any:
    return ANTHROPIC_UNARY | {"content": list(content), "stop_reason": stop_reason}


PARIS = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
PARIS_USE = {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"city": "Paris"}}


@pytest.mark.parametrize(
    ("message", "finish", "content", "stop_reason"),
    [
        ({"content": "Hi"}, "stop", [{"type": "text", "text": "Hi"}], "end_turn"),
        ({"content": ""}, "length", [], "max_tokens"),
        ({"content": None, "tool_calls": [PARIS]}, "tool_calls", [PARIS_USE], "tool_use"),
        # a call that was demanded by name finishes with `stop`
        ({"content": None, "tool_calls": [PARIS]}, "stop", [PARIS_USE], "tool_use"),
        (
            {"content": "Look:", "tool_calls": [PARIS]},
            "tool_calls",
            [{"type": "text", "text": "Look:"}, PARIS_USE],
            "tool_use",
        ),
        (
            {"content": None, "tool_calls": [PARIS | {"function": {"name": "f", "arguments": '{"a'}}]},
            "length",
            [PARIS_USE | {"name": "f", "input": {"INVALID_JSON": '{"a'}}],
            "max_tokens",
        ),
        ({"content": None, "refusal": "No."}, "stop", [{"type": "text", "text": "No."}], "refusal"),
        ({"content": ""}, "content_filter", [], "refusal"),
        (
            {"content": "Hi", "reasoning_content": "Hm."},
            "stop",
            [{"type": "thinking", "thinking": "Hm.", "signature": ""}, {"type": "text", "text": "Hi"}],
            "end_turn",
        ),
        (
            {"content": "Hi", "reasoning": "Hm.", "reasoning_details": [{"type": "reasoning.summary", "summary": "S"}]},
            "stop",
            [{"type": "thinking", "thinking": "S", "signature": ""}, {"type": "text", "text": "Hi"}],
            "end_turn",
        ),
        (
            {"tool_calls": [PARIS | {"extra_content": {"google": {"thought_signature": "Zm9v"}}}]},
            "tool_calls",
            [{"type": "redacted_thinking", "data": "tollgate:google:call:Zm9v"}, PARIS_USE],
            "tool_use",
        ),
        (
            {"function_call": {"name": "weather", "arguments": '{"city":"Paris"}'}},
            "function_call",
            [PARIS_USE | {"id": f"call_{REQUEST_ID.replace('-', '')}_1"}],
            "tool_use",
        ),
    ],
)
def test_a_completion_becomes_a_message(message, finish, content, stop_reason):
    told, _ = unary("anthropic", "openai", openai_answer(message, finish))

    Message.model_validate(told)
    assert (told["content"], told["stop_reason"]) == (content, stop_reason)


@pytest.mark.parametrize(
    ("content", "stop_reason", "message", "finish"),
    [
        ([], "end_turn", {"content": "", "refusal": None}, "stop"),
        ([PARIS_USE], "tool_use", {"content": None, "refusal": None, "tool_calls": [PARIS]}, "tool_calls"),
        (
            [{"type": "text", "text": "A"}, PARIS_USE, {"type": "text", "text": "B"}],
            "tool_use",
            {"content": "AB", "refusal": None, "tool_calls": [PARIS]},
            "tool_calls",
        ),
        (
            [
                {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
                {"type": "redacted_thinking", "data": "ZW5j"},
                {"type": "text", "text": "Hi"},
            ],
            "end_turn",
            {
                "content": "Hi",
                "refusal": None,
                "reasoning_content": "Hm.",
                "reasoning_details": [
                    {
                        "type": "reasoning.text",
                        "text": "Hm.",
                        "signature": "c2ln",
                        "format": CLAUDE,
                        "index": 0,
                    },
                    {"type": "reasoning.encrypted", "data": "ZW5j", "format": CLAUDE, "index": 1},
                ],
            },
            "stop",
        ),
        (
            [{"type": "text", "text": "So "}, {"type": "text", "text": "it is.", "citations": [CITATION]}],
            "end_turn",
            {
                "content": "So it is.",
                "refusal": None,
                "annotations": [
                    {
                        "type": "url_citation",
                        "url_citation": {"start_index": 3, "end_index": 9, "title": "X", "url": "https://example.com"},
                    }
                ],
            },
            "stop",
        ),
    ],
)
def test_a_message_becomes_a_completion(content, stop_reason, message, finish):
    told, _ = unary("openai", "anthropic", anthropic_answer(*content, stop_reason=stop_reason))

    ChatCompletion.model_validate(told)
    assert told["choices"][0]["message"] == {"role": "assistant", **message}
    assert told["choices"][0]["finish_reason"] == finish


def test_what_only_anthropic_has_is_named_in_the_answer():
    document = {"type": "char_location", "cited_text": "x", "document_index": 0}
    told, _ = unary(
        "openai",
        "anthropic",
        anthropic_answer(
            {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
            {"type": "text", "text": "Hi", "citations": [document]},
        ),
    )

    assert told["choices"][0]["message"]["content"] == "Hi"
    assert told["tollgate"]["dropped"] == ["content[].citations", "content[].server_tool_use"]


def test_what_is_dropped_of_request_and_answer_is_named_together():
    told, exchange = unary(
        "anthropic", "openai", openai_answer({"content": "Hi", "audio": {"id": "a"}}), top_k=5, x_new=1
    )

    assert exchange.dropped == ("x_new", "top_k")
    assert told["tollgate"]["dropped"] == ["x_new", "top_k", "audio"]


def test_the_thoughts_of_the_model_are_in_the_usage():
    told, _ = unary("anthropic", "openai", OPENAI_UNARY)

    assert told["usage"]["output_tokens_details"] == {"thinking_tokens": 5}


def test_caches_of_an_hour_are_in_the_usage():
    usage = Usage(cache_write_5m_tokens=3, cache_write_1h_tokens=4)

    assert anthropic.write_usage(usage)["cache_creation"] == {
        "ephemeral_5m_input_tokens": 3,
        "ephemeral_1h_input_tokens": 4,
    }


@pytest.mark.parametrize(
    ("block", "usage"),
    [
        # xAI: the thoughts are counted, but not among the completion's tokens
        (
            {
                "prompt_tokens": 10,
                "completion_tokens": 3,
                "total_tokens": 113,
                "completion_tokens_details": {"reasoning_tokens": 100},
            },
            Usage(input_tokens=10, output_tokens=3, reasoning_tokens=100),
        ),
        # Google's compatible endpoint: they are in the total only
        (
            {"prompt_tokens": 35, "completion_tokens": 12, "total_tokens": 109},
            Usage(input_tokens=35, output_tokens=12, reasoning_tokens=62),
        ),
        ({"prompt_tokens": 35, "completion_tokens": 12}, Usage(input_tokens=35, output_tokens=12)),
    ],
)
def test_thoughts_outside_the_completion_are_output_too(block, usage):
    assert openai.read_usage(block, Quirks(thoughts_outside_completion=True)) == usage


# Any stream ---------------------------------------------------------------------------------------------------------

USAGE = Usage(input_tokens=10, output_tokens=5)

texts = st.text(max_size=6)
some_deltas = st.lists(
    st.builds(Delta, text=texts, key=st.integers(0, 1), last=st.booleans())
    | st.builds(
        Delta,
        kind=st.just("reasoning"),
        text=texts,
        key=st.integers(0, 1),
        signature=st.none() | st.just("s"),
        origin=st.sampled_from([None, "anthropic", "google"]),
    )
    | st.builds(Delta, kind=st.just("reasoning"), redacted=st.just("x"), origin=st.just("openai"), last=st.just(True))
    | st.builds(Delta, kind=st.just("refusal"), text=texts)
    | st.builds(
        Delta,
        kind=st.just("tool_call"),
        key=st.integers(0, 2),
        id=st.sampled_from(["", "c"]),
        name=st.just("f"),
        text=st.sampled_from(["", "{", "}"]),
    ),
    max_size=12,
)


def written(module: Any, given_deltas: list[Delta], finish: str) -> bytes:
    """The stream of these deltas, or nothing where they break the rules of calls."""
    writer = module.writer(Meter(usage=USAGE), {"stream_options": {"include_usage": True}}, REQUEST_ID)
    sequencer = Sequencer(writer, REQUEST_ID)
    try:
        out = b"".join(sequencer.add(delta) for delta in given_deltas) + sequencer.end()
    except ProviderError:
        return b""
    return out + writer.end({0: finish}, EXTRAS)


@settings(max_examples=200)
@given(some_deltas, st.sampled_from(["stop", "stop_sequence", "length", "tool_calls", "content_filter"]))
def test_whatever_comes_anthropics_clients_get_their_grammar(given_deltas, finish):
    sent = payloads(written(anthropic, given_deltas, finish))
    assume(sent)

    for payload in sent:
        ANTHROPIC_EVENT.validate_python(payload)
    open_index, next_index = None, 0
    for payload in sent[1:-2]:
        if payload["type"] == "content_block_start":
            assert (open_index, payload["index"]) == (None, next_index)
            open_index = next_index
            next_index += 1
        else:
            assert payload["index"] == open_index
            if payload["type"] == "content_block_stop":
                open_index = None
    assert open_index is None
    assert [sent[at]["type"] for at in (0, -2, -1)] == ["message_start", "message_delta", "message_stop"]


@settings(max_examples=200)
@given(some_deltas, st.sampled_from(["stop", "stop_sequence", "length", "tool_calls", "content_filter"]))
def test_whatever_comes_openais_clients_get_their_grammar(given_deltas, finish):
    sent = payloads(written(openai, given_deltas, finish))
    assume(sent)

    seen = 0
    for at, payload in enumerate(sent):
        ChatCompletionChunk.model_validate(payload)
        for choice in payload["choices"]:
            assert ("role" in choice["delta"]) == (at == 0)
            for fragment in choice["delta"].get("tool_calls", []):
                assert fragment["index"] == (seen if "id" in fragment else seen - 1)
                seen += "id" in fragment
    assert sent[-1]["usage"]["total_tokens"] == 15
