"""What a new owner does about the requests that its predecessor left open.

    handed over ──its runner reports──▶ booked          (or is silent for long ──▶ lost)
    lost ──the client waits, nothing delivered──▶ attempted again under the same hold
         └─ otherwise, or no answer in time ──▶ abandoned: costs at most its bound, bills nothing

An owner cannot know whether the client of a lost call still waits; only the ingress that holds it can. So it asks.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from tollgate.events import CallReported, ProbeAnswered, RunnerBeat
from tollgate.processors.counts import Counts
from tollgate.processors.ledger import OpenRequest
from tollgate.replies import Mailbox

PROBE_PATIENCE_S = 5.0  # a busy ingress takes a while; the session's end and this are still within 15 s
RUNNER_PATIENCE_S = 10.0
RUNNER_BEAT_S = 3.0
LOOK_EVERY_S = 1.0


class Heir(Protocol):
    """What the succession asks of the owner. `request` is open in its ledger."""

    def abandon(self, request: OpenRequest) -> None: ...

    def resume(self, request: OpenRequest, report: CallReported | None) -> None: ...

    def book(self, request: OpenRequest, report: CallReported) -> None: ...

    def open_request(self, request_id: str) -> OpenRequest | None: ...


class Succession:
    """The requests that are neither this owner's calls nor ended yet."""

    def __init__(self, heir: Heir, replies: Mailbox, *, clock_s: Callable[[], float], counts: Counts) -> None:
        self._heir = heir
        self._replies = replies
        self._clock_s = clock_s
        self._counts = counts
        self._asked: dict[str, float] = {}  # request → when its ingress was asked
        self._elsewhere: dict[str, float] = {}  # request → when its runner was last heard of
        self._timer: asyncio.TimerHandle | None = None
        self._epoch = -1

    def begin(self, requests: Iterable[OpenRequest], epoch: int) -> None:
        """Take on what is open, under the new epoch."""
        self._epoch = epoch
        for request in list(requests):
            if request.runner:
                self._elsewhere[request.admitted.request.request_id] = self._clock_s()
            else:
                self._ask(request)
        self._look_later()

    def end(self) -> None:
        """Ask nobody any more: the partition has another owner."""
        if self._timer is not None:
            self._timer.cancel()
        self._asked.clear()
        self._elsewhere.clear()

    def answered(self, event: ProbeAnswered) -> None:
        """The ingress has said whether its client waits."""
        if event.epoch != self._epoch or self._asked.pop(event.request_id, None) is None:
            return
        self._answered(event.request_id, waiting=event.waiting)

    def heard(self, event: RunnerBeat) -> None:
        """The runner lives."""
        for request_id in event.request_ids:
            if request_id in self._elsewhere:
                self._elsewhere[request_id] = self._clock_s()

    def reported(self, event: CallReported) -> None:
        """The runner has told how its call went. What was given up in the meantime stays as it was booked.

        A report may come again when it has been booked, and the request been handed over once more: it must be of the
        call that is waited for.
        """
        request = self._heir.open_request(event.request_id)
        if event.request_id not in self._elsewhere or request is None:
            return
        if request.runner != event.runner or event.attempt not in (0, request.attempt):
            return
        del self._elsewhere[event.request_id]
        if event.choice is None:
            self._heir.book(request, event)
        else:
            self._heir.resume(request, event)

    def _ask(self, request: OpenRequest) -> None:
        facts = request.admitted.request
        waiting = self._replies.probe(facts.reply_to, facts.request_id, org_id=facts.org_id, epoch=self._epoch)
        if waiting is None:
            self._asked[facts.request_id] = self._clock_s()
        else:
            self._answered(facts.request_id, waiting=waiting)

    def _answered(self, request_id: str, *, waiting: bool) -> None:
        self._counts.probes["waiting" if waiting else "gone"] += 1
        self._decide(request_id, waiting=waiting)

    def _decide(self, request_id: str, *, waiting: bool) -> None:
        request = self._heir.open_request(request_id)
        if request is None:
            return
        if waiting:
            self._heir.resume(request, None)
        else:
            self._heir.abandon(request)

    def _look(self) -> None:
        """Give up on those who have not answered for too long."""
        now_s = self._clock_s()
        for request_id in [name for name, since_s in self._asked.items() if now_s - since_s >= PROBE_PATIENCE_S]:
            del self._asked[request_id]
            self._counts.probes["silent"] += 1
            self._decide(request_id, waiting=False)
        for request_id in [name for name, heard_s in self._elsewhere.items() if now_s - heard_s >= RUNNER_PATIENCE_S]:
            del self._elsewhere[request_id]
            request = self._heir.open_request(request_id)
            if request is not None:
                self._ask(request)
        self._look_later()

    def _look_later(self) -> None:
        if self._asked or self._elsewhere:
            self._timer = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self._look)
