"""How fast the gateway is, and what it costs: `make bench`, or `python -m benchmarks`.

    python -m benchmarks --json > figures.json
    python -m benchmarks --section unary --section streams
    python -m benchmarks --section memory --section restart --soak 100000
    python -m benchmarks --section kafka --rounds 1
    python -m benchmarks --section replay
    python -m benchmarks --section wire

Everything listens on the loopback interface, and the data lies in a temporary folder. Takes some four minutes, and as
long for each round on Kafka, where a broker is started if TOLLGATE_TEST_KAFKA names none.
"""

import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks import kafka, replay, wire
from benchmarks.figures import Figure
from benchmarks.measure import SECTIONS, Bench
from benchmarks.servers import running

SOAK = 10_000
NAMES = (*SECTIONS, *kafka.SECTIONS, *replay.SECTIONS, *wire.SECTIONS)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The figures, and the circumstances that they belong to."""

    at: str
    python: str
    cores: int
    load_before: float  # the machine's load average over a minute
    load_after: float
    figures: list[Figure]


def main(
    section: Annotated[list[str], typer.Option(help=f"{', '.join(NAMES)}, or how several of them begin.")] = [],  # noqa: B006
    rounds: Annotated[int, typer.Option(min=1, max=20, help="What each figure is the median of.")] = 3,
    soak: Annotated[int, typer.Option(min=1000, max=10_000_000, help="Requests of the section 'memory'.")] = SOAK,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure the gateway beside the mock upstream that it calls; on Kafka only where a section says so."""
    unknown = [name for name in section if not any(each.startswith(name) for each in NAMES)]
    if unknown:
        raise typer.BadParameter(f"there is no section '{unknown[0]}'; there are {', '.join(NAMES)}")
    chosen = [name for name in NAMES if name.startswith(tuple(section))] if section else list(SECTIONS)
    report = measure(chosen, rounds=rounds, soak=soak)
    if json:
        print(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        show(report)


def measure(sections: list[str], *, rounds: int, soak: int) -> Report:
    """Run the sections in their order: those of one process on one gateway, those of Kafka on another, and without."""
    load_before = os.getloadavg()[0]
    return Report(
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        python=platform.python_version(),
        cores=os.cpu_count() or 0,
        load_before=load_before,
        figures=[
            *_embedded(sections, rounds, soak),
            *_on_kafka(sections, rounds),
            *_replay(sections, rounds),
            *_wire(sections, rounds),
        ],
        load_after=os.getloadavg()[0],
    )


def _embedded(sections: list[str], rounds: int, soak: int) -> Iterator[Figure]:
    chosen = [name for name in sections if name in SECTIONS]
    if not chosen:
        return
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder, running(Path(folder)) as (upstream, gateway):
        bench = Bench(upstream, gateway, rounds=rounds, soak=soak)
        for name in chosen:
            print(f"{name} ...", file=sys.stderr, flush=True)
            yield from SECTIONS[name](bench)


def _on_kafka(sections: list[str], rounds: int) -> Iterator[Figure]:
    chosen = [name for name in sections if name in kafka.SECTIONS]
    if not chosen:
        return
    with kafka.site(rounds) as site:
        for name in chosen:
            print(f"{name} ...", file=sys.stderr, flush=True)
            yield from kafka.SECTIONS[name](site)


def _replay(sections: list[str], rounds: int) -> Iterator[Figure]:
    for name in sections:
        if name in replay.SECTIONS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
                yield from replay.SECTIONS[name](Path(folder), rounds)


def _wire(sections: list[str], rounds: int) -> Iterator[Figure]:
    for name in sections:
        if name in wire.SECTIONS:
            print(f"{name} ...", file=sys.stderr, flush=True)
            yield from wire.SECTIONS[name](rounds)


def show(report: Report) -> None:
    """The report as a table."""
    table = Table(caption=f"{report.at}, {report.cores} cores, Python {report.python}, load {report.load_before:.1f}")
    for column in ("", "unit", "direct", "tollgate", "added", "wanted"):
        table.add_column(column, justify="left" if column in ("", "unit", "wanted") else "right")
    for figure in report.figures:
        numbers = (figure.direct, figure.value, figure.added)
        table.add_row(figure.name, figure.unit, *("" if n is None else f"{n:,.2f}" for n in numbers), figure.target)
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
