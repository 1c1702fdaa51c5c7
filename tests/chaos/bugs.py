"""Bugs that only a gateway of several processes can have, to be planted in all of them: each must be found.

As in `tests.crash.bugs`, each changes the running program from outside, in a process of its own.
"""

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace as with_fields

from tests.crash import bugs
from tests.crash.bugs import replace
from tollgate.events import OwnerReleased, RequestAccepted
from tollgate.processors import journal, owner
from tollgate.processors.owner import Owner
from tollgate.processors.succession import Succession


class _NoRecord:
    """What no record is."""


def no_fence() -> None:
    """A writer that was replaced takes what its successor wrote for something that does not concern it."""
    replace(journal, "OwnerTook", lambda _: _NoRecord)


def no_probe() -> None:
    """A new owner takes it for granted that the client still waits, and has been given nothing."""

    def make(_: Any) -> Any:
        def credulous(self: Succession, request: Any) -> None:
            self._heir.resume(request, None)

        return credulous

    replace(Succession, "_ask", make)


def no_hand_over() -> None:
    """An owner that stops does not say which calls run on."""

    def make(append: Any) -> Any:
        def silent(self: Owner, event: Any) -> Any:
            return append(self, with_fields(event, running=()) if isinstance(event, OwnerReleased) else event)

        return silent

    replace(Owner, "_append", make)


def an_orphan_is_forgotten() -> None:
    """What a dead owner left open is nobody's business."""
    replace(Succession, "begin", lambda begin: lambda self, requests, epoch: begin(self, [], epoch))


def a_lost_call_costs_nothing() -> None:
    """The call of a dead process is booked as if its provider had not been asked."""
    replace(owner, "lost_attempt", lambda lost: lambda request: with_fields(lost(request), outcome="error", lines=()))


def what_the_log_takes_late_counts() -> None:
    """A request is called though its client was told to try again before the log had it."""

    def make(decode: Any) -> Any:
        def as_timely(value: bytes) -> Any:
            event = decode(value)
            return with_fields(event, void_after_ms=0) if isinstance(event, RequestAccepted) else event

        return as_timely

    replace(owner, "decode", make)


# Each bug, the fault under which it must show, and the promise that is then broken
BUGS: dict[Callable[[], None], tuple[str, str]] = {
    no_fence: ("owning_worker_frozen", "I3"),
    no_probe: ("worker_killed", "I1"),
    no_hand_over: ("rolling_restart", "second call"),
    an_orphan_is_forgotten: ("worker_killed", "I1"),
    a_lost_call_costs_nothing: ("worker_killed", "I2"),
    what_the_log_takes_late_counts: ("ingress_cut_off", "I1"),
    bugs.lose_an_ack: ("worker_killed", "I1"),
    bugs.skip_validity_in_the_sink: ("owning_worker_frozen", "I2"),
}
BY_NAME = {bug.__name__: bug for bug in BUGS}
