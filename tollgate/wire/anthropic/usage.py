"""Blocks of usage. They are exclusive: `input_tokens` counts neither what was read from a cache nor what was written
to it, and `output_tokens` counts thinking."""

from tollgate.events import Usage
from tollgate.wire import Body, Meter, neutral
from tollgate.wire.neutral import tokens
from tollgate.wire.stated import price_context


def read_usage(block: Body) -> Usage | None:
    """The disjoint classes; None when it counts nothing.

    `iterations`, when present, holds every pass that is charged, also those that the top level leaves out (compaction,
    an advisor): their sum counts. A pass that was declined and repeated by another model is not charged.
    """
    if tokens(block, "input_tokens") is None and tokens(block, "output_tokens") is None:
        return None
    passes = _charged_passes(block) or [block]
    written = [_cache_writes(one) for one in passes]
    output = sum(tokens(one, "output_tokens") or 0 for one in passes)
    reasoning = min(output, tokens(block, "output_tokens_details", "thinking_tokens") or 0)
    return Usage(
        input_tokens=sum(tokens(one, "input_tokens") or 0 for one in passes),
        cache_read_tokens=sum(tokens(one, "cache_read_input_tokens") or 0 for one in passes),
        cache_write_5m_tokens=sum(short for short, _ in written),
        cache_write_1h_tokens=sum(long for _, long in written),
        output_tokens=output - reasoning,
        reasoning_tokens=reasoning,
        web_searches=tokens(block, "server_tool_use", "web_search_requests") or 0,
    )


def _charged_passes(block: Body) -> list[Body]:
    iterations = block.get("iterations")
    passes = [one for one in iterations if isinstance(one, dict)] if isinstance(iterations, list) else []
    if any(one.get("type") == "fallback_message" for one in passes):
        return [one for one in passes if one.get("type") != "message"]
    return passes


def _cache_writes(block: Body) -> tuple[int, int]:
    """Tokens written for five minutes and for an hour; what the split leaves out has the default, five minutes."""
    short = tokens(block, "cache_creation", "ephemeral_5m_input_tokens") or 0
    long = tokens(block, "cache_creation", "ephemeral_1h_input_tokens") or 0
    total = tokens(block, "cache_creation_input_tokens") or 0
    return short + max(0, total - short - long), long


def write_usage(usage: Usage) -> Body:
    short, long = usage.cache_write_5m_tokens + usage.cache_write_tokens, usage.cache_write_1h_tokens
    block: Body = {
        "input_tokens": usage.input_tokens + usage.input_audio_tokens + usage.input_image_tokens,
        "cache_creation_input_tokens": short + long,
        "cache_read_input_tokens": usage.cache_read_tokens,
        "output_tokens": neutral.total_output(usage),
    }
    if usage.reasoning_tokens:
        block["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if long:
        block["cache_creation"] = {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long}
    return block


def meter_usage(meter: Meter, block: object) -> None:
    if isinstance(block, dict) and (usage := read_usage(block)) is not None:
        meter.usage = usage
        meter.usage_raw = neutral.compact(block)
        meter.price_context = price_context(block)
