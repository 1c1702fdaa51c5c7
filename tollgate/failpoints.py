"""Named steps at which tests end the process, to show that the books balance wherever it dies.

In production nothing is installed, and reaching a step costs one comparison.
"""

from collections.abc import Callable

NAMES = (
    "request.appended",  # the ingress: accepted and durable
    "owner.decided",  # in memory only
    "owner.admitted",  # the admission is durable
    "call.before",  # the provider is about to be called
    "call.head",  # its status has come
    "call.first_content",
    "call.answered",  # the whole answer is here, nothing is booked
    "call.next_attempt",  # the next attempt's intent is durable
    "end.appended",  # the end is on its way to the log
    "end.durable",
    "costs.copied",
    "reply.last",  # the last bytes were handed over
    "checkpoint.before",
    "checkpoint.rows",  # rows are durable, the mark is not
    "checkpoint.marked",
    "takeover.took",  # the epoch is durable, open requests are not judged
    "sink.before_write",
    "sink.after_write",
    "sink.after_rename",  # the file has its name, and no record of the manifest names it
    "sink.before_commit",
    "sink.after_commit",
    "compact.after_plan",  # whoever comes next must complete it
    "compact.before_rename",
    "compact.before_commit",
    "compact.after_commit",
)

_hook: Callable[[str], None] | None = None


def install(hook: Callable[[str], None] | None) -> None:
    """Have `hook` called with each step's name; None takes it away. For tests."""
    global _hook
    _hook = hook


def reached(name: str) -> None:
    if _hook is not None:
        _hook(name)
