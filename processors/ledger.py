"""What the journal of one partition adds up to: budgets spent and held, rates, requests that are open.

`evolve` is the only function that changes it, record by record, in offset order. Any prefix may be folded twice: each
row remembers the journal offset that it includes, and a record at or below it changes nothing there. So a checkpoint
needs no transaction: rows may be newer than the mark that names where to fold on from.

Pure: no clock, no I/O. The state is mutated in place, because copying it for every event would cost more than the call.
"""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from tollgate.events import (
    Admitted,
    Attempt,
    AttemptStarted,
    Ended,
    Event,
    LeaseGranted,
    OwnerBeat,
    OwnerReleased,
    OwnerTook,
)

MARK = "mark"
REFILL_US = 62_000_000  # a minute refills any bucket; its interval is rounded up to a whole microsecond
ROWS_AT_A_STRETCH = 2_000  # of a checkpoint, within some milliseconds


class Account(msgspec.Struct, omit_defaults=True, gc=False):
    """One subject in one period. Nothing is ever set back to zero: a new period is a new account."""

    spent_pusd: int = 0
    requests: int = 0
    offset: int = -1


class Rate(msgspec.Struct, omit_defaults=True, gc=False):
    """One rate limit: the theoretical arrival time of its next request, in Unix microseconds.

    `live` is of one that is leased to other partitions: when each lease ends that is not over, and its units.
    """

    tat_us: int = 0
    live: tuple[tuple[int, int], ...] = ()
    offset: int = -1


class OpenRequest(msgspec.Struct, omit_defaults=True):
    """A request that was admitted and has not ended; `attempt` is the one whose intent is in the journal.

    It runs on `plan[choice]`. `runner` is the address of the process that runs it but owns the partition no more.
    """

    admitted: Admitted
    attempt: int = 1
    choice: int = 0
    runner: str = ""
    previous: tuple[Attempt, ...] = ()
    offset: int = -1


class Mark(msgspec.Struct):
    """Everything below `journal` is in the rows; `decided` is the highest accepted request decided there.

    No event of `requests` up to `handled` needs to be given again.
    """

    journal: int
    decided: int
    handled: int = -1


_Row = TypeVar("_Row", Account, Rate, OpenRequest)


@dataclass
class Ledger:
    """The state of one partition."""

    partition: int
    epoch: int = -1
    next_offset: int = 0  # of the journal
    decided: int = -1  # highest offset of `requests` that a valid record decided
    handled: int = -1  # what the mark says: beats and questions lie behind the last decision, perhaps by thousands
    open: dict[str, OpenRequest] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    rates: dict[str, Rate] = field(default_factory=dict)
    held_pusd: dict[str, int] = field(default_factory=dict)  # by account; the sum over open requests
    running: dict[str, int] = field(default_factory=dict)  # by subject; the number of open requests
    dirty: set[str] = field(default_factory=set)  # rows changed since the last checkpoint
    written: dict[str, int] = field(default_factory=dict)  # the epoch under which each row was last written

    def spent(self, subject: str, period: str) -> int:
        account = self.accounts.get(account_key(subject, period))
        return account.spent_pusd if account else 0

    def tat_us(self, limit: str) -> int:
        """The theoretical arrival time of the limit's next request; 0 where there was none."""
        rate = self.rates.get(limit)
        return rate.tat_us if rate else 0

    def held(self, subject: str, period: str) -> int:
        return self.held_pusd.get(account_key(subject, period), 0)


def account_key(subject: str, period: str) -> str:
    return f"{subject}|{period}"


def evolve(ledger: Ledger, offset: int, event: Event) -> bool:
    """Apply the journal record at `offset`. True when it was valid, that is, written by the owner of its time.

    A record is valid iff its epoch is the offset of the last `OwnerTook` before it in the partition.
    """
    ledger.next_offset = max(ledger.next_offset, offset + 1)
    match event:
        case OwnerTook():
            if offset > ledger.epoch:
                ledger.epoch = offset
                ledger.dirty.update(f"open/{request_id}" for request_id in ledger.open)
            return True
        case Admitted() if event.epoch == ledger.epoch:
            _admit(ledger, offset, event)
            return True
        case AttemptStarted() if event.epoch == ledger.epoch:
            _start_attempt(ledger, offset, event)
            return True
        case Ended() if event.epoch == ledger.epoch:
            _end(ledger, offset, event)
            return True
        case LeaseGranted() if event.epoch == ledger.epoch:
            _count(ledger, offset, event.limit, event.tat_us, event.live)
            return True
        case OwnerReleased() if event.epoch == ledger.epoch:
            _release(ledger, offset, event)
            return True
        case OwnerBeat() if event.epoch == ledger.epoch:
            return True
        case _:
            return False


