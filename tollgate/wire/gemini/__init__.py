"""Google's `generateContent` and `streamGenerateContent`: the Gemini API, Vertex AI, and whatever speaks like them.

Which model is asked, and whether the answer streams, is in the path; so a client's request has them put into its body
before it gets here (`PATH_FIELDS`). Usage is half inclusive: the prompt's count includes what came from a cache, that
of candidates does not include thoughts. Ids of calls are rare, so calls and results are matched by name and order.
A signature of another family travels to clients of this dialect as a `thoughtSignature` with its origin in it. Pure.
"""

from collections.abc import Mapping

from tollgate.errors import ProviderError
from tollgate.events import Dialect
from tollgate.wire import failures
from tollgate.wire.gemini.answer import answer_choices, read_answer, reader, splitter
from tollgate.wire.gemini.ask import PATH_FIELDS, ask, contents, model_name
from tollgate.wire.gemini.prompt import prompt_fields, read_prompt
from tollgate.wire.gemini.reply import add_extras, error_body, error_event, models_body, write_tail, writer
from tollgate.wire.gemini.request import (
    auth_headers,
    call_path,
    forwarded_headers,
    pass_on,
    request_headers,
    resource,
    scope,
    stream_type,
    write_prompt,
)
from tollgate.wire.gemini.usage import read_usage, write_usage
from tollgate.wire.gemini.words import finish_words

__all__ = [
    "PATH_FIELDS",
    "add_extras",
    "answer_choices",
    "ask",
    "auth_headers",
    "call_path",
    "contents",
    "error_body",
    "error_event",
    "finish_words",
    "forwarded_headers",
    "model_name",
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
    "resource",
    "scope",
    "splitter",
    "stream_type",
    "write_prompt",
    "write_tail",
    "write_usage",
    "writer",
]

name: Dialect = "gemini"


def provider_error(status: int, headers: Mapping[str, str], body: bytes) -> ProviderError:
    return failures.provider_error(status, headers, body)
