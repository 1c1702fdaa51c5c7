"""Anthropic's Messages: `POST /v1/messages`, and every server that is compatible with it.

Usage here is exclusive: `input_tokens` counts neither what was read from a cache nor what was written to it, and
`output_tokens` counts thinking. A signature of another family travels to clients of this dialect, who hand back what
they were given, with its origin written into it: in a block `thinking`, or before a call in a block
`redacted_thinking`. Pure.
"""

from collections.abc import Mapping

from tollgate.errors import ProviderError
from tollgate.events import Dialect
from tollgate.wire import failures
from tollgate.wire.anthropic.answer import answer_choices, read_answer, reader, splitter
from tollgate.wire.anthropic.ask import ask
from tollgate.wire.anthropic.prompt import prompt_fields, read_prompt
from tollgate.wire.anthropic.reply import add_extras, error_body, error_event, models_body, write_tail, writer
from tollgate.wire.anthropic.request import (
    auth_headers,
    call_path,
    forwarded_headers,
    pass_on,
    request_headers,
    scope,
    stream_type,
    write_prompt,
)
from tollgate.wire.anthropic.usage import read_usage, write_usage
from tollgate.wire.anthropic.words import finish_words

__all__ = [
    "add_extras",
    "answer_choices",
    "ask",
    "auth_headers",
    "call_path",
    "error_body",
    "error_event",
    "finish_words",
    "forwarded_headers",
    "models_body",
    "name",
    "pass_on",
    "prompt_fields",
    "provider_error",
    "read_answer",
    "read_prompt",
    "read_usage",
    "reader",
    "request_headers",
    "scope",
    "splitter",
    "stream_type",
    "write_prompt",
    "write_tail",
    "write_usage",
    "writer",
]

name: Dialect = "anthropic"


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return failures.provider_error(status, headers, body)
