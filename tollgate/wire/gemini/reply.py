"""What a client gets: answers, written from the middle or the provider's own with our fields in them; and errors."""

from collections.abc import Mapping

import msgspec
import orjson

from tollgate.errors import Refusal
from tollgate.wire import Body, Extras, Meter, sse
from tollgate.wire.content import Choice, Citation, Delta, Finish, Part, Reasoning, Refused, Text, ToolCall
from tollgate.wire.gemini.conversation import write_call
from tollgate.wire.gemini.grounding import write_grounding
from tollgate.wire.gemini.usage import write_usage
from tollgate.wire.gemini.words import FINISH_WRITTEN, HOME, pack_signature
from tollgate.wire.neutral import parse
from tollgate.wire.sequence import Streamed


class _Candidate(msgspec.Struct, kw_only=True, gc=False):
    """What has been written of one: citations are told at its end, and count by its text."""

    text: list[str] = []
    arguments: list[str] = []  # of the call that is open
    citations: list[Citation] = []
    chars: int = 0
    begin: int = 0  # characters before the part that is open


class _Writer:
    """Writes chunks in the form of whole answers: text and thoughts as they come, calls once they are whole, and
    finish, usage and sources in the last."""

    def __init__(self, meter: Meter, request_id: str) -> None:
        self._meter = meter
        self._id = request_id
        self._candidates: dict[int, _Candidate] = {}

    def open(self, part: Streamed) -> bytes:
        candidate = self._candidate(part.choice)
        candidate.arguments = []
        candidate.begin = candidate.chars
        if part.redacted is not None:
            return self._chunk(part.choice, _write_part(Reasoning(redacted=part.redacted, origin=part.origin)))
        return b""

    def more(self, part: Streamed, delta: Delta) -> bytes:
        candidate = self._candidate(part.choice)
        match part.kind:
            case "tool_call":
                candidate.arguments.append(delta.text)
                return b""
            case "reasoning":
                thought = Reasoning(text=delta.text, signature=delta.signature, origin=delta.origin or part.origin)
                return self._chunk(part.choice, _write_part(thought))
            case _:
                candidate.text.append(delta.text)
                candidate.chars += len(delta.text)
                candidate.citations += _placed(delta.citations, candidate.begin, candidate.chars)
                if not delta.text:
                    return b""
                return self._chunk(part.choice, {"text": delta.text}, _write_logprobs(delta.logprobs))

    def close(self, part: Streamed) -> bytes:
        if part.kind != "tool_call":
            return b""
        arguments = "".join(self._candidate(part.choice).arguments)
        call = ToolCall(id=part.id, name=part.name, arguments=arguments, signature=part.signature, origin=part.origin)
        return self._chunk(part.choice, write_call(call))

    def end(self, finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        written: list[Body] = []
        for choice, finish in sorted(finishes.items()):
            candidate = self._candidate(choice)
            written.append(
                {
                    "content": {"parts": [{"text": ""}], "role": "model"},
                    "finishReason": FINISH_WRITTEN[finish],
                    "index": choice,
                    **_write_citations(candidate.citations, "".join(candidate.text)),
                }
            )
        return sse.write(orjson.dumps(self._answer(written) | self._usage() | extras.fields()))

    def whole(self, choices: tuple[Choice, ...], finishes: Mapping[int, Finish], extras: Extras) -> bytes:
        written = [_write_choice(choice, index, finishes[index]) for index, choice in enumerate(choices)]
        return orjson.dumps(self._answer(written) | self._usage() | extras.fields())

    def _candidate(self, choice: int) -> _Candidate:
        candidate = self._candidates.get(choice)
        if candidate is None:
            candidate = self._candidates[choice] = _Candidate()
        return candidate

    def _chunk(self, choice: int, part: Body, more: Body | None = None) -> bytes:
        candidate = {"content": {"parts": [part], "role": "model"}, "index": choice, **(more or {})}
        return sse.write(orjson.dumps(self._answer([candidate])))

    def _answer(self, candidates: list[Body]) -> Body:
        return {
            "candidates": candidates,
            "modelVersion": self._meter.served_model or "",
            "responseId": self._id,
        }

    def _usage(self) -> Body:
        usage = self._meter.usage
        return {} if usage is None else {"usageMetadata": write_usage(usage)}


def _write_choice(choice: Choice, index: int, finish: Finish) -> Body:
    citations: list[Citation] = []
    text = ""
    for part in choice.parts:
        if isinstance(part, Text | Refused):
            begin, text = len(text), text + part.text
            citations += _placed(part.citations if isinstance(part, Text) else (), begin, len(text))
    return {
        "content": {"parts": [_write_part(part) for part in choice.parts] or [{"text": ""}], "role": "model"},
        "finishReason": FINISH_WRITTEN[finish],
        "index": index,
        **_write_logprobs(choice.logprobs),
        **_write_citations(citations, text),
    }


def _write_part(part: Part) -> Body:
    match part:
        case ToolCall():
            return write_call(part)
        case Reasoning() if part.redacted is not None:
            packed = pack_signature(part.redacted, part.origin or HOME, redacted=True)
            return {"text": "", "thought": True, "thoughtSignature": packed}
        case Reasoning():
            alone = not part.text and part.origin == HOME  # Google's came with a text, not with a thought
            written: Body = {"text": part.text} | ({} if alone else {"thought": True})
            if part.signature is not None:
                written["thoughtSignature"] = pack_signature(part.signature, part.origin or HOME)
            return written
        case Text() | Refused():
            return {"text": part.text}
        case _:
            raise TypeError(f"no part of an answer: {type(part).__name__}")


def _placed(citations: tuple[Citation, ...], begin: int, end: int) -> list[Citation]:
    """Those that do not say where they belong are of the text around them, from `begin` to `end`."""
    return [
        citation if citation.start is not None else msgspec.structs.replace(citation, start=begin, end=end)
        for citation in citations
    ]


def _write_citations(citations: list[Citation], text: str) -> Body:
    return {"groundingMetadata": write_grounding(citations, text)} if citations else {}


def _write_logprobs(entries: tuple[Body, ...]) -> Body:
    if not entries:
        return {}
    tops = [entry.get("top_logprobs") or [] for entry in entries]
    return {
        "logprobsResult": {
            "chosenCandidates": [_write_logprob(entry) for entry in entries],
            "topCandidates": [{"candidates": [_write_logprob(other) for other in top]} for top in tops],
        }
    }


def _write_logprob(entry: Body) -> Body:
    return {"token": entry.get("token"), "logProbability": entry.get("logprob")}


def writer(meter: Meter, body: Body, request_id: str) -> _Writer:
    return _Writer(meter, request_id)


# The same dialect on both sides -------------------------------------------------------------------------------------


def add_extras(answer: Body, extras: Extras) -> None:
    answer.update(extras.fields())


def write_tail(events: list[sse.Event], body: Body, extras: Extras) -> bytes:
    """From the chunk that finishes the answer to the last, which takes the extras."""
    shown = [event for event in events if event.data != b"[DONE]"]
    pieces = [event.raw for event in shown]
    for at in reversed(range(len(shown))):
        if shown[at].data:
            answer = parse(shown[at].data)
            add_extras(answer, extras)
            pieces[at] = sse.write(orjson.dumps(answer))
            break
    return b"".join(pieces)


# Errors and lists ---------------------------------------------------------------------------------------------------

# google.rpc.Code, by the HTTP status that its reference gives; others by their hundred
_STATUSES: Mapping[int, str] = {
    401: "UNAUTHENTICATED",
    402: "FAILED_PRECONDITION",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_TYPE = "type.googleapis.com/google.rpc."


def error_body(refusal: Refusal, request_id: str) -> bytes:
    general = "INTERNAL" if refusal.status >= 500 else "INVALID_ARGUMENT"
    error: Body = {
        "code": refusal.status,
        "message": refusal.message,
        "status": _STATUSES.get(refusal.status, general),
        "details": _write_details(refusal, request_id),
    }
    return orjson.dumps({"error": error})


def _write_details(refusal: Refusal, request_id: str) -> list[Body]:
    """What OpenAI's clients read as `code` and `param`, where Google's look for it (google/rpc/error_details.proto)."""
    details: list[Body] = []
    if refusal.code is not None:
        details.append({"@type": f"{_TYPE}ErrorInfo", "reason": refusal.code.upper(), "domain": "tollgate"})
    if refusal.param is not None:
        field = {"field": refusal.param, "description": refusal.message}
        details.append({"@type": f"{_TYPE}BadRequest", "fieldViolations": [field]})
    if (wait_s := refusal.headers.get("retry-after")) is not None:
        details.append({"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{wait_s}s"})
    if request_id:
        details.append({"@type": f"{_TYPE}RequestInfo", "requestId": request_id})
    return details


def error_event(refusal: Refusal, request_id: str, number: int | None = None) -> bytes:
    """The SDKs raise it when `error` is the first field."""
    return sse.write(error_body(refusal, request_id))


def models_body(models: list[tuple[str, str, int]]) -> bytes:
    methods = ["generateContent", "streamGenerateContent"]
    listed = [
        {"name": f"models/{id}", "displayName": id, "supportedGenerationMethods": methods}
        for id, _owner, _created in models
    ]
    return orjson.dumps({"models": listed})
