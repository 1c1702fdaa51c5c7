"""The clients of the simulation: what each asks for, how long it stays, and what it has seen.

What a client saw is a witness of its own: it is read from the bytes, by rules that are written here a second time.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from tests.simulation.loop import Process

ORGANISATION = "org"
ENDPOINTS = {"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}


@dataclass(kw_only=True)
class Client:
    """One request, from its plan to the last byte seen of its answer."""

    number: int
    request_id: str
    key_id: str
    at_s: float
    dialect: str
    model: str
    stream: bool
    words: int  # of the prompt
    max_tokens: int | None
    deadline_s: float
    patience_s: float | None  # hangs up after so long
    patience_pieces: int | None  # hangs up after so many pieces

    leaves_at_end: bool = False  # hangs up at the instant at which its request's end is durable

    # what it has seen
    life: Process | None = None  # the process that it has asked
    leave: Callable[[], None] | None = None  # hangs up
    hung_up: bool = False
    status: int | None = None
    pieces: list[bytes] = field(default_factory=list)
    told: str = ""  # why it does not get the answer, or not as a whole: the ingress's own error, or a new owner's
    told_s: float = 0.0  # when that was, or the end of the answer
    done: bool = False  # the connection was ended in order: it has the whole answer, or an error

    @property
    def body(self) -> dict[str, object]:
        prompt = " ".join(["word"] * self.words)
        body: dict[str, object] = {"model": self.model, "messages": [{"role": "user", "content": prompt}]}
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.stream:
            body["stream"] = True
            if self.dialect == "openai" and self.number % 2:
                body["stream_options"] = {"include_usage": True}
        return body

    @property
    def has_enough(self) -> bool:
        return self.patience_pieces is not None and len(self.pieces) >= self.patience_pieces

    @property
    def waits(self) -> bool:
        """Its process lives, and it will stay until it is told something."""
        return not (self.done or self.hung_up) and self.life is not None and self.life.alive

    def answer(self, pieces: int | None = None) -> "Answer":
        """What is in the first pieces of it; None means all that have come so far."""
        raw = b"".join(self.pieces[:pieces])
        if self.stream and self.status == 200:
            return _read_stream(raw)
        return _read_whole(raw) if self.done and pieces is None else Answer()


@dataclass
class Answer:
    """What an answer says: its text, what it cost, whether it is over, what went wrong."""

    text: str = ""
    cost_usd: Decimal | None = None
    over: bool = False
    error: str | None = None


def _read_whole(raw: bytes) -> Answer:
    if not raw:
        return Answer()
    payload = json.loads(raw, parse_float=Decimal, parse_int=Decimal)
    if "error" in payload:
        return Answer(error=str(payload["error"].get("code") or payload["error"].get("type")))
    answer = Answer(over=True)
    if "choices" in payload:
        answer.text = payload["choices"][0]["message"]["content"]
    else:
        answer.text = "".join(block["text"] for block in payload["content"])
    _read_cost(answer, payload)
    return answer


def _read_stream(raw: bytes) -> Answer:
    answer = Answer()
    for line in raw.decode().split("\n"):
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            answer.over = True
            continue
        payload = json.loads(data, parse_float=Decimal, parse_int=Decimal)
        if payload.get("error"):
            answer.error = str(payload["error"].get("code") or payload["error"].get("type"))
        for choice in payload.get("choices") or ():
            answer.text += choice["delta"].get("content") or ""
        if payload.get("type") == "content_block_delta":
            answer.text += payload["delta"]["text"]
        if payload.get("type") == "message_stop":
            answer.over = True
        _read_cost(answer, payload)
    return answer


def _read_cost(answer: Answer, payload: dict[str, object]) -> None:
    extension = payload.get("tollgate")
    if isinstance(extension, dict) and "cost" in extension:
        answer.cost_usd = Decimal(extension["cost"])
