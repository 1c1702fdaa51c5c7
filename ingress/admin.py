"""The management of keys. A change is a command on the log, decided by one owner; what is read comes from the fold.

A new key's secret is made here and shown once: the log gets its hash only.
"""

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, TypeAlias

import msgspec
import orjson
from msgspec import UNSET, Meta, UnsetType

from tollgate import keys
from tollgate.control import public_key, unknown_key
from tollgate.errors import Refusal
from tollgate.events import CreateKey, KeySet, Limits, RevokeKey, UpdateKey
from tollgate.ingress.auth import DEFAULT_ORG
from tollgate.ingress.commands import Commands
from tollgate.ingress.door import Door
from tollgate.ingress.http import Answer, Incoming, json_answer
from tollgate.money import pusd, usd

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Entity: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000_000)]
MAX_BUDGET_USD = 10**12


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

    def __init__(self, door: Door, commands: Commands) -> None:
        self._door = door
        self._commands = commands
        self._pepper = keys.pepper(door.secrets.secret)

    async def create(self, incoming: Incoming) -> Answer:
        """`POST /v1/keys`: 201 with the key itself, this once."""
        form = await self._commands.read(incoming, NewKeyForm)
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
            expires_ms=None if form.expires_at is None else _unix_ms(form.expires_at),
        )
        answer = await self._commands.issue(incoming, action)
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
        form = await self._commands.read(incoming, ChangeForm)
        key = self._key(incoming)
        limits = changed_limits(key.limits, form.limits, form.quota)
        action = UpdateKey(
            key_id=key.key_id,
            name=None if form.name is UNSET else form.name,
            limits=None if limits == key.limits else limits,
            expected_version=key.version if form.version is UNSET else form.version,
        )
        return await self._commands.issue(incoming, action)

    async def revoke(self, incoming: Incoming) -> Answer:
        """`DELETE /v1/keys/{id}`: the key is useless everywhere from the answer on, and stays in the list."""
        answer = await self._commands.issue(incoming, RevokeKey(key_id=self._key(incoming).key_id))
        await asyncio.sleep(self._door.freshness.everywhere_s)
        return answer

    def _key(self, incoming: Incoming) -> KeySet:
        key_id = incoming.path_params["id"]
        key = self._door.control.key(key_id)
        if key is None:
            raise unknown_key(key_id)
        return key


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


def _unix_ms(at: datetime) -> int:
    """The time of a field `expires_at`. Raises `Refusal` (400) for one that is in no year of UTC's calendar."""
    try:
        return int(at.astimezone(UTC).timestamp() * 1000)
    except OverflowError:
        raise Refusal(
            400, "invalid_value", "'expires_at' must lie in the years 1 to 9999, in UTC.", param="expires_at"
        ) from None


def _budget(amount: Decimal) -> int:
    if not amount.is_finite() or not 0 <= amount <= MAX_BUDGET_USD or amount != usd(pusd(amount)):
        param = "quota.monthly_budget"
        raise Refusal(
            400,
            "invalid_value",
            f"'{param}' must be an amount in USD from 0 to {MAX_BUDGET_USD}, with at most 12 decimals.",
            param=param,
        )
    return pusd(amount)
