"""The truth, told a second time: a fold of the log's raw JSON that shares no code with the gateway.

Every record is judged at the moment when it becomes durable, so that what is wrong is found where it happens, and an
invariant that holds "at every prefix of the log" is checked at every prefix.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson

Facts = dict[str, Any]
Complaint = tuple[str, str]  # which rule, and how it is broken
Complain = Callable[[str, str], None]

PUSD_PER_USD = 10**12

# USD per million tokens are pico-dollars per token, times a million: (input, output) by provider
PRICES_PUSD = {"alpha": (2_000_000, 8_000_000), "beta": (3_000_000, 12_000_000), "gamma": (4_000_000, 20_000_000)}

# Which limit a refusal is about, by what it says
LIMITS = {
    "monthly_budget": "monthly budget",
    "concurrent_requests": "under way at once",
    "requests_per_minute": "requests a minute",
}

NOT_ACCEPTED = "log_unavailable"  # says an ingress that waits for the log no longer; and the owner, of what comes late

_NEEDED = re.compile(r"needs up to \$([0-9.]+)")


@dataclass
class Open:
    """A request that was admitted and has not ended."""

    admitted: Facts
    attempts: int = 1  # intents in the journal
    previous: list[Facts] = field(default_factory=list)


@dataclass
class Account:
    """One key in one month."""

    spent: int = 0
    requests: int = 0


class Books:
    """What the log says so far."""

    def __init__(self, complain: Complain) -> None:
        self._complain = complain
        self.accepted: dict[int, tuple[int, Facts]] = {}  # by offset: time, event
        self.accepted_ids: dict[str, int] = {}
        self.limits: defaultdict[str, list[tuple[int, Facts]]] = defaultdict(
            list
        )  # by key: (command, limits), in order
        self.epoch = -1
        self.took_ms = -1
        self.control_epoch = -1
        self.next_offset = 0
        self.decided = -1
        self.open: dict[str, Open] = {}
        self.ends: dict[str, Facts] = {}
        self.end_offsets: dict[str, int] = {}
        self.accounts: defaultdict[tuple[str, str], Account] = defaultdict(Account)
        self.rates: dict[str, int] = {}
        self.intents: dict[tuple[str, int], Facts] = {}  # (request, attempt): the candidate to be called
        self.intent_epochs: dict[tuple[str, int], int] = {}
        self.copied: dict[tuple[str, int, int, int], Facts] = {}  # the id of a cost line
        self.copies: list[Facts] = []
        self.invalid = 0

    topics = ("requests", "completions", "costs", "control", "dead-letters")

    def land(self, topic: str, offset: int, time_ms: int, key: bytes, value: bytes) -> Facts:
        """A record of one of `topics` has become durable; what it says."""
        event: Facts = orjson.loads(value)
        match topic:
            case "requests":
                self._request(offset, time_ms, event)
            case "completions":
                self._journal(offset, time_ms, event)
            case "costs":
                self._cost(event)
            case "control":
                self._control(key.decode(), event)
            case _:
                self._complain("unreadable", f"a dead letter: {event['reason']}")
        return event

    def held(self, key: str, period: str) -> int:
        return sum(
            request.admitted.get("hold_pusd") or 0
            for request in self.open.values()
            if request.admitted["request"]["key_id"] == key and request.admitted["period"] == period
        )

    def running(self, key: str) -> int:
        return sum(request.admitted["request"]["key_id"] == key for request in self.open.values())

    def limits_of(self, key: str, src: int) -> list[Facts]:
        """The limits that a decision at `src` of `requests` may go by: those in force there, or later ones.

        Later ones, because a command may have taken effect before a crash or a take-over that left earlier requests
        to be decided.
        """
        known = self.limits[key]
        in_force = max(index for index, (command, _) in enumerate(known) if command < src)
        return [limits for _, limits in known[in_force:]]

    # Records -------------------------------------------------------------------------------------------------------

    def _request(self, offset: int, time_ms: int, event: Facts) -> None:
        if _kind(event) == "request_accepted":
            self.accepted[offset] = time_ms, event
            self.accepted_ids[event["request"]["request_id"]] = offset

    def _control(self, place: str, event: Facts) -> None:
        if _kind(event) == "control_taken":
            self.control_epoch = max(self.control_epoch, event["epoch"])
        elif _kind(event) == "key_set" and int(place.partition("@")[2].partition(".")[0] or -1) >= self.control_epoch:
            self._key_set(event)

    def _key_set(self, event: Facts) -> None:
        known = self.limits[event["key_id"]]
        facts = event["src"], event.get("limits", {})
        if known and known[-1][0] >= facts[0]:
            if facts not in known:
                self._complain("control", f"command {facts[0]} has had two effects")
            return
        known.append(facts)

    def _journal(self, offset: int, time_ms: int, event: Facts) -> None:
        self.next_offset = offset + 1
        kind = _kind(event)
        if kind == "owner_took":
            self.epoch, self.took_ms = offset, time_ms
        elif event["epoch"] != self.epoch:
            self.invalid += 1
        elif kind == "admitted":
            self._admitted(event)
        elif kind == "attempt_started":
            self._attempt(event)
        elif kind == "ended":
            self._ended(offset, event)
        elif kind not in ("owner_released", "owner_beat", "lease_granted"):
            self._complain("journal", f"what is a {kind}?")

    def _admitted(self, event: Facts) -> None:
        request, period = event["request"], event["period"]
        request_id, key = request["request_id"], request["key_id"]
        now_ms = self._decide(event["src"], request)
        if period != _month(now_ms):
            self._complain("period", f"{request_id} is admitted in {period} at {now_ms}")
        self._any(self._wrong_admission(event, limits, now_ms) for limits in self.limits_of(key, event["src"]))
        self.rates.update(event.get("rates", {}))
        self.open[request_id] = Open(event)
        self.accounts[key, period].requests += 1
        self._intend(event["epoch"], request_id, 1, 0, event["plan"])

    def _wrong_admission(self, event: Facts, limits: Facts, now_ms: int) -> list[Complaint]:
        """What is wrong with it if these are the limits."""
        key, period, wrong = event["request"]["key_id"], event["period"], []
        running, concurrent = self.running(key), limits.get("concurrent_requests")
        if concurrent is not None and running >= concurrent:
            wrong.append(("concurrency", f"{running} of {concurrent} run already"))
        rate_after = self._rate_after(key, limits, now_ms)
        if rate_after is None:
            wrong.append(("rate", "it is too fast"))
        elif event.get("rates", {}) != rate_after:
            wrong.append(("rate", f"{event.get('rates')} should be {rate_after}"))
        budget, hold = limits.get("monthly_budget_pusd"), event.get("hold_pusd")
        if budget is not None:
            spent, held = self.accounts[key, period].spent, self.held(key, period)
            if hold is None or spent + held + hold > budget:
                wrong.append(("I4", f"{spent} spent + {held} held + {hold} > {budget}"))
            elif hold < max(candidate["bound_pusd"] for candidate in event["plan"]):
                wrong.append(("I4", "it may cost more than its hold"))
        return [(rule, f"{event['request']['request_id']}: {text}") for rule, text in wrong]

    def _any(self, opinions: Iterable[list[Complaint]]) -> None:
        """Complain if there is something wrong in every opinion."""
        known = list(opinions)
        if all(known):
            for rule, text in known[0]:
                self._complain(rule, text)

    def _attempt(self, event: Facts) -> None:
        request_id, attempt = event["request_id"], event["attempt"]
        request = self.open.get(request_id)
        if request is None:
            self._complain("I7", f"attempt {attempt} of {request_id}, which is not open")
            return
        if attempt != request.attempts + 1 or event["previous"]["attempt"] != request.attempts:
            self._complain("I7", f"attempt {attempt} of {request_id} follows {request.attempts}")
        request.attempts = attempt
        request.previous.append(event["previous"])
        self._intend(event["epoch"], request_id, attempt, event.get("choice", attempt - 1), request.admitted["plan"])

    def _intend(self, epoch: int, request_id: str, attempt: int, choice: int, plan: list[Facts]) -> None:
        self.intent_epochs[request_id, attempt] = epoch
        if choice < len(plan):
            self.intents[request_id, attempt] = plan[choice]
        else:
            self._complain("I7", f"attempt {attempt} of {request_id} goes beyond its plan of {len(plan)}")

    def _ended(self, offset: int, event: Facts) -> None:
        request_id = event["request"]["request_id"]
        if request_id in self.ends:
            self._complain("I1", f"{request_id} has ended twice")
            return
        admission = self.open.pop(request_id, None)
        if admission is not None:
            self._check_end(event, admission)
        elif "src" in event:
            self._check_refusal(event)
        else:
            self._complain("I1", f"{request_id} has ended, but never begun")
        self.ends[request_id] = event
        self.end_offsets[request_id] = offset

    def _check_end(self, event: Facts, admission: Open) -> None:
        admitted = admission.admitted
        request_id, period = event["request"]["request_id"], event["period"]
        for name in ("request", "period", "subjects", "hold_pusd"):
            if event.get(name) != admitted.get(name):
                self._complain("end", f"{request_id}: {name} is {event.get(name)}, was {admitted.get(name)}")
        if event["status"] not in ("completed", "failed", "cancelled", "abandoned"):
            self._complain("I1", f"{request_id} was admitted, and is {event['status']} now")
        if str(event.get("reason")).startswith("internal error"):
            self._complain("internal error", f"{request_id}: {event['reason']}")
        attempts = event.get("attempts", [])
        numbers = [attempt["attempt"] for attempt in attempts]
        known = range(1, admission.attempts + 1)
        # an attempt that was cancelled before its call leaves its intent and nothing else
        if numbers != list(known) and not (event["status"] != "completed" and numbers == list(known[:-1])):
            self._complain("I7", f"{request_id} ends with attempts {numbers}, of {admission.attempts}")
        if attempts[: len(admission.previous)] != admission.previous:
            self._complain("I7", f"{request_id} ends with other attempts than were in the journal")
        lines = [line for attempt in attempts for line in attempt.get("lines", [])]
        cost, bill = _total(lines, "cost_pusd"), _total(lines, "bill_pusd")
        if (event.get("cost_pusd", 0), event.get("bill_pusd", 0)) != (cost, bill):
            self._complain("I2", f"{request_id}: the sums are not those of the lines")
        hold = admitted.get("hold_pusd")
        if hold is not None and bill > hold:
            self._complain("I4", f"{request_id}: a bill of {bill}, a hold of {hold}")
        if bill and event["status"] in ("failed", "abandoned"):
            self._complain("I4", f"{request_id} is {event['status']}, and billed")
        if event["status"] == "completed" and bill != min(
            _total(attempts[-1].get("lines", []), "cost_pusd"), cost if hold is None else hold
        ):
            self._complain("I4", f"{request_id} is billed {bill}")
        key = event["request"]["key_id"]
        account = self.accounts[key, period]
        account.spent += bill
        budgets = [limits.get("monthly_budget_pusd") for _, limits in self.limits[key]]
        if None not in budgets and account.spent > max(budgets):
            self._complain("I4", f"{key} has spent {account.spent} in {period}")

    def _check_refusal(self, event: Facts) -> None:
        """The end of a request that was never admitted: was there a reason, and does it cost nothing?"""
        request = event["request"]
        now_ms = self._decide(event["src"], request)
        if event.get("attempts") or event.get("cost_pusd") or event.get("bill_pusd"):
            self._complain("I4", f"{request['request_id']} was refused, and costs")
        if event["status"] == "rejected" and event["error"] == NOT_ACCEPTED:
            time_ms, accepted = self.accepted.get(event["src"], (0, {}))
            if not 0 < accepted.get("void_after_ms", 0) < time_ms:
                self._complain("I5", f"{request['request_id']} was refused as late, and was not")
        elif event["status"] == "rejected":
            key = request["key_id"]
            self._any(self._wrong_refusal(event, limits, now_ms) for limits in self.limits_of(key, event["src"]))
        elif event["status"] not in ("cancelled", "abandoned"):
            self._complain("I1", f"{request['request_id']} was never admitted, and is {event['status']}")

    def _wrong_refusal(self, event: Facts, limits: Facts, now_ms: int) -> list[Complaint]:
        """Nothing is refused that fits: what is wrong with it if these are the limits?"""
        key, reason, wrong = event["request"]["key_id"], event["reason"], []
        if event["error"] != "QUOTA_EXCEEDED":
            wrong.append(("refusal", f"{event['error']} {reason}"))
        elif LIMITS["monthly_budget"] in reason:
            period, found = _month(now_ms), _NEEDED.search(reason)
            assert found is not None, reason
            needed, budget = int(Decimal(found[1]) * PUSD_PER_USD), limits.get("monthly_budget_pusd")
            spent, held = self.accounts[key, period].spent, self.held(key, period)
            if budget is None or spent + held + needed <= budget:
                wrong.append(("I5", f"it needs {needed} beside {spent} + {held} of {budget}"))
            if needed > _most(event["request"]["body_bytes"]):
                wrong.append(("I5", f"it cannot need {needed}"))
        elif LIMITS["concurrent_requests"] in reason:
            concurrent = limits.get("concurrent_requests")
            if concurrent is None or self.running(key) < concurrent:
                wrong.append(("I5", f"only {self.running(key)} of {concurrent} run"))
        elif self._rate_after(key, limits, now_ms) is not None:
            wrong.append(("I5", "it is not too fast"))
        return [(rule, f"{event['request']['request_id']}: {text}") for rule, text in wrong]

    def _decide(self, src: int, request: Facts) -> int:
        """A request is decided: for the first time, and in order? Returns the time that counts."""
        if src <= self.decided:
            self._complain("I6", f"{request['request_id']} at {src} is decided again")
        self.decided = max(self.decided, src)
        time_ms, accepted = self.accepted.get(src, (0, {}))
        if accepted.get("request") != request:
            self._complain("I1", f"what was decided at {src} is not what was accepted there")
        return max(time_ms, self.took_ms)

    def _rate_after(self, key: str, limits: Facts, now_ms: int) -> dict[str, int] | None:
        """A bucket that refills evenly: the theoretical arrival time after this request; None if it is too early."""
        per_minute, name = limits.get("requests_per_minute"), f"key:{key}/requests_per_minute"
        if per_minute is None:
            return {}
        interval_us, now_us = 60_000_000 // per_minute, now_ms * 1000
        due_us = self.rates.get(name, 0)
        if due_us - now_us > (per_minute - 1) * interval_us:
            return None
        return {name: max(due_us, now_us) + interval_us}

    def _cost(self, event: Facts) -> None:
        self.copies.append(event)
        for line_id, line in lines_of(event["request_id"], event["attempt"], event["revision"], event["lines"]):
            known = self.copied.setdefault(line_id, line)
            if known != line:
                self._complain("costs", f"{line_id} is once {known}, once {line}")


def lines_of(
    request_id: str, attempt: int, revision: int, lines: Iterable[Facts]
) -> Iterable[tuple[tuple[str, int, int, int], Facts]]:
    """Cost lines with their ids."""
    return (((request_id, attempt, revision, index), line) for index, line in enumerate(lines))


def _kind(event: Facts) -> str:
    return str(event["type"]).rpartition(".")[0]


def _month(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms // 1000, UTC).strftime("%Y-%m")


def _total(lines: list[Facts], name: str) -> int:
    return sum(line.get(name, 0) for line in lines)


def _most(body_bytes: int) -> int:
    """No request of the simulation can need more: every byte a token, and the longest answer that is asked for."""
    input_pusd = max(price for price, _ in PRICES_PUSD.values())
    output_pusd = max(price for _, price in PRICES_PUSD.values())
    return (body_bytes + 100) * input_pusd + 100 * output_pusd