def _admit(ledger: Ledger, offset: int, event: Admitted) -> None:
    ledger.decided = max(ledger.decided, event.src)
    request_id = event.request.request_id
    if request_id not in ledger.open:
        ledger.open[request_id] = OpenRequest(admitted=event, offset=offset)
        _hold(ledger, event, sign=1)
        ledger.dirty.add(f"open/{request_id}")
    for subject in event.subjects:
        key = account_key(subject, event.period)
        account = ledger.accounts.setdefault(key, Account())
        if account.offset < offset:
            account.requests += 1
            account.offset = offset
            ledger.dirty.add(f"account/{key}")
    for limit, tat_us in event.rates.items():
        _count(ledger, offset, limit, tat_us)


def _count(ledger: Ledger, offset: int, limit: str, tat_us: int, live: tuple[tuple[int, int], ...] = ()) -> None:
    rate = ledger.rates.setdefault(limit, Rate())
    if rate.offset < offset:
        rate.tat_us, rate.live, rate.offset = tat_us, live, offset
        ledger.dirty.add(f"rate/{limit}")


def _start_attempt(ledger: Ledger, offset: int, event: AttemptStarted) -> None:
    request = ledger.open.get(event.request_id)
    if request is None or request.offset >= offset:
        return
    request.attempt = event.attempt
    request.choice = event.attempt - 1 if event.choice is None else event.choice
    request.runner = ""
    if event.previous is not None:
        request.previous = (*request.previous, event.previous)
    request.offset = offset
    ledger.dirty.add(f"open/{event.request_id}")


def _release(ledger: Ledger, offset: int, event: OwnerReleased) -> None:
    for running in event.running:
        request = ledger.open.get(running.request_id)
        if request is not None and request.offset < offset:
            request.runner = running.runner
            request.offset = offset
            ledger.dirty.add(f"open/{running.request_id}")


def _end(ledger: Ledger, offset: int, event: Ended) -> None:
    if event.src is not None:
        ledger.decided = max(ledger.decided, event.src)
    request_id = event.request.request_id
    request = ledger.open.pop(request_id, None)
    if request is not None:
        _hold(ledger, request.admitted, sign=-1)
        ledger.dirty.add(f"open/{request_id}")
    for subject in event.subjects:
        key = account_key(subject, event.period)
        account = ledger.accounts.setdefault(key, Account())
        if account.offset < offset:
            account.spent_pusd += event.bill_pusd
            account.offset = offset
            ledger.dirty.add(f"account/{key}")


def forget_full_buckets(ledger: Ledger, now_us: int) -> None:
    """Drop the limits whose bucket is full again: one that is not there is full. End users may have any number."""
    for limit, rate in list(ledger.rates.items()):
        lent_us = max((until_us for until_us, _ in rate.live), default=0)
        if rate.tat_us <= now_us and lent_us + REFILL_US <= now_us:
            del ledger.rates[limit]
            ledger.dirty.add(f"rate/{limit}")


def shift(ledger: Ledger, first: int, distance: int) -> None:
    """Records from offset `first` on landed `distance` further than they were expected to: correct what remembers it.

    Records of a writer that was replaced came between. They are not valid, so nothing but the offsets changes.
    """
    tables: tuple[tuple[str, Mapping[str, Account | Rate | OpenRequest]], ...] = (
        ("account", ledger.accounts),
        ("rate", ledger.rates),
        ("open", ledger.open),
    )
    for kind, table in tables:
        for key, row in table.items():
            if row.offset >= first:
                row.offset += distance
                ledger.dirty.add(f"{kind}/{key}")
    ledger.next_offset += distance


def _hold(ledger: Ledger, event: Admitted, *, sign: int) -> None:
    for subject in event.subjects:
        _add(ledger.running, subject, sign)
        if event.hold_pusd:
            _add(ledger.held_pusd, account_key(subject, event.period), sign * event.hold_pusd)


def _add(sums: dict[str, int], key: str, amount: int) -> None:
    total = sums.get(key, 0) + amount
    if total:
        sums[key] = total
    else:
        sums.pop(key, None)


# The checkpoint: rows by name, and the mark ---------------------------------------------------------------------------
#
# A row's key ends in the epoch of its writer, `account/key:k1|2026-11@4711`. A writer that was replaced without knowing
# may still write rows, later than its successor; were the keys the same, compaction would keep the stale row. So the
# newest row of each name counts, except that an open request counts only under the mark's own epoch, because a
# successor cannot delete what is written after it: it writes all that are open anew instead.
_OWN_MARK = f"{MARK}@"


