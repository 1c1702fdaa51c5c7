"""How many tokens a text has, where nobody has counted them: by OpenAI's encoding o200k_base, whoever's model it was.

Another family's tokenizer counts a little more or less, so whatever rests on it is marked as estimated. The ranks lie
in the package; nothing is downloaded. Loading them takes a second and holds the interpreter, so servers count in a
process of its own (`tollgate.tokenizer.counter`).
"""

import base64
import gzip
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tiktoken

PIECE_CHARS = 8_000  # counted at once: a long run of blanks would exhaust the stack of the tokenizer
MAX_CHARS = 2_000_000  # counted of one request; the rest is taken to be like it
ROUGH_BYTES_PER_TOKEN = 4  # of English text, about; where the counter cannot be asked

TOKENS_PER_MESSAGE = 4  # what providers put around each
TOKENS_PER_REQUEST = 3

# The encoding's own pattern (tiktoken, `openai_public.py`)
_PATTERN = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)

# What in a request is not read as text
_NOT_TEXT = frozenset(
    {"data", "file_data", "images", "signature", "encrypted_content", "id", "type", "role", "model", "cache_control"}
)
_MAX_DEPTH = 64


def count(texts: Iterable[str]) -> int:
    """The tokens of the texts, together. Blocks: for as long as a second the first time."""
    encoding = _encoding()
    tokens = counted_chars = chars = 0
    for text in texts:
        chars += len(text)
        for start in range(0, len(text), PIECE_CHARS):
            if counted_chars >= MAX_CHARS:
                break
            piece = text[start : start + PIECE_CHARS]
            counted_chars += len(piece)
            tokens += len(encoding.encode_ordinary(piece))
    return tokens if counted_chars == chars else tokens * chars // counted_chars


def rough(texts: Iterable[str]) -> int:
    """About as many, without a tokenizer."""
    return sum(-(-len(text.encode(errors="replace")) // ROUGH_BYTES_PER_TOKEN) for text in texts)


def request_texts(body: dict[str, Any]) -> list[str]:
    """All that a model reads of a request, in any dialect."""
    return [text for text in _texts(body, 0) if text]


def overhead(body: dict[str, Any]) -> int:
    """The tokens that the texts do not show: around messages, and those of a prompt that is given as numbers."""
    numbers = sum(_numbers(body.get(name)) for name in ("prompt", "input"))
    if numbers:
        return numbers
    lists = (body.get(name) for name in ("messages", "input", "contents"))
    messages = next((len(value) for value in lists if isinstance(value, list)), 1)
    return TOKENS_PER_REQUEST + TOKENS_PER_MESSAGE * messages


def _texts(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        if not value.startswith("data:"):
            yield value
    elif depth < _MAX_DEPTH:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key not in _NOT_TEXT:
                    if depth > 2 and isinstance(inner, dict):  # a schema's names are read too
                        yield key
                    yield from _texts(inner, depth + 1)
        elif isinstance(value, list):
            for inner in value:
                yield from _texts(inner, depth + 1)


def _numbers(value: object) -> int:
    if isinstance(value, list):
        return sum(_numbers(inner) for inner in value)
    return int(isinstance(value, int) and not isinstance(value, bool))


@cache
def _encoding() -> "tiktoken.Encoding":
    import tiktoken  # by those who count, not by everybody who imports this module

    packed = (resources.files("tollgate.tokenizer") / "data" / "o200k_base.tiktoken.gz").read_bytes()
    ranks: dict[bytes, int] = {}
    for line in gzip.decompress(packed).splitlines():
        token, _, rank = line.partition(b" ")
        ranks[base64.b64decode(token)] = int(rank)
    return tiktoken.Encoding("o200k_base", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens={})
