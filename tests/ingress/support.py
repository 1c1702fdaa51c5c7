"""The ingress with a real log, a fake worker behind it, and clients that call it directly."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import msgspec
import orjson

from tollgate import keys
from tollgate.config import Config, load_config
from tollgate.control import Control, command_reply, decide, entity_of_state
from tollgate.errors import Refusal
from tollgate.events import (
    Attempt,
    CancelRequested,
    CommandIssued,
    CostLine,
    Ended,
    Event,
    KeySet,
    RequestAccepted,
    Usage,
    decode,
    encode,
)
from tollgate.ingress.door import Door
from tollgate.ingress.http import CONNECTION
from tollgate.log import Log, Record
from tollgate.replies import LocalReplies, Reply
from tollgate.sealed import Sealer
from tollgate.secret import Secret, Secrets

ADMIN_KEY = "tg-admin-QfZ4mXw7bN2sT9cLkP8vHj"
SECRETS = Secrets(admin_key=Secret(ADMIN_KEY), secret=Secret("kR7pVx2mQz9nBt4wYs6cJd"), kept_apart=True)
PROMPT = "the prompt that nobody else may read"
OPENAI_BODY = {"model": "sandbox", "messages": [{"role": "user", "content": PROMPT}]}
ANTHROPIC_BODY = OPENAI_BODY | {"max_tokens": 100}
BODIES: dict[str, dict[str, Any]] = {"/v1/chat/completions": OPENAI_BODY, "/v1/messages": ANTHROPIC_BODY}
CHAT, MESSAGES = BODIES

Script = Callable[["Worker", RequestAccepted], Awaitable[None]]


@dataclass
class Response:
    """What a client got. `pieces` are as the server was handed them; `ended` says whether the answer was completed."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    pieces: list[bytes] = field(default_factory=list)
    ended: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json["error"]


class Connection:
    """A client's end of one ASGI call: sends the body, may go on for ever with it, may hang up or stop reading."""

    def __init__(self, pieces: Sequence[bytes], *, sends_on: bool = False) -> None:
        self.response = Response()
        self.started = asyncio.Event()  # the head of the answer is here
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = asyncio.Event()
        self.aborted = False
        self._on_gone: Callable[[], None] | None = None
        self._pieces = list(pieces)
        self._sends_on = sends_on

    def stop_reading(self) -> None:
        self.reads.clear()

    def hang_up(self) -> None:
        self.gone.set()
        self.reads.set()
        if self._on_gone is not None:
            self._on_gone()

    @property
    def is_behind(self) -> bool:
        return not self.reads.is_set()

    def whole_body(self, scope: Any) -> bytes | None:
        return None

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        self._on_gone = on_gone
        if self.gone.is_set() and on_gone is not None:
            on_gone()

    def abort(self) -> None:
        """What the server offers to drop a connection."""
        self.aborted = True
        self.hang_up()

    async def receive(self) -> dict[str, Any]:
        if self._pieces:
            piece = self._pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(self._pieces) or self._sends_on}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        await self.reads.wait()
        if self.gone.is_set():
            return  # as servers do: sending to nobody is no error
        if message["type"] == "http.response.start":
            self.response.status = message["status"]
            self.response.headers = {
                name.decode("latin-1"): text.decode("latin-1") for name, text in message["headers"]
            }
            self.started.set()
        else:
            self.response.pieces.append(message["body"])
            self.response.ended = not message["more_body"]


class Client:
    """Calls the application as a server would."""

    def __init__(self, app: Any, token: str | None = None) -> None:
        self.app = app
        self.headers = {} if token is None else {"authorization": f"Bearer {token}"}

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: dict[str, str | None] | None = None,
        raw: bytes | None = None,
        more: Sequence[tuple[str, str]] = (),
    ) -> Response:
        """`headers` replace or (None) remove the usual ones; `more` are added, even if they are there already."""
        content = raw if raw is not None else b"" if body is None else orjson.dumps(body)
        return await self.call(method, path, self.head(content, headers, more), Connection([content]))

    def begin(self, path: str, body: Any, *, comes: bool = True) -> tuple[Connection, "asyncio.Task[Response]"]:
        """Start a call that the test goes on with by hand; its body `comes`, or is only announced."""
        content = orjson.dumps(body)
        connection = Connection([content] if comes else [])
        return connection, asyncio.ensure_future(self.call("POST", path, self.head(content), connection))

    def head(
        self, content: bytes, headers: dict[str, str | None] | None = None, more: Sequence[tuple[str, str]] = ()
    ) -> list[tuple[str, str]]:
        usual = {"host": "gateway.test", **self.headers}
        if content:
            usual |= {"content-type": "application/json", "content-length": str(len(content))}
        merged = {**usual, **(headers or {})}
        return [(name, value) for name, value in merged.items() if value is not None] + list(more)

    async def call(
        self, method: str, path: str, headers: Sequence[tuple[str, str]], connection: Connection, query: bytes = b""
    ) -> Response:
        """One call over a connection that the test has made."""
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query,
            "client": ("192.0.2.7", 50000),
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
            "extensions": {CONNECTION: connection},
        }
        await self.app(scope, connection.receive, connection.send)
        return connection.response


