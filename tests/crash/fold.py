"""The checker's own fold of the journal: who is open, what is spent and held, and whether each decision was right.

It knows the rules and none of the code: a record counts iff its epoch is the offset of the last `owner_took` before
it; a request is decided once, in the order of the log; a hold is placed only where it fits, and nothing that fits is
refused. Money is whole pico-dollars, times are the log's. Pure.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

from tests.crash.evidence import Entry, Evidence, Fields, Key

# More input tokens than a request's bytes can make, with what dialects and tools add: a request whose cost at so
# many tokens fits must not have been refused.
SPARE_TOKENS = 100

PRICES_PUSD: Mapping[str, Mapping[str, int]] = {
    "main": {"input_tokens": 1_000_000, "cache_read_tokens": 250_000, "output_tokens": 4_000_000},
    "backup": {"input_tokens": 2_000_000, "cache_read_tokens": 500_000, "output_tokens": 6_000_000},
}
"""Pico-dollars per token of each provider; reasoning costs what output costs. `tests.crash.settings` writes the same
prices into `pricing.yaml`, in USD per million."""
FIRST_PROVIDER = "main"
NOT_ACCEPTED = "log_unavailable"  # its client was told to try again before the log had taken it


class Violation(NamedTuple):
    """A promise that was broken: which one, of what (a request, call, key or record), and how."""

    promise: str
    subject: str
    problem: str


@dataclass
class Books:
    """What the journal adds up to. Ends are in the order in which they count; the first is the end."""

    accepted: dict[str, Entry] = field(default_factory=dict)
    admitted: dict[str, Entry] = field(default_factory=dict)
    intents: dict[str, Fields] = field(default_factory=dict)  # by `request.attempt`; the candidate it names
    ends: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    open: dict[str, Fields] = field(default_factory=dict)  # the admissions that have not ended
    stale: list[Entry] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    def blame(self, promise: str, subject: object, problem: str) -> None:
        self.violations.append(Violation(promise, str(subject), problem))


def fold(evidence: Evidence, keys: Mapping[str, Key]) -> Books:
    """The journal's books, with every violation that a single pass over it shows. `keys` are by id."""
    books = Books()
    requests: dict[int, list[Entry]] = defaultdict(list)
    for entry in evidence.topics["requests"]:
        requests[entry.partition].append(entry)
        if entry.kind == "request_accepted":
            request_id = entry.event["request"]["request_id"]
            if request_id in books.accepted:
                books.blame("I1", request_id, "was accepted twice")
            books.accepted[request_id] = entry
    for partition, records in groupby(evidence.topics["completions"], lambda entry: entry.partition):
        _Partition(books, requests[partition], keys).take(records)
    return books


def came_too_late(accepted: Entry) -> bool:
    """Did the log take the request when its client had been refused?"""
    return 0 < accepted.event.get("void_after_ms", 0) < accepted.timestamp_ms


