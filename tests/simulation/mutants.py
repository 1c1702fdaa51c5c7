"""Bugs, put in on purpose: a simulation that does not find them would not find theirs either.

Each leaves out or turns around one rule of the protocol, in this process only, for as long as its context lasts.
"""

import asyncio
from collections.abc import Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from tests.simulation import log, processing
from tollgate.events import Admitted, AttemptStarted, Ended, Event
from tollgate.processors import call, journal, ledger, owner
from tollgate.processors.admit import period_of
from tollgate.processors.journal import WriteRows
from tollgate.processors.ledger import Ledger
from tollgate.processors.owner import Owner

Mutant = Callable[[], Any]  # a context manager
MUTANTS: dict[str, Mutant] = {}


def _mutant(function: Callable[[], Iterator[Any]]) -> Callable[[], Iterator[Any]]:
    manager = contextmanager(function)
    MUTANTS[function.__name__] = manager
    return function


# Money ----------------------------------------------------------------------------------------------------------------


@_mutant
def a_settlement_is_dropped() -> Iterator[Any]:
    """The hold is released, the bill is not added."""
    end = ledger._end
    with patch.object(
        ledger, "_end", lambda books, at, event: end(books, at, msgspec.structs.replace(event, bill_pusd=0))
    ):
        yield


@_mutant
def a_hold_is_released_twice() -> Iterator[Any]:
    end = ledger._end

    def end_and_release(books: Ledger, offset: int, event: Ended) -> None:
        request = books.open.get(event.request.request_id)
        end(books, offset, event)
        if request is not None:
            ledger._hold(books, request.admitted, sign=-1)

    with patch.object(ledger, "_end", end_and_release):
        yield


@_mutant
def holds_do_not_count() -> Iterator[Any]:
    """A budget is compared with what is spent, not with what may still be."""
    with patch.object(Ledger, "held", lambda *_: 0):
        yield


@_mutant
def a_bill_may_exceed_its_hold() -> Iterator[Any]:
    bill = call.bill
    with patch.object(call, "bill", lambda lines, hold: bill(lines, None)):
        yield


@_mutant
def a_bill_goes_to_the_month_of_its_end() -> Iterator[Any]:
    """The period is the present one, and not the one that was named when the hold was placed."""
    append = Owner._append

    def append_now(self: Owner, event: Event) -> "asyncio.Future[Any]":
        if isinstance(event, Ended) and event.src is None:
            event = msgspec.structs.replace(event, period=period_of(self._world.now_ms()))
        return append(self, event)

    with patch.object(Owner, "_append", append_now):
        yield


@_mutant
def decisions_go_by_the_wall_clock() -> Iterator[Any]:
    """Another clock than the log's, which never goes back."""
    decide = Owner._decide

    def decide_now(self: Owner, *args: Any) -> None:
        self._now_ms = self._world.now_ms()
        decide(self, *args)

    with patch.object(Owner, "_decide", decide_now):
        yield


# Order ----------------------------------------------------------------------------------------------------------------


@_mutant
def the_answer_leaves_before_it_is_booked() -> Iterator[Any]:
    async def end(self: Owner, request: Any, ending: Any, last: Any) -> bool:
        self._append_end(request, ending)
        return True

    with patch.object(Owner, "end", end):
        yield


@_mutant
def the_call_is_made_before_its_intent_is_durable() -> Iterator[Any]:
    append = Owner._append

    def append_and_go_on(self: Owner, event: Event) -> "asyncio.Future[Any]":
        appended = append(self, event)
        if not isinstance(event, Admitted | AttemptStarted):
            return appended
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    with patch.object(Owner, "_append", append_and_go_on):
        yield


@_mutant
def an_end_is_written_twice() -> Iterator[Any]:
    append = Owner._append

    def append_again(self: Owner, event: Event) -> "asyncio.Future[Any]":
        if isinstance(event, Ended):
            append(self, event)
        return append(self, event)

    with patch.object(Owner, "_append", append_again):
        yield


# Who writes, and what counts ------------------------------------------------------------------------------------------


@_mutant
def every_record_is_valid() -> Iterator[Any]:
    """What a replaced owner says counts like anything else."""
    evolve = ledger.evolve

    def evolve_all(books: Ledger, offset: int, event: Event) -> bool:
        if hasattr(event, "epoch"):
            event = msgspec.structs.replace(event, epoch=books.epoch)
        return evolve(books, offset, event)

    with patch.object(owner, "evolve", evolve_all), patch.object(journal, "evolve", evolve_all):
        yield


@_mutant
def a_replaced_owner_goes_on() -> Iterator[Any]:
    """Where somebody has written in between, it is not looked whether that was a take-over."""
    with patch.object(journal, "OwnerTook", Ended):
        yield


@_mutant
def a_gap_is_not_looked_into() -> Iterator[Any]:
    """A record that lands further on than expected is taken for one that landed where it should."""

    async def nothing_to_explain(self: Owner, expected: int, actual: int) -> None:
        self._flying[0].expected = actual

    with patch.object(Owner, "_explain", nothing_to_explain):
        yield


@_mutant
def rows_keep_the_offsets_that_were_expected() -> Iterator[Any]:
    """Records of a former owner came between, so that its successor's landed further on."""

    def shift_the_next(books: Ledger, first: int, distance: int) -> None:
        books.next_offset += distance

    with patch.object(journal, "shift", shift_the_next):
        yield


