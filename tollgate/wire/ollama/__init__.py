"""Ollama's own API: `POST /api/chat` and `POST /api/generate`. A stream is one JSON object per line, the last of which
has the counts.

https://docs.ollama.com/api/chat, https://docs.ollama.com/api/generate. Both say the same in other fields, so a request
is known by them: one with `messages` is a chat. An answer streams unless the request says `stream: false`; whoever
takes the request in writes down which was meant. Calls come whole, and their ids are rare: they are matched by name and
order. The word for an answer that ends in calls is `stop`. A count that is missing where the answer is done is a zero:
all of the prompt was cached. Pure.
"""

from collections.abc import Mapping

from tollgate.errors import ProviderError
from tollgate.events import Dialect
from tollgate.wire import failures
from tollgate.wire.ollama.answer import answer_choices, read_answer, read_usage, reader, splitter
from tollgate.wire.ollama.ask import ask
from tollgate.wire.ollama.prompt import prompt_fields, read_prompt
from tollgate.wire.ollama.reply import add_extras, error_body, error_event, models_body, write_tail, writer
from tollgate.wire.ollama.request import (
    auth_headers,
    call_path,
    forwarded_headers,
    pass_on,
    request_headers,
    scope,
    stream_type,
    write_prompt,
)
from tollgate.wire.ollama.words import finish_words

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
    "writer",
]

name: Dialect = "ollama"


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return failures.provider_error(status, headers, body)