class Worker:
    """Stands for the processors: reads the topic `requests`, obeys commands, and answers as `script` says."""

    def __init__(
        self, log: Log, replies: LocalReplies, control: Control, sealer: Sealer, now_ms: Callable[[], int]
    ) -> None:
        self.log = log
        self.replies = replies
        self.control = control
        self.sealer = sealer
        self.now_ms = now_ms
        self.script: Script = answer_at_once
        self.accepted: list[RequestAccepted] = []
        self.cancelled: list[CancelRequested] = []
        self.cancel_came = asyncio.Event()
        self.request_came = asyncio.Event()

    async def run(self) -> None:
        offsets = dict.fromkeys(range(self.log.partitions("requests")), 0)
        async for batch in self.log.follow("requests", offsets):
            for record in batch:
                await self._take(record)

    async def _take(self, record: Record) -> None:
        event = decode(record.value or b"")
        if isinstance(event, RequestAccepted):
            self.accepted.append(event)
            self.request_came.set()
            try:
                await self.script(self, event)
            except Exception as error:  # its client is told, and does not wait for its deadline
                self.replies.give_up(Refusal(500, "script_failed", repr(error), type="api_error"))
        elif isinstance(event, CancelRequested):
            self.cancelled.append(event)
            self.cancel_came.set()
        elif isinstance(event, CommandIssued):
            outcome = decide(self.control, event, record.offset, self.now_ms())
            assert outcome is not None
            offset = None
            if not isinstance(outcome, Refusal):
                place = entity_of_state(outcome).encode()
                offset = (await self.log.append("control", place, encode(outcome))).offset
            self.replies.send(event.reply_to, command_reply(event, outcome, epoch=0, control_offset=offset))

    def body_of(self, event: RequestAccepted) -> Any:
        """What the client sent, as only a worker can read it."""
        request = event.request
        return orjson.loads(self.sealer.open(event.seal, request.org_id, request.request_id, event.body))

    def reply(self, event: RequestAccepted, body: bytes, *, seq: int = 0, last: bool = True, **fields: Any) -> None:
        if seq == 0:
            fields.setdefault("status", 200)
        reply = Reply(request_id=event.request.request_id, epoch=0, attempt=1, seq=seq, body=body, last=last, **fields)
        self.replies.send(event.request.reply_to, reply)


async def answer_at_once(worker: Worker, event: RequestAccepted) -> None:
    headers = (("content-type", "application/json"), ("x-tollgate-provider", "sandbox"), ("x-tollgate-cost-usd", "0.5"))
    worker.reply(event, b'{"answer": 1}', headers=headers)


async def stay_silent(worker: Worker, event: RequestAccepted) -> None:
    """The request goes on for ever."""


async def begin_to_stream(worker: Worker, event: RequestAccepted) -> None:
    worker.reply(event, b"data: one\n\n", last=False, headers=(("content-type", "text/event-stream"),))


@dataclass
class Gateway:
    """Everything of one ingress under test. `now_ms` is its clock; advancing it is the test's."""

    door: Door
    app: Any
    log: Any
    control: Control
    worker: Worker
    clock: list[int]
    tokens: dict[str, str]

    @property
    def admin(self) -> Client:
        return Client(self.app, ADMIN_KEY)

    @property
    def anonymous(self) -> Client:
        return Client(self.app)

    def bearer(self, org_id: str) -> Client:
        """A client with the key of an organisation: `acme` or `other`."""
        return Client(self.app, self.tokens[org_id])

    async def records(self, topic: str) -> list[Event]:
        """All that was appended to the topic until now."""
        await self.log.append("dead-letters", None, b"")  # durable once all before it is
        return [
            decode(record.value or b"")
            for partition in range(self.log.partitions(topic))
            async for batch in self.log.scan(topic, partition, 0)
            for record in batch
        ]

    async def give_key(self, org_id: str, **fields: Any) -> str:
        """Put a key into the control topic, and return its token."""
        key_id, token = keys.new_key()
        parsed = keys.parse(token)
        assert parsed is not None
        state = KeySet(
            **{
                "key_id": key_id,
                "hash": keys.hash_secret(parsed.secret, keys.pepper(SECRETS.secret)),
                "name": f"of {org_id}",
                "org_id": org_id,
                "version": 1,
                "src": -1,
                "command_id": "",
                "created_ms": self.clock[0],
                **fields,
            }
        )
        position = await self.log.append("control", key_id.encode(), encode(state))
        await self.control.wait_for(position.offset + 1, timeout_s=5)
        return token

    async def journal(self, *events: Event, org_id: str = "acme") -> list[int]:
        """Append to the journal; return the offsets."""
        return [(await self.log.append("completions", org_id.encode(), encode(event))).offset for event in events]


def config(**server: Any) -> Config:
    """The default configuration, with other settings of the server."""
    made = load_config(None, {})
    return msgspec.structs.replace(made, server=msgspec.structs.replace(made.server, **server))


async def stop(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def ended(request: Any, *, epoch: int, attempts: tuple[Attempt, ...] = (), **fields: Any) -> Ended:
    """An end like that of a request that cost half a dollar."""
    return Ended(
        **{
            "epoch": epoch,
            "request": request,
            "status": "completed",
            "http_status": 200,
            "period": "2026-11",
            "attempts": attempts,
            "cost_pusd": 5 * 10**11,
            "bill_pusd": 5 * 10**11,
            **fields,
        }
    )


def attempt(number: int, **fields: Any) -> Attempt:
    return Attempt(
        **{
            "attempt": number,
            "provider": "sandbox",
            "account": "main",
            "model": "sandbox",
            "outcome": "ok",
            "usage": Usage(input_tokens=3, output_tokens=4),
            "usage_source": "provider",
            "lines": (CostLine(meter="input_tokens", quantity=3, unit_price_pusd=1, cost_pusd=3, bill_pusd=3),),
            **fields,
        }
    )
