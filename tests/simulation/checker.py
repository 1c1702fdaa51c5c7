"""The promises, checked from three sides: what clients saw, what the log says, what the providers counted.

The log is judged record by record in `books`; here the others are held against it, at the moments when something can
go wrong (a call, a reply, a take-over) and once more when everything has come to rest.

    I1  every accepted request has exactly one valid end
    I2  what is booked is what the providers counted, at their prices; the copies in `costs` are the journal's lines
    I3  no call without a durable intent, no last bytes without a durable end
    I4  the bills never exceed the budget, nor a bill its hold
    I5  no hold is left over, and nothing is refused that fits
    I6  what is delivered again changes nothing, and what is recovered is what was
    I7  attempts in order and without gaps; an answer's pieces in the provider's order
"""

from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING

from tests.simulation.books import LIMITS, PRICES_PUSD, PUSD_PER_USD, Facts, lines_of
from tests.simulation.clients import Client
from tests.simulation.provider import ProviderCall, attempt_of, words_of
from tollgate.ids import attempt_id
from tollgate.ingress.client import TOO_LATE
from tollgate.processors.owner import Owner

if TYPE_CHECKING:
    from tests.simulation.life import Life
    from tests.simulation.world import Simulation

LATE_MS = 30  # a timer is late by a tick of the clock


def on_call(simulation: "Simulation", call: ProviderCall) -> None:
    """A provider is called: this must be in the journal by now."""
    simulation.says(call.provider, f"is sent {call.call_id}")
    request_id, attempt = _attempt_of(call)
    books = simulation.books
    intent = books.intents.get((request_id, attempt))
    if intent is None:
        simulation.violation("I3", f"{call.call_id} is called without a durable intent")
        return
    if (call.provider, call.account, call.model) != (intent["provider"], intent["account"], intent["model"]):
        simulation.violation("I3", f"{call.call_id} goes elsewhere than the journal says")
    if call.cap != intent.get("max_output_tokens"):
        simulation.violation("I4", f"{call.call_id} has a cap of {call.cap}, not {intent.get('max_output_tokens')}")
    if call.call_id in simulation.sent:
        simulation.violation("I3", f"{call.call_id} is called twice")
    accepted = simulation.books.accepted[simulation.books.accepted_ids[request_id]][1]
    late_ms = simulation.wall_ms() - accepted["request"]["deadline_ms"]
    if late_ms > LATE_MS and not simulation.clock_jumps:
        simulation.violation("deadline", f"{call.call_id} is called {late_ms} ms after the deadline of its request")
    if request_id in books.ends and simulation.one_at_a_time:
        simulation.violation("I7", f"{call.call_id} is called after the end of its request")


def on_piece(simulation: "Simulation", client: Client) -> None:
    """A client gets a piece of its answer, or is told that there will be none."""
    if client.done and not client.told and client.request_id not in simulation.books.ends:
        simulation.violation("I3", f"client {client.number} has the last bytes, and there is no durable end")


def on_cancel(simulation: "Simulation", client: Client, reason: str) -> None:
    """The ingress expects nothing of a request any more: was it its client's doing?"""
    excused = simulation.clock_jumps or simulation.knobs.latency.slow or not simulation.one_at_a_time
    if reason == TOO_LATE and not excused:
        simulation.violation("liveness", f"client {client.number} has got no end by its deadline")


def on_take_over(simulation: "Simulation", life: "Life", owner: Owner) -> None:
    """What an owner has recovered is what the journal adds up to."""
    books, ledger = simulation.books, owner.ledger
    if books.epoch != ledger.epoch:
        return  # it has been replaced already, and does not know
    recovered = {
        "decided": ledger.decided,
        "open": sorted(ledger.open),
        "spent": {name: row.spent_pusd for name, row in ledger.accounts.items()},
        "requests": {name: row.requests for name, row in ledger.accounts.items()},
        "rates": {name: row.tat_us for name, row in ledger.rates.items()},
        "held": ledger.held_pusd,
        "running": ledger.running,
    }
    accounts = {f"key:{key}|{period}": account for (key, period), account in books.accounts.items() if account.requests}
    true = {
        "decided": books.decided,
        "open": sorted(books.open),
        "spent": {name: account.spent for name, account in accounts.items()},
        "requests": {name: account.requests for name, account in accounts.items()},
        "rates": books.rates,
        "held": {name: held for name in accounts if (held := books.held(*_subject_and_period(name)))},
        "running": {f"key:{key}": running for key in simulation.scenario.keys if (running := books.running(key))},
    }
    for name, value in true.items():
        if recovered[name] != value:
            simulation.violation("I6", f"{life.name} recovered {name} {recovered[name]}, which is {value}")


