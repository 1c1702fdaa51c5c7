"""Words that more than one side of the protocol uses, and the one way in which they may be spelt."""

import base64
from collections.abc import Mapping
from typing import Any

from tollgate.wire import Body, neutral
from tollgate.wire.content import Effort, Family, Finish, Tier, ToolChoice

HOME: Family = "google"
MAX_CHOICES = 8  # `candidateCount`
TIERS: Mapping[str, Tier] = {"standard": "standard", "flex": "flex", "priority": "priority"}

# Which models differ, by the provider's pages on models, thinking, function calling and structured output. A name that
# nobody here knows counts as one of the newest.
OLD = r"gemini-(1|2\.0|(pro|ultra)(-vision)?$)|gemma-[123]|learnlm"
BUDGETED = r"gemini-2\.5"  # they think by a budget, later ones by a level
BEFORE_3 = rf"{OLD}|{BUDGETED}"  # calls have neither ids nor signatures that must come back, and no JSON beside them

CHOICE_MODES: Mapping[str, ToolChoice] = {
    "AUTO": ToolChoice("auto"),
    "NONE": ToolChoice("none"),
    "ANY": ToolChoice("required"),
}
CHOICES_WRITTEN = {choice.mode: word for word, choice in CHOICE_MODES.items()}

LEVELS: Mapping[str, Effort] = {
    "MINIMAL": "minimal",
    "LOW": "low",
    "MEDIUM": "medium",
    "HIGH": "high",
    "XHIGH": "xhigh",
}

# Of a prompt that was refused for a reason which is no finish word, such as OTHER
PROMPT_BLOCKED = "PROMPT_BLOCKED"

finish_words: Mapping[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    **dict.fromkeys(
        (
            "SAFETY",
            "RECITATION",
            "BLOCKLIST",
            "PROHIBITED_CONTENT",
            "SPII",
            "JAILBREAK",
            "MODEL_ARMOR",
            "IMAGE_SAFETY",
            "IMAGE_PROHIBITED_CONTENT",
            "IMAGE_RECITATION",
            PROMPT_BLOCKED,
        ),
        "content_filter",
    ),
}

FINISH_WRITTEN: Mapping[Finish, str] = {
    "stop": "STOP",
    "stop_sequence": "STOP",
    "length": "MAX_TOKENS",
    "tool_calls": "STOP",  # the protocol has no word of its own for it
    "content_filter": "SAFETY",
}

# With `enum-encoding=int` enumerations come as numbers. Beyond these the two APIs of Google's count differently.
_FINISH_NUMBERS = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 5: "OTHER"}
_MODALITY_NUMBERS = {1: "TEXT", 2: "IMAGE", 3: "VIDEO", 4: "AUDIO", 5: "DOCUMENT"}


def finish_word(value: object) -> str | None:
    """The reason why a candidate ended; None where there is none yet."""
    if isinstance(value, bool) or not value:
        return None
    if isinstance(value, int):
        return _FINISH_NUMBERS.get(value, f"FINISH_REASON_{value}")
    return value if isinstance(value, str) and value != "FINISH_REASON_UNSPECIFIED" else None


def modality(value: object) -> str:
    if isinstance(value, int):
        return _MODALITY_NUMBERS.get(value, "")
    return value if isinstance(value, str) else ""


# Spelling -----------------------------------------------------------------------------------------------------------

# What is below these is the client's own: schemas, arguments, results, labels
_OPAQUE = frozenset(
    {"args", "labels", "parameters", "parametersJsonSchema", "response", "responseJsonSchema", "responseSchema"}
)


def camel(value: Any) -> Any:
    """A request with its fields in the spelling of the reference. Google's servers take the names of the protocol
    buffers too (`generation_config`), and clients use them, even mixed; they also take one object where a list of
    them is meant."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if not isinstance(value, dict):
        return value
    found: Body = {}
    for field, item in value.items():
        name = camel_name(field)
        item = item if name in _OPAQUE else camel(item)
        found[name] = [item] if name in _LISTS and isinstance(item, dict) else item
    return found


_LISTS = frozenset({"contents", "parts", "tools", "functionDeclarations", "safetySettings"})


def camel_name(field: str) -> str:
    if "_" not in field:
        return field
    first, *others = field.split("_")
    return first + "".join(word.capitalize() for word in others) if first else field


# Signatures ---------------------------------------------------------------------------------------------------------

# The protocol's signatures are bytes, so those of other families travel in base64 with their origin written into them.
_REDACTED = "redacted:"
_FOREIGN = base64.b64encode(b"tollgate:").decode()  # nine bytes, so these twelve characters begin every such signature


def is_foreign(signature: object) -> bool:
    return isinstance(signature, str) and signature.startswith(_FOREIGN)


def pack_signature(value: str, origin: Family, *, redacted: bool = False) -> str:
    """A signature, or a thought that only its family can read, as this dialect's clients hand it back."""
    if origin == HOME and not redacted:
        return value
    return base64.b64encode(f"tollgate:{origin}:{_REDACTED if redacted else ''}{value}".encode()).decode()


def unpack_signature(signature: str) -> tuple[str, Family, bool]:
    """The value, whose it is, and whether it is a redacted thought. Clients may have written it in base64url."""
    if is_foreign(signature):
        try:
            packed = base64.b64decode(standard_base64(signature), validate=True).decode()
        except ValueError:  # no base64, or not of text
            return signature, HOME, False
        value, origin = neutral.untagged(packed, HOME)
        return value.removeprefix(_REDACTED), origin, value.startswith(_REDACTED)
    return signature, HOME, False


def standard_base64(text: str) -> str:
    """Base64 in its standard alphabet, padded."""
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    return bare + "=" * (-len(bare) % 4)
