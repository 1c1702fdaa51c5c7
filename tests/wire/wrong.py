"""JSON in which something is wrong, and everything else as it should be."""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

MOST = 6
GONE = "what is left out"


@st.composite
def wrong_inside(draw: Any, value: Any, odd: Sequence[Any]) -> Any:
    """`value`, an object or an array, with some of its parts replaced by something `odd`, or gone."""
    value = deepcopy(value)
    for _ in range(draw(st.integers(1, MOST))):
        places = list(_places(value))
        if not places:
            break
        container, key = draw(st.sampled_from(places))
        instead = draw(st.sampled_from([GONE, *odd]))
        if instead is GONE:
            del container[key]
        else:
            container[key] = deepcopy(instead)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container in it, with every key."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield value, key
            yield from _places(part)
