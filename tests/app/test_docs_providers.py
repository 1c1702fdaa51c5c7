"""The page on providers is what the presets say."""

from pathlib import Path

from tollgate.app.docs_providers import page


def test_the_page_is_up_to_date():
    written = Path(__file__).parents[2] / "docs/providers.md"
    assert written.read_text() == page(), "run `make docs` and commit docs/providers.md"
