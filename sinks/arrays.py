"""Columns of Parquet made of Python's values: text, numbers, times and money as Arrow keeps them.

A column without nulls is laid out directly: 10 ns a value instead of 40 and more, and nothing of what Arrow asks for
each column that it converts (20 us, with a cast 40). One with nulls is left to Arrow; the values are the same.
All raise `pyarrow.ArrowInvalid` or `OverflowError` for a number that is larger than the column holds. Pure.
"""

import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, TypeAlias

import pyarrow as pa

TEXT, FLAG, INT, LONG, DOUBLE = pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float64()
TIME = pa.timestamp("us", "UTC")
MONEY = pa.decimal128(38, 12)
TAGS = pa.map_(TEXT, TEXT)

Numbers: TypeAlias = Sequence[Any]  # int, None for null


def text(values: Sequence[str | None]) -> Any:
    return pa.array(values, TEXT)


def flag(values: Sequence[bool]) -> Any:
    return pa.array(values, FLAG)


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


def double(values: Sequence[float]) -> Any:
    return _laid_out(DOUBLE, array("d", values))


def time(values_ms: Numbers) -> Any:
    """Of Unix milliseconds."""
    try:
        return _laid_out(TIME, array("q", [value * 1000 for value in values_ms]))
    except TypeError:
        return pa.array(values_ms, pa.timestamp("ms", "UTC")).cast(TIME)


def money(values_pusd: Numbers) -> Any:
    """DECIMAL(38,12) of whole pico-dollars: the same 128-bit integers, here as two words each, the lower one first."""
    try:
        low = array("q", values_pusd)
    except (TypeError, OverflowError):
        return _any_money(values_pusd)
    words = array("q", bytes(16 * len(low)))
    words[::2] = low
    if low and min(low) < 0:
        words[1::2] = array("q", [-1 if value < 0 else 0 for value in low])
    return pa.Array.from_buffers(MONEY, len(low), [None, pa.py_buffer(words)])


def _any_money(values_pusd: Numbers) -> Any:
    """The same, whatever the amounts. Measured 22 ns a value; one `Decimal` each costs 295 ns."""
    whole = pa.decimal128(38, 0)
    try:
        amounts = pa.array(values_pusd, pa.int64()).cast(whole)
    except OverflowError:  # an amount beyond 9.2 million USD: slower, as exact
        amounts = pa.array(values_pusd, whole)
    return pa.Array.from_buffers(MONEY, len(amounts), amounts.buffers(), amounts.null_count)


if sys.byteorder == "big":  # Arrow's words are then the other way round
    money = _any_money


def tags(values: Sequence[Mapping[str, str]]) -> Any:
    """Maps; their names in the order in which they came."""
    offsets = indices(accumulate(map(len, values), initial=0))
    names = text(list(chain.from_iterable(values)))
    contents = text(list(chain.from_iterable([each.values() for each in values])))
    return pa.MapArray.from_arrays(offsets, names, contents)


def indices(values: Iterable[int]) -> Any:
    """Positions in another column: what `take` is given."""
    return _laid_out(INT, array("i", values))


def _laid_out(type: Any, values: "array[Any]") -> Any:
    return pa.Array.from_buffers(type, len(values), [None, pa.py_buffer(values)])
