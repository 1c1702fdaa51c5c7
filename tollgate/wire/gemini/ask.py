"""What admission and routing must know of a client's request.

Here the path says which model is asked and whether the answer streams. Its parts are in the body that reaches this
module, as `model` and `stream`; the protocol has no such fields, and `pass_on` takes them out again.
"""

from tollgate.wire import Ask, Body, fields
from tollgate.wire.gemini.words import MAX_CHOICES, camel

# Fields that the path says
PATH_FIELDS = frozenset({"model", "stream"})

# The provider does not say what it puts around contents and tools: as much as others do is allowed for.
_CONTENT_TOKENS = 4
_TOOL_TOKENS = 10
_FIXED_TOKENS = 15
_HIDDEN_PROMPT_TOKENS = 1060  # with tools or a schema
_BOUNDED_PARTS = frozenset(
    {"codeExecutionResult", "executableCode", "functionCall", "functionResponse", "partMetadata", "text", "thought"}
    | {"thoughtSignature", "toolCall", "toolResponse"}
)

# Fields that leave the price of a token as it is, and the number of tokens within the bounds
_NEUTRAL = frozenset(
    {"contents", "generationConfig", "labels", "safetySettings", "store", "systemInstruction", "toolConfig", "tools"}
    | PATH_FIELDS
)
_NEUTRAL_AT: dict[str, tuple[object, ...]] = {
    "cachedContent": ("",),
    "serviceTier": ("unspecified", "standard", "flex"),  # the other costs more
}
_NEUTRAL_SETTINGS = frozenset(
    {
        "audioTimestamp",
        "candidateCount",
        "enableEnhancedCivicAnswers",
        "frequencyPenalty",
        "logprobs",
        "maxOutputTokens",
        "mediaResolution",
        "presencePenalty",
        "responseJsonSchema",
        "responseLogprobs",
        "responseMimeType",
        "responseSchema",
        "seed",
        "stopSequences",
        "temperature",
        "thinkingConfig",
        "topK",
        "topP",
    }
)
_NEUTRAL_SETTINGS_AT: dict[str, tuple[object, ...]] = {"responseModalities": ([], ["TEXT"])}


def ask(body: Body) -> Ask:
    size = fields.size(body)  # first: it refuses what is nested too deeply
    given = camel(body)
    found = contents(given)
    functions = declarations(given)
    settings = fields.mapping(given, "generationConfig")
    hidden = _HIDDEN_PROMPT_TOKENS if functions or settings.get("responseMimeType") else 0
    return Ask(
        model=model_name(given),
        stream=fields.boolean(given, "stream"),
        input_bound_tokens=size + _CONTENT_TOKENS * len(found) + _TOOL_TOKENS * len(functions) + _FIXED_TOKENS + hidden,
        max_output_tokens=cap(settings),
        choices=choices(settings),
        unbounded=_unbounded(given, found, settings),
    )


def model_name(given: Body) -> str:
    """`models/gemini-x` and `gemini-x` are one."""
    return fields.model({"model": _bare(given.get("model"))})


def _bare(model: object) -> object:
    return model.removeprefix("models/") if isinstance(model, str) else model


def contents(given: Body) -> list[Body]:
    """The conversation: at least one content, each an object."""
    if given.get("contents") is None:
        raise fields.missing("contents")
    found: list[Body] = []
    for at, content in enumerate(fields.items(given, "contents")):
        if not isinstance(content, dict):
            raise fields.wrong_type(f"contents[{at}]", "an object", content)
        found.append(content)
    if not found:
        raise fields.invalid("contents", "must not be empty", code="empty_array")
    return found


def parts(content: Body, where: str) -> list[Body]:
    found: list[Body] = []
    for at, part in enumerate(fields.items(content, "parts", path=f"{where}.parts")):
        if not isinstance(part, dict):
            raise fields.wrong_type(f"{where}.parts[{at}]", "an object", part)
        found.append(part)
    return found


def tools(given: Body) -> list[Body]:
    found: list[Body] = []
    for at, tool in enumerate(fields.items(given, "tools")):
        if not isinstance(tool, dict):
            raise fields.wrong_type(f"tools[{at}]", "an object", tool)
        found.append(tool)
    return found


def declarations(given: Body) -> list[object]:
    return [
        one
        for at, tool in enumerate(tools(given))
        for one in fields.items(tool, "functionDeclarations", path=f"tools[{at}].functionDeclarations")
    ]


def cap(settings: Body) -> int | None:
    return fields.integer(settings, "maxOutputTokens", minimum=1, path="generationConfig.maxOutputTokens")


def choices(settings: Body) -> int:
    name = "candidateCount"
    return fields.integer(settings, name, minimum=1, maximum=MAX_CHOICES, path=f"generationConfig.{name}") or 1


def _unbounded(given: Body, found: list[Body], settings: Body) -> str | None:
    system = given.get("systemInstruction")
    spoken = [(f"contents[{at}]", content) for at, content in enumerate(found)]
    for where, content in [*spoken, ("systemInstruction", system if isinstance(system, dict) else {})]:
        for at, part in enumerate(parts(content, where)):
            if not _BOUNDED_PARTS.issuperset(part) or _has_files(part):
                return f"{where}.parts[{at}]"
    for at, tool in enumerate(tools(given)):  # anything but functions is run by the provider
        if any(field != "functionDeclarations" for field in tool):
            return f"tools[{at}]"
    if field := fields.changes_price(settings, _NEUTRAL_SETTINGS, _NEUTRAL_SETTINGS_AT):
        return f"generationConfig.{field}"
    return fields.changes_price(given, _NEUTRAL, _NEUTRAL_AT)


def _has_files(part: Body) -> bool:
    """A function's result may hold images and files beside its object."""
    result = part.get("functionResponse")
    return isinstance(result, dict) and bool(result.get("parts"))
