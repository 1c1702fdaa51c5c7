"""The named steps: those that tests know are those that the code has."""

import re
from pathlib import Path

from tollgate.failpoints import NAMES

ROOT = Path(__file__).parents[1]
_STEP = re.compile(r'\b(?:reached|failpoint)\("([a-z_.]+)"\)')


def test_every_step_in_the_code_has_its_name_in_the_list_and_every_name_its_step():
    steps = [
        step
        for folder in ("tollgate", "ingress", "processors", "sinks")
        for path in (ROOT / folder).rglob("*.py")
        for step in _STEP.findall(path.read_text())
    ]

    assert sorted(set(steps)) == sorted(NAMES)
