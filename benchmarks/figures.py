"""What a measurement ends in: the median of several rounds, since other work on the machine disturbs single ones."""

from statistics import median, quantiles

import msgspec


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One result. `direct` is the same without the gateway, `added` the difference; `rounds` is what it is the median
    of. `target` is what we want it to be.
    """

    name: str
    unit: str
    value: float
    direct: float | None = None
    added: float | None = None
    target: str = ""
    rounds: list[float] = []


def added(name: str, direct: list[list[float]], through: list[list[float]], percent: int, target: str = "") -> Figure:
    """By how much a percentile of times (a list per round, in ms) is higher through the gateway."""
    return figure(
        name,
        "ms",
        [percentile(times, percent) for times in through],
        [percentile(times, percent) for times in direct],
        target=target,
        difference=True,
    )


def figure(
    name: str,
    unit: str,
    rounds: list[float],
    direct: list[float] | None = None,
    *,
    target: str = "",
    difference: bool = False,
) -> Figure:
    """The median of the rounds, and of the same without the gateway."""
    value = median(rounds)
    alone = median(direct) if direct else None
    return Figure(
        name=name,
        unit=unit,
        value=value,
        direct=alone,
        added=value - alone if difference and alone is not None else None,
        target=target,
        rounds=rounds,
    )


def percentile(times: list[float], percent: int) -> float:
    return quantiles(times, n=100, method="inclusive")[percent - 1]
