"""What admission and routing must know of a client's request."""

from tollgate.wire import Ask, Body, fields

# With tools or an output format the provider adds a system prompt of its own: its pricing page lists 159 to 530 tokens
# by model for tools, and no figure for formats, so twice the highest is allowed for.
_HIDDEN_PROMPT_TOKENS = 1060
_MESSAGE_TOKENS = 4
_TOOL_TOKENS = 10
_FIXED_TOKENS = 15
_BOUNDED_BLOCKS = frozenset({"text", "thinking", "redacted_thinking", "tool_use", "search_result"})
_BOUNDED_SOURCES = frozenset({"text", "content"})

# Fields that leave the price of a token as it is, and the number of tokens within the bounds
_NEUTRAL = frozenset(
    {
        "cache_control",
        "context_management",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "output_format",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    }
)
_NEUTRAL_AT: dict[str, tuple[object, ...]] = {
    "service_tier": ("auto", "standard_only"),
    "speed": ("standard",),  # others cost more
    "inference_geo": ("global",),
    "container": ("",),
    "mcp_servers": ([],),
}


def ask(body: Body) -> Ask:
    messages = fields.messages(body)
    tools = fields.items(body, "tools")
    hidden = _HIDDEN_PROMPT_TOKENS if tools or fields.mapping(body, "output_config").get("format") else 0
    return Ask(
        model=fields.model(body),
        stream=fields.boolean(body, "stream"),
        input_bound_tokens=fields.size(body)
        + _MESSAGE_TOKENS * len(messages)
        + _TOOL_TOKENS * len(tools)
        + _FIXED_TOKENS
        + hidden,
        max_output_tokens=fields.integer(body, "max_tokens", minimum=0),  # 0 fills a cache and says nothing
        user=user(body),
        unbounded=_unbounded(body, messages, tools),
    )


def user(body: Body) -> str | None:
    return fields.text(fields.mapping(body, "metadata"), "user_id", path="metadata.user_id")


def _unbounded(body: Body, messages: list[Body], tools: list[object]) -> str | None:
    for index, message in enumerate(messages):
        if found := _unbounded_block(message.get("content"), f"messages[{index}].content"):
            return found
    if found := _unbounded_block(body.get("system"), "system"):
        return found
    for index, tool in enumerate(tools):  # a type other than custom is run or filled in by the provider
        if not isinstance(tool, dict) or tool.get("type") not in (None, "custom"):
            return f"tools[{index}]"
    management = body.get("context_management")
    edits = management.get("edits") if isinstance(management, dict) else None
    for index, edit in enumerate(edits if isinstance(edits, list) else ()):
        if isinstance(edit, dict) and str(edit.get("type")).startswith("compact"):  # a pass of its own
            return f"context_management.edits[{index}]"
    return fields.changes_price(body, _NEUTRAL, _NEUTRAL_AT)


def _unbounded_block(content: object, where: str) -> str | None:
    """The first block, however deep in tool results and documents, whose tokens its bytes do not bound."""
    for at, block in enumerate(content if isinstance(content, list) else ()):
        here = f"{where}[{at}]"
        kind = fields.kind_of(block)
        if kind == "tool_result":
            found = _unbounded_block(block.get("content"), f"{here}.content")
        elif kind == "document":
            source = block.get("source")
            bounded = fields.kind_of(source) in _BOUNDED_SOURCES
            found = _unbounded_block(source.get("content"), f"{here}.source.content") if bounded else here
        else:
            found = None if kind in _BOUNDED_BLOCKS else here
        if found:
            return found
    return None
