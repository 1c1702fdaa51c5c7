"""Do the books balance? Holds what clients saw, the log, its Parquet and the provider's own ledger against each other.

    check(evidence, keys, at_rest=True).violations == []

Each violation names the promise that it breaks:

    I1  every accepted request has exactly one valid end, and the client's answer is that end
    I2  Parquet is the fold of the log, and what an attempt cost is what the provider's ledger says it used
    I3  the provider knows of no call that the journal did not name before
    I4  what is billed stays within the hold, and all bills and holds of a key within its budget
    I5  at rest nothing is held, and nothing was refused that fits
    I6  what was decided is not decided again, and a replay of the log makes the same rows
    I7  the journal and the client's answer are in order

Pure. The rules are written down here a second time, so that a mistake in the program is not believed.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from tests.crash.evidence import Entry, Evidence, Fields, Key, Sent
from tests.crash.fold import NOT_ACCEPTED, PRICES_PUSD, Books, Violation, came_too_late, fold
from tollgate.sandbox.answer import SENTENCES

AT_THE_DOOR = 503  # not ready yet, or stopping: refused before it was accepted, so there is no record
UNKNOWN_OUTCOME = "unknown_outcome"  # the ingress could not learn whether the request was taken
# It has ended somehow, or will, and the client is told that it will not learn how
NOT_TOLD = frozenset({"answer_lost", "gateway_stopping", "deadline_exceeded"})

# What the journal says of a call's outcome → what the provider's ledger may say; None: it never came there
OUTCOMES: Mapping[str, frozenset[str | None]] = {
    "ok": frozenset({"ok"}),
    "error": frozenset({"error", None}),
    "cut": frozenset({"cut", "error", "disconnected", None}),
    "cancelled": frozenset({"ok", "error", "cut", "disconnected", None}),
    "abandoned": frozenset({"ok", "error", "cut", "disconnected", None}),
}
TOO_LATE = "timeout"  # of a call that is cut: all of the answer may have been sent, and not be read yet

_WORDS = " ".join(sentence.decode() for sentence in SENTENCES).split()
_STARTS = frozenset(sum(len(earlier.split()) for earlier in SENTENCES[:index]) for index in range(len(SENTENCES)))


class Unknown(NamedTuple):
    """A call of unknown outcome: what it truly cost, what the books say, and the most that it could cost."""

    call_id: str
    outcome: str
    true_pusd: int
    booked_pusd: int
    bound_pusd: int


@dataclass
class Report:
    """The verdict. `counted` says how much was looked at, lest an empty run pass for a good one."""

    violations: list[Violation]
    unknown: list[Unknown]
    counted: dict[str, int]

    def __str__(self) -> str:
        shown = [f"{promise} {subject}: {problem}" for promise, subject, problem in self.violations[:20]]
        counted = ", ".join(f"{count} {what}" for what, count in self.counted.items())
        return "\n".join([f"{len(self.violations)} violations in {counted}", *shown])


@dataclass
class _Ledger:
    """The provider's rows by call id, and the calls without one."""

    rows: dict[str, Fields] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)


def check(evidence: Evidence, keys: Mapping[str, Key], *, at_rest: bool) -> Report:
    """Everything that must hold; `at_rest` also what needs an end: no request is open, and the sink has caught up."""
    books = fold(evidence, keys)
    ledger = _ledger(evidence)
    unknown: list[Unknown] = []
    violations = [
        *books.violations,
        *ledger.violations,
        *_clients(evidence, books, ledger),
        *_calls(books, ledger),
        *_attempts(books, ledger, unknown),
        *_copies(evidence, books, at_rest=at_rest),
        *_parquet(evidence.rows, books, at_rest=at_rest),
    ]
    if evidence.replayed is not None:
        replayed = _parquet(evidence.replayed, books, at_rest=True)
        violations += [Violation("I6", subject, f"after a replay: {problem}") for _, subject, problem in replayed]
    if at_rest:
        violations += _rest(books)
    statuses: dict[str, int] = defaultdict(int)
    for ends in books.ends.values():
        statuses[ends[0].event["status"]] += 1
    counted = {
        "sent": len(evidence.sent),
        "answered": sum(sent.complete for sent in evidence.sent),
        "accepted": len(books.accepted),
        "calls": len(evidence.calls),
        "stale": len(books.stale),
        **dict(sorted(statuses.items())),
    }
    return Report(violations, unknown, counted)


def _rest(books: Books) -> Iterator[Violation]:
    for request_id in books.accepted.keys() - books.ends.keys():
        yield Violation("I1", request_id, "was accepted and has no end")
    for request_id in books.open:
        yield Violation("I5", request_id, "still holds what it was admitted with")


# Clients --------------------------------------------------------------------------------------------------------------


