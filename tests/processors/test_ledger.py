"""The ledger is a fold: twice is once, invalid is nothing, and a checkpoint loses neither."""

from collections.abc import Iterable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tollgate.events import Admitted, AttemptStarted, Candidate, Ended, Event, LeaseGranted, OwnerTook, Request
from tollgate.processors import ledger as ledgers
from tollgate.processors.ledger import Ledger, evolve, forget_full_buckets, restoring, take_checkpoint

PERIOD = "2026-11"


def request(number: int, key: str = "k1") -> Request:
    return Request(
        request_id=f"r{number}", org_id="o", key_id=key, endpoint="/v1/chat/completions", dialect="openai", model="m"
    )


def admitted(
    number: int, *, epoch: int = 0, hold: int | None = 60, key: str = "k1", src: int | None = None
) -> Admitted:
    return Admitted(
        epoch=epoch,
        src=number if src is None else src,
        request=request(number, key),
        subjects=(f"key:{key}",),
        period=PERIOD,
        plan=(Candidate(provider="p", account="a", model="m", bound_pusd=hold),),
        price_version="v",
        hold_pusd=hold,
        rates={f"key:{key}/requests_per_minute": number * 1000},
    )


def ended(number: int, *, epoch: int = 0, bill: int = 20, key: str = "k1") -> Ended:
    return Ended(
        epoch=epoch,
        request=request(number, key),
        status="completed",
        http_status=200,
        period=PERIOD,
        subjects=(f"key:{key}",),
        bill_pusd=bill,
    )


def folded(events: Sequence[Event]) -> Ledger:
    ledger = Ledger(0)
    for offset, event in enumerate(events):
        evolve(ledger, offset, event)
    return ledger


def from_rows(partition: int, rows: dict[str, bytes]) -> Ledger:
    """All steps of the making at once."""
    steps = restoring(partition, rows)
    while True:
        try:
            next(steps)
        except StopIteration as made:
            ledger: Ledger = made.value
            return ledger


def facts(ledger: Ledger) -> tuple[object, ...]:
    """What a ledger says, without what belongs to checkpoints."""
    return (
        ledger.epoch,
        ledger.next_offset,
        ledger.decided,
        {name: msgspec.json.encode(row) for name, row in ledger.open.items()},
        {name: msgspec.json.encode(row) for name, row in ledger.accounts.items()},
        {name: msgspec.json.encode(row) for name, row in ledger.rates.items()},
        ledger.held_pusd,
        ledger.running,
    )


def test_an_admission_holds_and_an_end_frees_the_difference():
    ledger = folded([OwnerTook(instance="a"), admitted(1)])
    assert (ledger.held("key:k1", PERIOD), ledger.spent("key:k1", PERIOD)) == (60, 0)
    evolve(ledger, 2, ended(1))
    assert (ledger.held("key:k1", PERIOD), ledger.spent("key:k1", PERIOD)) == (0, 20)
    assert not ledger.held_pusd
    assert not ledger.running


def test_an_end_counts_once_however_often_it_is_read():
    ledger = folded([OwnerTook(instance="a"), admitted(1), ended(1)])
    for offset, event in enumerate([OwnerTook(instance="a"), admitted(1), ended(1)]):
        evolve(ledger, offset, event)
    assert ledger.spent("key:k1", PERIOD) == 20
    assert not ledger.held_pusd


def test_a_record_of_an_owner_that_was_replaced_changes_nothing():
    ledger = folded([OwnerTook(instance="a"), admitted(1), OwnerTook(instance="b")])
    before = facts(ledger)[2:]
    assert not evolve(ledger, 3, ended(1, epoch=0))
    assert not evolve(ledger, 4, admitted(2, epoch=0))
    assert facts(ledger)[2:] == before


def test_a_later_attempt_is_remembered_with_the_one_before_it():
    ledger = folded([OwnerTook(instance="a"), admitted(1)])
    evolve(ledger, 2, AttemptStarted(epoch=0, request_id="r1", org_id="o", attempt=2))
    assert ledger.open["r1"].attempt == 2


def test_the_highest_decided_offset_counts_admissions_and_refusals():
    refused = msgspec.structs.replace(ended(2, bill=0), src=7, status="rejected")
    assert folded([OwnerTook(instance="a"), admitted(1, src=3), refused]).decided == 7


