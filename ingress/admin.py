"""The management of keys. A change is a command on the log, decided by one owner; what is read comes from the fold.

A new key's secret is made here and shown once: the log gets its hash only.
"""

import asyncio
import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, TypeAlias

import msgspec
import orjson
from msgspec import UNSET, Meta, UnsetType

from tollgate import keys
from tollgate.control import COMMANDS_PARTITION, OFFSET_HEADER, public_key, unknown_key
from tollgate.errors import LogError, LogUnavailable, Refusal
from tollgate.events import Action, CommandIssued, CreateKey, KeySet, Limits, RevokeKey, UpdateKey, encode
from tollgate.ingress.auth import DEFAULT_ORG
from tollgate.ingress.client import not_accepted
from tollgate.ingress.door import REQUESTS, Door
from tollgate.ingress.guard import Load, check_body_head
from tollgate.ingress.http import Answer, Incoming, json_answer
from tollgate.ingress.parse import parse_exact
from tollgate.money import pusd, usd

MAX_BODY_BYTES = 64 << 10
OWNER_DEADLINE_S = 10.0  # for the owner's answer, then for this process to have seen the change

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Entity: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000_000)]
MAX_BUDGET_USD = 10**12

_CAPITAL = re.compile(r"(?<=[a-z0-9])[A-Z]")
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


