"""Changes of the control state: a body becomes a command, and the answer of its owner the answer."""

import asyncio
from typing import Any

from tollgate.control import COMMANDS_PARTITION, OFFSET_HEADER
from tollgate.errors import LogError, LogUnavailable, Refusal
from tollgate.events import Action, CommandIssued, encode
from tollgate.ingress.client import not_accepted
from tollgate.ingress.door import REQUESTS, Door
from tollgate.ingress.forms import read_form
from tollgate.ingress.guard import Load, check_body_head
from tollgate.ingress.http import Answer, Incoming
from tollgate.ingress.parse import parse_exact

MAX_BODY_BYTES = 64 << 10
OWNER_DEADLINE_S = 10.0  # for the owner's answer, then for this process to have seen the change


class Commands:
    """What every handler of the management API needs."""

    def __init__(self, door: Door, *, load: Load) -> None:
        self._door = door
        self._load = load

    async def read(self, incoming: Incoming, form: type[Any]) -> Any:
        """The body of the request as a form. Raises `Refusal` (400, 413) that names the field."""
        check_body_head(incoming.headers, MAX_BODY_BYTES)
        body = parse_exact(await self._load.read_body(incoming, max_bytes=MAX_BODY_BYTES))
        return read_form(body, form)

    async def issue(self, incoming: Incoming, action: Action) -> Answer:
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
                "The command was written down, but has not been answered; read what it is about to see whether it was "
                "obeyed.",
                type="api_error",
            ) from None
        finally:
            door.replies.close(command.command_id)
        seen = int(dict(reply.headers).get(OFFSET_HEADER, "0"))
        await door.control.wait_for(seen, timeout_s=OWNER_DEADLINE_S)
        return Answer(reply.status or 500, reply.body, reply.headers)
