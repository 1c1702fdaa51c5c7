"""Bugs of what Kafka adds, put in on purpose: fence, probes, replies, hand-over, beats.

See `mutants`: each leaves out or turns around one rule, in this process only, for as long as its context lasts.
"""

import asyncio
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from tests.simulation import mutants
from tests.simulation.mutants import Mutant
from tollgate import replies
from tollgate.events import CallReported, Event, OwnerReleased, RequestAccepted
from tollgate.processors import owner, runner, succession
from tollgate.processors.ledger import OpenRequest
from tollgate.processors.owner import Owner
from tollgate.processors.succession import Succession
from tollgate.replies import LocalReplies, Reply
from tollgate.reply_topic import TopicMailbox

# Of the one process's bugs those that are about who writes and what counts: several processes find them sooner.
KAFKA_MUTANTS: dict[str, Mutant] = {
    name: mutants.MUTANTS[name]
    for name in (
        "every_record_is_valid",
        "a_replaced_owner_goes_on",
        "a_gap_is_not_looked_into",
        "there_is_no_watermark",
        "rows_have_no_offset",
    )
}


def _mutant(function: Any) -> Any:
    KAFKA_MUTANTS[function.__name__] = contextmanager(function)
    return function


# Who may call ---------------------------------------------------------------------------------------------------------


@_mutant
def a_call_needs_no_certainty() -> Iterator[Any]:
    """After a halt, a call goes out on the strength of an intent that was durable before it."""

    async def may_call(self: Owner) -> None:
        """Sure."""

    with patch.object(Owner, "may_call", may_call):
        yield


@_mutant
def an_acknowledgement_is_as_new_as_its_reading() -> Iterator[Any]:
    """It may have lain there while the process was halted."""
    settle = Owner._settle

    def settle_now(self: Owner) -> None:
        settle(self)
        self._certain_s = self._world.clock_s()

    with patch.object(Owner, "_settle", settle_now):
        yield


@_mutant
def what_the_log_takes_late_counts() -> Iterator[Any]:
    """A call is made for a client that was told to try again before its request was on the log."""
    decode = owner.decode

    def decode_as_timely(value: bytes) -> Event:
        event = decode(value)
        return msgspec.structs.replace(event, void_after_ms=0) if isinstance(event, RequestAccepted) else event

    with patch.object(owner, "decode", decode_as_timely):
        yield


# Probes ---------------------------------------------------------------------------------------------------------------


@_mutant
def nobody_is_asked() -> Iterator[Any]:
    """Calls are made again for clients that have gone, or have a part of their answer."""
    with patch.object(Succession, "_ask", lambda self, request: self._heir.resume(request, None)):
        yield


@_mutant
def whoever_has_a_part_of_an_answer_waits_too() -> Iterator[Any]:
    probe = LocalReplies.probe

    def probe_again(self: LocalReplies, address: str, request_id: str, **facts: Any) -> bool | None:
        waiter = self.waiter(request_id)
        if waiter is None or waiter.complete or address != self.address:
            return probe(self, address, request_id, **facts)
        waiter.epoch = max(waiter.epoch, facts["epoch"])
        return True

    with patch.object(LocalReplies, "probe", probe_again):
        yield


# Replies --------------------------------------------------------------------------------------------------------------


@_mutant
def replies_of_older_epochs_are_taken() -> Iterator[Any]:
    follows = replies.follows

    def follows_anyway(reply: Reply, *, epoch: int, seq: int) -> Any:
        return follows(msgspec.structs.replace(reply, epoch=max(reply.epoch, epoch)), epoch=epoch, seq=seq)

    with patch.object(replies, "follows", follows_anyway):
        yield


@_mutant
def a_gap_in_an_answer_is_not_noticed() -> Iterator[Any]:
    follows = replies.follows

    def follows_somehow(reply: Reply, *, epoch: int, seq: int) -> Any:
        found = follows(reply, epoch=epoch, seq=seq)
        return "next" if found == "lost" else found

    with patch.object(replies, "follows", follows_somehow):
        yield


