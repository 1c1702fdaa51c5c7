"""Answers of the Responses protocol, written by hand after OpenAI's API reference."""

from typing import Any

import orjson

USAGE = {
    "input_tokens": 20,
    "input_tokens_details": {"cached_tokens": 8, "cache_write_tokens": 0},
    "output_tokens": 12,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 32,
}


def response(status: str = "completed", output: list[Any] | None = None, **more: Any) -> Any:
    """A response object as api.openai.com writes it."""
    return {
        "id": "resp_abc123",
        "object": "response",
        "created_at": 1741570283,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "gpt-4o-2024-08-06",
        "output": output or [],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": USAGE if status in ("completed", "incomplete") else None,
        "user": None,
        "metadata": {},
        **more,
    }


def numbered(*payloads: Any) -> bytes:
    """The events of a stream, with their names and numbers."""
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (payload["type"].encode(), orjson.dumps({**payload, "sequence_number": number}))
        for number, payload in enumerate(payloads)
    )


CREATED = {"type": "response.created", "response": response("in_progress")}
IN_PROGRESS = {"type": "response.in_progress", "response": response("in_progress")}
OPENING = (CREATED, IN_PROGRESS)


def end(status: str, output: list[Any], **more: Any) -> Any:
    return {"type": f"response.{status}", "response": response(status, output, **more)}


def said(*texts: str, annotations: tuple[Any, ...] = ()) -> Any:
    part = {"type": "output_text", "text": "".join(texts), "annotations": list(annotations), "logprobs": []}
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def message(index: int, *texts: str, annotations: tuple[Any, ...] = ()) -> list[Any]:
    """A message in pieces, from its beginning to its end."""
    item = said(*texts, annotations=annotations)
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    empty = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    return [
        {"type": "response.output_item.added", "output_index": index, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **place, "part": empty},
        *({"type": "response.output_text.delta", **place, "delta": text, "logprobs": []} for text in texts),
        *(
            {"type": "response.output_text.annotation.added", **place, "annotation_index": at, "annotation": one}
            for at, one in enumerate(annotations)
        ),
        {"type": "response.output_text.done", **place, "text": "".join(texts), "logprobs": []},
        {"type": "response.content_part.done", **place, "part": item["content"][0]},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]


def call(index: int, id: str, *fragments: str, name: str = "weather") -> tuple[Any, list[Any]]:
    """A call, whole and in pieces."""
    item = {
        "id": f"fc_{index}",
        "type": "function_call",
        "status": "completed",
        "call_id": id,
        "name": name,
        "arguments": "".join(fragments),
    }
    place = {"item_id": item["id"], "output_index": index}
    events = [
        {"type": "response.output_item.added", "output_index": index, "item": {**item, "arguments": ""}},
        *({"type": "response.function_call_arguments.delta", **place, "delta": text} for text in fragments),
        {"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"], "name": name},
        {"type": "response.output_item.done", "output_index": index, "item": item},
    ]
    return item, events


def thought(index: int, *texts: str, sealed: str | None = None) -> tuple[Any, list[Any]]:
    """A summary of thoughts, one paragraph each, whole and in pieces."""
    summary = [{"type": "summary_text", "text": text} for text in texts]
    item: Any = {"id": f"rs_{index}", "type": "reasoning", "summary": summary}
    if sealed is not None:
        item["encrypted_content"] = sealed
    place = {"item_id": item["id"], "output_index": index}
    events: list[Any] = [{"type": "response.output_item.added", "output_index": index, "item": {**item, "summary": []}}]
    for at, part in enumerate(summary):
        here = {**place, "summary_index": at}
        empty = {"type": "summary_text", "text": ""}
        events += [
            {"type": "response.reasoning_summary_part.added", **here, "part": empty},
            {"type": "response.reasoning_summary_text.delta", **here, "delta": part["text"]},
            {"type": "response.reasoning_summary_text.done", **here, "text": part["text"]},
            {"type": "response.reasoning_summary_part.done", **here, "part": part},
        ]
    return item, [*events, {"type": "response.output_item.done", "output_index": index, "item": item}]


HELLO = message(0, "Hello", " wörld 🌍")
PARIS, PARIS_EVENTS = call(0, "call_1", '{"city":', '"Paris"}')
ROME, ROME_EVENTS = call(1, "call_2", '{"city":"Rome"}')
HM, HM_EVENTS = thought(0, "Hm.", "Let me see.")
SEALED, SEALED_EVENTS = thought(0, "Hm.", sealed="c2VhbGVk")
HIDDEN, HIDDEN_EVENTS = thought(0, sealed="c2VhbGVk")
OPEN_THOUGHT = {
    "id": "rs_0",
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "Hm."}],
}
CITATION = {"type": "url_citation", "start_index": 0, "end_index": 5, "title": "X", "url": "https://example.com"}
REFUSAL = {"type": "refusal", "refusal": "I can't."}
REFUSED = {**said(""), "content": [REFUSAL]}
SEARCH = {"id": "ws_0", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}}

