"""Columns of Parquet made of Python's values: text, numbers, times and money as Arrow keeps them.

A column without nulls is laid out directly: 10 ns a value instead of 40 and more, and nothing of what Arrow asks for
each column that it converts (20 us, with a cast 40). One with nulls is left to Arrow; the values are the same.
All raise `pyarrow.ArrowInvalid` or `OverflowError` for a number that is larger than the column holds. Pure.
"""

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

TEXT, FLAG, INT, LONG, DOUBLE = pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float64()
TIME = pa.timestamp("us", "UTC")
MONEY = pa.decimal128(38, 12)
PICO = pa.decimal128(38, 0)  # whole pico-dollars
TAGS = pa.map_(TEXT, TEXT)

Numbers: TypeAlias = Sequence[Any]  # int, None for null


def text(values: Sequence[str | None]) -> Any:
    return pa.array(values, TEXT)


def integer(values: Numbers) -> Any:
    """Of 32 bits."""
    try:
        return _laid_out(INT, array("i", values))
    except TypeError:
        return pa.array(values, INT)


def long(values: Numbers) -> Any:
    """Of 64 bits."""
    try:
        return _laid_out(LONG, array("q", values))
    except TypeError:
        return pa.array(values, LONG)


def time(values_ms: Numbers) -> Any:
    """Of Unix milliseconds."""
    try:
        return _laid_out(TIME, array("q", [value * 1000 for value in values_ms]))
    except TypeError:
        return pa.array(values_ms, pa.timestamp("ms", "UTC")).cast(TIME)


def pico(values_pusd: Numbers) -> Any:
    """Of whole pico-dollars. Measured 22 ns a value; one `Decimal` each costs 295 ns."""
    try:
        return pa.array(values_pusd, LONG).cast(PICO)
    except OverflowError:  # an amount beyond 9.2 million USD: slower, as exact
        return pa.array(values_pusd, PICO)


def usd(amounts_pusd: Any) -> Any:
    """The same amounts in dollars: the same integers, with their point twelve digits further left."""
    buffers = amounts_pusd.buffers()
    return pa.Array.from_buffers(MONEY, len(amounts_pusd), buffers, amounts_pusd.null_count, amounts_pusd.offset)


def maps(values: Any) -> Any:
    """The same maps, an empty one where there is none."""
    return pa.MapArray.from_arrays(values.offsets, values.keys, values.items) if values.null_count else values


def indices(values: Iterable[int]) -> Any:
    """Positions in another column: what `take` is given."""
    return _laid_out(INT, array("i", values))


def _laid_out(type: Any, values: "array[Any]") -> Any:
    return pa.Array.from_buffers(type, len(values), [None, pa.py_buffer(values)])