def _subject_and_period(account: str) -> tuple[str, str]:
    subject, _, period = account.rpartition("|")
    return subject.removeprefix("key:"), period


def on_stop(simulation: "Simulation", life: "Life", owner: Owner | None) -> None:
    """A process that was stopped in order leaves nothing open."""
    books = simulation.books
    if owner is not None and books.epoch == owner.ledger.epoch and books.open:
        simulation.violation("stop", f"{life.name} has stopped in order and left open {sorted(books.open)}")


def at_rest(simulation: "Simulation", life: "Life", owner: Owner) -> None:
    """Nothing is under way any more: everything must add up."""
    on_take_over(simulation, life, owner)
    _check_requests(simulation)
    _check_copies(simulation)
    _check_attempts(simulation)
    for client in simulation.scenario.clients:
        _check_client(simulation, client)


def facts(simulation: "Simulation") -> dict[str, int]:
    """What happened, in numbers: a simulation in which nothing happens proves nothing."""
    ends = simulation.books.ends.values()
    statuses = Counter(end["status"] for end in ends)
    refusals = Counter(
        limit
        for end in ends
        for limit, words in LIMITS.items()
        if end["status"] == "rejected" and words in end["reason"]
    )
    return {
        **statuses,
        **refusals,
        "calls": len(simulation.calls),
        "attempts after the first": sum(attempt > 1 for _, attempt in simulation.books.intents),
        "streams broken off": sum(
            client.stream and client.done and client.status == 200 and not client.answer().over
            for client in simulation.scenario.clients
        ),
        "overruns": sum(call.overran for call in simulation.calls),
        "lives": len(simulation.lives),
        "invalid records": simulation.books.invalid,
        "steps": len(simulation.steps),
    }


def _check_requests(simulation: "Simulation") -> None:
    books = simulation.books
    for request_id in books.accepted_ids.keys() - books.ends.keys():
        simulation.violation("I1", f"{request_id} was accepted, and has no end")


def _check_copies(simulation: "Simulation") -> None:
    books = simulation.books
    lines: dict[tuple[str, int, int, int], Facts] = {}
    for request_id, end in books.ends.items():
        for attempt in end.get("attempts", ()):
            lines.update(lines_of(request_id, attempt["attempt"], 0, attempt.get("lines", ())))
    for line_id in sorted(lines.keys() - books.copied.keys()):
        simulation.violation("I2", f"the cost line {line_id} is missing in costs")
    for line_id in sorted(books.copied.keys() - lines.keys()):
        simulation.violation("I2", f"the cost line {line_id} is in costs, and not in the journal")
    for line_id in sorted(lines.keys() & books.copied.keys()):
        if lines[line_id] != books.copied[line_id]:
            simulation.violation("I2", f"the cost line {line_id} is another in costs")
    for copy in books.copies:
        if copy["journal_offset"] != books.end_offsets.get(copy["request_id"]):
            simulation.violation("I2", f"a copy of {copy['request_id']} names another record")