def _clients(evidence: Evidence, books: Books, ledger: _Ledger) -> Iterator[Violation]:
    accepted: dict[str, list[str]] = defaultdict(list)
    for request_id, entry in books.accepted.items():
        accepted[entry.event["request"]["tags"]["sent"]].append(request_id)
    for sent in evidence.sent:
        ids = accepted[sent.number]
        if len(ids) > 1:
            yield Violation("I1", sent.number, f"was sent once and accepted as {ids}")
        if sent.status is None:
            continue
        if sent.complete and sent.status != 200 and sent.error is None:
            yield Violation("I1", str(sent.request_id), f"answered {sent.status} without an error that says why")
        if sent.error == UNKNOWN_OUTCOME and ids in ([], [sent.request_id]):
            continue
        if sent.error == NOT_ACCEPTED or (sent.status == AT_THE_DOOR and not ids):
            yield from _told_when(sent)
        if ids != [sent.request_id]:
            if ids or sent.status != AT_THE_DOOR:
                yield Violation("I1", str(sent.request_id), f"answered {sent.status}, and the log has {ids}")
            continue
        ends = books.ends.get(sent.request_id)
        if sent.text:
            yield from _text(sent, ends[0].event if ends else None, ledger)
        if len(sent.answers) > 1:
            yield Violation("I7", sent.request_id, f"its stream is made of the answers {sorted(sent.answers)}")
        if sent.complete or sent.broken:
            if ends and sent.error in NOT_TOLD:
                yield from _begun_again(sent, ends[0].event)
            elif ends and sent.error == NOT_ACCEPTED:
                yield from _not_accepted(books.accepted[sent.request_id], ends[0].event, ledger)
            elif ends:
                yield from _answer(sent, ends[0].event)
            else:
                yield Violation("I1", sent.request_id, f"answered {sent.status} to the last byte, and has no end")


def _told_when(sent: Sent) -> Iterator[Violation]:
    if not sent.may_retry:
        yield Violation("I1", str(sent.request_id), f"answered {sent.status} {sent.error} without Retry-After")


def _answer(sent: Sent, end: Fields) -> Iterator[Violation]:
    """The client has the last bytes: so this end was booked before, and is what the client was told."""
    request_id = end["request"]["request_id"]
    status = end["status"]
    if sent.broken:
        if status not in ("failed", "abandoned"):
            yield Violation("I1", request_id, f"the client saw its stream fail, and it ended as {status}")
    elif sent.status != 200:
        if status in ("completed", "cancelled") or end["http_status"] != sent.status:
            yield Violation("I1", request_id, f"answered {sent.status}, and ended as {status} {end['http_status']}")
    elif status != "completed":
        yield Violation("I1", request_id, f"the client has the whole answer, and it ended as {status}")
    elif sent.cost_pusd != end.get("bill_pusd", 0):
        yield Violation("I2", request_id, f"the client saw a cost of {sent.cost_pusd}, billed is {end['bill_pusd']}")


def _not_accepted(accepted: Entry, end: Fields, ledger: _Ledger) -> Iterator[Violation]:
    """Its client was told to try again, and the log has it: nothing was called for it.

    One that the log took in time, without its ingress being told, may have been called before an outage, or by a worker
    that knew of none.
    """
    request_id = end["request"]["request_id"]
    called = any(str(call_id).rpartition(".")[0] == request_id for call_id in ledger.rows)
    if called and (came_too_late(accepted) or "void_after_ms" not in accepted.event):
        yield Violation("I1", request_id, "was called, and its client had been told to try again")
    if not called and (end["status"] in ("completed", "failed") or end.get("cost_pusd", 0)):
        yield Violation("I1", request_id, f"its client was told to try again, and it ended as {end['status']}")


def _begun_again(sent: Sent, end: Fields) -> Iterator[Violation]:
    """A call that was lost is made again only for a client that has nothing of an answer yet."""
    outcomes = [attempt["outcome"] for attempt in end.get("attempts", ())]
    if sent.broken and "abandoned" in outcomes[:-1]:
        problem = f"its client had a part of an answer, and it was attempted again: {', '.join(outcomes)}"
        yield Violation("I1", end["request"]["request_id"], problem)


