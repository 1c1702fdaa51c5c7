"""Words that more than one side of the protocol uses."""

from collections.abc import Mapping

from tollgate.wire.content import Family, Finish
from tollgate.wire.fields import kind_of as kind_of

HOME: Family = "openai"  # whose reasoning is read back without being marked

finish_words: Mapping[str, Finish] = {
    "completed": "stop",
    "max_output_tokens": "length",
    "max_messages": "length",
    "content_filter": "content_filter",
}

INCOMPLETE: Mapping[Finish, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}

# What stands in the `encrypted_content` of a reasoning item that comes from another family's model: the signature of
# the item's text, a thought that nobody can read, or the signature of the call that follows.
SIGNATURE = "signature:"
REDACTED = "redacted:"
CALL_SIGNATURE = "call:"

# Tools that a provider runs by itself and that are an offer to the model, not part of what the client wants to get
OFFERED_TOOLS = frozenset(
    {
        "web_search",
        "web_search_2025_08_26",
        "web_search_preview",
        "web_search_preview_2025_03_11",
        "image_generation",
        "tool_search",
    }
)
CALLED_TOOLS = frozenset({"function", "custom", "namespace"})  # the client runs them

CUSTOM_INPUT = "input"  # the one argument of a custom tool where it has to be a function


def namespaced(namespace: str | None, name: str) -> str:
    """A tool's name where there are no namespaces."""
    return f"{namespace}__{name}" if namespace else name
