"""The management of keys. A change is a command on the log, decided by one owner; what is read comes from the fold.

A new key's secret is made here and shown once: the log gets its hash only.
"""

import asyncio
import re
from datetime import UTC, datetime
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
_NO_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*)`")
# msgspec's words, and ours. The only patterns are those of `Name` and `Entity`.
_WORDS = {
    r"Expected `int` >= (\S+)": r"must be a whole number of at least \1",
    r"Expected `int` <= (\S+)": r"must be a whole number of at most \1",
    r"Expected `str` of length >= (\S+)": r"must have at least \1 character",
    r"Expected `str` of length <= (\S+)": r"must have at most \1 characters",
    r"Expected `str` matching regex '\^\[A-Z.*": "may have 64 letters, digits, '.', '_' and '-'",
    r"Expected `str` matching regex .*": "holds a control character",
    r"Invalid decimal string": "must be an amount in USD, such as 12.50",
    r"Invalid RFC3339 encoded datetime": "must be a time such as 2027-01-31T00:00:00Z",
    r"Expected `datetime` with a timezone component": "must say its time zone, as in 2027-01-31T00:00:00Z",
    r"Expected `(.*)`, got `(.*)`": r"must be \1, not \2",
    r"\bstr\b": "text",
    r"\bfloat\b": "a fraction",
    r"\bint( \| null)?\b": "a whole number",
    r"\bdecimal( \| null)?\b": "an amount",
    r"\bdatetime( \| null)?\b": "a time",
    r" (object|array)\b": r" an \1",
}
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
            expires_ms=None if form.expires_at is None else _unix_ms(form.expires_at),
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
        param, problem = _told(str(error), form)
        raise Refusal(400, "invalid_value", f"'{param}' {problem}." if param else f"{problem}.", param=param) from None


def _told(message: str, form: type[Any]) -> tuple[str | None, str]:
    """The field that msgspec's message is about, and what is wrong with it, in words of JSON."""
    place = _PLACE.search(message)
    where = place[1] if place else ""
    problem = _PLACE.sub("", message)
    if found := _NO_FIELD.fullmatch(problem):
        field = f"{where}.{found[2]}" if where else found[2]
        return field, "is required" if found[1] == "missing required" else f"is not known; there are {_fields(form)}"
    for pattern, words in _WORDS.items():
        problem = re.sub(pattern, words, problem)
    return where or None, problem


def _fields(form: type[Any], before: str = "") -> str:
    """The names of all that the form may say: `name, limits.requests_per_minute, ...`."""
    names = []
    for field in msgspec.structs.fields(form):
        inner = field.type if isinstance(field.type, type) and issubclass(field.type, _Form) else None
        names.append(_fields(inner, f"{before}{field.name}.") if inner else f"{before}{field.name}")
    return ", ".join(names)


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
