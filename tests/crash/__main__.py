"""Kill a gateway as often as you like, and see whether the books balance.

    python -m tests.crash --kills 200 --seed 7

Everything is made in a temporary folder, which is kept, and named, when something is wrong. Exit code 1 then.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.crash.checker import Report
from tests.crash.kills import Kill, random_kills
from tests.crash.provider import a_provider


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="how often it is killed (default: 20)")
    parser.add_argument("--seed", type=int, default=1, help="of chance: which requests, which moments (default: 1)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tollgate-crash-"))
    console = Console()
    table = Table("kill", "after", "requests", "violations", title=f"seed {arguments.seed}")

    def on_kill(kill: Kill) -> None:
        wrong = len(kill.report.violations)
        table.add_row(str(kill.number), f"{kill.after_s:.2f} s", str(kill.requests), str(wrong) if wrong else "none")

    async def run() -> Report:
        return await random_kills(
            folder / "gateway", provider, kills=arguments.kills, seed=arguments.seed, on_kill=on_kill
        )

    with a_provider(folder) as provider, Live(table, console=console):
        report = asyncio.run(run())
    true_pusd = sum(call.true_pusd for call in report.unknown)
    booked_pusd = sum(call.booked_pusd for call in report.unknown)
    console.print(f"\nAt rest: {report}")
    console.print(
        f"{len(report.unknown)} calls of unknown outcome: the provider has {true_pusd / 10**12:.6f} USD for them, "
        f"the books {booked_pusd / 10**12:.6f}."
    )
    if report.violations:
        console.print(f"The evidence is in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
