"""Words that more than one side of the protocol uses."""

from collections.abc import Mapping

from tollgate.wire import Body, fields
from tollgate.wire.content import Family, Finish, Tier, ToolChoice

MAX_CHOICES = 128
DONE = b"[DONE]"
CAP_FIELDS = ("max_completion_tokens", "max_tokens")
TIERS: Mapping[str, Tier] = {"auto": "auto", "default": "standard", "flex": "flex", "priority": "priority"}
TIERS_WRITTEN: Mapping[Tier, str] = {tier: word for word, tier in TIERS.items()}

CHOICE_MODES: Mapping[str, ToolChoice] = {
    mode.mode: mode for mode in (ToolChoice("auto"), ToolChoice("none"), ToolChoice("required"))
}

# Whose thoughts they are, in the words of OpenRouter's `reasoning_details`
FORMATS: Mapping[str, Family] = {
    "anthropic-claude-v1": "anthropic",
    "google-gemini-v1": "google",
    "openai-responses-v1": "openai",
    "azure-openai-responses-v1": "openai",
}

FORMATS_WRITTEN: Mapping[Family, str] = {
    "anthropic": "anthropic-claude-v1",
    "google": "google-gemini-v1",
    "openai": "openai-responses-v1",
}

finish_words: Mapping[str, Finish] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}

FINISH_WRITTEN: Mapping[Finish, str] = {
    "stop": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
}


def wants_usage(body: Body) -> bool:
    """Did the client ask for the extra chunk with usage?"""
    options = fields.mapping(body, "stream_options")
    return options.get("include_usage") is True