class Checkpoint(msgspec.Struct, frozen=True):
    """What to write, in three steps, each durable before the next: changed rows (None: gone), the mark that says how
    far they go, and then, now that the mark makes them worthless, the rows of earlier writers to be deleted.
    """

    rows: dict[str, bytes | None]
    mark: dict[str, bytes | None]
    obsolete: dict[str, bytes | None]


def take_checkpoint(ledger: Ledger) -> Checkpoint:
    """The rows changed since the last call, as they are at this instant. Clears the list of them."""
    tables: Mapping[str, Mapping[str, object]] = {
        "account": ledger.accounts,
        "rate": ledger.rates,
        "open": ledger.open,
    }
    rows: dict[str, bytes | None] = {}
    obsolete: dict[str, bytes | None] = {}
    for name in (*ledger.dirty, MARK):
        written = ledger.written.pop(name, ledger.epoch)
        if written != ledger.epoch:
            obsolete[f"{name}@{written}"] = None
        kind, _, key = name.partition("/")
        row = tables[kind].get(key) if name != MARK else _mark(ledger)
        if row is not None:
            ledger.written[name] = ledger.epoch
        rows[f"{name}@{ledger.epoch}"] = None if row is None else msgspec.json.encode(row)
    ledger.dirty.clear()
    mark = {f"{MARK}@{ledger.epoch}": rows.pop(f"{MARK}@{ledger.epoch}")}
    return Checkpoint(rows=rows, mark=mark, obsolete=obsolete)


def _mark(ledger: Ledger) -> Mark:
    return Mark(journal=ledger.next_offset, decided=ledger.decided, handled=ledger.handled)


def put_back(ledger: Ledger, checkpoint: Checkpoint) -> None:
    """The checkpoint was not written to its end: its rows are changed rows still, or the next mark would claim them."""
    ledger.dirty.update(key.rpartition("@")[0] for key in checkpoint.rows)
    for key in checkpoint.obsolete:
        name, _, epoch = key.rpartition("@")
        ledger.written[name] = int(epoch)


def restoring(partition: int, rows: Mapping[str, bytes]) -> Generator[None, None, Ledger]:
    """The ledger that a checkpoint describes; `next_offset` is where the fold of the journal goes on.

    Rows may be newer than the mark, and the mark may be missing (then the fold starts at the journal's beginning).
    So it does where a row cannot be read. Rows that no owner has named are passed over.

    Made in steps: a million rows take seconds, in which others must have their turn.
    """
    try:
        return (yield from _restoring(partition, rows))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Ledger(partition)


def _restoring(partition: int, rows: Mapping[str, bytes]) -> Generator[None, None, Ledger]:
    marks = [_epoch(key.rpartition("@")[2]) for key in rows if key.startswith(_OWN_MARK)]
    ledger = Ledger(partition, epoch=max(marks, default=-1))
    epochs: dict[str, int] = {}  # as they are written: there are few, and many rows
    for number, (row_key, row) in enumerate(rows.items(), start=1):
        if number % ROWS_AT_A_STRETCH == 0:
            yield
        name, _, written = row_key.rpartition("@")
        epoch = epochs.get(written, -1)
        if epoch < 0:
            epoch = epochs[written] = _epoch(written)
        if epoch < 0 or not name:
            continue
        kind, _, key = name.partition("/")
        if kind == MARK and epoch == ledger.epoch:
            mark = msgspec.json.decode(row, type=Mark)
            ledger.next_offset, ledger.decided, ledger.handled = mark.journal, mark.decided, mark.handled
            ledger.written[MARK] = epoch
        elif kind == "account":
            _keep_newer(ledger, ledger.accounts, name, key, _read_account(row), epoch)
        elif kind == "rate":
            _keep_newer(ledger, ledger.rates, name, key, _read_rate(row), epoch)
        elif kind == "open" and epoch >= ledger.epoch:
            _keep_newer(ledger, ledger.open, name, key, _read_open(row), epoch)
    for request in ledger.open.values():
        _hold(ledger, request.admitted, sign=1)
    return ledger


def _epoch(digits: str) -> int:
    """Of a row's key; -1 for one that no owner has named."""
    return int(digits) if digits.isascii() and digits.isdecimal() else -1


_read_account = msgspec.json.Decoder(Account).decode
_read_rate = msgspec.json.Decoder(Rate).decode
_read_open = msgspec.json.Decoder(OpenRequest).decode


def _keep_newer(ledger: Ledger, table: dict[str, _Row], name: str, key: str, row: _Row, epoch: int) -> None:
    known = table.get(key)
    if known is None or row.offset > known.offset:
        table[key] = row
        ledger.written[name] = epoch