class _Partition:
    """One partition's pass."""

    def __init__(self, books: Books, requests: list[Entry], keys: Mapping[str, Key]) -> None:
        self._books = books
        self._requests = requests
        self._keys = keys
        self._heard = 0  # so many records of `requests` have been delivered
        self._now_ms = 0
        self._epoch = -1
        self._decided = -1
        self._attempts: dict[str, int] = {}  # of open requests
        self._spent_pusd: dict[tuple[str, str], int] = defaultdict(int)  # by key and period
        self._held_pusd: dict[tuple[str, str], int] = defaultdict(int)
        self._running: dict[str, int] = defaultdict(int)
        self._arrival_us: dict[str, int] = {}  # the theoretical arrival time of GCRA, by key

    def take(self, records: Iterator[Entry]) -> None:
        last_ms = 0
        for entry in records:
            if entry.timestamp_ms < last_ms:
                self._books.blame("I7", f"journal {entry.partition}/{entry.offset}", "is older than the one before it")
            last_ms = entry.timestamp_ms
            if entry.kind == "owner_took":
                self._epoch = entry.offset
                self._now_ms = max(self._now_ms, entry.timestamp_ms)
            elif entry.event.get("epoch") != self._epoch:
                self._books.stale.append(entry)
            elif entry.kind == "admitted":
                self._admit(entry)
            elif entry.kind == "attempt_started":
                self._start_attempt(entry)
            elif entry.kind == "ended":
                self._end(entry)

    # Records -------------------------------------------------------------------------------------------------------

    def _admit(self, entry: Entry) -> None:
        books, event = self._books, entry.event
        request = event["request"]
        request_id = request["request_id"]
        if request_id in books.admitted or request_id in books.ends:
            books.blame("I6", request_id, f"is admitted at {entry.offset}, but was decided before")
        self._decide(entry)
        self._check_admission(event)
        books.admitted[request_id] = entry
        books.open[request_id] = event
        books.intents[f"{request_id}.1"] = event["plan"][0]
        self._attempts[request_id] = 1
        self._running[request["key_id"]] += 1
        self._held_pusd[request["key_id"], event["period"]] += event.get("hold_pusd") or 0
        if (per_minute := self._keys[request["key_id"]].per_minute) is not None:
            arrival_us = max(self._now_ms * 1000, self._arrival_us.get(request["key_id"], 0))
            self._arrival_us[request["key_id"]] = arrival_us + 60_000_000 // per_minute

    def _start_attempt(self, entry: Entry) -> None:
        books, event = self._books, entry.event
        request_id, attempt = event["request_id"], event["attempt"]
        admitted = books.open.get(request_id)
        if admitted is None:
            books.blame("I7", request_id, f"attempt {attempt} starts at {entry.offset}, where it is not open")
        elif attempt != self._attempts[request_id] + 1:
            books.blame("I7", request_id, f"attempt {attempt} follows attempt {self._attempts[request_id]}")
        else:
            books.intents[f"{request_id}.{attempt}"] = admitted["plan"][event.get("choice", attempt - 1)]
            self._attempts[request_id] = attempt

    def _end(self, entry: Entry) -> None:
        books, event = self._books, entry.event
        request_id = event["request"]["request_id"]
        if request_id in books.ends:
            books.blame("I1", request_id, f"ends again at {entry.offset}, as {event['status']}")
        elif "src" in event:
            self._decide(entry)
            if event["status"] == "rejected":
                self._check_refusal(event)
        elif request_id not in books.open:
            books.blame("I7", request_id, f"ends at {entry.offset}, but was never admitted")
        books.ends[request_id].append(entry)
        admitted = books.open.pop(request_id, None)
        if admitted is not None:
            account = admitted["request"]["key_id"], admitted["period"]
            self._running[account[0]] -= 1
            self._held_pusd[account] -= admitted.get("hold_pusd") or 0
            self._check_against_admission(event, admitted)
        self._check_money(event)
        self._spend(event)

    def _decide(self, entry: Entry) -> None:
        """An accepted request is decided at this place: later on the log than all that were decided before."""
        books, event = self._books, entry.event
        request, src = event["request"], event["src"]
        if src <= self._decided:
            books.blame("I6", request["request_id"], f"is decided from {src}, which lies behind {self._decided}")
        self._decided = max(self._decided, src)
        accepted = books.accepted.get(request["request_id"])
        if accepted is None:
            books.blame("I1", request["request_id"], "is decided, but was never accepted")
        elif (accepted.partition, accepted.offset) != (entry.partition, src):
            books.blame("I1", request["request_id"], f"was accepted at {accepted.offset}, not at {src}")
        elif accepted.event["request"] != request:
            books.blame("I1", request["request_id"], "is decided as something else than was accepted")
        while self._heard < len(self._requests) and self._requests[self._heard].offset <= src:
            self._now_ms = max(self._now_ms, self._requests[self._heard].timestamp_ms)
            self._heard += 1

    # Limits --------------------------------------------------------------------------------------------------------

    def _check_admission(self, event: Fields) -> None:
        books, request_id = self._books, event["request"]["request_id"]
        key = self._keys[event["request"]["key_id"]]
        hold_pusd = event.get("hold_pusd")
        if key.budget_pusd is None:
            if hold_pusd is not None:
                books.blame("I5", request_id, "has a hold, though its key has no budget")
        elif hold_pusd is None or hold_pusd != max(candidate["bound_pusd"] for candidate in event["plan"]):
            books.blame("I4", request_id, f"holds {hold_pusd}, not the bound of its dearest candidate")
        elif not self._fits(key, event["period"], hold_pusd):
            books.blame("I4", request_id, f"holds {hold_pusd}, which does not fit into the budget of {key.id}")
        if self._is_at_once_limit(key):
            books.blame("I5", request_id, f"is admitted beyond the {key.at_once} that {key.id} may have under way")
        if self._is_too_soon(key):
            books.blame("I5", request_id, f"is admitted beyond the {key.per_minute} a minute of {key.id}")

    def _check_refusal(self, event: Fields) -> None:
        """Refused with right, iff some limit of its key is reached."""
        request = event["request"]
        key = self._keys[request["key_id"]]
        if event.get("error") == NOT_ACCEPTED:
            if not came_too_late(self._books.accepted[request["request_id"]]):
                self._books.blame("I5", request["request_id"], "is refused as late, and was not")
            return
        if event.get("error") != "QUOTA_EXCEEDED":
            self._books.blame("I5", request["request_id"], f"is refused with {event.get('error')}")
            return
        price = PRICES_PUSD[FIRST_PROVIDER]
        output = int(request["tags"]["max_tokens"]) or 1
        needed_pusd = (request["body_bytes"] + SPARE_TOKENS) * price["input_tokens"] + output * price["output_tokens"]
        budget_is_spent = key.budget_pusd is not None and not self._fits(key, event["period"], needed_pusd)
        if not (budget_is_spent or self._is_at_once_limit(key) or self._is_too_soon(key)):
            self._books.blame("I5", request["request_id"], f"is refused, but fits: {event.get('reason')}")

    def _fits(self, key: Key, period: str, hold_pusd: int) -> bool:
        account = key.id, period
        assert key.budget_pusd is not None
        return self._spent_pusd[account] + self._held_pusd[account] + hold_pusd <= key.budget_pusd

    def _is_at_once_limit(self, key: Key) -> bool:
        return key.at_once is not None and self._running[key.id] >= key.at_once

    def _is_too_soon(self, key: Key) -> bool:
        """By GCRA: a bucket of a minute's requests that refills evenly."""
        if key.per_minute is None:
            return False
        ahead_us = max(0, self._arrival_us.get(key.id, 0) - self._now_ms * 1000)
        return ahead_us > (key.per_minute - 1) * (60_000_000 // key.per_minute)

    # Money ---------------------------------------------------------------------------------------------------------

    def _check_against_admission(self, event: Fields, admitted: Fields) -> None:
        for field_name in ("request", "period", "hold_pusd", "price_version"):
            if event.get(field_name) != admitted.get(field_name):
                self._books.blame("I1", event["request"]["request_id"], f"ends with another {field_name}")

    def _check_money(self, event: Fields) -> None:
        books, request_id = self._books, event["request"]["request_id"]
        attempts = event.get("attempts", [])
        lines = [line for attempt in attempts for line in attempt.get("lines", ())]
        cost_pusd, bill_pusd = event.get("cost_pusd", 0), event.get("bill_pusd", 0)
        if cost_pusd != sum(line["cost_pusd"] for line in lines):
            books.blame("I2", request_id, "its cost is not the sum of its lines")
        if bill_pusd != sum(line.get("bill_pusd", 0) for line in lines):
            books.blame("I2", request_id, "its bill is not the sum of its lines")
        if bill_pusd > cost_pusd:
            books.blame("I4", request_id, f"is billed {bill_pusd} for a cost of {cost_pusd}")
        if event.get("hold_pusd") is not None and bill_pusd > event["hold_pusd"]:
            books.blame("I4", request_id, f"is billed {bill_pusd} on a hold of {event['hold_pusd']}")
        if [attempt["attempt"] for attempt in attempts] != list(range(1, len(attempts) + 1)):
            books.blame("I7", request_id, "its attempts are not numbered from 1 on")
        for attempt in attempts:
            if f"{request_id}.{attempt['attempt']}" not in books.intents:
                books.blame("I3", f"{request_id}.{attempt['attempt']}", "was called without an intent before it")

    def _spend(self, event: Fields) -> None:
        account = event["request"]["key_id"], event["period"]
        self._spent_pusd[account] += event.get("bill_pusd", 0)
        budget_pusd = self._keys[account[0]].budget_pusd
        if budget_pusd is not None and self._spent_pusd[account] > budget_pusd:
            self._books.blame("I4", account[0], f"has spent {self._spent_pusd[account]} of {budget_pusd}")
