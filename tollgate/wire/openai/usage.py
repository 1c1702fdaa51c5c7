"""Blocks of usage. They are inclusive: `prompt_tokens` counts what came from a cache, `completion_tokens` counts
reasoning, but for providers whose quirk it is to leave it out."""

from tollgate.events import Usage
from tollgate.wire import Body, Meter, Quirks, neutral
from tollgate.wire.neutral import tokens

_NO_QUIRKS = Quirks()


def read_usage(block: Body, quirks: Quirks = _NO_QUIRKS) -> Usage | None:
    """The disjoint classes of an inclusive block, never below 0; None when it counts nothing.

    Cached tokens lie elsewhere at some compatible servers: `cached_tokens` (Together, Moonshot) and
    `prompt_cache_hit_tokens` (DeepSeek), both parts of `prompt_tokens` too.
    """
    prompt, completion = tokens(block, "prompt_tokens"), tokens(block, "completion_tokens")
    if prompt is None and completion is None:
        return None
    cached = tokens(block, "prompt_tokens_details", "cached_tokens")
    if cached is None:
        cached = tokens(block, "cached_tokens") or tokens(block, "prompt_cache_hit_tokens") or 0
    written = tokens(block, "prompt_tokens_details", "cache_write_tokens") or 0
    audio_in = tokens(block, "prompt_tokens_details", "audio_tokens") or 0
    image_in = tokens(block, "prompt_tokens_details", "image_tokens") or 0
    reasoning = tokens(block, "completion_tokens_details", "reasoning_tokens") or 0
    audio_out = tokens(block, "completion_tokens_details", "audio_tokens") or 0
    image_out = tokens(block, "completion_tokens_details", "image_tokens") or 0
    if quirks.thoughts_outside_completion:
        completion = max(completion or 0, (tokens(block, "total_tokens") or 0) - (prompt or 0))
        reasoning = reasoning or completion - (tokens(block, "completion_tokens") or 0)
    return Usage(
        input_tokens=max(0, (prompt or 0) - cached - written - audio_in - image_in),
        cache_read_tokens=cached,
        cache_write_tokens=written,
        input_audio_tokens=audio_in,
        input_image_tokens=image_in,
        output_tokens=max(0, (completion or 0) - reasoning - audio_out - image_out),
        reasoning_tokens=reasoning,
        output_audio_tokens=audio_out,
        output_image_tokens=image_out,
    )


def write_usage(usage: Usage) -> Body:
    prompt, completion = neutral.total_input(usage), neutral.total_output(usage)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {
            "cached_tokens": usage.cache_read_tokens,
            "cache_write_tokens": usage.cache_write_5m_tokens + usage.cache_write_1h_tokens + usage.cache_write_tokens,
            "audio_tokens": usage.input_audio_tokens,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": usage.output_audio_tokens,
        },
    }


def meter_usage(meter: Meter, block: object, quirks: Quirks) -> None:
    if isinstance(block, dict) and (usage := read_usage(block, quirks)) is not None:
        meter.usage = usage
        meter.usage_raw = neutral.compact(block)