# A random journal: owners replace each other, zombies write on, requests are admitted and end.
steps = st.lists(
    st.tuples(st.sampled_from(["took", "admit", "attempt", "end", "zombie"]), st.integers(1, 5), st.integers(0, 99)),
    max_size=40,
)


def journal(choices: Sequence[tuple[str, int, int]]) -> list[Event]:
    events: list[Event] = [OwnerTook(instance="first")]
    epoch, old, is_open, number = 0, -1, set[int](), 0
    for kind, pick, amount in choices:
        chosen = sorted(is_open)[pick % len(is_open)] if is_open else None
        if kind == "took":
            old, epoch = epoch, len(events)
            events.append(OwnerTook(instance="next"))
        elif kind == "admit":
            number += 1
            is_open.add(number)
            events.append(admitted(number, epoch=epoch, hold=amount, key=f"k{pick}"))
        elif kind == "attempt" and chosen is not None:
            events.append(AttemptStarted(epoch=epoch, request_id=f"r{chosen}", org_id="o", attempt=pick + 1))
        elif kind == "end" and chosen is not None:
            is_open.remove(chosen)
            key = next(e.request.key_id for e in events if isinstance(e, Admitted) and e.src == chosen)
            events.append(ended(chosen, epoch=epoch, bill=amount, key=key))
        elif kind == "zombie" and chosen is not None:
            events.append(ended(chosen, epoch=old, bill=1_000))
    return events


@given(steps)
def test_spent_is_the_sum_of_valid_ends_and_held_the_sum_of_open_holds(choices):
    events = journal(choices)
    ledger = folded(events)
    valid: list[Event] = []
    epoch = -1
    for offset, event in enumerate(events):
        epoch = offset if isinstance(event, OwnerTook) else epoch
        if getattr(event, "epoch", None) == epoch:
            valid.append(event)
    ends = [event for event in valid if isinstance(event, Ended)]
    assert sum(account.spent_pusd for account in ledger.accounts.values()) == sum(end.bill_pusd for end in ends)
    over = {end.request.request_id for end in ends}
    holds = [e.hold_pusd or 0 for e in valid if isinstance(e, Admitted) and e.request.request_id not in over]
    assert sum(ledger.held_pusd.values()) == sum(holds)


@given(steps, st.data())
def test_a_ledger_from_a_checkpoint_and_the_journal_after_it_is_the_same(choices, data):
    """Rows of several checkpoints, some of them newer than the last mark: what a crash in a checkpoint leaves."""
    events = journal(choices)
    live = Ledger(0)
    stored: dict[str, bytes] = {}
    for offset, event in enumerate(events):
        evolve(live, offset, event)
        action = data.draw(st.sampled_from(["none", "none", "checkpoint", "crash in a checkpoint"]))
        if action == "none":
            continue
        checkpoint = take_checkpoint(live)
        writes = [*sorted(checkpoint.rows.items()), *checkpoint.mark.items(), *sorted(checkpoint.obsolete.items())]
        if action != "checkpoint":
            writes = writes[: data.draw(st.integers(0, len(writes)))]
        write(stored, writes)
        if action != "checkpoint":  # what the process held in memory is gone, and is read again
            live = from_rows(0, stored)
            for past in range(live.next_offset, offset + 1):
                evolve(live, past, events[past])
    recovered = from_rows(0, stored)
    for offset in range(recovered.next_offset, len(events)):
        evolve(recovered, offset, events[offset])
    assert facts(recovered) == facts(folded(events))


@given(steps)
def test_stale_rows_of_a_replaced_owner_do_not_win(choices):
    """The old owner writes its last checkpoint after its successor's: compaction keeps both, recovery the newer."""
    events = journal([*choices, ("took", 1, 1), *choices])
    stale = Ledger(0)
    first_half = next(o for o in range(len(events) - 1, -1, -1) if isinstance(events[o], OwnerTook))
    for offset in range(first_half):
        evolve(stale, offset, events[offset])
    successor = folded(events)
    stored: dict[str, bytes] = {}
    for ledger in (successor, stale):
        checkpoint = take_checkpoint(ledger)
        write(stored, [*checkpoint.rows.items(), *checkpoint.mark.items()])
    assert facts(from_rows(0, stored)) == facts(successor)


