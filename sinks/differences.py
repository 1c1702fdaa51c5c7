"""Compares two sets of rows of one table, in DuckDB, and tells the differences in words.

`expected` is what the log says, `stored` what the Parquet files hold. Memory is bounded by what differs.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from tollgate.sinks.parquet import Connection
from tollgate.sinks.schemas import KEYS, SCHEMAS


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not fit. `source` is a table, `journal`, `costs topic` or `files`."""

    source: str
    what: str
    place: str | None = None
    request_id: str | None = None
    column: str | None = None
    expected: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        request = self.request_id and f"request {self.request_id}"
        where = ", ".join(part for part in (self.place, request) if part)
        return f"{self.source}: {where}: {self.what}" if where else f"{self.source}: {self.what}"


def compare(connection: Connection, table: str, topic: str) -> list[Difference]:
    """Every row of the views `expected` and `stored` that is missing, in excess, there twice or not the same.

    Whole rows are compared by a hash of 64 bits; those that differ, column by column.
    """
    key = ", ".join(KEYS[table])
    connection.execute(f"""
        CREATE OR REPLACE TEMP TABLE differing AS
        SELECT {key}
        FROM (SELECT {key}, count(*) AS n, bit_xor(hash(expected)) AS whole FROM expected GROUP BY {key}) AS log
        FULL JOIN (SELECT {key}, count(*) AS n, bit_xor(hash(stored)) AS whole FROM stored GROUP BY {key}) AS disk
        USING ({key})
        WHERE log.n IS DISTINCT FROM disk.n OR log.whole <> disk.whole
    """)  # noqa: S608
    expected, stored = (_rows(connection, view, table, key) for view in ("expected", "stored"))
    return [
        difference
        for place in sorted(expected.keys() | stored.keys())
        for difference in _tell(table, topic, place, expected.get(place, []), stored.get(place, []))
    ]


def _rows(connection: Connection, view: str, table: str, key: str) -> dict[tuple[int, ...], list[dict[str, Any]]]:
    """The rows of the view that differ, by their key."""
    columns = SCHEMAS[table].names
    query = f"SELECT {', '.join(columns)} FROM {view} SEMI JOIN differing USING ({key})"  # noqa: S608
    by_key: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for values in connection.execute(query).fetchall():
        row = dict(zip(columns, values, strict=True))
        by_key.setdefault(tuple(row[name] for name in KEYS[table]), []).append(row)
    return by_key


def _tell(
    table: str,
    topic: str,
    key: Sequence[int],
    expected: Sequence[dict[str, Any]],
    stored: Sequence[dict[str, Any]],
) -> list[Difference]:
    place = f"{topic}/{key[0]}@{key[1]}"
    place += "".join(f" {name} {value}" for name, value in zip(KEYS[table][2:], key[2:], strict=True))
    request_id = (expected or stored)[0]["request_id"]

    def difference(what: str, **more: str | None) -> Difference:
        return Difference(source=table, place=place, request_id=request_id, what=what, **more)

    if not stored:
        return [difference("missing in Parquet")]
    if not expected:
        return [difference("in Parquet, but the log does not say so")]
    found = []
    if len(stored) > len(expected):
        found.append(difference(f"{len(stored)} times in Parquet"))
    for row in stored:
        for name, value in expected[0].items():
            if row[name] != value:
                what = f"{name} is {row[name]} in Parquet, {value} in the log"
                found.append(difference(what, column=name, expected=str(value), found=str(row[name])))
    return found
