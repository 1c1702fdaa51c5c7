"""What the sandbox says: sentences picked by the request, a word per token, never a word of the prompt. Pure."""

import re
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

from tollgate.sandbox.knobs import Knobs
from tollgate.sandbox.request import Ask

Finish = Literal["done", "limit", "stop_sequence"]

# ASCII without quotes and backslashes: the pieces are put into JSON strings as they are
SENTENCES = (
    b"The sandbox has read your message and answers with this sentence.",
    b"Nothing was sent anywhere, this text was made on your own machine.",
    b"A real model would say something wiser here, and it would cost more.",
    b"Every word of this answer is one token in the ledger of the sandbox.",
    b"The same question always gets the same answer from this provider.",
    b"Only the model is pretend here, the tokens are counted like real ones.",
    b"Ask again under another model name to see delays, failures and long answers.",
    b"Count these words and you will find as many output tokens on the bill.",
)
_LENGTHS = [len(sentence.split()) for sentence in SENTENCES]
_STARTS = [0, *accumulate(_LENGTHS)]
_WORDS = [b" " + word for sentence in SENTENCES for word in sentence.split()]
_WORD = re.compile(rb" ?[^ ]+")


class Answer(NamedTuple):
    """One choice of an answer, in `pieces` as they are streamed; `sizes` are the tokens of each.

    Token counts are those of one choice, in disjoint classes: `input_tokens` are the uncached ones, `output_tokens`
    do not include `reasoning_tokens`.
    """

    pieces: list[bytes]
    sizes: list[int]
    finish: Finish
    stop_sequence: str | None
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    usage_reported: bool

    @property
    def text(self) -> str:
        return b"".join(self.pieces).decode()


def compose(ask: Ask, knobs: Knobs) -> Answer:
    """The answer to a request. The same request gets the same answer."""
    sentence = ask.fingerprint % len(SENTENCES)
    length, reasoning, finish = _plan_length(ask, knobs, _LENGTHS[sentence])
    words = _words(_STARTS[sentence], length)
    stop_sequence = None
    if ask.stop:
        words, stop_sequence = _stop_at(words, ask.stop)
        if stop_sequence is not None:
            finish = "stop_sequence"
    pieces, sizes = _divide(words, knobs.chunks)
    input_tokens = ask.input_tokens if knobs.input_tokens is None else knobs.input_tokens
    cached = min(knobs.cached_tokens, input_tokens)
    return Answer(
        pieces=pieces,
        sizes=sizes,
        finish=finish,
        stop_sequence=stop_sequence,
        input_tokens=input_tokens - cached,
        cached_tokens=cached,
        output_tokens=len(words),
        reasoning_tokens=reasoning,
        usage_reported=not knobs.no_usage,
    )


def _plan_length(ask: Ask, knobs: Knobs, sentence_length: int) -> tuple[int, int, Finish]:
    """Tokens of the answer, tokens of reasoning, and whether the caller's limit ends it. Reasoning comes first."""
    wanted = max(sentence_length, knobs.chunks or 0) if knobs.tokens is None else knobs.tokens
    if ask.max_tokens is None:
        return wanted, knobs.reasoning_tokens, "done"
    reasoning = min(knobs.reasoning_tokens, ask.max_tokens)
    room = ask.max_tokens - reasoning
    if knobs.over:
        return room + knobs.over, reasoning, "limit"
    if wanted > room:
        return room, reasoning, "limit"
    return wanted, reasoning, "done"


def _words(start: int, length: int) -> list[bytes]:
    """So many words from the given one on, round and round; all but the first begin with their space."""
    rounds = (start + length) // len(_WORDS) + 1
    words = (_WORDS * rounds)[start : start + length]
    if words:
        words[0] = words[0][1:]
    return words


def _stop_at(words: list[bytes], stop: tuple[bytes, ...]) -> tuple[list[bytes], str | None]:
    """The words before the first stop sequence, and which one it was."""
    text = b"".join(words)
    found = [(position, sequence) for sequence in stop if (position := text.find(sequence)) >= 0]
    if not found:
        return words, None
    position, sequence = min(found)
    return _WORD.findall(text[:position].rstrip()), sequence.decode()


def _divide(words: list[bytes], chunks: int | None) -> tuple[list[bytes], list[int]]:
    """The words in `chunks` pieces whose sizes differ by at most one token."""
    count = len(words)
    if chunks is None or chunks >= count:
        return words, [1] * count
    edges = [count * index // chunks for index in range(chunks + 1)]
    spans = list(pairwise(edges))
    return [b"".join(words[start:end]) for start, end in spans], [end - start for start, end in spans]
