"""Answers of Google's protocol, written by hand after its documentation."""

from typing import Any

import orjson


def _data(payload: Any) -> bytes:
    return b"data: " + orjson.dumps(payload) + b"\n\n"


def _payloads(stream: bytes) -> list[Any]:
    return [orjson.loads(line.removeprefix(b"data: ")) for line in stream.splitlines() if line]


def candidate(*parts: Any, finish: Any = None, index: int = 0, usage: Any = None, more: Any = None) -> bytes:
    """A chunk as generativelanguage.googleapis.com writes it."""
    return _data(answer(*parts, finish=finish, index=index, usage=usage, more=more))


def answer(*parts: Any, finish: Any = None, index: int = 0, usage: Any = None, more: Any = None) -> Any:
    content = {"content": {"parts": list(parts), "role": "model"}} if parts else {}
    reason = {} if finish is None else {"finishReason": finish}
    return {
        "candidates": [{**content, **reason, "index": index, **(more or {})}],
        "usageMetadata": USAGE if usage is None else usage,
        "modelVersion": "gemini-2.5-flash",
        "responseId": "mSEXaseKG-P51PIPwv66qQs",
    }


# The prompt's count of a first chunk is not the last word
FIRST_USAGE = {"promptTokenCount": 9, "totalTokenCount": 9}
USAGE = {
    "promptTokenCount": 20,
    "cachedContentTokenCount": 8,
    "candidatesTokenCount": 7,
    "thoughtsTokenCount": 5,
    "totalTokenCount": 32,
    "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}],
    "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 8}],
    "trafficType": "ON_DEMAND",
}
HELLO = candidate({"text": "Hello"}, usage=FIRST_USAGE)
WORLD = candidate({"text": " wörld 🌍"}, usage=FIRST_USAGE)
STOP = candidate({"text": ""}, finish="STOP")
PARIS = {"functionCall": {"name": "weather", "args": {"city": "Paris"}}}
ROME = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}
GROUNDING = {
    "groundingMetadata": {
        "webSearchQueries": ["hello"],
        "searchEntryPoint": {"renderedContent": "<div>"},
        "groundingChunks": [{"web": {"uri": "https://example.com", "title": "X"}}],
        "groundingSupports": [{"segment": {"endIndex": 5, "text": "Hello"}, "groundingChunkIndices": [0]}],
    }
}
BLOCKED = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": USAGE, "modelVersion": "gemini-x"}


def as_array(stream: bytes) -> bytes:
    """The same stream without `alt=sse`."""
    return b"[" + b"\n,\r\n".join(orjson.dumps(one, option=orjson.OPT_INDENT_2) for one in _payloads(stream)) + b"\n]\n"


_PLAIN = HELLO + WORLD + STOP
GEMINI_STREAMS: dict[str, bytes] = {
    "plain": _PLAIN,
    "without a blank line at the end": _PLAIN.rstrip(b"\n"),
    "CRLF": _PLAIN.replace(b"\n", b"\r\n"),
    "as an array": as_array(_PLAIN),
    "comments": b": one moment\n\n" + HELLO + b": still here\n\n" + WORLD + STOP,
    "finish on the last content": HELLO + candidate({"text": " there"}, finish="STOP"),
    "all in one chunk": candidate({"text": "Hello"}, finish="STOP"),
    "finish in every chunk": candidate({"text": "Hello"}, finish="STOP") + candidate({"text": "!"}, finish="STOP"),
    "without usage": candidate({"text": "Hello"}, finish="STOP", usage={}),
    "empty answer": candidate(finish="STOP"),
    "content without parts": _data({"candidates": [{"content": {"role": "model"}, "finishReason": "MAX_TOKENS"}]}),
    "chunk without candidates": _data({"usageMetadata": FIRST_USAGE}) + _PLAIN,
    "usage after the finish": HELLO
    + candidate({"text": "!"}, finish="STOP", usage=FIRST_USAGE)
    + _data({"usageMetadata": USAGE}),
    "numbers for words": candidate(
        {"text": "Hello"},
        finish=1,
        usage={"promptTokenCount": 9, "promptTokensDetails": [{"modality": 1, "tokenCount": 9}]},
    ),
    "prompt blocked": _data(BLOCKED),
    "answer blocked": HELLO + candidate(finish="SAFETY"),
    "malformed call": candidate(finish="MALFORMED_FUNCTION_CALL", more={"finishMessage": "Malformed: print("}),
    "tool call": candidate(PARIS) + STOP,
    "tool call with the finish": candidate(PARIS, finish="STOP"),
    "text and two calls": HELLO + candidate(PARIS, ROME) + STOP,
    "calls in two chunks": candidate(PARIS) + candidate(ROME) + STOP,
    "call with an id": candidate({"functionCall": {"id": "zi06h2mp", "name": "now", "args": {}}}) + STOP,
    "call without arguments": candidate({"functionCall": {"name": "now"}}) + STOP,
    "call with a signature": candidate(PARIS | {"thoughtSignature": "Zm9v"}, ROME) + STOP,
    "thoughts": candidate({"text": "H", "thought": True}) + candidate({"text": "m.", "thought": True}) + _PLAIN,
    "signed thoughts": candidate({"text": "Hm.", "thought": True, "thoughtSignature": "Zm9v"}) + _PLAIN,
    "signature on the text": candidate({"text": "Hello", "thoughtSignature": "Zm9v"}) + STOP,
    "signature at the end": HELLO + candidate({"text": "", "thoughtSignature": "Zm9v"}, finish="STOP"),
    "grounding": HELLO + candidate({"text": "."}, finish="STOP", more=GROUNDING),
    "recitation": HELLO
    + candidate(
        {"text": "."},
        finish="STOP",
        more={"citationMetadata": {"citationSources": [{"startIndex": 0, "endIndex": 5, "uri": "https://x.test"}]}},
    ),
    "code that was run": candidate({"executableCode": {"language": "PYTHON", "code": "print(1)"}})
    + candidate({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}})
    + _PLAIN,
    "an image": candidate({"inlineData": {"mimeType": "image/png", "data": "iVBORw0KGgo="}}) + STOP,
}


GEMINI_ONLY_STREAMS: dict[str, bytes] = {
    "an unknown field": candidate({"text": "Hello"}, more={"x_new": {"deep": [1, 2.50]}}) + STOP,
}
GEMINI_UNARY: dict[str, Any] = answer({"text": "Hello wörld 🌍"}, finish="STOP")
