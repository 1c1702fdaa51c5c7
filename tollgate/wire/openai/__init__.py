"""OpenAI's Chat Completions: `POST /v1/chat/completions`, and every server that is compatible with it.

Usage here is inclusive: `prompt_tokens` counts what came from a cache, `completion_tokens` counts reasoning.
Thoughts have no place in OpenAI's own answers. They are read and written where compatible servers have agreed to keep
them: `reasoning_content` (DeepSeek) and `reasoning_details` (OpenRouter), which holds signatures too; a signature of
Google's is in `extra_content` of the call it belongs to, as in Google's compatible endpoint. Pure.
"""

from collections.abc import Mapping

from tollgate.errors import ProviderError
from tollgate.events import Dialect
from tollgate.wire import failures
from tollgate.wire.openai.answer import answer_choices, read_answer, reader, splitter
from tollgate.wire.openai.ask import ask
from tollgate.wire.openai.prompt import prompt_fields, read_prompt
from tollgate.wire.openai.reply import add_extras, error_body, error_event, models_body, write_tail, writer
from tollgate.wire.openai.request import (
    auth_headers,
    call_path,
    pass_on,
    request_headers,
    scope,
    stream_type,
    write_prompt,
)
from tollgate.wire.openai.usage import read_usage, write_usage
from tollgate.wire.openai.words import CAP_FIELDS, finish_words

__all__ = [
    "CAP_FIELDS",
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

name: Dialect = "openai"
forwarded_headers: tuple[str, ...] = ()


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return failures.provider_error(status, headers, body)
