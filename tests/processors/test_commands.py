"""Commands have one owner, and one that was replaced without knowing it changes nothing."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.processors.support import NOW_MS, make_world
from tollgate.control import COMMANDS_PARTITION, Control, follow_control
from tollgate.errors import Fenced
from tollgate.events import Action, AuditRecorded, CommandIssued, CreateKey, RevokeKey, UpdateKey, decode
from tollgate.log.embedded import EmbeddedLog
from tollgate.processors.commands import Commands
from tollgate.replies import LocalReplies, Waiter
from tollgate.topics import load_topics

CREATE = CreateKey(key_id="k1", hash="h", name="first", org_id="acme")


class Process:
    """What a process has of its own: its fold, and whether that goes on."""

    def __init__(self, log: EmbeddedLog, folder: Path, name: str) -> None:
        self.control = Control()
        self.replies = LocalReplies("ingress-1")
        self.world = make_world(
            log, folder, control=self.control, replies=self.replies, instance=name, address=name, shared=True
        )
        self._following: asyncio.Task[None] | None = None

    def follow(self) -> None:
        self._following = asyncio.create_task(follow_control(self.world.log, self.control))

    async def freeze(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait({self._following})

    async def begin(self, epoch: int) -> Commands:
        commands = Commands(self.world, epoch)
        await commands.begin()
        return commands

    def wait(self, command_id: str) -> Waiter:
        return self.replies.open(command_id)


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[EmbeddedLog]:
    log = await EmbeddedLog.open(tmp_path / "log", load_topics(), durability="process")
    yield log
    await log.close()


@pytest.fixture
async def process(log: EmbeddedLog, tmp_path: Path) -> AsyncIterator[Callable[[str], Awaitable[Process]]]:
    made: list[Process] = []

    async def make(name: str) -> Process:
        made.append(Process(log, tmp_path, name))
        made[-1].follow()
        return made[-1]

    yield make
    for each in made:
        await each.freeze()


def issued(action: Action, command_id: str = "c1") -> CommandIssued:
    return CommandIssued(command_id=command_id, actor="admin", action=action, reply_to="ingress-1")


async def audited(log: EmbeddedLog) -> list[str]:
    found = []
    for partition in range(log.partitions("audit")):
        async for batch in log.scan("audit", partition, 0):
            events = [decode(record.value or b"") for record in batch]
            found += [event.action for event in events if isinstance(event, AuditRecorded)]
    return found


async def test_an_owner_that_was_replaced_changes_nothing_and_answers_nothing(log: EmbeddedLog, process):
    former, present = await process("worker-1"), await process("worker-2")
    first = await former.begin(epoch=10)
    await first.obey(issued(CREATE), 1, NOW_MS)
    await former.freeze()
    second = await present.begin(epoch=20)
    await second.obey(issued(UpdateKey(key_id="k1", name="second"), "c2"), 2, NOW_MS)
    former.follow()
    waiter = former.wait("c3")
    with pytest.raises(Fenced):
        await first.obey(issued(RevokeKey(key_id="k1"), "c3"), 3, NOW_MS)
    assert waiter.taken == 0
    assert await audited(log) == ["create_key", "update_key"]
    reader = await process("reader")
    for each in (former, present, reader):
        await each.control.wait_for((await log.ends("control"))[COMMANDS_PARTITION], timeout_s=5)
        key = each.control.key("k1")
        assert key is not None
        assert (key.name, key.revoked_ms) == ("second", None)


async def test_an_owner_decides_only_when_it_knows_all_that_its_predecessor_changed(process):
    former, present = await process("worker-1"), await process("worker-2")
    await present.freeze()
    first = await former.begin(epoch=10)
    await first.obey(issued(CREATE), 1, NOW_MS)
    beginning = asyncio.create_task(present.begin(epoch=20))
    await asyncio.sleep(0.05)
    assert not beginning.done()
    present.follow()
    await beginning
    assert present.control.key("k1") is not None


async def test_an_owner_that_comes_too_late_does_not_begin(process):
    late, present = await process("worker-1"), await process("worker-2")
    await present.begin(epoch=20)
    with pytest.raises(Fenced):
        await late.begin(epoch=10)


async def test_a_command_that_was_obeyed_but_not_answered_is_answered_by_the_next_owner(process):
    former, present = await process("worker-1"), await process("worker-2")
    first = await former.begin(epoch=10)
    await first.obey(issued(CREATE), 1, NOW_MS)
    second = await present.begin(epoch=20)
    waiter = present.wait("c1")
    await second.obey(issued(CREATE), 1, NOW_MS)
    reply = await waiter.get()
    assert (reply.status, reply.last) == (201, True)


async def test_states_that_were_replaced_are_deleted_and_no_other(log: EmbeddedLog, process):
    owner = await process("worker-1")
    commands = await owner.begin(epoch=10)
    for src, name in enumerate("abc", 1):
        action = CREATE if src == 1 else UpdateKey(key_id="k1", name=name)
        await commands.obey(issued(action, f"c{src}"), src, NOW_MS)
    await owner.control.wait_for((await log.ends("control"))[COMMANDS_PARTITION], timeout_s=5)
    records = [record async for batch in log.scan("control", 0, 0) for record in batch]
    assert [record.key for record in records if record.value is None] == [b"k1@10.1", b"k1@10.2"]
    key = owner.control.key("k1")
    assert key is not None
    assert key.name == "c"
    assert owner.control.obsolete == set()
