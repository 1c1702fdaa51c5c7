"""The real `tollgate` command, as a process that a test can end at a named step, hurry, or spoil with a known bug.

    python -m tests.crash.gateway serve --port 8080

`TOLLGATE_TEST_FAILPOINT=owner.admitted:3` has the process kill itself when it reaches that step for the third time;
`TOLLGATE_SEEDED_BUG=append_twice` plants one of `tests.crash.bugs`. All of it is put in from outside, here, so that
the program itself has no switch that only tests would turn.
"""

import os
import signal
import sys

from tests.crash.bugs import BY_NAME, replace
from tollgate import failpoints
from tollgate.app import cli
from tollgate.app import gateway as stages
from tollgate.processors import partitions
from tollgate.sinks import compact
from tollgate.sinks.sink import Sink

FAILPOINT = "TOLLGATE_TEST_FAILPOINT"
SEEDED_BUG = "TOLLGATE_SEEDED_BUG"


def main() -> int:
    hurry()
    if step := os.environ.get(FAILPOINT):
        arm(step)
    if bug := os.environ.get(SEEDED_BUG):
        BY_NAME[bug]()
    return cli.main()


def hurry() -> None:
    """Have all that happens every few seconds happen several times a second: lives are short here."""
    replace(partitions, "CHECKPOINT_S", lambda _: 0.15)
    replace(stages, "MAINTAIN_S", lambda _: 0.4)
    replace(compact, "MERGE_FILES", lambda _: 4)
    replace(Sink.__init__, "__kwdefaults__", lambda usual: usual | {"flush_s": 0.15, "tidy_s": 0.3})


def arm(step: str) -> None:
    """Kill this process when it reaches the step in `name:count` for the count-th time. Raises for an unknown name."""
    name, _, count = step.partition(":")
    if name not in failpoints.NAMES:
        raise ValueError(f"{FAILPOINT}: there is no step {name!r}")
    left = int(count or 1)

    def reached(reached_name: str) -> None:
        nonlocal left
        if reached_name == name:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    failpoints.install(reached)


if __name__ == "__main__":
    sys.exit(main())
