"""The sandbox as an ASGI application: its routes, what is decided about a call, and its row in the ledger."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from urllib.parse import parse_qs

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from tollgate.sandbox.delivery import Caller, Cut, Plan, deliver, send_body, send_error, send_json
from tollgate.sandbox.dialect import ANTHROPIC, COUNT_CONTENT_TOKENS, GEMINI, OPENAI, PATHS, Dialect
from tollgate.sandbox.knobs import Knobs, parse_model
from tollgate.sandbox.ledger import Call, Ledger, LedgerFull, Outcome
from tollgate.sandbox.request import MAX_NAME_SHOWN, Document, Refused

BAD_KEY = b"bad-key"  # the one API key that is refused; any other will do, or none
MAX_BODY_BYTES = 64 << 20
MAX_CHAINS = 10_000  # chains whose calls are counted; then the one longest unused is forgotten

# Google's paths hold the model and the method
_GENERATE = re.compile(
    r"/v1(?:beta)?/models/(?P<model>.+):(?P<method>generateContent|streamGenerateContent|countTokens)"
)

_NOTHING: Document = {}

_Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


def create_app(ledger: Ledger | None = None) -> ASGIApp:
    """The sandbox provider, over the ledger given or one in memory.

    The app raises `Cut` out of a call whose connection is to be closed without a complete answer.
    """
    return _Sandbox(Ledger() if ledger is None else ledger)


class _Sandbox:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._calls: dict[tuple[str, str], int] = {}  # (chain, model) → calls so far, where only the first fail
        self._routes: dict[str, dict[str, _Handler]] = {
            **{path: {"POST": partial(self._call, dialect)} for path, dialect in PATHS.items()},
            "/v1/models": {"GET": self._models},
            "/v1beta/models": {"GET": self._models},
            "/ledger": {"GET": self._read_ledger, "DELETE": self._clear_ledger},
            "/healthz": {"GET": self._healthz},
            "/": {"HEAD": self._head},
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"the sandbox speaks http, not {scope['type']}")
        path, method = scope["path"], scope["method"]
        methods = self._routes.get(path) or self._generate(path)
        if methods is None:
            refused = Refused(404, f"Unknown request URL: {method} {path[:MAX_NAME_SHOWN]}", code="unknown_url")
            await send_error(OPENAI, refused, 0, send)
        elif method not in methods:
            allowed = ", ".join(methods)
            refused = Refused(405, f"Not allowed to {method} here, only {allowed}.", code="method_not_supported")
            body = OPENAI.error_body(refused, 0)
            headers = ((b"content-type", b"application/json"), (b"allow", allowed.encode()))
            await send_body(send, refused.status, body, headers)
        else:
            await methods[method](scope, receive, send)

    def _generate(self, path: str) -> dict[str, _Handler] | None:
        found = _GENERATE.fullmatch(path)
        if found is None:
            return None
        said = {"model": found["model"], "stream": found["method"] == "streamGenerateContent"}
        dialect = COUNT_CONTENT_TOKENS if found["method"] == "countTokens" else GEMINI
        return {"POST": partial(self._call, dialect, path_says=said)}

    async def _models(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        google = b"x-goog-api-key" in headers or scope["path"].startswith("/v1beta")
        dialect = ANTHROPIC if b"anthropic-version" in headers else GEMINI if google else OPENAI
        await send_json(send, dialect.models_body())

    async def _read_ledger(self, scope: Scope, receive: Receive, send: Send) -> None:
        after = parse_qs(scope["query_string"].decode("latin-1")).get("after", ["0"])[-1]
        if not (after.isascii() and after.isdigit()):
            await send_error(OPENAI, Refused(400, "after: the seq of a row is required", param="after"), 0, send)
        else:
            await send_json(send, orjson.dumps(self._ledger.rows(after=int(after))))

    async def _clear_ledger(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._ledger.clear()
        self._calls.clear()
        await send_json(send, b"{}")

    async def _healthz(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, b'{"status":"ok"}')

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send_json(send, b"")

    async def _call(
        self, dialect: Dialect, scope: Scope, receive: Receive, send: Send, *, path_says: Document = _NOTHING
    ) -> None:
        body = await _read_body(receive)
        if body is None:
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        call_id = headers[b"x-request-id"].decode("latin-1") if b"x-request-id" in headers else None
        plan = self._plan(dialect, headers, body, path_says, chain=_chain(call_id))
        try:
            call = self._enter(dialect, plan, call_id)
        except LedgerFull as error:
            await send_error(dialect, Refused(503, str(error)), 0, send)
            return
        caller = Caller(receive)
        outcome: Outcome = "error"
        try:
            outcome = await deliver(dialect, plan, call, caller, send)
        except Cut:
            outcome = "cut"
            raise
        except (asyncio.CancelledError, OSError):
            # servers differ in how they tell of a hang-up: by a message, by cancelling, or by a send that fails
            outcome = "disconnected"
            raise
        finally:
            caller.forget()
            self._ledger.end(call, outcome)

    def _plan(
        self, dialect: Dialect, headers: Mapping[bytes, bytes], body: bytes, path_says: Document, *, chain: str
    ) -> Plan:
        model, knobs = "", Knobs()
        try:
            _authenticate(headers)
            if len(body) > MAX_BODY_BYTES:
                raise Refused(413, f"The body is larger than {MAX_BODY_BYTES} bytes.")
            document = {**dialect.read_document(body, headers), **path_says}
            model = str(document.get("model", ""))[:MAX_NAME_SHOWN]
            ask = dialect.read_ask(document, headers)
            knobs = parse_model(ask.model)
            if knobs.error_status is not None and self._fails(knobs.failing_calls, chain, ask.model):
                message = f"The sandbox answers {knobs.error_status} because the name of the model asks for it."
                raise Refused(knobs.error_status, message)
            return Plan(model, knobs, (ask, dialect.compose(ask, knobs)))
        except Refused as refused:
            return Plan(model, knobs, refused)

    def _fails(self, failing_calls: int | None, chain: str, model: str) -> bool:
        """Is this call one of those of its chain that fail? Counts it."""
        if failing_calls is None:
            return True
        before = self._calls.pop((chain, model), 0)
        self._calls[chain, model] = before + 1
        if len(self._calls) > MAX_CHAINS:
            del self._calls[next(iter(self._calls))]
        return before < failing_calls

    def _enter(self, dialect: Dialect, plan: Plan, call_id: str | None) -> Call:
        ask = None if isinstance(plan.result, Refused) else plan.result[0]
        return self._ledger.start(
            call_id=call_id,
            dialect=dialect.NAME,
            model=plan.model,
            stream=ask is not None and ask.stream,
            status=plan.status,
            max_tokens=None if ask is None else ask.max_tokens,
        )


def _authenticate(headers: Mapping[bytes, bytes]) -> None:
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    given = headers.get(b"x-api-key"), headers.get(b"x-goog-api-key")
    if BAD_KEY in given or (scheme.lower() == b"bearer" and token.strip() == BAD_KEY):
        raise Refused(401, "Incorrect API key provided.")


def _chain(call_id: str | None) -> str:
    """What the ids of all attempts at one request have in common: the part before the last dot."""
    if call_id is None:
        return ""
    return call_id.rpartition(".")[0] or call_id


async def _read_body(receive: Receive) -> bytes | None:
    """The body, at most one message beyond the greatest size; None when the caller has hung up."""
    message = await receive()
    if message["type"] != "http.request":
        return None
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        return body
    pieces, size = [body], len(body)
    while message.get("more_body", False) and size <= MAX_BODY_BYTES:
        message = await receive()
        if message["type"] != "http.request":
            return None
        pieces.append(message.get("body", b""))
        size += len(pieces[-1])
    return b"".join(pieces)
