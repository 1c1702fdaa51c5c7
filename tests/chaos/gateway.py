"""The real `tollgate` command, as a process in which a bug can be planted, or that ends at a named step.

Unlike that of `tests.crash.gateway` it keeps the hours of a real one.
"""

import os
import sys

from tests.chaos.bugs import BY_NAME
from tests.crash.gateway import FAILPOINT, SEEDED_BUG, arm
from tollgate.app import cli


def main() -> int:
    if step := os.environ.get(FAILPOINT):
        arm(step)
    if bug := os.environ.get(SEEDED_BUG):
        BY_NAME[bug]()
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
