"""What the commands print: tables for people, JSON for programs; results on stdout, remarks on stderr."""

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tollgate.terminal import printable

GAP = "  "  # between two columns


def print_json(value: Any) -> None:
    """`value` as indented JSON; text stays readable, not escaped."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """An aligned table; numbers to the right, None as a dash. Nothing in a cell is taken for markup.

    A column that is empty in every row is left out. There is no line of headings when all are empty. Nothing is cut: on
    a terminal that is too narrow headings break between words, and if that is not enough, each row becomes a list.
    """
    kept, cells = _without_empty(columns, [list(row) for row in rows])
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in layout(kept, cells, width=width):
        print(line)


def layout(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, width: int | None) -> list[str]:
    """The lines of a table of at most `width` columns, None for as many as it needs; no blanks at their ends. Pure."""
    from rich.cells import cell_len

    texts = [["-" if cell is None else printable(str(cell)) for cell in row] for row in rows]
    longest = [max((cell_len(row[index]) for row in texts), default=0) for index in range(len(columns))]
    widths = [max(room, cell_len(column)) for column, room in zip(columns, longest, strict=True)]
    headings = [[column] for column in columns]
    if width is not None and _across(widths) > width:
        headings = [column.split() or [""] for column in columns]
        words = [max(map(cell_len, heading)) for heading in headings]
        widths = [max(room, word) for word, room in zip(words, longest, strict=True)]
        if _across(widths) > width and any(columns):
            return _as_lists(columns, texts)
    numeric = [_is_numeric([row[index] for row in rows]) for index in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            " " * (room - cell_len(cell)) + cell if right else cell + " " * (room - cell_len(cell))
            for cell, room, right in zip(cells, widths, numeric, strict=True)
        )
        return GAP.join(padded).rstrip()

    depth = max(map(len, headings), default=0) if any(columns) else 0
    above = [[""] * (depth - len(heading)) + heading for heading in headings] if depth else []
    return [line([heading[row] for heading in above]) for row in range(depth)] + [line(row) for row in texts]


def counted(number: int, noun: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _across(widths: Sequence[int]) -> int:
    return sum(widths) + len(GAP) * (len(widths) - 1)


def _as_lists(columns: Sequence[str], texts: Sequence[Sequence[str]]) -> list[str]:
    """One line for each cell, and an empty one between two rows."""
    lines: list[str] = []
    for row in texts:
        lines += ([""] if lines else []) + layout(("", ""), list(zip(columns, row, strict=True)), width=None)
    return lines


def _without_empty(columns: Sequence[str], rows: list[list[Any]]) -> tuple[list[str], list[list[Any]]]:
    said = [index for index in range(len(columns)) if not rows or any(row[index] not in (None, "") for row in rows)]
    return [columns[index] for index in said], [[row[index] for index in said] for row in rows]


def _is_numeric(cells: Iterable[Any]) -> bool:
    values = [cell for cell in cells if cell is not None]
    return bool(values) and all(isinstance(value, int | float) for value in values)


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
