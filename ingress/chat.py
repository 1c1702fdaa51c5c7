"""A model is asked: a request becomes an event, and what comes back goes to its client."""

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import orjson

from tollgate.errors import LogError, Refusal
from tollgate.events import Request, RequestAccepted
from tollgate.ingress.auth import Identity
from tollgate.ingress.catalogue import Catalogue
from tollgate.ingress.client import ACCEPT_PATIENCE_S, Client, not_accepted
from tollgate.ingress.door import Door
from tollgate.ingress.form import parse_form
from tollgate.ingress.guard import Load, check_body_head
from tollgate.ingress.http import Incoming
from tollgate.ingress.metrics import Metrics
from tollgate.ingress.parse import parse_object
from tollgate.ingress.routes import Route
from tollgate.wire import Ask
from tollgate.wire.endpoints import ENDPOINTS
from tollgate.wire.exchange import WIRES

MAX_TAGS = 16
MAX_TAG_NAME_CHARS = 64
MAX_TAG_VALUE_CHARS = 512
MAX_USER_CHARS = 512
TAGS_HEADER = "x-tollgate-tags"

_TAG = re.compile(rf"\s*([A-Za-z0-9_.-]{{1,{MAX_TAG_NAME_CHARS}}})=([^,=]{{0,{MAX_TAG_VALUE_CHARS}}})")


class Chat:
    """The hot path: everything between the guard and the log."""

    def __init__(
        self,
        door: Door,
        *,
        catalogue: Catalogue,
        load: Load,
        metrics: Metrics,
    ) -> None:
        self._door = door
        self._catalogue = catalogue
        self._load = load
        self._metrics = metrics
        self._max_body_bytes = door.config.server.max_body_mb << 20
        self._deadline_ms = int(door.config.server.request_deadline_s * 1000)

    async def serve(self, route: Route, incoming: Incoming) -> None:
        """`POST` on any path of the table."""
        client = await self._accept(route, incoming)
        # From here on nothing refers to the body: a call may take minutes, and a thousand bodies would fill the memory.
        await client.serve()

    async def _accept(self, route: Route, incoming: Incoming) -> Client:
        """Take the request in: when this returns, its event is on its way to the log."""
        door = self._door
        now_ms = door.now_ms()
        identity = incoming.identity
        assert identity is not None
        boundary = check_body_head(incoming.headers, self._max_body_bytes, form=route.form)
        raw = await self._load.read_body(incoming, max_bytes=self._max_body_bytes)
        body_bytes = len(raw)
        body = parse_object(raw) if boundary is None else parse_form(raw, boundary)
        if route.complete is not None:
            body = route.complete(body, incoming.path_params)
        ask = ENDPOINTS[route.name].ask(body)
        if route.complete is not None or route.form:
            raw = orjson.dumps(body)
        self._catalogue.check(ask.model)
        request = build_request(
            incoming,
            identity,
            ask,
            endpoint=route.name,
            tags=tags_of(body, incoming.header(TAGS_HEADER.encode())),
            accepted_ms=now_ms,
            deadline_ms=now_ms + self._deadline_ms,
            reply_to=door.replies.address,
            body_bytes=body_bytes,
        )
        seal, sealed = await self._seal(request, raw)
        form = route.stream_form(incoming.scope["query_string"]) if route.stream_form is not None else None
        client = Client(incoming, request, door, on_cancel=self._metrics.cancelled, form=form)
        client.accept(
            RequestAccepted(
                request=request,
                body=sealed,
                seal=seal,
                headers=forwarded(incoming),
                control_offset=door.control.offset,
            )
        )
        self._load.release_body(incoming)
        return client

    async def _seal(self, request: Request, raw: bytes) -> tuple[str, bytes]:
        sealer = self._door.sealer
        try:
            if not sealer.is_ready(request.org_id, request.accepted_ms):
                async with asyncio.timeout(ACCEPT_PATIENCE_S):
                    await sealer.prepare(request.org_id, request.accepted_ms)
            return sealer.seal(request.org_id, request.request_id, raw, request.accepted_ms)
        except (OSError, LogError):  # a full disk or no broker, in time: nothing has been called or paid for
            raise not_accepted() from None


def build_request(
    incoming: Incoming,
    identity: Identity,
    ask: Ask,
    *,
    endpoint: str,
    tags: dict[str, str],
    accepted_ms: int,
    deadline_ms: int,
    reply_to: str,
    body_bytes: int,
) -> Request:
    """What is known of a request before anything is decided."""
    if ask.user is not None and len(ask.user) > MAX_USER_CHARS:
        param = "metadata.user_id" if incoming.dialect == "anthropic" else "user"
        raise Refusal(400, "string_too_long", f"'{param}' may have {MAX_USER_CHARS} characters.", param=param)
    return Request(
        request_id=incoming.request_id,
        org_id=identity.org_id,
        team_id=identity.team_id,
        key_id=identity.key_id,
        user_id=ask.user,
        endpoint=endpoint,
        dialect=incoming.dialect,
        model=ask.model,
        stream=ask.stream,
        tags=tags,
        accepted_ms=accepted_ms,
        deadline_ms=deadline_ms,
        reply_to=reply_to,
        body_bytes=body_bytes,
    )


def tags_of(body: Mapping[str, Any], header: str | None) -> dict[str, str]:
    """What the costs can be grouped by: the strings in the body's `metadata`, then `x-tollgate-tags: team=web,job=7`.

    `metadata` belongs to the dialect, so what does not fit as a tag is left out of the tags and refused by nobody; the
    header is ours, and what is wrong in it raises `Refusal`. Anthropic's `user_id` is the user, not a tag.
    """
    tags: dict[str, str] = {}
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        for name, value in metadata.items():
            fits = isinstance(value, str) and len(name) <= MAX_TAG_NAME_CHARS and len(value) <= MAX_TAG_VALUE_CHARS
            if fits and name != "user_id" and len(tags) < MAX_TAGS:
                tags[name] = value
    if header is not None:
        tags |= _tags_in(header)
        if len(tags) > MAX_TAGS:
            raise _tags_refusal(f"There are {len(tags)} tags; at most {MAX_TAGS} are taken")
    return tags


def forwarded(incoming: Incoming) -> dict[str, str]:
    """The client's headers that a provider may need."""
    names = WIRES[incoming.dialect].forwarded_headers
    return {name: value for name in names if (value := incoming.header(name.encode())) is not None}


def _tags_in(header: str) -> dict[str, str]:
    tags = {}
    for part in header.split(","):
        match = _TAG.fullmatch(part)
        if match is None:
            raise _tags_refusal("It must be written as name=value,name=value")
        tags[match[1]] = match[2].strip()
    return tags


def _tags_refusal(problem: str) -> Refusal:
    return Refusal(400, "invalid_header", f"The header '{TAGS_HEADER}' is wrong. {problem}.", param=TAGS_HEADER)