COMPLETED = end("completed", [said("Hello wörld 🌍")])

STREAMS: dict[str, bytes] = {
    "plain": numbered(*OPENING, *HELLO, COMPLETED),
    "without a blank line at the end": numbered(*OPENING, *HELLO, COMPLETED).rstrip(b"\n"),
    "without event names": numbered(*OPENING, *HELLO, COMPLETED).replace(b"event: ", b": "),
    "CRLF": numbered(*OPENING, *HELLO, COMPLETED).replace(b"\n", b"\r\n"),
    "without usage": numbered(*OPENING, *HELLO, end("completed", [said("Hello wörld 🌍")], usage=None)),
    "[DONE] after the end": numbered(*OPENING, *HELLO, COMPLETED) + b"data: [DONE]\n\n",
    "cut short by the cap": numbered(
        *OPENING,
        *HELLO,
        end("incomplete", [said("Hello wörld 🌍")], incomplete_details={"reason": "max_output_tokens"}),
    ),
    "all at the end": numbered(*OPENING, COMPLETED),
    "empty answer": numbered(*OPENING, end("completed", [])),
    "call": numbered(*OPENING, *PARIS_EVENTS, end("completed", [PARIS])),
    "two calls": numbered(*OPENING, *PARIS_EVENTS, *ROME_EVENTS, end("completed", [PARIS, ROME])),
    "two calls mixed": numbered(
        *OPENING,
        PARIS_EVENTS[0],
        ROME_EVENTS[0],
        PARIS_EVENTS[1],
        *ROME_EVENTS[1:],
        *PARIS_EVENTS[2:],
        end("completed", [PARIS, ROME]),
    ),
    "call whose arguments come whole": numbered(
        *OPENING, PARIS_EVENTS[0], *PARIS_EVENTS[3:], end("completed", [PARIS])
    ),
    "call that is told at the end only": numbered(*OPENING, PARIS_EVENTS[-1], end("completed", [PARIS])),
    "text and a call": numbered(*OPENING, *message(0, "Hello"), *ROME_EVENTS, end("completed", [said("Hello"), ROME])),
    "thoughts": numbered(*OPENING, *HM_EVENTS, *message(1, "Hello"), end("completed", [HM, said("Hello")])),
    "sealed thoughts": numbered(
        *OPENING, *SEALED_EVENTS, *message(1, "Hello"), end("completed", [SEALED, said("Hello")])
    ),
    "hidden thoughts": numbered(
        *OPENING, *HIDDEN_EVENTS, *message(1, "Hello"), end("completed", [HIDDEN, said("Hello")])
    ),
    "open thoughts": numbered(
        *OPENING,
        {"type": "response.output_item.added", "output_index": 0, "item": {**OPEN_THOUGHT, "content": []}},
        {
            "type": "response.reasoning_text.delta",
            "item_id": "rs_0",
            "output_index": 0,
            "content_index": 0,
            "delta": "Hm.",
        },
        {"type": "response.output_item.done", "output_index": 0, "item": OPEN_THOUGHT},
        *message(1, "Hello"),
        end("completed", [OPEN_THOUGHT, said("Hello")]),
    ),
    "citations": numbered(
        *OPENING,
        *message(0, "Hello", annotations=(CITATION,)),
        end("completed", [said("Hello", annotations=(CITATION,))]),
    ),
    "refusal": numbered(
        *OPENING,
        {"type": "response.output_item.added", "output_index": 0, "item": {**REFUSED, "content": []}},
        {
            "type": "response.refusal.delta",
            "item_id": "msg_1",
            "output_index": 0,
            "content_index": 0,
            "delta": "I can't.",
        },
        {"type": "response.output_item.done", "output_index": 0, "item": REFUSED},
        end("completed", [REFUSED]),
    ),
    "a search first": numbered(
        *OPENING,
        {"type": "response.output_item.added", "output_index": 0, "item": {**SEARCH, "status": "in_progress"}},
        {"type": "response.web_search_call.searching", "item_id": "ws_0", "output_index": 0},
        {"type": "response.output_item.done", "output_index": 0, "item": SEARCH},
        *message(1, "Hello"),
        end("completed", [SEARCH, said("Hello")]),
    ),
}
ONLY_STREAMS: dict[str, bytes] = {  # what the middle does not hold
    "an unknown event": numbered(*OPENING, {"type": "x_new", "deep": [1, 2.50]}, *HELLO, COMPLETED),
}

UNARY: dict[str, Any] = response(output=[said("Hello wörld 🌍")])
