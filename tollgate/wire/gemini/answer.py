"""A provider's answer, whole or chunk by chunk, as parts of the middle and figures of the meter.

A chunk of a stream has the form of a whole answer, so both are read by the same code.
"""

import msgspec

from tollgate.wire import Body, Meter, Quirks, failures, neutral
from tollgate.wire.content import Choice, Delta, Part, Reasoning, Text, ToolCall
from tollgate.wire.failures import unreadable
from tollgate.wire.gemini.array import Splitter
from tollgate.wire.gemini.grounding import read_citations
from tollgate.wire.gemini.usage import meter_usage, searches_of
from tollgate.wire.gemini.words import HOME, PROMPT_BLOCKED, finish_word, finish_words
from tollgate.wire.neutral import Mark, parse
from tollgate.wire.sse import Event

_SIGNED_KEY = 1  # of signed thoughts, apart from those that go on


def read_answer(answer: Body, meter: Meter, quirks: Quirks) -> None:
    if answer.get("error"):
        raise failures.inband_error(answer)
    candidates = _candidates(answer)
    if not candidates and (blocked := _blocked(answer)) is None:
        raise unreadable("it has no 'candidates'")
    _meter_model(meter, answer)
    for candidate in candidates:
        meter.output_bytes += neutral.text_bytes(candidate.get("content"))
        meter.finish_reason = finish_word(candidate.get("finishReason")) or meter.finish_reason
    if not candidates:
        meter.finish_reason = blocked
    meter_usage(meter, answer.get("usageMetadata"), _searches(candidates, meter))


def answer_choices(answer: Body, meter: Meter) -> tuple[Choice, ...]:
    choices = tuple(_answer_choice(candidate, meter) for candidate in _candidates(answer))
    return choices or (Choice(parts=(), finish=_blocked(answer)),)


def _answer_choice(candidate: Body, meter: Meter) -> Choice:
    """Deltas of a stream that has but one event, put together."""
    pieces = _Pieces()
    deltas = _read_candidate(candidate, 0, pieces, meter)
    parts: list[Part] = []
    for delta in deltas:
        match delta.kind:
            case "text" if parts and isinstance(last := parts[-1], Text):
                both = last.citations + delta.citations
                parts[-1] = msgspec.structs.replace(last, text=last.text + delta.text, citations=both)
            case "text":
                parts.append(Text(text=delta.text, citations=delta.citations))
            case "reasoning":
                parts.append(Reasoning(text=delta.text, signature=delta.signature, origin=delta.origin))
            case "tool_call":
                parts.append(
                    ToolCall(
                        id=delta.id,
                        name=delta.name,
                        arguments=delta.text,
                        signature=delta.signature,
                        origin=delta.origin,
                    )
                )
    word = finish_word(candidate.get("finishReason"))
    _name_finish(word, meter)
    return Choice(parts=tuple(parts), finish=word, logprobs=_logprobs(candidate))


def _candidates(answer: Body) -> list[Body]:
    found = answer.get("candidates") or []
    if not isinstance(found, list):
        raise unreadable("'candidates' is not a list")
    for candidate in found:
        if not isinstance(candidate, dict):
            raise unreadable("a candidate is not an object")
    return found


def _blocked(answer: Body) -> str | None:
    """Why the prompt was blocked, if it was; then there are no candidates."""
    feedback = answer.get("promptFeedback")
    if not isinstance(feedback, dict) or not (feedback.get("blockReason") or feedback.get("blockReasonMessage")):
        return None
    reason = finish_word(feedback.get("blockReason")) or ""
    return reason if finish_words.get(reason) == "content_filter" else PROMPT_BLOCKED


def _name_finish(word: str | None, meter: Meter) -> None:
    """An answer that the model has spoilt, by a malformed call for instance, ends like any other in other dialects."""
    if word is not None and word not in finish_words:
        meter.dropped.add("candidates[].finishReason")


def _meter_model(meter: Meter, answer: Body) -> None:
    model = answer.get("modelVersion")
    if isinstance(model, str) and model:
        meter.served_model = model.removeprefix("models/")


def _searches(candidates: list[Body], meter: Meter) -> int:
    return max(
        (searches_of(candidate.get("groundingMetadata"), meter.served_model or "") for candidate in candidates),
        default=0,
    )


# Candidates ---------------------------------------------------------------------------------------------------------


class _Pieces(msgspec.Struct, kw_only=True, gc=False):
    """What came before in one candidate: its texts, by which citations count, its calls, and the bytes of all."""

    texts: list[str] = []
    calls: int = 0
    bytes: int = 0


def _read_candidate(candidate: Body, choice: int, pieces: _Pieces, meter: Meter) -> list[Delta]:
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    deltas: list[Delta] = []
    for part in parts if isinstance(parts, list) else ():
        if not isinstance(part, dict):
            raise unreadable("a part is not an object")
        text = part.get("text")
        if isinstance(text, str):
            pieces.bytes += len(text) if text.isascii() else len(text.encode())
            _read_text(text, part, choice, pieces, deltas)
        else:
            pieces.bytes += neutral.text_bytes(part)
            _read_part(part, choice, pieces, meter, deltas)
    grounded = candidate.get("groundingMetadata") or candidate.get("citationMetadata")
    if grounded and (citations := read_citations(candidate, pieces.texts, meter)):
        deltas.append(Delta(choice=choice, citations=citations))
    return deltas


