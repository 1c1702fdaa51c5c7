"""What the commands print: tables for people, JSON for programs; results on stdout, remarks on stderr."""

import json
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

PIPE_WIDTH = 10_000  # columns when nobody looks: a table in a pipe is never cut


def print_json(value: Any) -> None:
    """`value` as indented JSON; text stays readable, not escaped."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """An aligned table; numbers to the right, None as a dash. Nothing in a cell is taken for markup.

    There is no line of headings when all are empty.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for index, column in enumerate(columns):
        values = [row[index] for row in cells if row[index] is not None]
        numeric = bool(values) and all(isinstance(value, int | float) for value in values)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text("-" if cell is None else str(cell)) for cell in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def remark(text: str) -> None:
    """A line for the person who runs the command; never part of its result."""
    print(text, file=sys.stderr)


def quiet(library: str) -> None:
    """Keep a library's log lines off the terminal: what goes wrong is told once, as the command's error."""
    logging.getLogger(library).addHandler(logging.NullHandler())


@contextmanager
def progress_bar(what: str, *, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr; the function that it gives takes what is done and what there is in all. Silent in a pipe.

    Beside the bar: how many `unit` of how many, how many a second, and when it will be done at this rate.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
