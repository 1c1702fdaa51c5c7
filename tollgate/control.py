"""The control state: every key there is, and the credentials of provider accounts that were set, as a fold of the topic
`control`, and the rules by which it changes.

Each process folds the topic for itself; the owner of `COMMANDS_PARTITION` decides on commands and alone changes it.
The fold holds every key in memory, revoked ones too, at about 1 kB each: made for up to 100,000 keys.

An owner begins with `ControlTaken`, and puts its epoch into the key of each record. What an earlier owner writes after
that does not count, for any reader. No two records have one key, or compaction would drop a state for the sake of
one that does not count; what no reader needs any more is deleted by the owner, when its successor is on record.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, TypeAlias

import msgspec
import orjson

from tollgate.credentials import decide_deletion, decide_set, public_credential
from tollgate.errors import Refusal, Unreadable
from tollgate.events import (
    Action,
    CommandIssued,
    ControlTaken,
    CreateKey,
    CredentialSet,
    DeleteCredential,
    Event,
    KeySet,
    RevokeKey,
    SetCredential,
    UpdateKey,
    decode,
)
from tollgate.log import Log, Record
from tollgate.money import usd_text
from tollgate.replies import Reply
from tollgate.times import iso
from tollgate.wire.exchange import WIRES

TOPIC = "control"
COMMANDS_PARTITION = 0  # of `requests`: whose owner decides on commands
NO_EPOCH = -1  # nobody has taken the topic yet
OFFSET_HEADER = "x-tollgate-control-offset"  # on the answer to a command: what a fold must have applied to show it


State: TypeAlias = KeySet | CredentialSet


class Control:
    """The fold. `offset` is the next record of the topic to be applied; all below it are."""

    def __init__(self) -> None:
        self.offset = 0
        self.epoch = NO_EPOCH
        """Of the newest owner that has begun."""
        self.highest_src = -1
        """The command furthest along `requests` whose effect is here."""
        self.heard_s = time.monotonic()
        """When the topic was last heard of, on the monotonic clock."""
        self.obsolete: set[bytes] = set()
        """The keys of records that no reader needs: a newer state is on the topic, or they never counted."""
        self.on_credential: Callable[[CredentialSet], None] | None = None
        """Called with each credential that is set or taken away, when that counts."""
        self._keys: dict[str, KeySet] = {}
        self._credentials: dict[str, CredentialSet] = {}
        self._records: dict[str, bytes] = {}  # by entity: the key of the record that holds its state
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def key(self, key_id: str) -> KeySet | None:
        """The present state of a key, revoked or expired ones too."""
        return self._keys.get(key_id)

    def all_keys(self) -> Iterable[KeySet]:
        """All keys, in the order in which they were first seen."""
        return self._keys.values()

    def credential(self, provider: str, account: str) -> CredentialSet | None:
        """The present state of the credential of an account; without `kind` it was taken away."""
        return self._credentials.get(_credential_entity(provider, account))

    def credentials(self) -> Iterable[CredentialSet]:
        """All that are set, in the order in which they were first seen."""
        return [state for state in self._credentials.values() if state.kind is not None]

    def apply(self, record: Record) -> None:
        """Fold the next record in; one that was applied before changes nothing.

        A key whose newest state cannot be read is unknown from then on: that state might be its revocation.
        """
        if record.offset < self.offset:
            return
        if record.key is not None:
            self._fold(record.key, record.value)
        self.offset = record.offset + 1
        self._wake()

    def _fold(self, place: bytes, value: bytes | None) -> None:
        entity, epoch = entity_of(place)
        if value is None:
            self.obsolete.discard(place)
            if self._records.get(entity) == place:
                del self._records[entity]
                self._keys.pop(entity, None)
                self._credentials.pop(entity, None)
            return
        event: Event | None = None
        with suppress(Unreadable):
            event = decode(value)
        match event:
            case ControlTaken():
                self.epoch = max(self.epoch, event.epoch)
            case KeySet() | CredentialSet() | None if epoch < self.epoch:  # written by an owner after it was replaced
                self.obsolete.add(place)
            case KeySet() | CredentialSet():
                self.evolve(event, place)
            case None:
                self._keys.pop(entity, None)

    def evolve(self, state: State, place: bytes | None = None) -> None:
        """Take over a state, which lies in the record with the key `place`, unless a newer one is here."""
        entity = entity_of_state(state)
        place = place or entity.encode()
        known = self._keys.get(entity) or self._credentials.get(entity)
        if known is not None and known.src > state.src:
            self.obsolete.add(place)
            return
        before = self._records.get(entity, place)
        if before != place:
            self.obsolete.add(before)
        self._records[entity] = place
        self.highest_src = max(self.highest_src, state.src)
        if isinstance(state, KeySet):
            self._keys[entity] = state
        else:
            self._credentials[entity] = state
            if self.on_credential is not None:
                self.on_credential(state)

    async def wait_for(self, offset: int, *, timeout_s: float) -> bool:
        """Wait until all records below `offset` are applied; False when that took longer than `timeout_s`."""
        if self.offset >= offset:
            return True
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((offset, reached))
        try:
            async with asyncio.timeout(timeout_s):
                await reached
        except TimeoutError:
            return False
        finally:
            self._waiting = [waiting for waiting in self._waiting if waiting[1] is not reached]
        return True

    def _wake(self) -> None:
        for offset, reached in self._waiting:
            if offset <= self.offset and not reached.done():
                reached.set_result(None)


def _credential_entity(provider: str, account: str) -> str:
    return f"credential:{provider}/{account}"  # no key's id has a colon


def entity_of_state(state: State) -> str:
    """What a state is about, as `place_of` wants it."""
    return state.key_id if isinstance(state, KeySet) else _credential_entity(state.provider, state.account)


def target_of(action: Action) -> str:
    """What a command is about, as the audit has it: a key's id, or provider/account."""
    if isinstance(action, SetCredential | DeleteCredential):
        return f"{action.provider}/{action.account}"
    return action.key_id


