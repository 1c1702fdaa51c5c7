"""Blocks of usage. They are inclusive: `input_tokens` counts what came from a cache or went into it, `output_tokens`
counts reasoning."""

import msgspec

from tollgate.events import Usage
from tollgate.wire import Body, Meter, Quirks, neutral
from tollgate.wire.neutral import tokens
from tollgate.wire.stated import price_context, stated_cost_pusd


def read_usage(block: Body) -> Usage | None:
    """The disjoint classes of an inclusive block, never below 0; None when it counts nothing."""
    total_in, total_out = tokens(block, "input_tokens"), tokens(block, "output_tokens")
    if total_in is None and total_out is None:
        return None
    cached = tokens(block, "input_tokens_details", "cached_tokens") or 0
    written = tokens(block, "input_tokens_details", "cache_write_tokens") or 0
    audio_in = tokens(block, "input_tokens_details", "audio_tokens") or 0
    reasoning = tokens(block, "output_tokens_details", "reasoning_tokens") or 0
    audio_out = tokens(block, "output_tokens_details", "audio_tokens") or 0
    return Usage(
        input_tokens=max(0, (total_in or 0) - cached - written - audio_in),
        cache_read_tokens=cached,
        cache_write_tokens=written,
        input_audio_tokens=audio_in,
        output_tokens=max(0, (total_out or 0) - reasoning - audio_out),
        reasoning_tokens=reasoning,
        output_audio_tokens=audio_out,
    )


def write_usage(usage: Usage) -> Body:
    total_in, total_out = neutral.total_input(usage), neutral.total_output(usage)
    return {
        "input_tokens": total_in,
        "input_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens + usage.cache_write_tokens,
        },
        "output_tokens": total_out,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": total_in + total_out,
    }


def meter_usage(meter: Meter, response: Body, quirks: Quirks) -> None:
    """From a response object: its usage, and the searches that are charged apart."""
    block = response.get("usage")
    if not isinstance(block, dict) or (usage := read_usage(block)) is None:
        return
    searches = _searches(response)
    meter.usage = msgspec.structs.replace(usage, web_searches=searches)
    meter.usage_raw = neutral.compact(block)
    meter.price_context = price_context(response, block)
    meter.stated_cost_pusd = stated_cost_pusd(block) if quirks.states_cost else None


def _searches(response: Body) -> int:
    """Calls of the web search: each that searched is charged, opening a page it found is not."""
    counted = tokens(response, "tool_usage", "web_search", "num_requests")
    if counted is not None:
        return counted
    output = response.get("output")
    return sum(
        isinstance(item, dict) and item.get("type") == "web_search_call" and _is_search(item.get("action"))
        for item in (output if isinstance(output, list) else ())
    )


def _is_search(action: object) -> bool:
    return not isinstance(action, dict) or action.get("type", "search") == "search"
