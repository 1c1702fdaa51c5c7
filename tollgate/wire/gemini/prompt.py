"""What a client's request says, read into the middle."""

from collections.abc import Mapping

import msgspec

from tollgate.wire import Body, fields
from tollgate.wire.calls import Calls
from tollgate.wire.content import (
    Format,
    Part,
    Prompt,
    Reasoning,
    Role,
    Text,
    Thinking,
    Tier,
    Tool,
    ToolChoice,
    Turn,
)
from tollgate.wire.gemini.ask import PATH_FIELDS, choices, contents, declarations, parts, tools
from tollgate.wire.gemini.parts import read_part
from tollgate.wire.gemini.schema import json_schema
from tollgate.wire.gemini.words import CHOICE_MODES, HOME, LEVELS, TIERS, camel, camel_name
from tollgate.wire.scope import Losses, NotCarried

_ROLES: Mapping[str, Role] = {"user": "user", "model": "assistant", "function": "user"}

_SETTINGS = "generationConfig"
_CALLING = "toolConfig.functionCallingConfig"

# Fields of a request that the middle holds
_READ = PATH_FIELDS | {"contents", _SETTINGS, "serviceTier", "systemInstruction", "toolConfig", "tools"}
_READ_SETTINGS = frozenset(
    {
        "candidateCount",
        "frequencyPenalty",
        "logprobs",
        "maxOutputTokens",
        "presencePenalty",
        "responseJsonSchema",
        "responseLogprobs",
        "responseMimeType",
        "responseModalities",
        "responseSchema",
        "seed",
        "stopSequences",
        "temperature",
        "thinkingConfig",
        "topK",
        "topP",
    }
)

# Fields that say what the client wants to get, and that the middle does not hold. Any other is dropped and named.
_REFUSED = frozenset({"cachedContent"})  # a part of the prompt that lies at the provider

prompt_fields: Mapping[str, str] = {
    "messages": "contents",
    "tool_choice": _CALLING,
    "service_tier": "serviceTier",
    "format": f"{_SETTINGS}.responseSchema",
    "n": f"{_SETTINGS}.candidateCount",
    "logprobs": f"{_SETTINGS}.responseLogprobs",
    "top_logprobs": f"{_SETTINGS}.logprobs",
    "stop": f"{_SETTINGS}.stopSequences",
    "thinking": f"{_SETTINGS}.thinkingConfig",
    "thinking.visible": f"{_SETTINGS}.thinkingConfig.includeThoughts",
    "max_output_tokens": f"{_SETTINGS}.maxOutputTokens",
    "temperature": f"{_SETTINGS}.temperature",
    "top_p": f"{_SETTINGS}.topP",
    "top_k": f"{_SETTINGS}.topK",
    "presence_penalty": f"{_SETTINGS}.presencePenalty",
    "frequency_penalty": f"{_SETTINGS}.frequencyPenalty",
    "seed": f"{_SETTINGS}.seed",
    "name": "displayName",
    "signature": "thoughtSignature",
}


def read_prompt(body: Body, losses: Losses) -> Prompt:
    given = camel(body)
    for field, value in given.items():
        if value is None or value == [] or field in _READ or field in _EXTENSIONS:
            continue
        if field in _REFUSED and value:
            raise NotCarried(field)
        losses.drop(field)
    settings = fields.mapping(given, _SETTINGS)
    losses.drop_others(settings, _READ_SETTINGS, _SETTINGS)
    named = {f"{_SETTINGS}.{field}": value for field, value in settings.items()}
    if fields.items(named, f"{_SETTINGS}.responseModalities") not in ([], ["TEXT"]):
        raise NotCarried(f"{_SETTINGS}.responseModalities")
    functions = _read_tools(given, losses)
    return Prompt(
        turns=_read_turns(given, losses),
        stream=fields.boolean(given, "stream"),
        max_output_tokens=fields.integer(named, f"{_SETTINGS}.maxOutputTokens", minimum=1),
        stop=fields.texts(fields.items(named, f"{_SETTINGS}.stopSequences"), f"{_SETTINGS}.stopSequences"),
        tools=functions,
        tool_choice=_read_tool_choice(given, losses) if functions else None,
        format=_read_format(named),
        thinking=_read_thinking(named, losses),
        n=choices(settings),
        logprobs=fields.boolean(named, f"{_SETTINGS}.responseLogprobs"),
        top_logprobs=fields.integer(named, f"{_SETTINGS}.logprobs", minimum=0) or None,
        temperature=fields.number(named, f"{_SETTINGS}.temperature"),
        top_p=fields.number(named, f"{_SETTINGS}.topP"),
        top_k=_whole(fields.number(named, f"{_SETTINGS}.topK")),
        presence_penalty=fields.number(named, f"{_SETTINGS}.presencePenalty"),
        frequency_penalty=fields.number(named, f"{_SETTINGS}.frequencyPenalty"),
        seed=fields.integer(named, f"{_SETTINGS}.seed"),
        service_tier=_read_tier(given, losses),
    )


