"""Blocks of usage. They are inclusive: `prompt_tokens` counts what came from a cache, `completion_tokens` counts
reasoning, but at providers that count one of them beside it."""

from tollgate.events import Usage
from tollgate.wire import Body, Meter, Quirks, neutral
from tollgate.wire.neutral import tokens
from tollgate.wire.stated import price_context, stated_cost_pusd

_NO_QUIRKS = Quirks()
_CACHED = ("cached_tokens", "prompt_cache_hit_tokens", "num_cached_tokens")  # Together and Moonshot, DeepSeek, Mistral


def read_usage(block: Body, quirks: Quirks = _NO_QUIRKS) -> Usage | None:
    """The disjoint classes of an inclusive block, never below 0; None when it counts nothing.

    Some compatible servers have cached tokens elsewhere, parts of `prompt_tokens` too. Others count a part beside the
    total that should include it: thoughts (xAI), audio (Mistral), cached tokens (Azure's Grok). The block's own total
    tells, or that a part is larger than the whole.
    """
    prompt, completion = tokens(block, "prompt_tokens"), tokens(block, "completion_tokens")
    if prompt is None and completion is None:
        return None
    prompt, completion, total = prompt or 0, completion or 0, tokens(block, "total_tokens") or 0
    of_prompt, of_completion = block.get("prompt_tokens_details"), block.get("completion_tokens_details")
    cached = tokens(of_prompt, "cached_tokens")
    if cached is None:
        cached = next((found for field in _CACHED if (found := tokens(block, field))), 0)
    written = tokens(of_prompt, "cache_write_tokens") or 0
    audio_in = tokens(of_prompt, "audio_tokens") or 0
    image_in = tokens(of_prompt, "image_tokens") or 0
    reasoning = tokens(of_completion, "reasoning_tokens") or 0
    audio_out = tokens(of_completion, "audio_tokens") or 0
    image_out = tokens(of_completion, "image_tokens") or 0
    beside = total - prompt - completion
    if audio_in and beside == audio_in:
        prompt += audio_in
    elif reasoning and (beside == reasoning or reasoning > completion):
        completion += reasoning
    elif quirks.thoughts_outside_completion and beside > 0:
        reasoning = reasoning or beside
        completion += beside
    if cached > prompt:
        prompt += cached
    return Usage(
        input_tokens=max(0, prompt - _cached_or_written(cached, written, prompt) - audio_in - image_in),
        cache_read_tokens=cached,
        cache_write_tokens=written,
        input_audio_tokens=audio_in,
        input_image_tokens=image_in,
        output_tokens=max(0, completion - reasoning - audio_out - image_out),
        reasoning_tokens=reasoning,
        output_audio_tokens=audio_out,
        output_image_tokens=image_out,
        web_searches=_searches(block),
    )


def _cached_or_written(cached: int, written: int, prompt: int) -> int:
    """How much of the prompt was not simply read. The two overlap where what was written was read at once (Gemini)."""
    return cached + written if cached + written <= prompt else max(cached, written)


def _searches(block: Body) -> int:
    """Searches that the provider made and charges for: xAI's tools, OpenRouter's."""
    return (
        (tokens(block, "server_side_tool_usage_details", "web_search_calls") or 0)
        + (tokens(block, "server_side_tool_usage_details", "x_search_calls") or 0)
        + (tokens(block, "server_tool_use_details", "web_search_requests") or 0)
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


def meter_usage(meter: Meter, answer: Body, block: object, quirks: Quirks) -> None:
    if isinstance(block, dict) and (usage := read_usage(block, quirks)) is not None:
        meter.usage = usage
        meter.usage_raw = neutral.compact(block)
        meter.price_context = price_context(answer, block)
        meter.stated_cost_pusd = stated_cost_pusd(block) if quirks.states_cost else None
