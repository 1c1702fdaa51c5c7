"""The books as SQL: the views of this folder over Parquet and over what the sink has not written yet.

A connection shows one moment: the manifest's files, then the log from the manifest's positions on, so that no row is
missing and none is there twice, whether a gateway runs or not.
"""

import csv
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, TextIO

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from tollgate.errors import ConfigError, UsageError
from tollgate.log import Log
from tollgate.sinks.fold import TOPICS, Fold
from tollgate.sinks.manifest import TEMPORARY, load
from tollgate.sinks.parquet import Connection, confine, connect, view_files
from tollgate.sinks.schemas import SCHEMAS
from tollgate.terminal import printable

Format = Literal["table", "csv", "json", "parquet"]
Parameters = Sequence[object] | Mapping[str, object] | None

VIEWS = (*SCHEMAS, "usage_daily", "invoices", "focus")
# DuckDB's own answer would list the parts of which the views are made, and say of none what it is.
SHOW_TABLES = "SELECT view_name AS name, comment AS rows FROM duckdb_views() WHERE comment IS NOT NULL"
TABLE_WIDTH = 100_000  # as wide as it needs to be: an amount cut short is worse than a long line
ALLOWED = tuple([kind] for kind in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN))
TAIL_ROWS = 50_000  # decoded rows that wait to be put into columns


async def open_sql(data: Path, log: Log | None = None) -> Connection:
    """A DuckDB connection with every view, which reads their files and no others; the caller closes it.

    `log` None leaves out what is not flushed. Money is DECIMAL(38,12), times are UTC. Raises `OutOfRange` when the
    log has lost what the manifest says comes next.
    """
    state = load(data)
    tails = await _tails(log, Fold(state.cursors))
    connection = connect(spill=data / TEMPORARY)
    for table in SCHEMAS:
        try:
            view_files(connection, f"{table}_stored", table, [data / file.path for file in state.of(table)])
        except duckdb.Error as error:
            raise UsageError(f"{error}; `tollgate reconcile` says what is damaged, `replay` makes it anew") from None
        connection.register(f"{table}_tail", tails[table])
    for view in VIEWS:
        text = Path(__file__).with_name(f"{view}.sql").read_text(encoding="utf-8")
        connection.execute(text)
        connection.execute(f"COMMENT ON VIEW {view} IS '{_first_sentence(text)}'")
    confine(connection, [data / file.path for table in SCHEMAS for file in state.of(table)])
    return connection


async def run(
    query: str,
    *,
    data: Path,
    log: Log | None = None,
    parameters: Parameters = None,
    format: Format = "table",
    out: Path | None = None,
) -> None:
    """Answer one query on standard output, or in the file `out`.

    `parameters` are bound to `?` and `$name`. `json` is an array of objects; in it, as in `csv`, amounts have all
    their decimals and times are ISO 8601; in `json` amounts are strings, since most readers of JSON would make them
    floats. Raises `UsageError` for what DuckDB refuses, with its words, and `ConfigError` when the file cannot be
    written.
    """
    if format == "parquet" and out is None:
        raise UsageError("--format parquet is not for a terminal: name a file with --output")
    with await open_sql(data, log) as connection:
        try:
            _check(connection, query)
            if query.strip(" \n;").lower() == "show tables":
                query = SHOW_TABLES
            relation = connection.sql(query, params=parameters)
            columns = list(relation.columns)
            if format == "parquet" and out is not None:
                with _writing(out):
                    pq.write_table(relation.to_arrow_table(), out, compression="zstd")
                return
            rows = relation.fetchall()
        except duckdb.CatalogException as error:
            if not str(error).startswith("Catalog Error: Table with name"):
                raise UsageError(str(error)) from None
            problem = str(error).splitlines()[0].removeprefix("Catalog Error: ").rstrip("!")
            raise UsageError(f"{problem}; there are {', '.join(VIEWS)}") from None
        except duckdb.Error as error:
            raise UsageError(str(error)) from None
    if out is None:
        _WRITERS[format](sys.stdout, columns, rows)
        return
    with _writing(out), out.open("w", encoding="utf-8", newline="") as stream:
        _WRITERS[format](stream, columns, rows)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Raise `ConfigError` for what the system says of the file."""
    try:
        yield
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else error
        raise ConfigError(f"{out} cannot be written ({why}): name another file with --output") from None


def _first_sentence(text: str) -> str:
    """What a view is: the comment at the top of its file, up to the first full stop, as a SQL string."""
    comment = " ".join(line.removeprefix("-- ") for line in text.splitlines() if line.startswith("--"))
    return re.split(r"[.:] ", comment)[0].rstrip(".").replace("'", "''")


def _check(connection: Connection, query: str) -> None:
    """Let through one query that reads, and nothing else. Raises `UsageError`."""
    statements = connection.extract_statements(query)
    if [statement.type for statement in statements] not in ALLOWED:
        raise UsageError("the books are asked with one SELECT (or EXPLAIN, DESCRIBE); nothing is changed through SQL")


async def _tails(log: Log | None, fold: Fold) -> dict[str, Any]:
    """By table, the rows of all records behind the fold's cursors."""
    parts: dict[str, list[Any]] = {table: [SCHEMAS[table].empty_table()] for table in SCHEMAS}

    def cut() -> None:
        for part in fold.cut().parts:
            parts[part.table].append(part.rows)

    if log is not None:
        for topic in TOPICS:
            for partition in range(log.partitions(topic)):
                async for records in log.scan(topic, partition, fold.offset(topic, partition)):
                    fold.take(records)
                    if fold.size >= TAIL_ROWS:
                        cut()
        cut()
    return {table: pa.concat_tables(tables) for table, tables in parts.items()}


def _write_table(stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; where a terminal is too narrow for it, a table of its own for each row, column by column."""
    words = [["NULL" if value is None else printable(_word(value), keep="\n") for value in row] for row in rows]
    if stream.isatty() and _width([columns, *words]) > shutil.get_terminal_size().columns:
        tables = [Table(show_header=False) for _ in words]
        for table, row in zip(tables, words, strict=True):
            for column, word in zip(columns, row, strict=True):
                table.add_row(column, word)
    else:
        tables = [Table(*columns)]
        for row in words:
            tables[0].add_row(*row)
    console = Console(file=stream, width=TABLE_WIDTH, markup=False, highlight=False)
    for table in tables:
        console.print(table)


def _width(rows: Sequence[Sequence[str]]) -> int:
    """How wide a table of these rows is, with its lines: each cell has a blank at both sides."""
    widths: list[list[int]] = [[max(map(cell_len, word.split("\n"))) for word in row] for row in rows]
    across: list[int] = [max(column) + 3 for column in zip(*widths, strict=True)]
    return sum(across) + 1


def _write_csv(stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([None if value is None else _word(value) for value in row] for row in rows)


def _write_json(stream: TextIO, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    options = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE | orjson.OPT_PASSTHROUGH_DATETIME
    stream.write(orjson.dumps(objects, default=_word, option=options).decode())


_WRITERS = {"table": _write_table, "csv": _write_csv, "json": _write_json}


def _word(value: Any) -> str:
    match value:
        case Decimal():
            return f"{value:f}"
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case dict() | list():
            return orjson.dumps(value, default=_word).decode()
        case _:
            return str(value)
