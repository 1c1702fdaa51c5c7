"""Words that more than one side of the protocol uses."""

from collections.abc import Mapping

from tollgate.wire.content import (
    Family,
    Finish,
    Tier,
    ToolChoice,
)

HOME: Family = "anthropic"
TIERS: Mapping[str, Tier] = {"auto": "auto", "standard_only": "standard"}
TIERS_WRITTEN: Mapping[Tier, str] = {tier: word for word, tier in TIERS.items()}

CHOICE_MODES: Mapping[str, ToolChoice] = {
    "auto": ToolChoice("auto"),
    "none": ToolChoice("none"),
    "any": ToolChoice("required"),
}

CHOICES_WRITTEN = {choice.mode: word for word, choice in CHOICE_MODES.items()}

finish_words: Mapping[str, Finish] = {
    "end_turn": "stop",
    "pause_turn": "stop",
    "stop_sequence": "stop_sequence",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}

FINISH_WRITTEN: Mapping[Finish, str] = {
    "stop": "end_turn",
    "stop_sequence": "stop_sequence",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}

# Before the signature of a call, which has no place of its own in this dialect, in a block `redacted_thinking`
CALL_SIGNATURE = "call:"
