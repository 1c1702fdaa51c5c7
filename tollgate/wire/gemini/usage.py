"""Blocks of `usageMetadata`. `promptTokenCount` counts what came from a cache but not what the provider's own tools put
into the prompt; `candidatesTokenCount` does not count thoughts. The total is not always their sum, and is not read."""

from tollgate.events import Usage
from tollgate.wire import Body, Meter, neutral
from tollgate.wire.gemini.words import modality
from tollgate.wire.neutral import tokens


def read_usage(block: Body, searches: int = 0) -> Usage | None:
    """The disjoint classes, never below 0; None when it counts nothing.

    Sound and images are told apart where the block says what is what. `searches` is not in the block: the answer says
    whether the web was searched.
    """
    prompt, candidates = tokens(block, "promptTokenCount"), tokens(block, "candidatesTokenCount")
    thoughts = tokens(block, "thoughtsTokenCount")
    if prompt is None and candidates is None and thoughts is None:
        return None
    candidates = candidates or 0
    fresh = prompt or 0
    cached = audio_in = image_in = audio_out = image_out = 0
    if "cachedContentTokenCount" in block:
        cached = min(fresh, tokens(block, "cachedContentTokenCount") or 0)
        fresh -= cached
    if "promptTokensDetails" in block:
        audio, image = _media(block["promptTokensDetails"])
        if cached and (audio or image):
            cached_audio, cached_image = _media(block.get("cacheTokensDetails"))
            audio, image = max(0, audio - cached_audio), max(0, image - cached_image)
        audio_in = min(fresh, audio)
        image_in = min(fresh - audio_in, image)
    if "candidatesTokensDetails" in block:
        audio, image = _media(block["candidatesTokensDetails"])
        audio_out = min(candidates, audio)
        image_out = min(candidates - audio_out, image)
    if "toolUsePromptTokenCount" in block:
        fresh += tokens(block, "toolUsePromptTokenCount") or 0
    return Usage(
        input_tokens=fresh - audio_in - image_in,
        cache_read_tokens=cached,
        input_audio_tokens=audio_in,
        input_image_tokens=image_in,
        output_tokens=candidates - audio_out - image_out,
        reasoning_tokens=thoughts or 0,
        output_audio_tokens=audio_out,
        output_image_tokens=image_out,
        web_searches=searches,
    )


def _media(details: object) -> tuple[int, int]:
    """Tokens of sound and of images in a list by modality."""
    audio = image = 0
    for one in details if isinstance(details, list) else ():
        if not isinstance(one, dict) or (kind := modality(one.get("modality"))) == "TEXT":
            continue
        if kind == "AUDIO":
            audio += tokens(one, "tokenCount") or 0
        elif kind == "IMAGE":
            image += tokens(one, "tokenCount") or 0
    return audio, image


def write_usage(usage: Usage) -> Body:
    prompt = neutral.total_input(usage)
    candidates = usage.output_tokens + usage.output_audio_tokens + usage.output_image_tokens
    block: Body = {
        "promptTokenCount": prompt,
        "candidatesTokenCount": candidates,
        "totalTokenCount": prompt + candidates + usage.reasoning_tokens,
    }
    if usage.reasoning_tokens:
        block["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cache_read_tokens:
        block["cachedContentTokenCount"] = usage.cache_read_tokens
    heard = (("AUDIO", usage.input_audio_tokens), ("IMAGE", usage.input_image_tokens))
    if details := [{"modality": kind, "tokenCount": count} for kind, count in heard if count]:
        text = prompt - usage.input_audio_tokens - usage.input_image_tokens
        block["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": text}, *details]
    return block


def meter_usage(meter: Meter, block: object, searches: int = 0) -> None:
    """What a block says replaces what an earlier one has said: they are cumulative, and the first may be wrong."""
    if isinstance(block, dict) and (usage := read_usage(block, searches)) is not None:
        meter.usage = usage
        meter.usage_raw = neutral.compact(block)
        meter.price_context = _tier(block)


_TRAFFIC = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}  # Vertex AI's words


def _tier(block: Body) -> dict[str, str]:
    """What chose among the prices of the model; the ordinary ones need no word."""
    for word in (block.get("serviceTier"), _TRAFFIC.get(str(block.get("trafficType")))):
        if isinstance(word, str) and word.lower() in ("flex", "priority"):
            return {"service_tier": word.lower()}
    return {}


def searches_of(grounding: object, model: str) -> int:
    """What of a candidate's `groundingMetadata` is charged, by the provider's price list: each query from Gemini 3 on,
    before that the whole grounded answer once."""
    queries = grounding.get("webSearchQueries") if isinstance(grounding, dict) else None
    if not isinstance(queries, list) or not queries:
        return 0
    before = any(name in model for name in ("gemini-1", "gemini-2"))
    return 1 if before else len(queries)