@_mutant
def there_is_no_watermark() -> Iterator[Any]:
    """A request that was decided already is decided again when it is delivered again."""
    receive = Owner.receive

    def receive_again(self: Owner, *args: Any) -> Awaitable[None] | None:
        decided, self.ledger.decided = self.ledger.decided, -1
        try:
            return receive(self, *args)
        finally:
            self.ledger.decided = max(decided, self.ledger.decided)

    with patch.object(Owner, "receive", receive_again):
        yield


@_mutant
def the_next_owner_reads_on_from_the_end() -> Iterator[Any]:
    """As a consumer does that trusts another position than the journal's: what is not decided yet is passed over."""
    take_over = Owner.take_over

    async def take_over_at_end(self: Owner, rows: Any) -> int:
        await take_over(self, rows)
        return len(self._world.log._log.records("requests"))

    with patch.object(Owner, "take_over", take_over_at_end):
        yield


# The checkpoint, and what it covers -----------------------------------------------------------------------------------


@_mutant
def rows_have_no_offset() -> Iterator[Any]:
    """A row does not say which records it includes, so that the fold adds them once more."""
    restoring = ledger.restoring

    def restoring_without(partition: int, rows: Any) -> Generator[None, None, Ledger]:
        books = yield from restoring(partition, rows)
        for row in (*books.accounts.values(), *books.rates.values(), *books.open.values()):
            row.offset = -1
        return books

    with patch.object(owner, "restoring", restoring_without):
        yield


@_mutant
def the_mark_is_written_before_the_rows() -> Iterator[Any]:
    checkpoint = Owner.checkpoint

    async def mark_first(self: Owner, write_rows: WriteRows) -> None:
        steps: list[Mapping[str, bytes | None]] = []

        async def write(rows: Mapping[str, bytes | None]) -> None:
            steps.append(rows)
            for step in {1: (), 2: (steps[-1], steps[0])}.get(len(steps), (rows,)):
                await write_rows(step)

        await checkpoint(self, write)

    with patch.object(Owner, "checkpoint", mark_first):
        yield


@_mutant
def obsolete_rows_are_deleted_before_the_mark() -> Iterator[Any]:
    take_checkpoint = ledger.take_checkpoint

    def take_all_at_once(books: Ledger) -> ledger.Checkpoint:
        taken = take_checkpoint(books)
        return ledger.Checkpoint(rows={**taken.obsolete, **taken.rows}, mark=taken.mark, obsolete={})

    with patch.object(journal, "take_checkpoint", take_all_at_once):
        yield


@_mutant
def rows_are_written_before_the_journal_is_durable() -> Iterator[Any]:
    checkpoint = Owner.checkpoint

    async def checkpoint_now(self: Owner, write_rows: WriteRows) -> None:
        last, self._last = self._last, None
        try:
            await checkpoint(self, write_rows)
        finally:
            self._last = self._last or last

    with patch.object(Owner, "checkpoint", checkpoint_now):
        yield


@_mutant
def a_cancelled_checkpoint_forgets_its_rows() -> Iterator[Any]:
    with patch.object(journal, "put_back", lambda *_: None):
        yield


@_mutant
def row_names_have_no_epoch() -> Iterator[Any]:
    """One name for the rows of all writers: the last one to write it wins, be it a replaced one."""
    write_rows_to, rows = processing.write_rows_to, log.SimLog.rows

    def write_nameless(process_log: log.ProcessLog) -> Callable[[int, Mapping[str, bytes | None]], Awaitable[None]]:
        write = write_rows_to(process_log)

        async def write_rows(partition: int, changed: Mapping[str, bytes | None]) -> None:
            named = [(*name.rsplit("@", 1), value) for name, value in changed.items()]
            epochs = [process_log.epoch_of_rows, *(int(epoch) for _, epoch, _ in named)]
            present = process_log.epoch_of_rows = max(epochs)
            await write(
                partition,
                {
                    f"{name}@": None if value is None else b"%d@%s" % (present, value)
                    for name, epoch, value in named
                    if int(epoch) == present
                },
            )

        return write_rows

    def read_nameless(self: log.SimLog) -> dict[str, bytes]:
        return {name + value.split(b"@", 1)[0].decode(): value.split(b"@", 1)[1] for name, value in rows(self).items()}

    with (
        patch.object(processing, "write_rows_to", write_nameless),
        patch.object(log.ProcessLog, "epoch_of_rows", -1, create=True),
        patch.object(log.SimLog, "rows", read_nameless),
    ):
        yield


@_mutant
def a_take_over_copies_no_cost_lines() -> Iterator[Any]:
    copy = Owner._copy_costs

    def copy_own(self: Owner, event: Event, offset: int) -> None:
        if self._last is not None:  # it has written: this is no record that it reads at its beginning
            copy(self, event, offset)

    with patch.object(Owner, "_copy_costs", copy_own):
        yield


@_mutant
def a_checkpoint_does_not_wait_for_copies() -> Iterator[Any]:
    checkpoint = Owner.checkpoint

    async def checkpoint_now(self: Owner, write_rows: WriteRows) -> None:
        copies, self._copies = self._copies, set()
        try:
            await checkpoint(self, write_rows)
        finally:
            self._copies |= copies

    with patch.object(Owner, "checkpoint", checkpoint_now):
        yield


@_mutant
def a_closing_owner_does_not_wait_for_its_admissions() -> Iterator[Any]:
    """What was admitted last becomes a call when nobody is there any more to end it."""

    async def close_at_once(self: Owner, reason: str) -> None:
        self._closed = True
        for running in list(self._calls.values()):
            running.cancel(reason)
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._landed_so_far()

    with patch.object(Owner, "close", close_at_once):
        yield