MAX_WHOLE = 2**53  # what a number of JSON holds exactly
_EXTENSIONS = frozenset(camel_name(field) for field in fields.EXTENSION_FIELDS)


def _whole(value: float | None) -> int | None:
    """Clients of other languages write `topK` as 40.0. Beyond any vocabulary one number is as good as another."""
    return None if value is None else int(max(-MAX_WHOLE, min(value, MAX_WHOLE)))


# Conversation -------------------------------------------------------------------------------------------------------


def _read_turns(given: Body, losses: Losses) -> tuple[Turn, ...]:
    """The SDK hands back what was streamed chunk by chunk, each as a content of its own: they are one turn."""
    calls = Calls()
    turns: list[tuple[Role, str, list[list[Part]]]] = []
    system = fields.mapping(given, "systemInstruction")
    if system:
        losses.drop_others(system, ("role", "parts"), "systemInstruction")
        turns.append(("system", "systemInstruction", [_read_parts(system, "systemInstruction", calls, losses)]))
    for at, content in enumerate(contents(given)):
        where = f"contents[{at}]"
        role = _ROLES.get(fields.text(content, "role", path=f"{where}.role") or "user")
        if role is None:
            raise NotCarried(f"{where}.role")
        losses.drop_others(content, ("role", "parts"), where)
        said = _read_parts(content, where, calls, losses)
        if role == "assistant" and turns and turns[-1][0] == role:
            turns[-1][2].append(said)
        else:
            turns.append((role, where, [said]))
    return tuple(Turn(role, _joined(chunks), where) for role, where, chunks in turns)


def _read_parts(content: Body, where: str, calls: Calls, losses: Losses) -> list[Part]:
    return [
        read
        for at, part in enumerate(parts(content, where))
        for read in read_part(part, f"{where}.parts[{at}]", calls, losses)
    ]


def _joined(chunks: list[list[Part]]) -> tuple[Part, ...]:
    """The parts of one turn, those in one that came in pieces."""
    runs: list[list[Part]] = []
    for chunk in chunks:
        for at, part in enumerate(chunk):
            if len(chunks) > 1 and isinstance(part, Text) and not part.text:
                continue  # the end of a stream
            if runs and _goes_on(runs[-1][-1], part, begins_chunk=at == 0):
                runs[-1].append(part)
            else:
                runs.append([part])
    return tuple(_join(run) for run in runs)


def _goes_on(before: Part, part: Part, *, begins_chunk: bool) -> bool:
    """A text in the next chunk; a thought, of which another family's signature comes last. Google signs pieces."""
    if isinstance(before, Reasoning) and isinstance(part, Reasoning):
        return before.origin is None and part.redacted is None and part.origin != HOME
    return begins_chunk and isinstance(before, Text) and isinstance(part, Text)


def _join(run: list[Part]) -> Part:
    last = run[-1]
    if len(run) == 1 or not isinstance(last, Text | Reasoning):
        return last
    text = "".join(part.text for part in run if isinstance(part, Text | Reasoning))
    return msgspec.structs.replace(last, text=text, path=run[0].path)


# Tools --------------------------------------------------------------------------------------------------------------


