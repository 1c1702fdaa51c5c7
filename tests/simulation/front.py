"""The ingress of a process behind its HTTP: the real `Client`, on a connection that is no socket."""

import asyncio
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from prometheus_client import CollectorRegistry

from tests.simulation.clients import ENDPOINTS, ORGANISATION, Client
from tollgate.errors import Refusal
from tollgate.events import CommandIssued, Limits, Request, RequestAccepted, UpdateKey, encode
from tollgate.ingress import client as real
from tollgate.ingress.door import Door
from tollgate.ingress.http import ClientGone, Incoming
from tollgate.secret import Secrets
from tollgate.wire.exchange import WIRES

if TYPE_CHECKING:
    from tests.simulation.life import Life

_REGISTRY = CollectorRegistry()
OWNER_GONE = b"The process that made the answer ended"  # says a new owner where there is no answer to be sent


class Front:
    """Takes requests in, and passes on what comes back."""

    def __init__(self, life: "Life") -> None:
        self.name = life.name
        self._life = life
        self._simulation = life.simulation
        self._door = Door(
            config=life.simulation.config,
            log=life.log,
            replies=life.replies,
            control=life.control,
            sealer=life.sealer,
            secrets=cast(Secrets, None),  # nobody is to be authenticated
            registry=_REGISTRY,
            now_ms=life.simulation.wall_ms,
        )

    def submit(self, client: Client) -> None:
        """A client asks here."""
        client.life = self._life.process
        self._life.process.spawn(self._serve(client))

    async def _serve(self, client: Client) -> None:
        connection = Connection(self, client)
        event = self._accept(client)
        serving = _Serving(
            cast(Incoming, connection),
            event.request,
            self._door,
            on_cancel=lambda reason: self._simulation.cancelled(client, reason),
        )
        serving.client, client.leave = client, connection.hang_up
        serving.accept(event)
        if client.patience_s is not None:
            asyncio.get_running_loop().call_later(client.patience_s, connection.hang_up)
        try:
            await serving.serve()
        except ClientGone:
            pass
        except Refusal as refusal:  # nothing has been sent: the guard answers
            await connection.start(refusal.status, [])
            await connection.send(WIRES[event.request.dialect].error_body(refusal, client.request_id), more=False)

    def _accept(self, client: Client) -> RequestAccepted:
        now_ms = self._simulation.wall_ms()
        raw = json.dumps(client.body).encode()
        seal, sealed = self._life.sealer.seal(ORGANISATION, client.request_id, raw, now_ms)
        return RequestAccepted(
            request=Request(
                request_id=client.request_id,
                org_id=ORGANISATION,
                key_id=client.key_id,
                endpoint=ENDPOINTS[client.dialect],
                dialect=client.dialect,
                model=client.model,
                stream=client.stream,
                accepted_ms=now_ms,
                deadline_ms=now_ms + int(client.deadline_s * 1000),
                reply_to=self._life.address,
                body_bytes=len(raw),
            ),
            body=sealed,
            seal=seal,
            control_offset=self._life.control.offset,
        )

    def saw(self, client: Client) -> None:
        self._simulation.seen(client)

    def change_limits(self, command_id: str, key_id: str, limits: Limits) -> None:
        """Ask for other limits of a key, as the management API does."""
        action = UpdateKey(key_id=key_id, limits=limits)
        command = CommandIssued(command_id=command_id, actor="admin", action=action, reply_to=self._life.address)
        self._life.process.context.copy().run(self._life.log.append, "requests", ORGANISATION.encode(), encode(command))


class _Serving(real.Client):
    """The real one, of which the simulation wants to know which errors are its own."""

    client: Client

    async def _forward(self) -> None:
        try:
            await super()._forward()
        except Refusal as refusal:
            self.client.told, self.client.told_s = refusal.code, self._loop.time()
            raise


class Connection:
    """What `Client` needs of an `Incoming`: a way to the client, and the news that it has gone."""

    def __init__(self, front: Front, client: Client) -> None:
        self.status: int | None = None
        self.started = 0.0
        self.connection = self
        self.is_behind = False
        self._front = front
        self._client = client
        self._on_gone: Callable[[], None] | None = None

    async def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = self._client.status = status

    async def send(self, body: bytes, *, more: bool) -> None:
        client = self._client
        if client.hung_up:
            return
        client.pieces.append(body)
        if OWNER_GONE in body:
            client.told = "its owner is gone"
        client.done = not more
        self._front.saw(client)
        if client.has_enough and not client.done:
            self.hang_up()

    def watch(self, on_gone: Callable[[], None] | None) -> None:
        self._on_gone = on_gone
        if self._client.hung_up and on_gone is not None:
            on_gone()

    def abort(self) -> None:
        """There is nothing to be dropped."""

    def hang_up(self) -> None:
        if not (self._client.hung_up or self._client.done):
            self._client.hung_up = True
            if self._on_gone is not None:
                self._on_gone()