def write(stored: dict[str, bytes], rows: Iterable[tuple[str, bytes | None]]) -> None:
    """What compaction keeps of rows that are written one after the other."""
    for name, row in rows:
        stored.pop(name, None)
        if row is not None:
            stored[name] = row


def test_rows_that_no_owner_has_named_are_passed_over():
    ledger = folded([OwnerTook(instance="i"), admitted(1), ended(1)])
    checkpoint = take_checkpoint(ledger)
    stored = {name: row for name, row in {**checkpoint.rows, **checkpoint.mark}.items() if row is not None}
    strange = {"poison": b"x", "account/key:k1@": b"{", "@": b"", "account/key:k1@\ufffd": b"", "@7x": b"1"}

    assert facts(from_rows(0, {**strange, **stored})) == facts(from_rows(0, stored))


def test_where_a_row_cannot_be_read_the_fold_starts_at_the_beginning():
    ledger = folded([OwnerTook(instance="i"), admitted(1), ended(1)])
    checkpoint = take_checkpoint(ledger)
    stored = {name: row for name, row in {**checkpoint.rows, **checkpoint.mark}.items() if row is not None}

    for damage in (b"", b"{", b"[]", b'{"spent_pusd": "\xff"}'):
        recovered = from_rows(0, {**stored, "account/key:k1|2026-11@0": damage})
        assert (recovered.next_offset, recovered.decided, recovered.accounts) == (0, -1, {})


# Limits, and what needs not be read again -----------------------------------------------------------------------------

MINUTE_US = 60_000_000


def test_a_bucket_that_is_full_again_is_forgotten_and_its_row_deleted():
    ledger = folded([OwnerTook(instance="a"), admitted(1, key="k1"), admitted(2, key="k2")])
    names = [f"key:{key}/requests_per_minute" for key in ("k1", "k2")]
    take_checkpoint(ledger)
    forget_full_buckets(ledger, now_us=1_000 + MINUTE_US * 2)
    assert ledger.rates == {}
    rows = take_checkpoint(ledger).rows
    assert [rows[f"rate/{name}@0"] for name in names] == [None, None]


def test_a_bucket_that_is_not_full_is_kept_and_so_is_one_that_may_still_be_taken_from():
    ledger = folded([OwnerTook(instance="a"), admitted(1, key="k1")])
    live = LeaseGranted(epoch=0, limit="global", partition=1, granted=3, tat_us=0, live=((5_000_000, 3),))
    evolve(ledger, 2, live)
    forget_full_buckets(ledger, now_us=500)
    assert len(ledger.rates) == 2
    forget_full_buckets(ledger, now_us=5_000_000 + MINUTE_US)
    assert list(ledger.rates) == ["global"]
    forget_full_buckets(ledger, now_us=5_000_000 + 2 * MINUTE_US)
    assert list(ledger.rates) == []


def test_what_was_leased_is_in_the_checkpoint():
    ledger = folded([OwnerTook(instance="a")])
    evolve(ledger, 1, LeaseGranted(epoch=0, limit="global", partition=1, granted=3, tat_us=7, live=((9, 3),)))
    taken = take_checkpoint(ledger)
    again = from_rows(0, {key: row for key, row in {**taken.rows, **taken.mark}.items() if row is not None})
    assert (again.rates["global"].tat_us, again.rates["global"].live) == (7, ((9, 3),))


def test_the_mark_says_up_to_where_no_event_need_be_given_again():
    ledger = folded([OwnerTook(instance="a"), admitted(1)])
    ledger.handled = 4711
    taken = take_checkpoint(ledger)
    again = from_rows(0, {key: row for key, row in {**taken.rows, **taken.mark}.items() if row is not None})
    assert (again.decided, again.handled) == (1, 4711)


def test_a_ledger_of_many_rows_is_made_in_steps(monkeypatch: pytest.MonkeyPatch):
    checkpoint = take_checkpoint(folded([OwnerTook(instance="a"), *map(admitted, range(20))]))
    rows = {key: row for key, row in checkpoint.rows.items() if row}
    monkeypatch.setattr(ledgers, "ROWS_AT_A_STRETCH", 10)
    assert len(list(restoring(0, rows))) == len(rows) // 10 >= 2