def _read_tools(given: Body, losses: Losses) -> tuple[Tool, ...]:
    for at, tool in enumerate(tools(given)):
        for field, value in tool.items():
            if field != "functionDeclarations" and value is not None:  # run by the provider
                raise NotCarried(f"tools[{at}].{field}")
    declared = [one for one in declarations(given) if one is not None]
    return tuple(_read_tool(one, f"tools[].functionDeclarations[{at}]", losses) for at, one in enumerate(declared))


def _read_tool(tool: object, where: str, losses: Losses) -> Tool:
    if not isinstance(tool, dict):
        raise fields.wrong_type(where, "an object", tool)
    losses.drop_others(tool, ("name", "description", "parameters", "parametersJsonSchema"), where)
    schema = fields.mapping(tool, "parametersJsonSchema", path=f"{where}.parametersJsonSchema")
    parameters = fields.mapping(tool, "parameters", path=f"{where}.parameters")
    return Tool(
        name=fields.required_text(tool, "name", where),
        description=fields.text(tool, "description", path=f"{where}.description"),
        schema=schema or json_schema(parameters) or None,
        path=where,
    )


def _read_tool_choice(given: Body, losses: Losses) -> ToolChoice | None:
    config = fields.mapping(given, "toolConfig")
    losses.drop_others(config, ("functionCallingConfig",), "toolConfig")
    calling = fields.mapping(config, "functionCallingConfig", path=_CALLING)
    losses.drop_others(calling, ("mode", "allowedFunctionNames"), _CALLING)
    mode = (fields.text(calling, "mode", path=f"{_CALLING}.mode") or "MODE_UNSPECIFIED").upper()
    allowed = f"{_CALLING}.allowedFunctionNames"
    names = fields.texts(fields.items(calling, "allowedFunctionNames", path=allowed), allowed)
    if mode == "MODE_UNSPECIFIED":
        return ToolChoice("auto", names) if names else None
    if mode == "VALIDATED":  # as AUTO, but calls keep to their schemas
        losses.drop(f"{_CALLING}.mode")
        return ToolChoice("auto", names)
    if mode not in CHOICE_MODES:
        raise fields.invalid(f"{_CALLING}.mode", f"must be one of {', '.join(CHOICE_MODES)}, VALIDATED")
    return ToolChoice(CHOICE_MODES[mode].mode, names)


# Form of the answer -------------------------------------------------------------------------------------------------


def _read_format(named: Body) -> Format | None:
    kind = fields.text(named, f"{_SETTINGS}.responseMimeType")
    schema = fields.mapping(named, f"{_SETTINGS}.responseJsonSchema")
    schema = schema or json_schema(fields.mapping(named, f"{_SETTINGS}.responseSchema"))
    if kind not in (None, "", "text/plain", "application/json"):
        raise NotCarried(f"{_SETTINGS}.responseMimeType")
    return Format(schema=schema or None) if schema or kind == "application/json" else None


def _read_thinking(named: Body, losses: Losses) -> Thinking | None:
    where = f"{_SETTINGS}.thinkingConfig"
    given = fields.mapping(named, where)
    losses.drop_others(given, ("includeThoughts", "thinkingBudget", "thinkingLevel"), where)
    level = (fields.text(given, "thinkingLevel", path=f"{where}.thinkingLevel") or "").upper()
    if level not in LEVELS and level not in ("", "THINKING_LEVEL_UNSPECIFIED"):
        raise fields.invalid(f"{where}.thinkingLevel", f"must be one of {', '.join(LEVELS)}")
    budget = fields.integer(given, "thinkingBudget", minimum=-1, path=f"{where}.thinkingBudget")
    budget = None if budget == -1 else budget  # as the model likes
    shown = fields.optional_boolean(given, "includeThoughts", path=f"{where}.includeThoughts")
    if not given:
        return None
    return Thinking(effort=LEVELS.get(level), budget_tokens=budget, visible=bool(shown))


def _read_tier(given: Body, losses: Losses) -> Tier | None:
    word = (fields.text(given, "serviceTier") or "unspecified").lower()
    if word not in TIERS and word != "unspecified":
        losses.drop("serviceTier")
    return TIERS.get(word)