def place_of(entity: str, epoch: int, src: int) -> bytes:
    """The key of the record with the state that the command at `src` made, in the words of the owner of `epoch`."""
    return f"{entity}@{epoch}.{src}".encode()


def owner_place(epoch: int) -> bytes:
    """The key of an owner's first record, which stays on the topic: by it, late words of its predecessors are known."""
    return f"owner@{epoch}".encode()


def entity_of(place: bytes) -> tuple[str, int]:
    """What a record is about, and the epoch of its writer. A bare name was written before there were epochs."""
    name = place.decode(errors="replace")
    entity, _, made = name.rpartition("@")
    epoch = made.partition(".")[0]
    return (entity, int(epoch)) if entity and epoch.isdecimal() else (name, NO_EPOCH)


async def catch_up(log: Log, control: Control) -> None:
    """Apply what the topic holds as of now: to be done before anybody is let in."""
    start = max(control.offset, (await log.starts(TOPIC))[0])
    async for batch in log.scan(TOPIC, 0, start):
        for record in batch:
            control.apply(record)


async def follow_control(log: Log, control: Control) -> None:
    """Apply what is appended, for ever. Whoever sees it end, by whatever error, must stop trusting the fold."""
    start = max(control.offset, (await log.starts(TOPIC))[0])
    async for batch in log.follow(TOPIC, {0: start}):
        for record in batch:
            control.apply(record)
        control.heard_s = time.monotonic()


# Decisions -----------------------------------------------------------------------------------------------------------


def decide(control: Control, command: CommandIssued, src: int, now_ms: int) -> State | Refusal | None:
    """What the command at offset `src` of `requests` makes of what it is about; None when its effect is here already.

    Pure. The owner appends the state to the topic and evolves its own fold with it before it decides again.
    """
    if src <= control.highest_src:
        return None
    match command.action:
        case CreateKey() as action:
            return _create(control, action, command, src, now_ms)
        case UpdateKey() as action:
            return _update(control.key(action.key_id), action, command, src)
        case RevokeKey() as action:
            return _revoke(control.key(action.key_id), action, command, src, now_ms)
        case SetCredential() as action:
            return decide_set(control.credential(action.provider, action.account), action, command, src, now_ms)
        case DeleteCredential() as action:
            return decide_deletion(control.credential(action.provider, action.account), action, command, src, now_ms)


