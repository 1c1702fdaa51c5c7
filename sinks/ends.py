"""Reads the ends of requests from JSON into nested Arrow columns, some hundred at a time, with no object for any value.

Columns come from the event types: a field that has a default may be missing, any other is required. All that
`tollgate.events.encode` writes is read as `decode` reads it. Some of what it never writes is refused by `decode` and
read here all the same: a number in quotes or with a fraction (which is cut off), a null for a default. Pure.
"""

from collections.abc import Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import msgspec
import pyarrow as pa
from arro3.core import Schema
from arro3.io import read_json

from tollgate.events import Ended
from tollgate.sinks.arrays import FLAG, INT, LONG, PICO, TAGS, TEXT

# As `encode` writes what can be read here; anything else goes by way of `decode`.
FIRST_BYTES = b'{"type":"ended.1",'

READ_AT_ONCE = 400  # 0.7 MB and what becomes of it; with more, memory is waited for

# Of no interest to any row.
_LEFT_OUT = {"src", "subjects", "deadline_ms", "reply_to", "body_bytes"}
_SHORT = {"attempt", "http_status"}  # of 32 bits in every table
_TIMES = {"accepted_ms", "started_ms"}  # not known when they are left out


def read_ends(values: Sequence[bytes]) -> Any:
    """One `pyarrow.RecordBatch` with a row for each value, every one of which begins with `FIRST_BYTES`.

    Raises `pyarrow.ArrowInvalid` if one is no such event, or has a number that is larger than its column holds.
    """
    batches = [_NONE]
    for start in range(0, len(values), READ_AT_ONCE):
        some = values[start : start + READ_AT_ONCE]
        found = list(pa.RecordBatchReader.from_stream(read_json(b"\n".join(some), _READ_AS, batch_size=len(some))))
        if [batch.num_rows for batch in found] != [len(some)]:
            raise pa.ArrowInvalid("a record is not one event")
        batches += found
    return batches[-1] if len(batches) <= 2 else pa.concat_batches(batches)


def fields(struct: type[msgspec.Struct], columns: Sequence[Any]) -> dict[str, Any]:
    """The columns by the names of the struct's fields, with the default where a value is missing.

    Lists and parts that are missing stay null. Raises `pyarrow.ArrowInvalid` for a word that a `Literal` does not have.
    """
    found = {}
    for field, column in zip(_fields(struct), columns, strict=True):
        if column.null_count and isinstance(field.default, str | int) and field.name not in _TIMES:
            column = column.fill_null(field.default)
        if not field.words.issuperset(column.unique().to_pylist() if field.words else ()):
            raise pa.ArrowInvalid(f"{struct.__name__}.{field.name} is none of {sorted(field.words)}")
        found[field.name] = column
    return found


class _Field(NamedTuple):
    """`words` are those that a text may be, empty if any."""

    name: str
    type: Any
    required: bool
    default: Any
    words: frozenset[str]


@cache
def _fields(struct: type[msgspec.Struct]) -> list[_Field]:
    types = get_type_hints(struct)
    return [
        _Field(
            field.name,
            _type(field.name, types[field.name]),
            field.required,
            field.default,
            frozenset(get_args(types[field.name]) if get_origin(types[field.name]) is Literal else ()),
        )
        for field in msgspec.structs.fields(struct)
        if field.name not in _LEFT_OUT
    ]


def _columns(struct: type[msgspec.Struct]) -> list[Any]:
    return [pa.field(field.name, field.type, nullable=not field.required) for field in _fields(struct)]


def _type(name: str, of: Any) -> Any:
    """The type of a column for the values of a field."""
    match get_origin(of):
        case origin if origin is UnionType:
            [known] = [each for each in get_args(of) if each is not NoneType]
            return _type(name, known)
        case origin if origin is tuple:
            return pa.list_(pa.field("item", _type(name, get_args(of)[0]), nullable=False))
        case origin if origin is dict:
            return TAGS
        case origin if origin is Literal:
            return TEXT
    if of is int:
        if name in _TIMES:
            return pa.timestamp("ms", "UTC")
        return PICO if name.endswith("_pusd") else INT if name in _SHORT else LONG
    return _SIMPLE[of] if of in _SIMPLE else pa.struct(_columns(of))


_SIMPLE = {str: TEXT, bool: FLAG}
_SCHEMA = pa.schema(_columns(Ended))
_READ_AS = Schema.from_arrow(_SCHEMA)
_NONE = pa.RecordBatch.from_pylist([], _SCHEMA)
