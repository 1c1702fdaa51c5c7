"""Where a model is asked: every path, whose dialect is spoken there, and how its body is read.

A further endpoint is a line in the table; admission, metering and the books come with it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple
from urllib.parse import parse_qs

from starlette.routing import compile_path

from tollgate.errors import Refusal
from tollgate.events import Dialect
from tollgate.wire import Body
from tollgate.wire.gemini.array import ArrayWriter

Params = Mapping[str, str]
Complete = Callable[[Body, Params], Body]
StreamForm = Callable[[bytes], ArrayWriter | None]


class Route(NamedTuple):
    """One path. It may hold parameters, as Starlette writes them: `/v1beta/models/{model}:generateContent`.

    `endpoint` is its name in events and books, the path itself unless several paths mean the same.
    `form`: what comes is not JSON but a form with a file. `complete` puts what the path says into the body. From there
    on the body alone is the request, in whatever form the client has sent it: `model` and `stream` are fields of it.
    `stream_form` says by the query whether a stream leaves in another form than as server-sent events.
    """

    path: str
    dialect: Dialect
    endpoint: str = ""
    complete: Complete | None = None
    form: bool = False
    stream_form: StreamForm | None = None

    @property
    def name(self) -> str:
        return self.endpoint or self.path


def _generate(body: Body, params: Params) -> Body:
    return {**body, **params, "stream": False}


def _stream_generate(body: Body, params: Params) -> Body:
    return {**body, **params, "stream": True}


def _ollama_chat(body: Body, params: Params) -> Body:
    return {field: value for field, value in _streaming(body).items() if field != "prompt"} | {
        "messages": body.get("messages")
    }


def _ollama_generate(body: Body, params: Params) -> Body:
    return {field: value for field, value in _streaming(body).items() if field != "messages"}


def _streaming(body: Body) -> Body:
    """Ollama streams unless it is told not to."""
    return body if body.get("stream") is not None else body | {"stream": True}


def _array_unless_sse(query: bytes) -> ArrayWriter | None:
    """Google streams an array of answers, unless the query says `alt=sse`."""
    return None if b"sse" in parse_qs(query).get(b"alt", ()) else ArrayWriter()


def _google(version: str) -> tuple[Route, ...]:
    """Model names may hold a slash, as in `provider/model`."""
    path = f"/{version}/models/{{model:path}}"
    endpoint = "/v1beta/models/{model}:generateContent"
    return (
        Route(f"{path}:generateContent", "gemini", endpoint, _generate),
        Route(f"{path}:streamGenerateContent", "gemini", endpoint, _stream_generate, stream_form=_array_unless_sse),
        *(
            Route(f"{path}:{method}", "gemini", f"/v1beta/models/{{model}}:{method}", _generate)
            for method in ("countTokens", "embedContent", "batchEmbedContents")
        ),
    )


ROUTES: tuple[Route, ...] = (
    Route("/v1/chat/completions", "openai"),
    Route("/v1/messages", "anthropic"),
    Route("/v1/messages/count_tokens", "anthropic"),
    Route("/v1/responses", "responses"),
    Route("/v1/completions", "openai"),
    Route("/v1/embeddings", "openai"),
    Route("/v1/images/generations", "openai"),
    Route("/v1/moderations", "openai"),
    Route("/v1/audio/speech", "openai"),
    Route("/v1/audio/transcriptions", "openai", form=True),
    Route("/v1/audio/translations", "openai", form=True),
    *_google("v1"),
    *_google("v1beta"),
    Route("/api/chat", "ollama", complete=_ollama_chat),
    Route("/api/generate", "ollama", complete=_ollama_generate),
    Route("/api/embed", "ollama"),
    Route("/api/embeddings", "ollama"),
)


_GOOGLE_METHOD = re.compile(r"/v1(?:beta)?/models/.+:([^/:]*)")


def check_google_method(path: str) -> None:
    """Google writes a method behind a model's name. Raise `Refusal` (404) for one on a path that is in no table."""
    if match := _GOOGLE_METHOD.fullmatch(path):
        known = ", ".join(dict.fromkeys(route.path.rpartition(":")[2] for route in _google("v1beta")))
        raise Refusal(
            404,
            "not_found",
            f"There is no method {match[1][:64]!a} of models here; there are {known}.",
            param="method",
        )


class Routes:
    """The table, to be looked things up in: paths without parameters by one look into a dict."""

    def __init__(self, routes: Iterable[Route] = ROUTES) -> None:
        self._exact: dict[str, Route] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        for route in routes:
            if "{" in route.path:
                self._patterns.append((compile_path(route.path)[0], route))
            else:
                self._exact[route.path] = route

    def find(self, path: str) -> tuple[Route, Params] | None:
        """The route of a path, and the parameters in it."""
        exact = self._exact.get(path)
        if exact is not None:
            return exact, {}
        for pattern, route in self._patterns:
            if match := pattern.fullmatch(path):
                return route, match.groupdict()
        return None