def _create(control: Control, action: CreateKey, command: CommandIssued, src: int, now_ms: int) -> KeySet | Refusal:
    if control.key(action.key_id) is not None:
        return Refusal(409, "key_exists", f"There is a key {action.key_id} already; ask again for another id.")
    if action.expires_ms is not None and action.expires_ms <= now_ms:
        return Refusal(
            400, "invalid_value", f"expires_at is {iso(action.expires_ms)}, which is over.", param="expires_at"
        )
    return KeySet(
        key_id=action.key_id,
        hash=action.hash,
        name=action.name,
        org_id=action.org_id,
        team_id=action.team_id,
        limits=action.limits,
        expires_ms=action.expires_ms,
        version=1,
        src=src,
        command_id=command.command_id,
        created_ms=now_ms,
    )


def _update(key: KeySet | None, action: UpdateKey, command: CommandIssued, src: int) -> KeySet | Refusal:
    if key is None:
        return unknown_key(action.key_id)
    if key.revoked_ms is not None:
        return Refusal(409, "key_revoked", f"Key {key.key_id} is revoked for ever; create another one.")
    if action.expected_version not in (None, key.version):
        return Refusal(
            409,
            "version_conflict",
            f"Key {key.key_id} is at version {key.version} and no longer at {action.expected_version}: "
            "somebody changed it in between. Read it again, then repeat the change.",
            param="version",
        )
    return msgspec.structs.replace(
        key,
        name=key.name if action.name is None else action.name,
        limits=key.limits if action.limits is None else action.limits,
        version=key.version + 1,
        src=src,
        command_id=command.command_id,
    )


def _revoke(key: KeySet | None, action: RevokeKey, command: CommandIssued, src: int, now_ms: int) -> KeySet | Refusal:
    """Revoking twice is no error, and leaves the time of the first."""
    if key is None:
        return unknown_key(action.key_id)
    again = key.revoked_ms is not None
    return msgspec.structs.replace(
        key,
        revoked_ms=key.revoked_ms if again else now_ms,
        version=key.version if again else key.version + 1,
        src=src,
        command_id=command.command_id,
    )


def state_made_by(control: Control, command: CommandIssued) -> State | None:
    """The state that the command has led to, while no other has changed it again."""
    action = command.action
    state: State | None
    if isinstance(action, SetCredential | DeleteCredential):
        state = control.credential(action.provider, action.account)
    else:
        state = control.key(action.key_id)
    return state if state is not None and state.command_id == command.command_id else None


def unknown_key(key_id: str) -> Refusal:
    """What is said of a key that does not exist, and of one that the caller may not see."""
    return Refusal(404, "key_not_found", f"There is no key {key_id!r}.", param="id")


# What is shown -------------------------------------------------------------------------------------------------------


def public_key(key: KeySet) -> dict[str, Any]:
    """A key as the management API shows it. Its hash stays inside; money is exact decimal text."""
    limits = key.limits
    budget = limits.monthly_budget_pusd
    return {
        "id": key.key_id,
        "object": "key",
        "name": key.name,
        "organization": key.org_id,
        "team": key.team_id,
        "limits": {
            "requests_per_minute": limits.requests_per_minute,
            "concurrent_requests": limits.concurrent_requests,
        },
        "quota": {"monthly_budget": None if budget is None else usd_text(budget)},
        "version": key.version,
        "created_at": iso(key.created_ms),
        "expires_at": None if key.expires_ms is None else iso(key.expires_ms),
        "revoked_at": None if key.revoked_ms is None else iso(key.revoked_ms),
    }


def command_reply(
    command: CommandIssued, outcome: State | Refusal, *, epoch: int, control_offset: int | None = None
) -> Reply:
    """The owner's answer to whoever issued the command; `control_offset` is where the new state was appended."""
    headers = [("content-type", "application/json")]
    if isinstance(outcome, Refusal):
        status = outcome.status
        body = WIRES["openai"].error_body(outcome, command.command_id)
        headers += outcome.headers.items()
    else:
        status = 201 if isinstance(command.action, CreateKey) else 200
        body = orjson.dumps(public_key(outcome) if isinstance(outcome, KeySet) else public_credential(outcome))
        if control_offset is not None:
            headers.append((OFFSET_HEADER, str(control_offset + 1)))
    return Reply(
        request_id=command.command_id,
        epoch=epoch,
        attempt=0,
        seq=0,
        status=status,
        headers=tuple(headers),
        body=body,
        last=True,
    )
