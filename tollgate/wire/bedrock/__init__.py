"""AWS Bedrock's Converse: `POST /model/{model}/converse` and `/converse-stream`, for the models of every maker there.

A stream is binary: frames with checksums (`tollgate.wire.bedrock.frames`). Usage is exclusive: `inputTokens` counts
neither what was read from a cache nor what was written to it. The answer does not say which model has served it. Pure.
"""

from collections.abc import Mapping

from tollgate.errors import ProviderError
from tollgate.events import Dialect
from tollgate.wire.bedrock.answer import answer_choices, finish_words, provider_error_of, read_answer, reader
from tollgate.wire.bedrock.frames import splitter
from tollgate.wire.bedrock.request import (
    auth_headers,
    call_path,
    request_headers,
    scope,
    stream_type,
    write_prompt,
)

__all__ = [
    "answer_choices",
    "auth_headers",
    "call_path",
    "finish_words",
    "name",
    "provider_error",
    "read_answer",
    "reader",
    "request_headers",
    "scope",
    "splitter",
    "stream_type",
    "write_prompt",
]

name: Dialect = "bedrock"


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return provider_error_of(status, headers, body)