def _text(sent: Sent, end: Fields | None, ledger: _Ledger) -> Iterator[Violation]:
    """The sandbox talks in rounds of its sentences: so what is missing, doubled or out of order shows."""
    words = sent.text.split()
    rounds = _WORDS * (len(words) // len(_WORDS) + 2)
    if not any(rounds[start : start + len(words)] == words for start in _STARTS):
        yield Violation("I7", str(sent.request_id), "the client's text is not the provider's")
    if sent.complete and end is not None and end["status"] == "completed":
        row = ledger.rows.get(f"{sent.request_id}.{end['attempts'][-1]['attempt']}")
        if row is not None and row["output_tokens"] != len(words):
            problem = f"the client has {len(words)} words of {row['output_tokens']} that the provider said"
            yield Violation("I7", str(sent.request_id), problem)


# The provider ---------------------------------------------------------------------------------------------------------


def _ledger(evidence: Evidence) -> _Ledger:
    ledger = _Ledger()
    for row in evidence.calls:
        call_id = row["call_id"]
        if call_id in ledger.rows:
            ledger.violations.append(Violation("I3", str(call_id), "was called twice"))
        ledger.rows[call_id] = row
    return ledger


def _calls(books: Books, ledger: _Ledger) -> Iterator[Violation]:
    booked = {
        f"{request_id}.{attempt['attempt']}"
        for request_id, ends in books.ends.items()
        for attempt in ends[0].event.get("attempts", ())
    }
    for call_id, row in ledger.rows.items():
        if call_id not in books.intents:
            yield Violation("I3", str(call_id), "the provider was called, and the journal has no intent")
        elif row["model"] != books.intents[call_id]["model"]:
            yield Violation("I3", call_id, f"the provider was asked for {row['model']}, which is not what is intended")
        elif call_id.rpartition(".")[0] in books.ends and call_id not in booked:
            yield Violation("I3", call_id, "the provider was called, and the end does not say so")


def _attempts(books: Books, ledger: _Ledger, unknown: list[Unknown]) -> Iterator[Violation]:
    """Where the outcome is known, cost is the ledger's tokens at list price; where not, both are within the bound."""
    for request_id, ends in books.ends.items():
        for attempt in ends[0].event.get("attempts", ()):
            call_id = f"{request_id}.{attempt['attempt']}"
            row = ledger.rows.get(call_id)
            outcome = attempt["outcome"]
            if row is not None and not row["finished"]:
                continue  # the provider has not noticed yet that nobody listens
            may_say = OUTCOMES[outcome] | ({"ok"} if attempt.get("error_class") == TOO_LATE else set())
            if (said := row and row["outcome"]) not in may_say:
                yield Violation("I2", call_id, f"is booked as {outcome}; the provider says {said}")
            candidate = books.intents.get(call_id)
            if candidate is None:
                continue  # was blamed already
            quantities = _quantities(row)
            true_pusd = _price(quantities, candidate["provider"])
            booked_pusd = sum(line["cost_pusd"] for line in attempt.get("lines", ()))
            if outcome == "ok" and attempt.get("usage_source") == "provider":
                yield from _known(call_id, attempt, quantities, candidate["provider"])
            elif outcome == "error":
                if (booked_pusd, true_pusd) != (0, 0):
                    yield Violation("I2", call_id, f"failed; booked {booked_pusd}, the provider has {true_pusd}")
            else:
                unknown.append(Unknown(call_id, outcome, true_pusd, booked_pusd, candidate["bound_pusd"]))
                sources = {line.get("cost_source", "computed") for line in attempt.get("lines", ())}
                if not sources <= {"estimated"}:
                    yield Violation("I2", call_id, f"has an unknown outcome, and its cost is called {sources}")
                if booked_pusd > candidate["bound_pusd"]:
                    yield Violation("I2", call_id, f"is booked at {booked_pusd}, beyond {candidate['bound_pusd']}")
            if true_pusd > candidate["bound_pusd"] and "-over" not in candidate["model"]:
                yield Violation("I2", call_id, f"has cost {true_pusd}, beyond its bound {candidate['bound_pusd']}")


def _known(call_id: str, attempt: Fields, quantities: Mapping[str, int], provider: str) -> Iterator[Violation]:
    lines = {line["meter"]: line for line in attempt.get("lines", ())}
    booked = {meter: line["quantity"] for meter, line in lines.items()}
    true = {meter: quantity for meter, quantity in quantities.items() if quantity}
    if len(lines) != len(attempt.get("lines", ())) or booked != true:
        yield Violation("I2", call_id, f"is booked as {booked}; the provider counted {true}")
    for meter, line in lines.items():
        if line["cost_pusd"] != _price({meter: line["quantity"]}, provider):
            yield Violation("I2", call_id, f"{line['quantity']} {meter} do not cost {line['cost_pusd']}")


def _quantities(row: Fields | None) -> dict[str, int]:
    if row is None:
        return {}
    return {
        "input_tokens": row["input_tokens"],
        "cache_read_tokens": row["cached_tokens"],
        "output_tokens": row["output_tokens"],
        "reasoning_tokens": row["reasoning_tokens"],
    }


def _price(quantities: Mapping[str, int], provider: str) -> int:
    prices = PRICES_PUSD[provider]
    return sum(
        quantity * prices["output_tokens" if meter == "reasoning_tokens" else meter]
        for meter, quantity in quantities.items()
    )


# Copies and Parquet ---------------------------------------------------------------------------------------------------


def _copies(evidence: Evidence, books: Books, *, at_rest: bool) -> Iterator[Violation]:
    """The topic `costs` holds the lines of every end, each perhaps more than once, and nothing else."""
    expected = {
        (end.partition, end.offset, request_id, attempt["attempt"]): attempt["lines"]
        for request_id, ends in books.ends.items()
        for end in ends[:1]
        for attempt in end.event.get("attempts", ())
        if attempt.get("lines")
    }
    copied = set()
    for entry in evidence.topics["costs"]:
        if entry.kind != "costs_booked":
            continue
        copy = entry.event
        name = entry.partition, copy["journal_offset"], copy["request_id"], copy["attempt"]
        copied.add(name)
        if expected.get(name) != copy["lines"]:
            yield Violation("I2", f"costs {entry.partition}/{entry.offset}", f"is no copy of {name}")
    if at_rest:
        for name in expected.keys() - copied:
            yield Violation("I2", str(name[2]), f"the lines of attempt {name[3]} were not copied to costs")


def _parquet(tables: Mapping[str, Sequence[Fields]], books: Books, *, at_rest: bool) -> Iterator[Violation]:
    """Row by row: what is there is what the journal says, and at rest all of it is there, once."""
    expected: dict[tuple[Any, ...], Fields] = {}
    for ends in books.ends.values():
        for end in ends:
            expected |= _rows(end)
    found: set[tuple[Any, ...]] = set()
    for table, rows in tables.items():
        for row in rows:
            name = _name(table, row["log_partition"], row["log_offset"], row.get("attempt"), row.get("line"))
            if name in found:
                yield Violation("I2", str(name), "is in Parquet twice")
            found.add(name)
            facts = expected.get(name)
            if facts is None:
                yield Violation("I2", str(name), "is a row of no valid record")
            elif wrong := [column for column, value in facts.items() if row[column] != value]:
                yield Violation("I2", str(name), f"differs from the journal in {wrong}")
    if at_rest:
        for name in expected.keys() - found:
            yield Violation("I2", str(name), "is missing in Parquet")


def _rows(end: Entry) -> Iterator[tuple[tuple[Any, ...], Fields]]:
    """The rows that an end must have made, by name; of each the columns that matter to a bill."""
    event = end.event
    request = event["request"]
    attempts = event.get("attempts", [])
    place = {"ts": datetime.fromtimestamp(end.timestamp_ms / 1000, UTC), "request_id": request["request_id"]}
    answer = next((attempt for attempt in reversed(attempts) if attempt["outcome"] == "ok"), (attempts or [{}])[-1])
    usage = answer.get("usage") if attempts else {}
    yield (
        _name("usage", end.partition, end.offset),
        {
            **place,
            "org_id": request["org_id"],
            "key_id": request["key_id"],
            "status": event["status"],
            "http_status": event["http_status"],
            "error": event.get("error"),
            "stream": request.get("stream", False),
            "provider": answer.get("provider"),
            "model": answer.get("model"),
            "attempts": len(attempts),
            "input_tokens": None if usage is None else usage.get("input_tokens", 0),
            "cache_read_tokens": None if usage is None else usage.get("cache_read_tokens", 0),
            "output_tokens": None if usage is None else usage.get("output_tokens", 0),
            "reasoning_tokens": None if usage is None else usage.get("reasoning_tokens", 0),
            "cost_usd": _usd(event.get("cost_pusd", 0)),
            "bill_usd": _usd(event.get("bill_pusd", 0)),
            "hold_usd": None if event.get("hold_pusd") is None else _usd(event["hold_pusd"]),
            "period": event["period"],
        },
    )
    for attempt in attempts:
        lines = attempt.get("lines", [])
        yield (
            _name("attempts", end.partition, end.offset, attempt["attempt"]),
            {
                **place,
                "provider": attempt["provider"],
                "model": attempt["model"],
                "outcome": attempt["outcome"],
                "cost_usd": _usd(sum(line["cost_pusd"] for line in lines)),
                "bill_usd": _usd(sum(line.get("bill_pusd", 0) for line in lines)),
            },
        )
        for index, line in enumerate(lines):
            yield (
                _name("costs", end.partition, end.offset, attempt["attempt"], index),
                {
                    **place,
                    "revision": 0,
                    "meter": line["meter"],
                    "quantity": line["quantity"],
                    "unit_price_usd": _usd(line["unit_price_pusd"]),
                    "cost_usd": _usd(line["cost_pusd"]),
                    "bill_usd": _usd(line.get("bill_pusd", 0)),
                    "period": event["period"],
                },
            )


def _name(
    table: str, partition: int, offset: int, attempt: int | None = None, line: int | None = None
) -> tuple[Any, ...]:
    return table, partition, offset, attempt, line


def _usd(amount_pusd: int) -> Decimal:
    return Decimal(amount_pusd).scaleb(-12)
