"""One owner follows another: what it makes of the calls, reports and answers that its predecessor left behind."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
import pytest

from tests.processors.support import always
from tests.simulation.setting import BOOK, gateway_config
from tollgate.control import Control
from tollgate.errors import ProviderError
from tollgate.events import (
    Admitted,
    Attempt,
    AttemptStarted,
    CallReported,
    Candidate,
    Ended,
    Event,
    OwnerBeat,
    OwnerReleased,
    OwnerTook,
    ProbeAnswered,
    Request,
    Running,
    decode,
    encode,
)
from tollgate.log import Position, Record
from tollgate.processors.owner import Owner
from tollgate.processors.runner import CERTAIN_FOR_S
from tollgate.processors.world import World
from tollgate.replies import Reply

PARTITION = 1  # commands are another's business
RUNNER = "0/worker-1/a"
REQUEST = Request(
    request_id="r", org_id="acme", key_id="k", endpoint="/v1/chat/completions", dialect="openai", model="m-open"
)
PLAN = tuple(Candidate(provider=name, account="one", model="m-open", bound_pusd=100) for name in ("alpha", "beta"))


class PaperLog:
    """A log in memory, whose records land at once and are acknowledged when the test has nothing against it."""

    def __init__(self, *journal: Event) -> None:
        self.records: dict[str, list[Record]] = {"completions": [], "requests": [], "costs": []}
        self.silent = False
        self.unheard: list[tuple[asyncio.Future[Position], Position]] = []
        for event in journal:
            self.write(event)

    def write(self, event: Event, topic: str = "completions") -> Position:
        records = self.records[topic]
        records.append(Record(topic, PARTITION, len(records), 0, b"", encode(event)))
        return Position(PARTITION, len(records) - 1, 0)

    def append(self, topic: str, key: bytes | None, value: bytes, **_: object) -> "asyncio.Future[Position]":
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()
        self.unheard.append((future, self.write(decode(value), topic)))
        if not self.silent:
            self.acknowledge()
        return future

    def acknowledge(self) -> None:
        for future, position in self.unheard:
            future.set_result(position)
        self.unheard.clear()

    async def scan(
        self, topic: str, partition: int, start: int, end: int | None = None
    ) -> AsyncIterator[Sequence[Record]]:
        yield self.records[topic][start:end]

    def journal(self, kind: type[Event]) -> list[Any]:
        events = [decode(record.value or b"") for record in self.records["completions"]]
        return [event for event in events if isinstance(event, kind)]


class Post:
    """A mailbox whose ingresses are other processes."""

    def __init__(self) -> None:
        self.sent: list[Reply] = []

    def send(self, address: str, reply: Reply) -> None:
        self.sent.append(reply)

    async def room(self, address: str, request_id: str, sent_bytes: int) -> None: ...

    async def arrived(self, address: str | None = None) -> None: ...

    def is_waiting(self, address: str, request_id: str) -> bool | None:
        return None

    def probe(self, address: str, request_id: str, *, org_id: str, epoch: int) -> bool | None:
        return None


class Site:
    """A worker on a paper log. `now_s` is its clock."""

    def __init__(self, *journal: Event) -> None:
        self.log = PaperLog(*journal)
        self.post = Post()
        self.fatal: list[str] = []
        self.now_s = 100.0
        surroundings: dict[str, Any] = {"log": self.log, "replies": self.post, "sealer": None}
        self.owner = Owner(
            PARTITION,
            World(
                **surroundings,
                control=Control(),
                setup=always(gateway_config(balanced=False, timeout_s=1.0), book=BOOK),
                instance="worker-2",
                address="0/worker-2/b",
                fatal=self.fatal.append,
                draw=lambda: 0.0,
                shared=True,
                now_ms=lambda: 0,
                clock_s=lambda: self.now_s,
            ),
        )

    async def taken_over(self) -> "Site":
        await self.owner.take_over({})
        return self

    def receive(self, event: Event) -> None:
        self.owner.receive(99, 0, encode(event), lambda: None)


def admitted(*, epoch: int = 0) -> Admitted:
    return Admitted(
        epoch=epoch, src=0, request=REQUEST, subjects=("key:k",), period="2026-11", plan=PLAN, price_version="1"
    )


def failed(attempt: int) -> Attempt:
    return Attempt(attempt=attempt, provider="alpha", account="one", model="m-open", outcome="error")


def handed_over(attempt: int, *, epoch: int = 0) -> OwnerReleased:
    return OwnerReleased(epoch=epoch, running=(Running(request_id="r", attempt=attempt, runner=RUNNER),))


def report(attempt: int) -> CallReported:
    """The attempt has failed, and the second candidate is due."""
    return CallReported(
        request_id="r", org_id="acme", runner=RUNNER, attempts=(failed(attempt),), attempt=attempt, choice=1
    )


TOOK = OwnerTook(instance="worker-1", address=RUNNER)


# Who may call ------------------------------------------------------------------------------------------------------


async def test_a_call_waits_for_a_beat_if_the_newest_acknowledgement_was_read_after_a_halt():
    site = await Site().taken_over()
    site.now_s += CERTAIN_FOR_S + 1
    site.log.silent = True
    asked = asyncio.create_task(site.owner.may_call())
    await asyncio.sleep(0)
    site.now_s += 30  # the process is halted; what it hears then is as old as the halt
    site.log.acknowledge()
    await asyncio.sleep(0.01)
    assert not asked.done()
    assert len(site.log.journal(OwnerBeat)) == 2
    site.log.acknowledge()
    await asked


async def test_a_call_goes_out_at_once_if_its_intent_was_sent_a_moment_ago():
    site = await Site().taken_over()
    await site.owner.may_call()
    assert not site.log.journal(OwnerBeat)


async def test_a_call_that_was_handed_over_long_ago_and_never_made_is_not_made_any_more():
    """Its new owner may have given it up."""
    site = await Site().taken_over()
    await site.owner.release()
    await site.owner.may_call()
    site.now_s += CERTAIN_FOR_S + 1
    with pytest.raises(ProviderError, match="halted"):
        await site.owner.may_call()


async def test_whoever_was_replaced_without_knowing_has_nothing_to_hand_over():
    site = await Site().taken_over()
    site.log.write(TOOK)
    await site.owner.release()
    assert "another owner" in site.fatal[0]


# What a runner reports ---------------------------------------------------------------------------------------------


async def test_what_was_reported_is_in_the_journal_before_anything_else_is_decided():
    """Or else a crash after the next decision would forget it: the next owner reads on behind that."""
    site = await Site(TOOK, admitted(), handed_over(1)).taken_over()
    site.receive(report(1))
    (started,) = site.log.journal(AttemptStarted)
    assert (started.attempt, started.choice, started.previous) == (2, 1, failed(1))


async def test_a_report_that_comes_again_is_not_taken_for_that_of_the_next_attempt():
    second = AttemptStarted(epoch=0, request_id="r", org_id="acme", attempt=2, previous=failed(1), choice=1)
    site = await Site(TOOK, admitted(), second, handed_over(2)).taken_over()
    site.receive(report(1))
    assert len(site.log.journal(AttemptStarted)) == 1
    site.receive(msgspec.structs.replace(report(2), attempts=(failed(1), failed(2)), choice=None, status="failed"))
    (ended,) = site.log.journal(Ended)
    assert ended.attempts == (failed(1), failed(2))


# What clients are told ---------------------------------------------------------------------------------------------


async def test_the_client_of_an_abandoned_request_is_told_when_that_is_durable():
    site = await Site(TOOK, admitted()).taken_over()
    site.log.silent = True
    site.receive(ProbeAnswered(request_id="r", epoch=site.owner.ledger.epoch, waiting=False))
    await asyncio.sleep(0)
    assert not site.post.sent
    site.log.acknowledge()
    await site.owner.settled()
    await asyncio.sleep(0)
    assert [(reply.request_id, reply.status, reply.last) for reply in site.post.sent] == [("r", 502, True)]


async def test_the_client_of_a_request_that_ended_with_its_process_is_told():
    """The last bytes leave after the end; a process that dies in between has booked an answer that nobody got."""
    ended = Ended(epoch=0, request=REQUEST, status="completed", http_status=200, period="2026-11")
    site = await Site(TOOK, admitted(), ended).taken_over()
    assert [(reply.request_id, reply.status) for reply in site.post.sent] == [("r", 502)]


async def test_an_owner_that_handed_over_sends_the_last_bytes_itself():
    ended = Ended(epoch=0, request=REQUEST, status="completed", http_status=200, period="2026-11")
    site = await Site(TOOK, admitted(), ended, OwnerReleased(epoch=0)).taken_over()
    assert not site.post.sent
