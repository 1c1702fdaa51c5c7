"""Bugs to be planted in a gateway, each of a kind that would falsify the books: the checker must find every one.

Each function changes the running program from outside, in a process of its own. What it replaces must exist, so that
a bug which has lost its place in the code fails loudly instead of planting nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace as with_fields

from tollgate.events import Ended
from tollgate.processors import ledger, owner
from tollgate.processors.call import Call
from tollgate.processors.owner import Owner
from tollgate.sinks import fold, rows
from tollgate.sinks.fold import Fold

EVERY = 5  # so many times it is done right, once it is not
BOOKING_DELAY_S = 0.25


def replace(place: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Put `make(what is there)` in the place of `name`. Raises `AttributeError` when nothing is there."""
    setattr(place, name, make(getattr(place, name)))


def every(count: int) -> Callable[[], bool]:
    """A function that is true each `count`-th time."""
    calls = 0

    def is_due() -> bool:
        nonlocal calls
        calls += 1
        return calls % count == 0

    return is_due


def drop_a_settle() -> None:
    """The client has its answer, and the end is never written."""
    is_due = every(EVERY)

    def make(end: Any) -> Any:
        async def forgetful(self: Owner, *arguments: Any) -> bool:
            return is_due() or await end(self, *arguments)

        return forgetful

    replace(Owner, "end", make)


def forget_what_was_spent() -> None:
    """The end is written, and the budget does not hear of it."""
    replace(
        ledger, "_end", lambda end: lambda state, offset, event: end(state, offset, with_fields(event, bill_pusd=0))
    )


def leak_a_hold() -> None:
    """What a request held stays held when it has ended."""

    def make(hold: Any) -> Any:
        def only_take(state: Any, event: Any, *, sign: int) -> None:
            if sign > 0:
                hold(state, event, sign=sign)

        return only_take

    replace(ledger, "_hold", make)


def append_twice() -> None:
    """A valid end is written two times."""
    is_due = every(EVERY)

    def make(append: Any) -> Any:
        def repeated(self: Owner, event: Any) -> Any:
            if isinstance(event, Ended) and is_due():
                append(self, event)
            return append(self, event)

        return repeated

    replace(Owner, "_append", make)


def skip_validity_in_the_sink() -> None:
    """Rows are made of what a writer said after it was replaced."""
    replace(fold, "valid", lambda valid: lambda epoch, event: True)
    replace(rows, "valid_epochs", lambda valid_epochs: lambda said, in_force: valid_epochs(said, said))


def skip_validity_in_the_owner() -> None:
    """Decisions rest on what a writer said after it was replaced."""

    def make(evolve: Any) -> Any:
        def credulous(state: Any, offset: int, event: Any) -> bool:
            if hasattr(event, "epoch"):
                event = with_fields(event, epoch=state.epoch)
            return bool(evolve(state, offset, event))

        return credulous

    replace(owner, "evolve", make)


def skip_the_watermark() -> None:
    """What is delivered again is decided again."""

    def make(take_over: Any) -> Any:
        async def from_the_beginning(self: Owner, rows: Any) -> int:
            await take_over(self, rows)
            self.ledger.decided = -1
            return 0

        return from_the_beginning

    replace(Owner, "take_over", make)


def lose_an_ack() -> None:
    """What was delivered counts as done, so that a restart goes on behind what nobody has decided."""

    def make(take_over: Any) -> Any:
        async def behind_everything(self: Owner, rows: Any) -> int:
            offset: int = await take_over(self, rows)
            ends = await self._world.log.ends("requests")
            return max(offset, ends[self.partition])

        return behind_everything

    replace(Owner, "take_over", make)


def double_a_row() -> None:
    """The sink writes the rows of one record two times."""
    is_due = every(EVERY)

    def make(take: Any) -> Any:
        def repeated(self: Fold, cursor: Any, record: Any, value: bytes) -> None:
            take(self, cursor, record, value)
            if b'"ended.' in value and is_due():
                take(self, cursor, record, value)

        return repeated

    replace(Fold, "_take_journal", make)


def answer_before_booking() -> None:
    """The last bytes leave, and the end is written a little later."""

    def make(_: Any) -> Any:
        async def late(self: Owner, request: Any, ending: Any, *rest: Any) -> bool:
            asyncio.get_running_loop().call_later(BOOKING_DELAY_S, self._append_end, request, ending)
            return True

        return late

    replace(Owner, "end", make)


def forget_a_cost_line() -> None:
    """The last cost line of a call is left out of its end."""
    is_due = every(EVERY)

    def make(lines: Any) -> Any:
        def shortened(self: Call, *arguments: Any) -> Any:
            all_lines = lines(self, *arguments)
            return all_lines[:-1] if is_due() else all_lines

        return shortened

    replace(Call, "_lines", make)


def forget_a_copy() -> None:
    """Cost lines in the journal are not copied to `costs`."""
    is_due = every(EVERY)

    def make(copy: Any) -> Any:
        def forgetful(self: Owner, event: Any, offset: int) -> None:
            if not (isinstance(event, Ended) and is_due()):
                copy(self, event, offset)

        return forgetful

    replace(Owner, "_copy_costs", make)


def lose_a_piece() -> None:
    """A piece of a stream does not reach the client."""
    is_due = every(EVERY)

    def make(forward: Any) -> Any:
        def forgetful(self: Call, ready: bytes) -> None:
            if self._seq == 0 or not is_due():
                forward(self, ready)

        return forgetful

    replace(Call, "_forward", make)


def call_without_intent() -> None:
    """A fallback is called, and the journal has not named it before."""

    def make(_: Any) -> Any:
        async def silent(self: Owner, *arguments: Any) -> bool:
            return True

        return silent

    replace(Owner, "start_attempt", make)


# Each bug, and the promise that the checker must find broken
BUGS: dict[Callable[[], None], str] = {
    drop_a_settle: "I1",
    forget_what_was_spent: "I4",
    leak_a_hold: "I5",
    append_twice: "I1",
    skip_validity_in_the_sink: "I2",
    skip_validity_in_the_owner: "I1",
    skip_the_watermark: "I1",
    lose_an_ack: "I1",
    double_a_row: "I2",
    answer_before_booking: "I1",
    forget_a_cost_line: "I2",
    forget_a_copy: "I2",
    lose_a_piece: "I7",
    call_without_intent: "I3",
}
BY_NAME = {bug.__name__: bug for bug in BUGS}
