"""What admission and routing must know of a client's request."""

from tollgate.wire import Ask, Body, fields
from tollgate.wire.ollama.words import CAP, is_generate

# The provider does not say what it puts around messages and tools: as much as others do is allowed for.
_MESSAGE_TOKENS = 4
_TOOL_TOKENS = 10
_FIXED_TOKENS = 15

# Fields that leave the price of a token as it is, and the number of tokens within the bounds
_NEUTRAL = frozenset(
    {
        "context",
        "format",
        "keep_alive",
        "logprobs",
        "messages",
        "model",
        "options",
        "prompt",
        "raw",
        "shift",
        "stream",
        "suffix",
        "system",
        "template",
        "think",
        "tools",
        "top_logprobs",
        "truncate",
    }
)
_NEUTRAL_AT: dict[str, tuple[object, ...]] = {"images": ([],)}


def ask(body: Body) -> Ask:
    spoken = [] if is_generate(body) else fields.messages(body)
    if is_generate(body) and not fields.text(body, "prompt"):
        raise fields.missing("prompt")
    tools = fields.items(body, "tools")
    return Ask(
        model=fields.model(body),
        stream=fields.boolean(body, "stream"),
        input_bound_tokens=fields.size(body)
        + _MESSAGE_TOKENS * max(1, len(spoken))
        + _TOOL_TOKENS * len(tools)
        + _FIXED_TOKENS,
        max_output_tokens=cap(body),
        unbounded=_unbounded(body, spoken),
    )


def cap(body: Body) -> int | None:
    """The client's own; 0 and less ask for no end."""
    options = fields.mapping(body, "options")
    found = fields.integer(options, CAP, path=f"options.{CAP}")
    return found if found is not None and found > 0 else None


def _unbounded(body: Body, spoken: list[Body]) -> str | None:
    for at, message in enumerate(spoken):
        if message.get("images"):
            return f"messages[{at}].images"
    return fields.changes_price(body, _NEUTRAL, _NEUTRAL_AT)
