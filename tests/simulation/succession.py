"""What must hold between processes: who may call, who may be given up, and what clients are told of it.

who calls owns the partition, or did a moment ago, or has handed this very call over
a call is given up only when its process may be dead, and made again only for a client that said it waits
a client that waits is told soon after its request has ended; the calls of an ingress that died end with it
"""

import math
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.books import NOT_ACCEPTED, Facts
from tests.simulation.clients import Client
from tests.simulation.life import Life
from tests.simulation.provider import ProviderCall, attempt_of
from tollgate.processors.runner import CERTAIN_FOR_S, INGRESS_PATIENCE_S

if TYPE_CHECKING:
    from tests.simulation.kafka import KafkaSimulation

TOLD_WITHIN_S = 6.0  # of the take-over: the replies' way
CANCELLED_WITHIN_S = INGRESS_PATIENCE_S + 8.0  # of the last beat: the next look, and the way of the end
SLACK_S = 0.05  # of the clock's tick


class _Reign(NamedTuple):
    """One owner's time."""

    life: Life
    since_s: float


class _HandedOver(NamedTuple):
    """A call that goes on after its owner has left."""

    epoch: int
    runner: str


class Witness:
    """Sees every record land and every call leave."""

    def __init__(self, simulation: "KafkaSimulation") -> None:
        self.facts: Counter[str] = Counter()
        self._simulation = simulation
        self._books = simulation.books
        self._reigns: dict[int, _Reign] = {}  # by epoch
        self._replaced_s: dict[int, float] = {}  # by epoch: when the next one began
        self._handed_over: dict[str, _HandedOver] = {}  # by request
        self._waiting: set[tuple[str, int]] = set()  # requests whose ingress told an epoch that their client waits
        self._ended_s: dict[str, float] = {}
        self._ended_by: dict[str, Life] = {}
        self._marked_s: list[float] = []  # when checkpoints were complete
        self._called_s: dict[str, float] = {}  # by request: the latest call
        self._accepted_s: dict[str, float] = {}  # by request: when the log took it

    def landed(self, event: Facts, offset: int, by: str) -> None:
        """A record of `requests` or `completions` is durable, and stands in the books."""
        kind = str(event["type"]).rpartition(".")[0]
        if kind == "request_accepted":
            self._accepted_s[event["request"]["request_id"]] = self._simulation.loop.time()
        elif kind == "probe_answered":
            self._answered(event)
        elif kind == "owner_took":
            self._took(offset, by)
        elif event.get("epoch") == self._books.epoch:
            if kind == "owner_released":
                self._released(event)
            elif kind == "attempt_started":
                self._attempt_started(event)
            elif kind == "ended":
                self._ended(event)

    def called(self, call: ProviderCall, life: Life) -> None:
        """A provider is sent a call."""
        request_id, _, attempt = call.call_id.rpartition(".")
        self._called_s[request_id] = self._simulation.loop.time()
        self._check_refusal(request_id)
        epoch = self._books.intent_epochs[request_id, int(attempt)]
        replaced_s = self._replaced_s.get(epoch)
        if replaced_s is None:
            return
        handed_over = self._handed_over.get(request_id)
        if handed_over is not None and handed_over == (epoch, life.address):
            self.facts["calls made after hand-over"] += 1
        elif call.checked_s - replaced_s > CERTAIN_FOR_S + SLACK_S:
            self._wrong(
                "fence", f"{call.call_id} is called {call.checked_s - replaced_s:.1f} s after another took over"
            )
        else:
            self.facts["calls of replaced owners"] += 1

    def _check_refusal(self, request_id: str) -> None:
        """Nothing is called for a client that was told to try again before the log had taken its request."""
        client, accepted_s = self._simulation.client(request_id), self._accepted_s[request_id]
        if client.told != NOT_ACCEPTED or self._simulation.clock_jumps:
            return
        if accepted_s > client.told_s:
            late_s = accepted_s - client.told_s
            self._wrong("refusal", f"{request_id} is called; the log took it {late_s:.1f} s after it was refused")
        else:
            self.facts["called for refused"] += 1

    def marked(self) -> None:
        """A checkpoint is complete."""
        self._marked_s.append(self._simulation.loop.time())

    def told(self, client: Client) -> None:
        """A client is told that its answer was broken off: is somebody else the owner since that began?

        Or that a part of it was lost: may anything have been?
        """
        if client.told == "answer_lost" and not self._may_be_lost(client.request_id):
            self._wrong("replies", f"client {client.number} is told that its answer was lost, and nothing was")
        if client.told != "answer_interrupted" or not client.pieces:
            return
        attempt = attempt_of(client.answer().text)
        epoch = self._books.intent_epochs.get((client.request_id, attempt))
        if epoch is not None and epoch == self._books.epoch:
            self._wrong("probe", f"client {client.number} is told of an interruption, and nobody has taken over")

    def _may_be_lost(self, request_id: str) -> bool:
        """Are replies lost on their way, or may whoever booked the request or ran its call have died in it?"""
        if self._simulation.cluster.reply_mishaps or request_id not in self._ended_by:
            return True
        runner = self._handed_over[request_id].runner if request_id in self._handed_over else None
        answerers = {
            life for life in self._simulation.workers if life is self._ended_by[request_id] or life.address == runner
        }
        return any(life.disturbed or not (life.alive or life.stopped) for life in answerers)

    def at_rest(self) -> None:
        """Everything is over: was everybody told in time?"""
        if self._simulation.cluster.reply_mishaps:
            return
        for client in self._simulation.scenario.clients:
            ended_s = self._ended_s.get(client.request_id)
            if client.told != "deadline_exceeded" or ended_s is None:
                continue
            ingress = next(life for life in self._simulation.lives if life.process is client.life)
            if ingress.disturbed:  # it heard of nothing
                continue
            # Where replies are slow, a checkpoint may overtake them: then the next owner does not look so far back.
            died_s = self._ended_by[client.request_id].died_s
            if any(ended_s <= marked_s <= died_s for marked_s in self._marked_s):
                continue
            self.facts["told too late"] += 1
            since_s = self._steady_after(ended_s)
            if client.told_s - since_s > TOLD_WITHIN_S:
                self._wrong("told", f"client {client.number} waits for the end of a request that has ended")

    def _steady_after(self, at_s: float) -> float:
        """When, after that time, an owner began who was left in peace long enough to tell everybody."""
        reigns = sorted(self._reigns.items())
        for (_, reign), (_, following) in zip(reigns, [*reigns[1:], (0, None)], strict=True):
            ends_s = min(reign.life.died_s, following.since_s if following else math.inf)
            if reign.since_s > at_s and min(ends_s, reign.life.disturbed_s) - reign.since_s > TOLD_WITHIN_S:
                return reign.since_s
        return math.inf

    def _took(self, epoch: int, by: str) -> None:
        life = next(life for life in self._simulation.lives if life.name == by)
        now_s = self._simulation.loop.time()
        if self._reigns:
            former = max(self._reigns)
            self._replaced_s[former] = now_s
            if life is not self._simulation.group.holder:  # told long ago that the partition is its own, and halted
                self._reigns[former].life.disturb()
                self.facts["taken by strangers"] += 1
        self._reigns[epoch] = _Reign(life, now_s)
        self.facts["take-overs"] += 1

    def _released(self, event: Facts) -> None:
        for running in event.get("running", ()):
            self._handed_over[running["request_id"]] = _HandedOver(event["epoch"], running["runner"])
            self.facts["handed over"] += 1

    def _answered(self, event: Facts) -> None:
        if not event["waiting"]:
            return
        self._waiting.add((event["request_id"], event["epoch"]))
        client = self._simulation.client(event["request_id"])
        if event["epoch"] == self._books.epoch and client.pieces and not client.told:
            self._wrong("probe", f"{event['request_id']} waits, says its ingress, and has a part of an answer")

    def _attempt_started(self, event: Facts) -> None:
        request_id, previous = event["request_id"], event["previous"]
        if previous["outcome"] != "abandoned":
            return
        self.facts["attempted again"] += 1
        self._given_up(request_id, previous["attempt"])
        if (request_id, event["epoch"]) not in self._waiting:
            self._wrong("probe", f"{request_id} is attempted again, and nobody said that its client waits")

    def _ended(self, event: Facts) -> None:
        request, attempts = event["request"], event.get("attempts") or [{"outcome": None}]
        request_id, now_s = request["request_id"], self._simulation.loop.time()
        self.facts["void"] += event.get("error") == NOT_ACCEPTED
        self._ended_s[request_id] = now_s
        self._ended_by[request_id] = self._reigns[event["epoch"]].life
        if event["status"] == "abandoned" and attempts[-1]["outcome"] == "abandoned":
            self._given_up(request_id, attempts[-1]["attempt"])
        handed_over = self._handed_over.get(request_id)
        if handed_over is not None and all(attempt["outcome"] != "abandoned" for attempt in attempts):
            self.facts["booked for a runner"] += 1
        elif event["status"] == "completed":
            ingress = next(life for life in self._simulation.lives if life.address == request["reply_to"])
            since_s = max(ingress.died_s, self._called_s.get(request_id, 0.0), self._reigns[event["epoch"]].since_s)
            if now_s - since_s > CANCELLED_WITHIN_S and not self._reigns[event["epoch"]].life.disturbed:
                self._wrong("ingress", f"{request_id} runs {now_s - since_s:.1f} s after the death of its ingress")

    def _given_up(self, request_id: str, attempt: int) -> None:
        """An attempt is taken for lost: may its process be dead?"""
        epoch = self._books.intent_epochs[request_id, attempt]
        life = self._simulation.sent.get(f"{request_id}.{attempt}", self._reigns[epoch].life)
        if life.alive and not life.disturbed:
            self._wrong("hand-over", f"{request_id}.{attempt} is given up, and runs in {life.name}, which lives")

    def _wrong(self, rule: str, text: str) -> None:
        self._simulation.violation(rule, text)
