"""Parquet files, durable under their names: written by Arrow, sorted and joined by DuckDB.

DuckDB is set up in one place, because its defaults depend on the machine: time zone, threads, memory, downloads.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow.parquet as pq

from tollgate.sinks.rows import KEYS, SCHEMAS

COMPACTION_MEMORY = "128MB"  # what is larger is sorted on disk

if TYPE_CHECKING:
    import duckdb  # 50 MB once it is used: only who compacts or asks loads it

    Connection: TypeAlias = duckdb.DuckDBPyConnection
else:
    Connection = Any


def write(table: Any, path: Path) -> None:
    """Write a `pyarrow.Table` to one file; not yet durable."""
    pq.write_table(table, path, compression="zstd", version="2.6")


def connect(*, spill: Path, memory: str | None = None, threads: int | None = None) -> Connection:
    """An empty DuckDB in memory: UTC whatever the machine says, nothing downloaded, what does not fit in `spill`."""
    import duckdb

    config: dict[str, Any] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "temp_directory": str(spill),
    }
    if memory is not None:
        config["memory_limit"] = memory
    if threads is not None:
        config["threads"] = threads
    connection = duckdb.connect(":memory:", config=config)
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def view_files(connection: Connection, name: str, table: str, paths: Sequence[Path]) -> None:
    """Make `name` a view of the rows of the table in these files, and of no others; with no file, of no rows.

    Columns have the order and types of today's schema; those that an older file lacks are null.
    """
    connection.register(f"{name}_schema", SCHEMAS[table].empty_table())
    parts = [f'"{name}_schema"']
    if paths:
        parts.append(f"read_parquet({_list(paths)}, union_by_name=true, hive_partitioning=false)")
    query = " UNION ALL BY NAME ".join(f"SELECT * FROM {part}" for part in parts)  # noqa: S608
    connection.execute(f'CREATE VIEW "{name}" AS {query}')


def join(table: str, inputs: Sequence[Path], output: Path, *, spill: Path) -> int:
    """Write the rows of all inputs into one file, sorted by organisation and time; return their number.

    One core and bounded memory, however large the day was. Not yet durable. Raises `OSError` when an input cannot
    be read or the disk refuses.
    """
    import duckdb

    order = ", ".join(dict.fromkeys(("org_id", "ts", *KEYS[table])))
    query = f'COPY (SELECT * FROM "input" ORDER BY {order}) TO {_text(output)} (FORMAT parquet, COMPRESSION zstd)'  # noqa: S608
    try:
        with connect(memory=COMPACTION_MEMORY, threads=1, spill=spill) as connection:
            view_files(connection, "input", table, inputs)
            [(count,)] = connection.execute(query).fetchall()
    except duckdb.Error as error:
        raise OSError(f"cannot join {len(inputs)} files of {table}: {error}") from error
    return int(count)


def _list(paths: Iterable[Path]) -> str:
    return "[" + ", ".join(_text(re.sub(r"([*?\[])", r"[\1]", str(path))) for path in paths) + "]"


def _text(value: object) -> str:
    """A SQL string. DuckDB binds no parameters in `CREATE VIEW` and `COPY`; the paths are ours, never a client's."""
    return "'" + str(value).replace("'", "''") + "'"
