"""The page on the sandbox is what the sandbox says of itself."""

from pathlib import Path

from tollgate.app.docs_sandbox import page
from tollgate.sandbox.knobs import RANGES


def test_the_page_is_up_to_date():
    written = Path(__file__).parents[2] / "docs/sandbox.md"
    assert written.read_text() == page(), "run `make docs` and commit docs/sandbox.md"


def test_every_knob_is_on_it():
    text = page()
    assert all(f"`{knob}" in text for knob in RANGES)