@_mutant
def nobody_tells_whose_answer_was_lost() -> Iterator[Any]:
    """A client whose request has ended, and whose worker died before the last bytes, waits until its deadline."""
    with patch.object(Owner, "_tell", lambda *_: None):
        yield


@_mutant
def a_report_overtakes_what_was_sent_before_it() -> Iterator[Any]:
    """The new owner sends the last bytes, and those before them are still on their way from the former one."""

    async def arrived(self: TopicMailbox, address: str | None = None) -> None:
        """Presumably."""

    with patch.object(TopicMailbox, "arrived", arrived):
        yield


# Hand-over ------------------------------------------------------------------------------------------------------------


@_mutant
def a_hand_over_names_no_calls() -> Iterator[Any]:
    append = Owner._append

    def append_nameless(self: Owner, event: Event) -> "asyncio.Future[Any]":
        if isinstance(event, OwnerReleased):
            event = msgspec.structs.replace(event, running=())
        return append(self, event)

    with patch.object(Owner, "_append", append_nameless):
        yield


@_mutant
def a_hand_over_forgets_calls_in_the_making() -> Iterator[Any]:
    """What is about to be attempted again is no call yet, and is named by nobody."""
    release = Owner.release

    async def release_at_once(self: Owner) -> None:
        self._resuming = set()
        await release(self)

    with patch.object(Owner, "release", release_at_once):
        yield


@_mutant
def a_report_is_booked_as_often_as_it_comes() -> Iterator[Any]:
    open_requests: dict[str, OpenRequest] = {}

    def reported(self: Succession, event: CallReported) -> None:
        known = self._heir.open_request(event.request_id)
        request = open_requests.setdefault(event.request_id, known) if known is not None else None
        request = request or open_requests.get(event.request_id)
        self._elsewhere.pop(event.request_id, None)
        if request is not None and event.choice is None:
            self._heir.book(request, event)

    with patch.object(Succession, "reported", reported):
        yield


@_mutant
def a_report_may_be_of_another_attempt() -> Iterator[Any]:
    """One that comes again, when its request has been handed over once more."""
    reported = Succession.reported

    def reported_of_any(self: Succession, event: CallReported) -> None:
        reported(self, msgspec.structs.replace(event, attempt=0))

    with patch.object(Succession, "reported", reported_of_any):
        yield


@_mutant
def a_report_is_forgotten_in_a_crash() -> Iterator[Any]:
    """Further requests are decided before what was reported is in the journal, and the next owner reads on behind."""
    resume = Owner.resume

    def resume_later(self: Owner, request: OpenRequest, report: CallReported | None) -> None:
        def now() -> None:
            if self.open_request(request.admitted.request.request_id) is request and not self._closed:
                resume(self, request, report)

        asyncio.get_running_loop().call_later(1.5, now)

    with patch.object(Owner, "resume", resume_later):
        yield


@_mutant
def a_silent_runner_is_waited_for() -> Iterator[Any]:
    with patch.object(succession, "RUNNER_PATIENCE_S", math.inf):
        yield


@_mutant
def a_runner_is_given_up_though_it_beats() -> Iterator[Any]:
    with patch.object(Succession, "heard", lambda self, event: None):
        yield


# Ingresses ------------------------------------------------------------------------------------------------------------


@_mutant
def the_beats_of_an_ingress_are_not_heard() -> Iterator[Any]:
    """Its clients' calls are cancelled while they wait."""
    receive = Owner.receive

    def receive_the_rest(self: Owner, src: int, timestamp_ms: int, value: bytes, ack: Any) -> Any:
        return None if b'"ingress_beat.' in value[:40] else receive(self, src, timestamp_ms, value, ack)

    with patch.object(Owner, "receive", receive_the_rest):
        yield


@_mutant
def calls_for_a_dead_ingress_go_on() -> Iterator[Any]:
    with patch.object(runner, "INGRESS_PATIENCE_S", math.inf):
        yield
