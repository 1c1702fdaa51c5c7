"""Money: integers of pico-dollars (1e-12 USD) inside, exact decimals at the edges, floats nowhere.

A token price can be as small as a thousand-millionth of a dollar; pico-dollars keep it whole.
Pure: no clock, no I/O.
"""

from decimal import ROUND_HALF_EVEN, Decimal

PUSD_PER_USD = 10**12
_QUANTUM = Decimal("1e-12")


def pusd(usd: Decimal | int | str) -> int:
    """Pico-dollars of an amount in USD; what is finer than a pico-dollar is rounded half to even.

    Raises `TypeError` for a float, `ValueError` for what is not a finite number.
    """
    if isinstance(usd, float):
        raise TypeError(f"money is never a float: {usd!r}")
    try:
        amount = Decimal(usd)
    except ArithmeticError as error:
        raise ValueError(f"not an amount in USD: {usd!r}") from error
    if not amount.is_finite():
        raise ValueError(f"not an amount in USD: {usd!r}")
    return int((amount * PUSD_PER_USD).to_integral_value(rounding=ROUND_HALF_EVEN))


def usd(amount_pusd: int) -> Decimal:
    """The exact amount in USD, with twelve decimals: what Parquet holds as DECIMAL(38,12)."""
    return Decimal(amount_pusd).scaleb(-12).quantize(_QUANTUM)


def usd_text(amount_pusd: int) -> str:
    """The exact amount in USD without trailing zeros, as headers and JSON strings show it: `0.0000125`."""
    whole, rest = divmod(abs(amount_pusd), PUSD_PER_USD)
    text = f"{whole}.{rest:012}".rstrip("0").rstrip(".")
    return text if amount_pusd >= 0 else f"-{text}"
