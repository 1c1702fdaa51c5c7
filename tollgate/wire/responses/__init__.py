"""OpenAI's Responses: `POST /v1/responses`, and every server that is compatible with it.

An answer is a list of items: messages, thoughts, calls. Usage is inclusive: `input_tokens` counts what came from a
cache, `output_tokens` counts reasoning. Thoughts are reasoning items; their `encrypted_content` is what the model wants
back. A signature of another family travels in it with its origin, before the text's own item or before the call that it
belongs to. Tools of the kinds `custom` and `namespace` become functions where a protocol knows no other, and come back
as the client has named them. Nothing is stored. Pure.
"""

from collections.abc import Mapping

from tollgate.errors import ProviderError
from tollgate.events import Dialect
from tollgate.wire import failures
from tollgate.wire.responses.answer import answer_choices, read_answer, reader, splitter
from tollgate.wire.responses.ask import ask
from tollgate.wire.responses.prompt import prompt_fields, read_prompt
from tollgate.wire.responses.reply import add_extras, error_body, error_event, models_body, write_tail, writer
from tollgate.wire.responses.request import (
    auth_headers,
    call_path,
    pass_on,
    request_headers,
    scope,
    stream_type,
    write_prompt,
)
from tollgate.wire.responses.usage import read_usage, write_usage
from tollgate.wire.responses.words import finish_words

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

name: Dialect = "responses"
forwarded_headers: tuple[str, ...] = ()


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return failures.provider_error(status, headers, body)