class _Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a body may say; a field that is not here is refused, so that nobody believes that it was obeyed."""


class LimitsForm(_Form, frozen=True):
    requests_per_minute: Count | UnsetType | None = UNSET
    concurrent_requests: Count | UnsetType | None = UNSET


class QuotaForm(_Form, frozen=True):
    monthly_budget: Decimal | UnsetType | None = UNSET


class NewKeyForm(_Form, frozen=True, kw_only=True):
    name: Name
    organization: Entity = DEFAULT_ORG
    team: Entity | None = None
    limits: LimitsForm = LimitsForm()
    quota: QuotaForm = QuotaForm()
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class ChangeForm(_Form, frozen=True):
    """Null takes a limit away; what is absent stays. `version`: refuse if the key is not at it any more."""

    name: Name | UnsetType = UNSET
    limits: LimitsForm = LimitsForm()
    quota: QuotaForm = QuotaForm()
    version: int | UnsetType = UNSET


class Admin:
    """`/v1/keys`: for the bearer of the admin key."""

    def __init__(self, door: Door, *, load: Load) -> None:
        self._door = door
        self._load = load
        self._pepper = keys.pepper(door.secrets.secret)

    async def create(self, incoming: Incoming) -> Answer:
        """`POST /v1/keys`: 201 with the key itself, this once."""
        form = await self._read(incoming, NewKeyForm)
        key_id, token = keys.new_key()
        parsed = keys.parse(token)
        assert parsed is not None
        action = CreateKey(
            key_id=key_id,
            hash=keys.hash_secret(parsed.secret, self._pepper),
            name=form.name,
            org_id=form.organization,
            team_id=form.team,
            limits=changed_limits(Limits(), form.limits, form.quota),
            expires_ms=None if form.expires_at is None else int(form.expires_at.timestamp() * 1000),
        )
        answer = await self._command(incoming, action)
        if answer.status != 201:
            return answer
        public = orjson.loads(answer.body)
        return answer._replace(body=orjson.dumps({"id": public.pop("id"), "key": token, **public}))

    async def list(self, incoming: Incoming) -> Answer:
        """`GET /v1/keys`: every key, revoked ones too."""
        data = [public_key(key) for key in self._door.control.all_keys()]
        return json_answer(200, {"object": "list", "data": data, "has_more": False})

    async def one(self, incoming: Incoming) -> Answer:
        """`GET /v1/keys/{id}`."""
        return json_answer(200, public_key(self._key(incoming)))

    async def change(self, incoming: Incoming) -> Answer:
        """`PATCH /v1/keys/{id}`: refused (409) if somebody else changes the key meanwhile."""
        form = await self._read(incoming, ChangeForm)
        key = self._key(incoming)
        limits = changed_limits(key.limits, form.limits, form.quota)
        action = UpdateKey(
            key_id=key.key_id,
            name=None if form.name is UNSET else form.name,
            limits=None if limits == key.limits else limits,
            expected_version=key.version if form.version is UNSET else form.version,
        )
        return await self._command(incoming, action)

    async def revoke(self, incoming: Incoming) -> Answer:
        """`DELETE /v1/keys/{id}`: the key is useless everywhere from the answer on, and stays in the list."""
        answer = await self._command(incoming, RevokeKey(key_id=self._key(incoming).key_id))
        await asyncio.sleep(self._door.freshness.everywhere_s)
        return answer

    def _key(self, incoming: Incoming) -> KeySet:
        key_id = incoming.path_params["id"]
        key = self._door.control.key(key_id)
        if key is None:
            raise unknown_key(key_id)
        return key

    async def _read(self, incoming: Incoming, form: type[Any]) -> Any:
        check_body_head(incoming.headers, MAX_BODY_BYTES)
        body = parse_exact(await self._load.read_body(incoming, max_bytes=MAX_BODY_BYTES))
        return read_form(body, form)

    async def _command(self, incoming: Incoming, action: Action) -> Answer:
        """Have the owner decide, and return its answer once this process shows what it says."""
        door = self._door
        identity = incoming.identity
        assert identity is not None
        command = CommandIssued(
            command_id=incoming.request_id, actor=identity.key_id, action=action, reply_to=door.replies.address
        )
        waiter = door.replies.open(command.command_id)
        try:
            async with asyncio.timeout(OWNER_DEADLINE_S):
                await door.log.append(REQUESTS, None, encode(command), partition=COMMANDS_PARTITION, worth="new")
                reply = await waiter.get()
        except LogUnavailable:
            raise not_accepted() from None
        except (LogError, TimeoutError):
            raise Refusal(
                504,
                "unknown_outcome",
                "The command was written down, but has not been answered; read the key to see whether it was obeyed.",
                type="api_error",
            ) from None
        finally:
            door.replies.close(command.command_id)
        seen = int(dict(reply.headers).get(OFFSET_HEADER, "0"))
        await door.control.wait_for(seen, timeout_s=OWNER_DEADLINE_S)
        return Answer(reply.status or 500, reply.body, reply.headers)


def read_form(body: dict[str, Any], form: type[Any]) -> Any:
    """The body as a form, its fields in snake_case or camelCase. Raises `Refusal` (400) that names the field."""
    try:
        return msgspec.convert(_snake(body, ""), form)
    except msgspec.ValidationError as error:
        message = str(error)
        place = _PLACE.search(message)
        param = place[1] if place and place[1] else None
        problem = _PLACE.sub("", message)
        where = f"'{param}': " if param else ""
        raise Refusal(400, "invalid_value", f"{where}{problem}.", param=param) from None


def changed_limits(limits: Limits, form: LimitsForm, quota: QuotaForm) -> Limits:
    """The limits after a change: what the forms do not mention stays, null takes a limit away."""
    changes: dict[str, int | None] = {}
    if form.requests_per_minute is not UNSET:
        changes["requests_per_minute"] = form.requests_per_minute
    if form.concurrent_requests is not UNSET:
        changes["concurrent_requests"] = form.concurrent_requests
    if quota.monthly_budget is not UNSET:
        changes["monthly_budget_pusd"] = None if quota.monthly_budget is None else _budget(quota.monthly_budget)
    return msgspec.structs.replace(limits, **changes)


def _budget(amount: Decimal) -> int:
    if not amount.is_finite() or not 0 <= amount <= MAX_BUDGET_USD or amount != usd(pusd(amount)):
        param = "quota.monthly_budget"
        raise Refusal(
            400,
            "invalid_value",
            f"'{param}': must be an amount in USD from 0 to {MAX_BUDGET_USD}, with at most 12 decimals.",
            param=param,
        )
    return pusd(amount)


def _snake(value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        return value
    fields: dict[str, Any] = {}
    for name, inner in value.items():
        snake = _CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", name)
        if snake in fields:
            param = f"{path}{snake}"
            raise Refusal(400, "duplicate_key", f"'{param}' is there twice, in two spellings.", param=param)
        fields[snake] = _snake(inner, f"{path}{snake}.")
    return fields
