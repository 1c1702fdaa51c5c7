"""The one writer of the control topic: it decides on commands, in order, and answers them.

A change follows from a command only when the record that says so was read back and counts. If another owner has begun
in the meantime, it does not count, and that owner decides on the command.
"""

import asyncio
import logging

import msgspec

from tollgate.control import (
    TOPIC,
    command_reply,
    decide,
    entity_of_state,
    owner_place,
    place_of,
    state_made_by,
    target_of,
)
from tollgate.errors import Fenced, Refusal
from tollgate.events import Action, AuditRecorded, CommandIssued, ControlTaken, SetCredential, encode
from tollgate.log import Position
from tollgate.processors.world import World

MAX_DELETED = 1_000  # records that are needed no more, per command
PATIENCE_S = 5.0  # then it is said that the control topic is behind

log = logging.getLogger(__name__)


class Commands:
    """Belongs to the owner of the partition that takes commands, from its take-over on."""

    def __init__(self, world: World, epoch: int) -> None:
        self._world = world
        self._epoch = epoch

    async def begin(self) -> None:
        """Return when earlier owners can change nothing any more, and all that they changed is known here.

        Raises `Fenced` when a later one has begun already.
        """
        taken = ControlTaken(epoch=self._epoch, instance=self._world.instance)
        position = await self._world.log.append(TOPIC, owner_place(self._epoch), encode(taken))
        await applied(self._world, position.offset + 1)
        self._check()

    async def obey(self, command: CommandIssued, src: int, now_ms: int) -> None:
        """Decide on the command at offset `src` of `requests`; return when its effect is durable and answered.

        Raises `Fenced` when another owner has begun, which decides on it instead.
        """
        world = self._world
        decided = decide(world.control, command, src=src, now_ms=now_ms)
        if decided is None:
            self._answer_again(command)
            return
        offset: int | None = None
        if not isinstance(decided, Refusal):
            place = place_of(entity_of_state(decided), self._epoch, src)
            offset = (await world.log.append(TOPIC, place, encode(decided))).offset
            await applied(world, offset + 1)
            self._check()
            self._delete_obsolete()
        reply = command_reply(command, decided, epoch=self._epoch, control_offset=offset)
        await self._audit(command, reply.status or 0)
        world.replies.send(command.reply_to, reply)

    def _check(self) -> None:
        """Raise `Fenced` unless what was appended counts. Everything up to it is applied."""
        if self._world.control.epoch != self._epoch:
            raise Fenced(f"commands have another owner, of epoch {self._world.control.epoch}")

    def _answer_again(self, command: CommandIssued) -> None:
        """The command was obeyed by an earlier owner, which may have died before it said so."""
        made = state_made_by(self._world.control, command)
        if made is not None:
            reply = command_reply(command, made, epoch=self._epoch, control_offset=self._world.control.offset - 1)
            self._world.replies.send(command.reply_to, reply)

    def _delete_obsolete(self) -> None:
        obsolete = self._world.control.obsolete
        for place in sorted(obsolete)[:MAX_DELETED]:
            obsolete.discard(place)
            deleted = asyncio.ensure_future(self._world.log.append(TOPIC, place, None, linger=True))
            deleted.add_done_callback(_unless_it_failed)

    async def _audit(self, command: CommandIssued, status: int) -> None:
        action = command.action
        recorded = AuditRecorded(
            actor=command.actor,
            action=type(action).__struct_config__.tag or "",  # type: ignore[arg-type]
            target=target_of(action),
            key_id=command.actor,
            status=status,
            request_id=command.command_id,
            after=msgspec.json.encode(_shown(action)).decode(),
        )
        await self._world.log.append("audit", recorded.org_id.encode(), encode(recorded))


def _shown(action: Action) -> object:
    """Of what a command brings, that which the audit may show."""
    if isinstance(action, SetCredential):
        return {"kind": action.kind, "last_four": action.last_four}
    return getattr(action, "limits", None)


def _unless_it_failed(deleted: asyncio.Future[Position]) -> None:
    """A record that was not deleted is found again by the next owner."""
    if not deleted.cancelled() and (error := deleted.exception()) is not None:
        log.error("a record of the control topic that is needed no more was not deleted: %s", error)


async def applied(world: World, control_offset: int) -> None:
    """Return when this process knows the control state up to the offset. Nothing can be decided before."""
    while not await world.control.wait_for(control_offset, timeout_s=PATIENCE_S):
        log.error("the control topic is waited for to reach %d; it is at %d", control_offset, world.control.offset)