def _check_attempts(simulation: "Simulation") -> None:
    calls = {call.call_id: call for call in simulation.calls}
    booked = set()
    for request_id, end in simulation.books.ends.items():
        for attempt in end.get("attempts", ()):
            call_id = f"{request_id}.{attempt['attempt']}"
            booked.add(call_id)
            intent = simulation.books.intents.get((request_id, attempt["attempt"]))
            if intent is None:
                simulation.violation("I3", f"{call_id} is booked, and was never intended")
                continue
            bound = intent.get("bound_pusd")
            problem = _problem_with(attempt, calls.get(call_id), bound)
            if problem is not None:
                simulation.violation("I2", f"{call_id}: {problem}")
    for call_id in sorted(calls.keys() - booked):
        simulation.violation("I2", f"the call {call_id} is in nobody's books but the provider's")


def _problem_with(attempt: Facts, call: ProviderCall | None, bound_pusd: int | None) -> str | None:
    """What is wrong with an attempt in the books, given what its provider counted."""
    cost = sum(line.get("cost_pusd", 0) for line in attempt.get("lines", ()))
    outcome = attempt["outcome"]
    true_cost = 0 if call is None or call.status >= 300 else _price(call)
    if outcome == "ok":
        if call is None or call.status != 200:
            return "is ok, and was never answered"
        if call.told_usage and cost != true_cost:
            return f"is booked at {cost}, and cost {true_cost}"
        return None
    if outcome == "error":
        if cost or (call is not None and call.status == 200):
            return f"is an error, costs {cost} and was answered {call and call.status}"
        return None
    if bound_pusd is None:
        return None
    if cost > bound_pusd:
        return f"is estimated at {cost}, above its bound {bound_pusd}"
    if true_cost > bound_pusd and call is not None and not call.overran:
        return f"has cost {true_cost}, above its bound {bound_pusd}"
    if outcome == "abandoned" and cost != bound_pusd:
        return f"is abandoned, and not estimated at its bound {bound_pusd} but at {cost}"
    return None


def _check_client(simulation: "Simulation", client: Client) -> None:
    end = simulation.books.ends.get(client.request_id)

    def wrong(rule: str, text: str) -> None:
        simulation.violation(rule, f"client {client.number}: {text}")

    if not client.pieces and not client.done:
        return
    answer = client.answer()
    if not _is_one_answer(client.request_id, answer.text):
        wrong("I7", f"reads {answer.text!r}")
    if client.done and client.status == 200 and not (answer.over or answer.error or client.hung_up):
        wrong("I7", f"has {answer.text!r} for an answer, and it ends there as if that were all")
    if client.told:
        if answer.over:
            wrong("I1", f"has the whole answer, and is told {client.told}")
        return
    if end is None:
        wrong("I1", "was answered, and has no end")
        return
    before = client.answer(-1 if client.done else None)
    if before.over or before.cost_usd is not None:
        wrong("I3", "has the end of its answer before the last piece")
    if not client.done:
        return
    if answer.over != (end["status"] == "completed"):
        wrong("I1", f"answer is over: {answer.over}; the request is {end['status']}")
    if client.status != 200 and client.status != end["http_status"]:
        wrong("I1", f"is told {client.status}; the request ended with {end['http_status']}")
    if end["status"] == "completed":
        if answer.cost_usd is None or answer.cost_usd * PUSD_PER_USD != Decimal(end.get("bill_pusd", 0)):
            wrong("I2", f"is told a cost of {answer.cost_usd} USD; the bill is {end.get('bill_pusd', 0)}")
        call_id = f"{client.request_id}.{end['attempts'][-1]['attempt']}"
        served = next(call for call in simulation.calls if call.call_id == call_id)
        if answer.text != served.text:
            wrong("I7", f"reads {answer.text!r}; the provider wrote {served.text!r}")


def _is_one_answer(request_id: str, text: str) -> bool:
    """Is it how an answer begins, to one of the attempts at this request?"""
    call_id = attempt_id(request_id, attempt_of(text))
    return "".join(words_of(call_id, len(text) // 4 + 1)).startswith(text)


def _attempt_of(call: ProviderCall) -> tuple[str, int]:
    request_id, _, attempt = call.call_id.rpartition(".")
    return request_id, int(attempt)


def _price(call: ProviderCall) -> int:
    input_pusd, output_pusd = PRICES_PUSD[call.provider]
    return call.input_tokens * input_pusd + call.output_tokens * output_pusd