def _read_text(text: str, part: Body, choice: int, pieces: _Pieces, deltas: list[Delta]) -> None:
    if len(part) > 1:
        signature = _signature(part)
        if part.get("thought") is True:
            if text or signature is not None:
                deltas.append(_thought(text, signature, choice))
            return
        if signature is not None:
            if text:
                pieces.texts.append(text)
                deltas.append(Delta(text=text, choice=choice))
            deltas.append(_thought("", signature, choice))
            return
    if text:
        pieces.texts.append(text)
        deltas.append(Delta(text=text, choice=choice))


def _signature(part: Body) -> str | None:
    signature = part.get("thoughtSignature")
    return signature if isinstance(signature, str) and signature else None


def _read_part(part: Body, choice: int, pieces: _Pieces, meter: Meter, deltas: list[Delta]) -> None:
    signature = _signature(part)
    call = part.get("functionCall")
    if isinstance(call, dict):
        name, id, arguments = call.get("name"), call.get("id"), call.get("args")
        pieces.calls += 1
        deltas.append(
            Delta(
                kind="tool_call",
                text=neutral.compact(arguments if isinstance(arguments, dict) else {}),
                key=pieces.calls,
                choice=choice,
                id=id if isinstance(id, str) else "",
                name=name if isinstance(name, str) else "",
                signature=signature,
                origin=None if signature is None else HOME,
                last=True,
            )
        )
        return
    if signature is not None:
        deltas.append(_thought("", signature, choice))
    for field in part:
        if field not in ("thought", "thoughtSignature"):
            meter.dropped.add(f"candidates[].content.parts[].{field}")


def _thought(text: str, signature: str | None, choice: int) -> Delta:
    """A signed one is a part of its own. A signature that lies on a text, or comes alone at the end of a stream, is
    kept as a thought without words."""
    if signature is None:
        return Delta(kind="reasoning", text=text, choice=choice)
    return Delta(
        kind="reasoning", text=text, signature=signature, origin=HOME, key=_SIGNED_KEY, choice=choice, last=True
    )


def _logprobs(candidate: Body) -> tuple[Body, ...]:
    """As OpenAI writes them."""
    result = candidate.get("logprobsResult")
    if not isinstance(result, dict):
        return ()
    chosen, tops = _dicts(result.get("chosenCandidates")), _dicts(result.get("topCandidates"))
    entries: list[Body] = []
    for at, one in enumerate(chosen):
        others = _dicts(tops[at].get("candidates")) if at < len(tops) else []
        entries.append(_logprob(one) | {"top_logprobs": [_logprob(other) for other in others]})
    return tuple(entries)


def _logprob(one: Body) -> Body:
    token, value = one.get("token"), one.get("logProbability")
    token = token if isinstance(token, str) else ""
    logprob = value if isinstance(value, int | float) and not isinstance(value, bool) else 0.0
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _dicts(value: object) -> list[Body]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


# Streams ------------------------------------------------------------------------------------------------------------


def splitter() -> Splitter:
    return Splitter()


class _Reader:
    """Chunks of a stream. The end of the body is the end of the answer; a chunk may follow the one that finishes, and
    the last block of usage counts."""

    def __init__(self, meter: Meter, choices: int) -> None:
        self._meter = meter
        self._choices = choices
        self._pieces: dict[int, _Pieces] = {}
        self._searches = 0
        self.deltas: list[Delta] = []
        self.finishes: dict[int, str] = {}

    def read(self, event: Event) -> Mark:
        self.deltas = []
        if not event.data:
            return Mark.OTHER
        if event.data == b"[DONE]":  # added by some gateways
            return Mark.END
        answer = parse(event.data)
        if answer.get("error"):
            raise failures.inband_error(answer)
        meter = self._meter
        _meter_model(meter, answer)
        candidates = _candidates(answer)
        mark = Mark.OTHER
        for candidate in candidates:
            mark = max(mark, self._read_candidate(candidate))
        if not candidates and (blocked := _blocked(answer)) is not None:
            meter.finish_reason = self.finishes[0] = blocked
            mark = Mark.CLOSING
        if usage := answer.get("usageMetadata"):
            meter_usage(meter, usage, self._searches)
        return mark

    def _read_candidate(self, candidate: Body) -> Mark:
        meter = self._meter
        index = candidate.get("index")
        index = index if isinstance(index, int) else 0
        pieces = self._pieces.get(index)
        if pieces is None:
            pieces = self._pieces[index] = _Pieces()
        before = pieces.bytes
        read = _read_candidate(candidate, index, pieces, meter)
        mark = Mark.OTHER
        if pieces.bytes > before or any(delta.signature for delta in read):
            meter.output_bytes += pieces.bytes - before
            meter.content_started = True
            mark = Mark.CONTENT
        if "logprobsResult" in candidate:
            _add_logprobs(read, _logprobs(candidate))
        if "groundingMetadata" in candidate:
            self._searches = max(self._searches, _searches([candidate], meter))
        self.deltas += read
        word = finish_word(candidate.get("finishReason"))
        if word is not None:
            meter.finish_reason = self.finishes[index] = word
            _name_finish(word, meter)
            if len(self.finishes) >= self._choices:
                mark = Mark.CLOSING
        return mark


def _add_logprobs(deltas: list[Delta], logprobs: tuple[Body, ...]) -> None:
    for at, delta in enumerate(deltas):
        if delta.kind == "text" and delta.text:
            deltas[at] = msgspec.structs.replace(delta, logprobs=logprobs)
            return


def reader(meter: Meter, body: Body, quirks: Quirks) -> _Reader:
    settings = body.get("generationConfig") or body.get("generation_config")
    settings = settings if isinstance(settings, dict) else {}
    choices = settings.get("candidateCount") or settings.get("candidate_count") or 1
    return _Reader(meter, choices if isinstance(choices, int) else 1)
