"""What admission and routing must know of a client's request."""

from tollgate.wire import Ask, Body, fields
from tollgate.wire.openai.words import CAP_FIELDS, MAX_CHOICES, wants_usage

# What the provider puts around the text (OpenAI Cookbook, "How to count tokens with tiktoken"): 3 tokens per message,
# 1 for a name, 3 to prime the reply; at most 10 per function, with 12 once for the list of them.
_MESSAGE_TOKENS = 4
_TOOL_TOKENS = 10
_FIXED_TOKENS = 15
_BOUNDED_PARTS = frozenset({"text", "refusal"})
_BOUNDED_TOOLS = frozenset({"function", "custom"})

# Fields that leave the price of a token as it is, and the number of tokens within the bounds
_NEUTRAL = frozenset(
    {
        "frequency_penalty",
        "function_call",
        "functions",
        "ignore_eos",
        "logit_bias",
        "logprobs",
        "max_completion_tokens",
        "max_tokens",
        "messages",
        "metadata",
        "min_p",
        "model",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning",
        "reasoning_effort",
        "repetition_penalty",
        "response_format",
        "safety_identifier",
        "seed",
        "stop",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "tool_choice",
        "tools",
        "top_k",
        "top_logprobs",
        "top_p",
        "user",
        "verbosity",
    }
)
_NEUTRAL_AT: dict[str, tuple[object, ...]] = {
    "service_tier": ("auto", "default", "flex"),  # others cost more
    "modalities": (["text"],),
}


def ask(body: Body) -> Ask:
    messages = fields.messages(body)
    stream = fields.boolean(body, "stream")
    wants_usage(body)
    caps = [cap for field in CAP_FIELDS if (cap := fields.integer(body, field, minimum=1)) is not None]
    tools = fields.items(body, "tools")
    return Ask(
        model=fields.model(body),
        stream=stream,
        input_bound_tokens=fields.size(body)
        + _MESSAGE_TOKENS * len(messages)
        + _TOOL_TOKENS * (len(tools) + len(fields.items(body, "functions")))
        + _FIXED_TOKENS,
        max_output_tokens=min(caps, default=None),
        choices=fields.integer(body, "n", minimum=1, maximum=MAX_CHOICES) or 1,
        user=fields.text(body, "user"),
        unbounded=_unbounded(body, messages, tools),
    )


def _unbounded(body: Body, messages: list[Body], tools: list[object]) -> str | None:
    for index, message in enumerate(messages):
        if message.get("audio") is not None:  # an earlier answer, kept by the provider
            return f"messages[{index}].audio"
        content = message.get("content")
        for at, part in enumerate(content if isinstance(content, list) else ()):
            if fields.kind_of(part) not in _BOUNDED_PARTS:
                return f"messages[{index}].content[{at}]"
    for index, tool in enumerate(tools):
        if fields.kind_of(tool) not in _BOUNDED_TOOLS:
            return f"tools[{index}]"
    return fields.changes_price(body, _NEUTRAL, _NEUTRAL_AT)
