"""Disturb a gateway of several processes on a real Kafka, under load, and see whether its promises hold.

    make chaos
    make chaos ARGS="worker_killed rolling_restart --rounds 3 --seed 7"

Everything is made in a temporary folder, which is kept, and named, when something is wrong. Exit code 1 then.
"""

import argparse
import asyncio
import json
import logging
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.bugs import BUGS, BY_NAME
from tests.chaos.faults import FAULTS
from tests.chaos.rounds import Round, run_round
from tests.chaos.site import open_site
from tests.chaos.traffic import RATE
from tests.kafka_broker import HOW_TO_GET, KafkaUnavailable

SHOWN = 10  # violations of one round
BUG_SETTLE_S = 15.0
WIDTH = 140  # where there is no terminal


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.partition("\n")[0])
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=f"all, if none is named: {', '.join(FAULTS)}")
    parser.add_argument("--rounds", type=int, default=1, help="how often each of them (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of chance: which requests, which order (default: 1)")
    parser.add_argument("--rate", type=float, default=RATE, help=f"requests a second (default: {RATE:g})")
    parser.add_argument(
        "--bugs", nargs="*", choices=sorted(BY_NAME), help="plant these known bugs instead, or all: they must be found"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.faults if name not in FAULTS]:
        parser.error(f"there is no fault {unknown[0]!r}; there are {', '.join(FAULTS)}")
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # that brokers go away is known here
    folder = Path(tempfile.mkdtemp(prefix="tollgate-chaos-"))
    console = Console(stderr=arguments.json, soft_wrap=True, width=None if sys.stdout.isatty() else WIDTH)
    try:
        if arguments.bugs is not None:
            return asyncio.run(_find_bugs(folder, console, arguments))
        rounds = asyncio.run(_run(folder, console, arguments))
    except KafkaUnavailable as error:
        print(f"{error}; it needs {HOW_TO_GET}", file=sys.stderr)
        return 3
    if arguments.json:
        print(json.dumps([_facts(each) for each in rounds], indent=2))
    else:
        console.print(_table(rounds))
    if any(each.violations for each in rounds):
        console.print(f"The logs of all processes are in {folder}")
        return 1
    shutil.rmtree(folder, ignore_errors=True)
    return 0


async def _run(folder: Path, console: Console, arguments: argparse.Namespace) -> list[Round]:
    names = [name for _ in range(arguments.rounds) for name in arguments.faults or FAULTS]
    rounds = []
    began = time.monotonic()
    console.print(f"starting a broker, a provider and the gateway in {folder}")
    async with open_site(folder, seed=arguments.seed, rate=arguments.rate) as site:
        for number, name in enumerate(names, start=1):
            console.print(f"{time.monotonic() - began:6.0f} s  {number}/{len(names)}  {name} …")
            done = await run_round(site, FAULTS[name], replay=number == len(names))
            rounds.append(done)
            console.print(f"          {_summary(done)}")
            for violation in done.violations[:SHOWN]:
                console.print(f"          {violation.promise} {violation.subject}: {violation.problem}", style="red")
    return rounds


async def _find_bugs(folder: Path, console: Console, arguments: argparse.Namespace) -> int:
    """Each bug on a site of its own, under the fault that shows it. 1 if one was not found."""
    missed = 0
    for bug in [BY_NAME[name] for name in arguments.bugs] or BUGS:
        name, promise = BUGS[bug]
        console.print(f"{bug.__name__}, under {name} …")
        place = folder / bug.__name__
        place.mkdir()
        async with open_site(place, seed=arguments.seed, bug=bug.__name__, rate=arguments.rate) as site:
            done = await run_round(site, FAULTS[name], settle_s=BUG_SETTLE_S, reconcile=False)
        broken = sorted({violation.promise for violation in done.violations})
        missed += promise not in broken
        console.print(f"          {'found' if promise in broken else 'NOT FOUND'}: broken are {', '.join(broken)}")
    return 1 if missed else 0


def _summary(done: Round) -> str:
    recovery = "never" if done.recovery_s is None else f"{done.recovery_s:.1f} s"
    exits = ", ".join(f"{count} x {name}" for name, count in done.exits.items()) or "none"
    return (
        f"{done.requests} requests, failed: {_classes(done)}; {len(done.violations)} violations; "
        f"recovery {recovery}; {done.take_overs} take-overs; calls made again: {done.calls_again}; exits: {exits}"
    )


def _classes(done: Round) -> str:
    return ", ".join(f"{count} {name}" for name, count in done.failed.items()) or "0"


def _table(rounds: list[Round]) -> Table:
    table = Table(title="Under load, then at rest")
    table.add_column("fault", no_wrap=True)
    for heading in ("duration", "requests"):
        table.add_column(heading, justify="right")
    table.add_column("failed")
    for heading in ("take-overs", "calls again", "violations", "recovery"):
        table.add_column(heading, justify="right")
    for done in rounds:
        table.add_row(
            done.fault,
            f"{done.duration_s:.0f} s",
            str(done.requests),
            _classes(done),
            str(done.take_overs),
            str(done.calls_again),
            str(len(done.violations)),
            "never" if done.recovery_s is None else f"{done.recovery_s:.1f} s",
        )
    return table


def _facts(done: Round) -> dict[str, object]:
    return {**done._asdict(), "violations": [violation._asdict() for violation in done.violations]}


if __name__ == "__main__":
    sys.exit(main())
