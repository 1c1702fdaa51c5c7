"""Fields that change the price make the cost unbounded: a budget refuses them, and any that nobody here knows."""

import pytest

from tollgate.wire.exchange import WIRES

OPENAI = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
ANTHROPIC = {**OPENAI, "max_tokens": 5}


@pytest.mark.parametrize(
    ("dialect", "field", "value"),
    [
        ("openai", "service_tier", "priority"),
        ("openai", "modalities", ["text", "audio"]),
        ("openai", "web_search_options", {}),
        ("openai", "prediction", {"type": "content", "content": "x"}),
        ("openai", "models", ["dearer"]),
        ("openai", "plugins", [{"id": "web"}]),
        ("openai", "of_tomorrow", True),
        ("anthropic", "speed", "fast"),
        ("anthropic", "inference_geo", "us"),
        ("anthropic", "container", "c1"),
        ("anthropic", "mcp_servers", [{}]),
        ("anthropic", "of_tomorrow", 1),
    ],
)
def test_a_field_that_may_change_the_price_cannot_be_bounded(dialect, field, value):
    body = {**(OPENAI if dialect == "openai" else ANTHROPIC), field: value}
    assert WIRES[dialect].ask(body).unbounded == field


@pytest.mark.parametrize(
    ("dialect", "field", "value"),
    [
        ("openai", "service_tier", "auto"),
        ("openai", "service_tier", None),
        ("openai", "modalities", ["text"]),
        ("openai", "metadata", {"team": "web"}),
        ("openai", "prompt_cache_key", "k"),
        ("openai", "session_id", "s"),
        ("anthropic", "speed", "standard"),
        ("anthropic", "service_tier", "standard_only"),
        ("anthropic", "thinking", {"type": "adaptive"}),
        ("anthropic", "mcp_servers", []),
    ],
)
def test_a_field_that_does_not_is_within_the_bounds(dialect, field, value):
    body = {**(OPENAI if dialect == "openai" else ANTHROPIC), field: value}
    assert WIRES[dialect].ask(body).unbounded is None
