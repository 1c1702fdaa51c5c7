"""What must hold between processes: who may call, who may be given up, and what clients are told of it.

who calls owns the partition, or did a moment ago, or has handed this very call over
a call is given up only when its process may be dead, and made again only for a client that said it waits
a client that waits is told soon after its request has ended; the calls of an ingress that died end with it
"""

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from tests.simulation.books import Facts
from tests.simulation.life import Life
from tests.simulation.provider import ProviderCall
from tollgate.processors.owner import CERTAIN_FOR_S, INGRESS_PATIENCE_S

if TYPE_CHECKING:
    from tests.simulation.kafka import KafkaSimulation

TOLD_WITHIN_S = 25.0  # of the end: session, rebalance, take-over, the replies' way
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
        self._called_s: dict[str, float] = {}  # by request: the latest call

    def landed(self, event: Facts, offset: int, by: str) -> None:
        """A record of `requests` or `completions` is durable, and stands in the books."""
        kind = str(event["type"]).rpartition(".")[0]
        if kind == "probe_answered":
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

    def at_rest(self) -> None:
        """Everything is over: was everybody told in time? Unless a checkpoint may overtake a reply, or one was lost."""
        if self._simulation.cluster.reply_mishaps or self._simulation.knobs.latency.slow:
            return
        for client in self._simulation.scenario.clients:
            ended_s = self._ended_s.get(client.request_id)
            if client.told != "deadline_exceeded" or ended_s is None:
                continue
            self.facts["told too late"] += 1
            if client.told_s - ended_s > TOLD_WITHIN_S:
                self._wrong(
                    "told", f"client {client.number} is told {client.told_s - ended_s:.1f} s after its request's end"
                )

    def _took(self, epoch: int, by: str) -> None:
        life = next(life for life in self._simulation.lives if life.name == by)
        now_s = self._simulation.loop.time()
        if self._reigns:
            former = max(self._reigns)
            self._replaced_s[former] = now_s
            if life is not self._simulation.group.holder:  # told long ago that the partition is its own, and halted
                self._reigns[former].life.disturbed = True
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
        self._ended_s[request_id] = now_s
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
