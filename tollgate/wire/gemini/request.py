"""The request that a provider gets: a client's own, passed on, or one written from the middle.

The base URL says which of Google's APIs is meant: they speak the same, under `/v1beta` (Gemini API) or under
`/v1/projects/{project}/locations/{location}/publishers/google` (Vertex AI).
"""

import re
from collections.abc import Mapping
from urllib.parse import quote

from tollgate.wire import Body, Quirks, fields, neutral
from tollgate.wire.content import (
    Audio,
    Document,
    Effort,
    Format,
    Image,
    Prompt,
    Refused,
    Text,
    Thinking,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from tollgate.wire.gemini.ask import PATH_FIELDS
from tollgate.wire.gemini.conversation import write_contents
from tollgate.wire.gemini.words import (
    BEFORE_3,
    BUDGETED,
    CHOICES_WRITTEN,
    HOME,
    MAX_CHOICES,
    OLD,
    TIERS,
    is_foreign,
)
from tollgate.wire.scope import Losses, NotCarried, Rule, Scope

stream_type = "text/event-stream"
forwarded_headers: tuple[str, ...] = ()
MAX_STOPS = 5
_MAX_SEED = 2**31 - 1

_PENALTIES = frozenset({"presence_penalty", "frequency_penalty"})

_SCOPE = Scope(
    fields=frozenset(
        {
            "format",
            "logprobs",
            "n",
            "seed",
            "service_tier",
            "stop",
            "temperature",
            "thinking",
            "tool_choice",
            "tools",
            "top_k",
            "top_logprobs",
            "top_p",
        }
    )
    | _PENALTIES,
    parts={
        "system": frozenset({Text}),
        "user": frozenset({Text, Image, Document, Audio, ToolResult}),
        "assistant": frozenset({Text, Refused, ToolCall}),
    },
    results=frozenset({Text, Image, Document}),
    image_sources=frozenset({"url", "data"}),
    document_sources=frozenset({"url", "data", "text"}),
    part_fields=frozenset({"name", "is_error"}),
    origins=frozenset({HOME}),
    ranges={
        "temperature": (0, 2),
        "top_p": (0, 1),
        "presence_penalty": (-2, 2),
        "frequency_penalty": (-2, 2),
        "n": (1, MAX_CHOICES),
    },
    max_stops=MAX_STOPS,
    not_in_tool_names=r"[^a-zA-Z0-9_.-]|^[^a-zA-Z_]",
    rules=(
        Rule(models=OLD, lacks=frozenset({"thinking"})),
        Rule(models=rf"^(?!.*({OLD}))", lacks=_PENALTIES),
    ),
)


def scope(quirks: Quirks) -> Scope:
    return _SCOPE


def call_path(model: str, *, sent: Body, stream: bool, quirks: Quirks) -> str:
    method = ":streamGenerateContent?alt=sse" if stream else ":generateContent"
    return quirks.call_path(resource(model), model) + method


def resource(model: str) -> str:
    """Where a model lies. One with a slash is a resource of its own, such as `tunedModels/mine`."""
    return f"/{quote(model)}" if "/" in model else f"/models/{quote(model, safe='')}"


def request_headers(client_headers: Mapping[str, str]) -> dict[str, str]:
    return {}


def auth_headers(api_key: str) -> dict[str, str]:
    return {"x-goog-api-key": api_key}


# A client's own -----------------------------------------------------------------------------------------------------


def pass_on(body: Body, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    """What the path says goes back into the path. Thoughts that other families' models had, and that this client was
    given as parts, would be refused."""
    sent = {
        field: value
        for field, value in body.items()
        if field not in PATH_FIELDS and field not in fields.EXTENSION_FIELDS
    }
    if max_output_tokens is not None:
        _set_cap(sent, max_output_tokens)
    if isinstance(contents := sent.get("contents"), list) and any(_has_foreign(content) for content in contents):
        losses.drop("contents[].parts[].thoughtSignature")
        sent["contents"] = [kept for content in contents if (kept := _without_foreign(content)) is not None]
    return sent


def _set_cap(sent: Body, cap: int) -> None:
    """In whichever spelling the client has used."""
    field = "generation_config" if "generation_config" in sent else "generationConfig"
    settings = {**(sent.get(field) or {})}
    name = "max_output_tokens" if "max_output_tokens" in settings else "maxOutputTokens"
    sent[field] = settings | {name: cap}


def _parts(content: object) -> list[object]:
    parts = content.get("parts") if isinstance(content, dict) else None
    return parts if isinstance(parts, list) else []


def _foreign_fields(part: object) -> list[str]:
    return [
        field
        for field in ("thoughtSignature", "thought_signature")
        if isinstance(part, dict) and is_foreign(part.get(field))
    ]


def _has_foreign(content: object) -> bool:
    return any(_foreign_fields(part) for part in _parts(content))


def _without_foreign(content: Body) -> Body | None:
    """None where nothing else was said."""
    kept: list[object] = []
    for part in _parts(content):
        foreign = _foreign_fields(part)
        if not foreign or not isinstance(part, dict):
            kept.append(part)
            continue
        rest = {field: value for field, value in part.items() if field not in foreign}
        if rest not in ({}, {"text": ""}) and part.get("thought") is not True:
            kept.append(rest)
    return {**content, "parts": kept} if kept else None


# One written from the middle ----------------------------------------------------------------------------------------


def write_prompt(prompt: Prompt, *, model: str, max_output_tokens: int | None, quirks: Quirks, losses: Losses) -> Body:
    contents = write_contents(prompt.turns, model, losses)
    if not contents:
        raise NotCarried("messages", "has no text of a user, which the Gemini protocol requires")
    system = [
        {"text": part.text} for turn in prompt.turns if turn.role == "system" for part in _texts(turn) if part.text
    ]
    required = prompt.tool_choice is not None and prompt.tool_choice.mode == "required"
    tools = prompt.tools if required else neutral.callable_tools(prompt)  # only who must call can be given a choice
    settings: Body = {
        "maxOutputTokens": prompt.max_output_tokens if max_output_tokens is None else max_output_tokens,
        "temperature": prompt.temperature,
        "topP": prompt.top_p,
        "topK": prompt.top_k,
        "stopSequences": [stop for stop in prompt.stop if stop] or None,
        "candidateCount": prompt.n if prompt.n > 1 else None,
        "presencePenalty": prompt.presence_penalty,
        "frequencyPenalty": prompt.frequency_penalty,
        "seed": _write_seed(prompt.seed, losses),
        "responseLogprobs": prompt.logprobs or None,
        "logprobs": prompt.top_logprobs,
        **_write_format(prompt.format, bool(tools), model),
        "thinkingConfig": None if prompt.thinking is None else _write_thinking(prompt.thinking, model, losses),
    }
    sent: Body = {
        "systemInstruction": {"parts": system} if system else None,
        "contents": contents,
        "tools": [{"functionDeclarations": [_write_tool(tool, losses) for tool in tools]}] if tools else None,
        "toolConfig": _write_tool_choice(prompt),
        "generationConfig": {field: value for field, value in settings.items() if value is not None} or None,
        "serviceTier": prompt.service_tier if prompt.service_tier in TIERS else None,
    }
    return {field: value for field, value in sent.items() if value is not None}


def _texts(turn: Turn) -> list[Text]:
    return [part for part in turn.parts if isinstance(part, Text)]


def _write_seed(seed: int | None, losses: Losses) -> int | None:
    if seed is None or abs(seed) <= _MAX_SEED:
        return seed
    losses.drop_field("seed")
    return None


def _write_format(format: Format | None, has_tools: bool, model: str) -> Body:
    if format is None:
        return {}
    if has_tools and re.search(BEFORE_3, model):
        raise NotCarried("format", "cannot be asked for together with tools of this model")
    schema = neutral.described_schema(format)
    schema = None if schema is None else _write_schema(schema)
    return {"responseMimeType": "application/json", "responseJsonSchema": schema}


# Budgets that the provider's compatible endpoint gives to efforts, for models that know none
_BUDGETS: Mapping[Effort, int] = {
    "none": 0,
    "minimal": 1_024,
    "low": 1_024,
    "medium": 8_192,
    "high": 24_576,
    "xhigh": 24_576,
    "max": 24_576,
}
# The least and most that models may think, in the order in which they are looked for
_BUDGET_RANGES: tuple[tuple[str, int, int], ...] = (
    ("flash-lite", 512, 24_576),
    ("flash", 1, 24_576),
    ("pro", 128, 32_768),
)


def _write_thinking(thinking: Thinking, model: str, losses: Losses) -> Body:
    """Models before 3 want a budget, those after a level. Not all of them can be kept from thinking: they then think
    as little as they can, and the client is told."""
    shown: Body = {"includeThoughts": True} if thinking.visible is not False and not thinking.off else {}
    if re.search(BUDGETED, model):
        budget = thinking.budget_tokens
        if budget is None and thinking.effort is not None:
            budget = _BUDGETS[thinking.effort]
        if budget is None:
            return shown
        name, least, most = next((one for one in _BUDGET_RANGES if one[0] in model), ("", 0, _BUDGETS["high"]))
        if budget == 0 and name == "pro":
            losses.drop_field("thinking")
        elif budget == 0:
            return {"thinkingBudget": 0}
        return shown | {"thinkingBudget": min(max(budget, least), most)}
    effort = neutral.effort_of(thinking)
    if effort is None:
        return shown
    if effort == "none":
        losses.drop_field("thinking")
    levels = next((levels for models, levels in _LEVELS if models in model), _LEVELS_WRITTEN)
    return shown | {"thinkingLevel": levels[effort]}


_LEVELS_WRITTEN: Mapping[Effort, str] = {
    "none": "MINIMAL",
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}
_PRO_LEVELS: Mapping[Effort, str] = {**_LEVELS_WRITTEN, "none": "LOW", "minimal": "LOW"}
_LEVELS: tuple[tuple[str, Mapping[Effort, str]], ...] = (  # in the order in which models are looked for
    ("gemini-3-pro", {**_PRO_LEVELS, "medium": "HIGH"}),
    ("pro", _PRO_LEVELS),
)


def _write_tool(tool: Tool, losses: Losses) -> Body:
    if tool.strict:
        losses.drop(tool.path, "strict")
    written: Body = {"name": tool.name}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.schema is not None and _says_something(tool.schema):
        written["parametersJsonSchema"] = _write_schema(tool.schema)
    return written


_ABOUT_NO_ARGUMENTS = frozenset({"$schema", "additionalProperties", "properties", "required", "title", "type"})


def _says_something(schema: Body) -> bool:
    """An object without properties, which the provider has refused for functions, is what it takes for no schema."""
    any_more = schema.get("additionalProperties") not in (None, False)
    return bool(schema.get("properties")) or any_more or not _ABOUT_NO_ARGUMENTS.issuperset(schema)


def _write_schema(schema: Body) -> Body:
    """Without the address of the dialect, which the provider does not know."""
    return {field: value for field, value in schema.items() if field != "$schema"}


def _write_tool_choice(prompt: Prompt) -> Body | None:
    choice = prompt.tool_choice
    if choice is None:
        return None
    calling: Body = {"mode": CHOICES_WRITTEN[choice.mode]}
    if choice.mode == "required" and choice.names:
        calling["allowedFunctionNames"] = list(choice.names)
    return {"functionCallingConfig": calling}
