"""Parquet files, durable under their names: written by Arrow, sorted and joined by DuckDB.

DuckDB is set up in one place, because its defaults depend on the machine: time zone, threads, memory, downloads.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow.parquet as pq

from tollgate.sinks.schemas import KEYS, SCHEMAS

COMPACTION_MEMORY = "128MB"
SLICE_ROWS = 250_000  # sorted at a time
ROW_GROUP_ROWS = 20_000

# What hardly ever comes twice: a dictionary of it would be made, found too large, and dropped, which costs a third of
# all writing, and makes files larger by a sixth.
_DISTINCT = {
    "request_id",
    "ts",
    "accepted_at",
    "started_at",
    "quantity",
    "input_tokens",
    "output_tokens",
    "cost_usd",
    "bill_usd",
    "hold_usd",
    "latency_ms",
    "ttft_ms",
    "overhead_ms",
    "upstream_request_id",
    "usage_raw",
    "hash",
    "log_offset",
}

if TYPE_CHECKING:
    import duckdb  # 50 MB once it is used: only who compacts or asks loads it

    Connection: TypeAlias = duckdb.DuckDBPyConnection
else:
    Connection = Any


def write(table: Any, path: Path) -> None:
    """Write a `pyarrow.Table` to one file; not yet durable."""
    pq.write_table(table, path, row_group_size=ROW_GROUP_ROWS, **_options(table.schema))


def _options(schema: Any) -> dict[str, Any]:
    repeated = [name for name in schema.names if name not in _DISTINCT | {"tags"}]
    if "tags" in schema.names:
        repeated += ["tags.key_value.key", "tags.key_value.value"]
    return {"compression": "zstd", "version": "2.6", "use_dictionary": repeated}


def in_order(table: str, rows: Any) -> Any:
    """The rows as they stand in the file of a closed day: by organisation and time, the rest by what tells them apart.

    In memory; `join` is for more than that holds.
    """
    return rows.sort_by([(column, "ascending") for column in _order(table)])


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
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
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


def confine(connection: Connection, paths: Sequence[Path]) -> None:
    """From here on, queries read these files and no others, write none, and cannot change that."""
    names = ["'" + str(path).replace("'", "''") + "'" for path in paths]
    # a path is looked up as a pattern first, in which its own special characters are escaped, and then opened
    connection.execute(f"SET allowed_paths = {_list(paths)}::VARCHAR[] || [{', '.join(names)}]::VARCHAR[]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def join(table: str, inputs: Sequence[Path], output: Path, *, in_order: bool, spill: Path) -> int:
    """Write the rows of all inputs into one file and return their number; `in_order`: by organisation and time.

    One core, and memory bounded however large the day was: it is sorted in slices, since DuckDB's sort on disk still
    needs memory in proportion to the whole (2 million rows did not fit into 128 MB). Not yet durable. Raises
    `OSError` when an input cannot be read or the disk refuses.
    """
    import duckdb

    schema = SCHEMAS[table]
    count = 0
    try:
        with (
            connect(memory=COMPACTION_MEMORY, threads=1, spill=spill) as connection,
            pq.ParquetWriter(output, schema, **_options(schema)) as writer,
        ):
            view_files(connection, "input", table, inputs)
            stretches = _sorted_stretches(connection, table) if in_order else [connection.sql('FROM "input"')]
            for stretch in stretches:
                for batch in stretch.to_arrow_reader(ROW_GROUP_ROWS):
                    writer.write_batch(batch.cast(schema))
                    count += batch.num_rows
    except duckdb.Error as error:
        raise OSError(f"cannot join {len(inputs)} files of {table}: {error}") from error
    return count


def _sorted_stretches(connection: "Connection", table: str) -> Iterator[Any]:
    """`input` in order, cut where an hour of a tenant ends: of about `SLICE_ROWS` rows, unless one hour has more."""
    order = ", ".join(_order(table))
    query = f"""
        SELECT * FROM "input"
        WHERE org_id BETWEEN $first_org AND $last_org
            AND (org_id > $first_org OR ts >= $first_hour)
            AND (org_id < $last_org OR ts < $last_hour + INTERVAL 1 HOUR)
        ORDER BY {order}
    """  # noqa: S608
    hours = connection.execute("""
        SELECT org_id, date_trunc('hour', ts) AS hour, count(*) FROM "input" GROUP BY org_id, hour ORDER BY org_id, hour
    """).fetchall()
    first, rows = 0, 0
    for index, (org, hour, count) in enumerate(hours):
        rows += count
        if rows >= SLICE_ROWS or index == len(hours) - 1:
            first_org, first_hour, _ = hours[first]
            bounds = {"first_org": first_org, "first_hour": first_hour, "last_org": org, "last_hour": hour}
            yield connection.sql(query, params=bounds)
            first, rows = index + 1, 0


def _order(table: str) -> list[str]:
    return list(dict.fromkeys(("org_id", "ts", *KEYS[table])))


def _list(paths: Iterable[Path]) -> str:
    return "[" + ", ".join(_text(re.sub(r"([*?\[])", r"[\1]", str(path))) for path in paths) + "]"


def _text(value: object) -> str:
    """A SQL string. DuckDB binds no parameters in `CREATE VIEW` and `COPY`; the paths are ours, never a client's."""
    return "'" + str(value).replace("'", "''") + "'"
