"""What admission and routing must know of a client's request."""

from tollgate.wire import Ask, Body, fields
from tollgate.wire.responses.words import CALLED_TOOLS, OFFERED_TOOLS, kind_of

# The same allowance as for chat completions: what the provider puts around each message and tool
_ITEM_TOKENS = 4
_TOOL_TOKENS = 10
_FIXED_TOKENS = 15
_BOUNDED_ITEMS = frozenset(
    {
        None,
        "message",
        "function_call",
        "function_call_output",
        "custom_tool_call",
        "custom_tool_call_output",
        "reasoning",
        "web_search_call",
        "local_shell_call",
        "local_shell_call_output",
        "shell_call",
        "shell_call_output",
        "apply_patch_call",
        "apply_patch_call_output",
    }
)
_BOUNDED_PARTS = frozenset({"input_text", "output_text", "refusal", "text", "summary_text", "reasoning_text"})

# Fields that leave the price of a token as it is, and the number of tokens within the bounds
_NEUTRAL = frozenset(
    {
        "client_metadata",
        "frequency_penalty",
        "include",
        "input",
        "instructions",
        "max_output_tokens",
        "max_tool_calls",
        "metadata",
        "model",
        "parallel_tool_calls",
        "presence_penalty",
        "prompt_cache_key",
        "prompt_cache_retention",
        "reasoning",
        "safety_identifier",
        "store",
        "stream",
        "stream_options",
        "temperature",
        "text",
        "tool_choice",
        "tools",
        "top_logprobs",
        "top_p",
        "truncation",
        "user",
    }
)
_NEUTRAL_AT: dict[str, tuple[object, ...]] = {
    "service_tier": ("auto", "default", "flex"),  # others cost more
    "background": (False,),
}


def ask(body: Body) -> Ask:
    """Refuses `background`: its answer is asked for later and elsewhere, so nobody here would know what it cost."""
    if fields.boolean(body, "background"):
        raise fields.invalid(
            "background",
            "is not served: an answer that nobody waits for cannot be metered; leave it out and stream the answer",
            code="unsupported_parameter",
        )
    model = fields.model(body)
    items = read_input(body)
    tools = fields.items(body, "tools")
    return Ask(
        model=model,
        stream=fields.boolean(body, "stream"),
        input_bound_tokens=fields.size(body)
        + _ITEM_TOKENS * (len(items) + 1)
        + _TOOL_TOKENS * sum(_tool_count(tool) for tool in tools)
        + _FIXED_TOKENS,
        max_output_tokens=fields.integer(body, "max_output_tokens", minimum=1),
        user=fields.text(body, "user"),
        unbounded=_unbounded(body, items, tools),
        unbounded_at_home=_offered(tools),
    )


def read_input(body: Body) -> list[Body]:
    """The items of the input, a plain string being a message of the user's. None is left to what a provider keeps."""
    given = body.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    if given is None:
        if any(body.get(field) is not None for field in ("prompt", "previous_response_id", "conversation")):
            return []
        raise fields.missing("input")
    if not isinstance(given, list):
        raise fields.wrong_type("input", "a string or a list of items", given)
    if not given:
        raise fields.invalid("input", "must not be empty", code="empty_array")
    items: list[Body] = []
    for at, item in enumerate(given):
        if not isinstance(item, dict):
            raise fields.wrong_type(f"input[{at}]", "an object", item)
        items.append(item)
    return items


def _tool_count(tool: object) -> int:
    inner = tool.get("tools") if isinstance(tool, dict) else None
    return 1 + (len(inner) if isinstance(inner, list) else 0)


def _offered(tools: list[object]) -> str | None:
    """The first tool that the provider may run by itself, and that no other protocol is told of."""
    for index, tool in enumerate(tools):
        if kind_of(tool) in OFFERED_TOOLS:
            return f"tools[{index}]"
    return None


def _unbounded(body: Body, items: list[Body], tools: list[object]) -> str | None:
    for at, item in enumerate(items):
        if kind_of(item) not in _BOUNDED_ITEMS:
            return f"input[{at}]"
        for field in ("content", "output"):
            parts = item.get(field)
            for index, part in enumerate(parts if isinstance(parts, list) else ()):
                if kind_of(part) not in _BOUNDED_PARTS:
                    return f"input[{at}].{field}[{index}]"
    for index, tool in enumerate(tools):
        if kind_of(tool) not in CALLED_TOOLS | OFFERED_TOOLS:
            return f"tools[{index}]"
    return fields.changes_price(body, _NEUTRAL, _NEUTRAL_AT)
