"""Answers of Ollama's own API, written by hand after its documentation."""

from typing import Any

import orjson


def line(message: Any = None, **more: Any) -> bytes:
    """A line as Ollama writes it."""
    said = {} if message is None else {"message": {"role": "assistant", **message}}
    head = {"model": "llama3.2", "created_at": "2026-11-01T00:00:00.123456Z"}
    return orjson.dumps({**head, **said, "done": False, **more}) + b"\n"


def piece(response: str, **more: Any) -> bytes:
    """A line of `/api/generate`."""
    return line(response=response, **more)


USAGE = {"prompt_eval_count": 20, "eval_count": 12}
COUNTS = {
    "done": True,
    "done_reason": "stop",
    "total_duration": 5_589_157_167,
    "load_duration": 3_013_701_500,
    **USAGE,
    "prompt_eval_duration": 1_160_282_000,
    "eval_duration": 1_325_948_000,
}
HELLO = line({"content": "Hello"})
WORLD = line({"content": " wörld 🌍"})
STOP = line({"content": ""}, **COUNTS)
PARIS = {"function": {"name": "weather", "arguments": {"city": "Paris"}}}
ROME = {"id": "call_rome", "function": {"index": 1, "name": "weather", "arguments": {"city": "Rome"}}}
HM = line({"content": "", "thinking": "H"}) + line({"content": "", "thinking": "m."})
_HI = {"token": "Hi", "logprob": -1.5, "bytes": [72, 105]}
LOGPROBS = [{"token": "Hello", "logprob": -0.5, "bytes": [72, 101, 108, 108, 111], "top_logprobs": [_HI]}]

OLLAMA_STREAMS: dict[str, bytes] = {
    "plain": HELLO + WORLD + STOP,
    "without a line end at the end": (HELLO + WORLD + STOP).rstrip(b"\n"),
    "CRLF": (HELLO + WORLD + STOP).replace(b"\n", b"\r\n"),
    "blank lines": b"\n" + HELLO + b"\n\n" + WORLD + STOP + b"\n",
    "text in the last line": HELLO + line({"content": " wörld 🌍"}, **COUNTS),
    "without counts": HELLO + line({"content": ""}, done=True, done_reason="stop"),
    "without a reason": HELLO + line({"content": ""}, **{**COUNTS, "done_reason": None}),
    "length": HELLO + line({"content": ""}, **{**COUNTS, "done_reason": "length"}),
    "prompt cached whole": HELLO + line({"content": ""}, done=True, done_reason="stop", eval_count=12),
    "empty answer": STOP,
    "thoughts": HM + HELLO + STOP,
    "tool call": line({"content": "", "tool_calls": [PARIS]}) + STOP,
    "text and two calls": HELLO + line({"content": "", "tool_calls": [PARIS, ROME]}) + STOP,
    "calls one by one": line({"content": "", "tool_calls": [PARIS]})
    + line({"content": "", "tool_calls": [ROME]})
    + STOP,
    "thoughts and a call": HM + line({"content": "", "tool_calls": [PARIS]}) + STOP,
    "call without arguments": line({"content": "", "tool_calls": [{"function": {"name": "now", "arguments": {}}}]})
    + STOP,
    "probabilities": line({"content": "Hello"}, logprobs=LOGPROBS) + STOP,
}
OLLAMA_ONLY_STREAMS: dict[str, bytes] = {
    "an unknown field": line({"content": "Hello", "x_new": {"deep": [1, 2.50]}}) + line(None, x_new=1) + STOP,
    "generate": piece("Hello") + piece(" wörld 🌍") + piece("", context=[1, 2, 3], **COUNTS),
    "generate with thoughts": piece("", thinking="Hm.") + piece("Hello") + piece("", **COUNTS),
}
OLLAMA_UNARY: dict[str, Any] = orjson.loads(line({"content": "Hello wörld 🌍"}, **COUNTS))
