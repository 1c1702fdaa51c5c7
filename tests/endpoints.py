"""One request for each endpoint, as a client sends it, and how to send it without a network."""

import asyncio
from typing import Any, NamedTuple

import orjson

from tests.serving import STAYING


class Example(NamedTuple):
    """A request. `path` is where it goes if the route holds parameters, `endpoint` its name in the books if that is not
    the route."""

    body: dict[str, Any]
    path: str = ""
    endpoint: str = ""
    file: bytes | None = None  # then the request is a form

    @property
    def content_type(self) -> str:
        return "application/json" if self.file is None else "multipart/form-data; boundary=x"

    @property
    def content(self) -> bytes:
        if self.file is None:
            return orjson.dumps(self.body)
        head = b'--x\r\nContent-Disposition: form-data; name="'
        fields = b"".join(b'%b%b"\r\n\r\n%b\r\n' % (head, k.encode(), v.encode()) for k, v in self.body.items())
        file = b'%bfile"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n%b\r\n' % (head, self.file)
        return fields + file + b"--x--\r\n"


MESSAGES = [{"role": "user", "content": "Hello, who is there?"}]

EXAMPLES: dict[str, Example] = {
    "/v1/chat/completions": Example({"model": "sandbox", "max_tokens": 50, "messages": MESSAGES}),
    "/v1/messages": Example({"model": "sandbox", "max_tokens": 50, "messages": MESSAGES}),
    "/v1/messages/count_tokens": Example({"model": "sandbox", "messages": MESSAGES}),
    "/v1/completions": Example({"model": "sandbox", "max_tokens": 50, "prompt": "Hello, who"}),
    "/v1/embeddings": Example({"model": "sandbox", "input": ["Hello", "who is there?"]}),
    "/v1/images/generations": Example({"model": "sandbox", "prompt": "A cat", "n": 2}),
    "/v1/moderations": Example({"model": "sandbox", "input": "Hello"}),
    "/v1/audio/speech": Example({"model": "sandbox", "input": "Hello, who is there?", "voice": "alloy"}),
    "/v1/audio/transcriptions": Example({"model": "sandbox", "response_format": "json"}, file=b"RIFF" + bytes(40_000)),
    "/v1/audio/translations": Example({"model": "sandbox"}, file=b"RIFF" + bytes(40_000)),
    "/v1/responses": Example({"model": "sandbox", "max_output_tokens": 50, "input": MESSAGES}),
    "/api/chat": Example({"model": "sandbox", "messages": MESSAGES, "options": {"num_predict": 50}}),
    "/api/generate": Example({"model": "sandbox", "prompt": "Hello, who is there?", "options": {"num_predict": 50}}),
    **{
        f"/{version}/models/{{model:path}}:{method}": Example(
            {"contents": [{"parts": [{"text": "Hello, who is there?"}]}], "generationConfig": {"maxOutputTokens": 50}},
            path=f"/{version}/models/{model}:{method}",
            endpoint="/v1beta/models/{model}:generateContent",
        )
        for version, model in (("v1", "sandbox"), ("v1beta", "sandbox-gemini/sandbox"))
        for method in ("generateContent", "streamGenerateContent")
    },
    "/api/embed": Example({"model": "sandbox", "input": ["Hello", "who is there?"]}),
    "/api/embeddings": Example({"model": "sandbox", "prompt": "Hello"}),
    **{
        f"/{version}/models/{{model:path}}:{method}": Example(
            body, path=f"/{version}/models/sandbox:{method}", endpoint=f"/v1beta/models/{{model}}:{method}"
        )
        for version in ("v1", "v1beta")
        for method, body in (
            ("embedContent", {"content": {"parts": [{"text": "Hello"}]}}),
            ("batchEmbedContents", {"requests": [{"content": {"parts": [{"text": "Hello"}]}}]}),
        )
    },
    **{
        f"/{version}/models/{{model:path}}:countTokens": Example(
            {"contents": [{"parts": [{"text": "Hello, who is there?"}]}]},
            path=f"/{version}/models/sandbox:countTokens",
            endpoint="/v1beta/models/{model}:countTokens",
        )
        for version in ("v1", "v1beta")
    },
}

# Those that also take `stream`, and what they do without it
STREAMING: dict[str, bool] = {
    "/v1/chat/completions": False,
    "/v1/messages": False,
    "/v1/responses": False,
    "/v1/completions": False,
    "/api/chat": True,
    "/api/generate": True,
}

ASKS_NO_MODEL = frozenset({"/api/show"})  # answered by the ingress from its own catalogue: nothing is called


async def ask(application: Any, key: str, route: str, example: Example) -> tuple[int, dict[str, str], bytes]:
    """What an HTTP server would do with the request: status, headers, body."""
    return await post(application, key, example.path or route, example.content, example.content_type)


async def post(
    application: Any, key: str, path: str, content: bytes, content_type: str = "application/json"
) -> tuple[int, dict[str, str], bytes]:
    sent: list[dict[str, Any]] = []
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "http_version": "1.1",
        "extensions": STAYING,
        "headers": [
            (b"host", b"tollgate"),
            (b"authorization", b"Bearer " + key.encode()),
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(content)).encode()),
        ],
    }
    messages = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        return await asyncio.get_running_loop().create_future()  # the client stays

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await application(scope, receive, send)
    head, *bodies = sent
    headers = {name.decode(): value.decode() for name, value in head["headers"]}
    return head["status"], headers, b"".join(message.get("body", b"") for message in bodies)
