"""What a protocol, and a model behind it, can be told; and what becomes of the rest.

The tables are data: each protocol has a `Scope`, with a `Rule` for models that differ. `fit` holds a prompt against
them. What says what the client wants to get is refused by its path (`NotCarried`); what only steers chance, cost or
speed is left out and named (`Losses`). Nothing disappears without a word. Pure.
"""

import re
from collections.abc import Container, Iterable, Mapping
from typing import TypeVar

import msgspec

from tollgate.wire.content import (
    ALWAYS,
    DEFAULTS,
    HINTS,
    Document,
    Family,
    Image,
    Part,
    Prompt,
    Reasoning,
    ResultPart,
    Role,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)

MAX_NAMES = 32  # of losses; a header has to hold them
MAX_NAME_CHARS = 80

_P = TypeVar("_P", bound=Part)
_Holder = TypeVar("_Holder", Tool, Reasoning)

_INDEX = re.compile(r"\[\d+\]")
_NOT_IN_A_NAME = re.compile(r"[^\w.\[\]\-]", re.ASCII)


class NotCarried(Exception):
    """A field that does not survive the way to another protocol. `param` is its path in the client's request.

    Whoever does not know the client's dialect names a field of `Prompt`, which the client's module knows by another
    name (`prompt_fields`). `problem` completes the sentence that begins with the field's name.
    """

    def __init__(self, param: str, problem: str | None = None) -> None:
        super().__init__(param)
        self.param = param
        self.problem = problem


class Losses:
    """The names of what is left out on the way, in the client's words.

    A name is a path without its numbers (`messages[].content[].cache_control`): one name, however many messages.
    """

    def __init__(self, prompt_fields: Mapping[str, str]) -> None:
        self._prompt_fields = prompt_fields
        self._names: dict[str, None] = {}

    def drop(self, path: str, field: str = "") -> None:
        """Something at a path of the client's request; `field` is the part's field (`cache`), where not all of it is
        lost."""
        if field:
            path = f"{path}.{self._prompt_fields.get(field, field)}"
        name = _NOT_IN_A_NAME.sub("?", _INDEX.sub("[]", path))[:MAX_NAME_CHARS]
        if name not in self._names:
            self._names[name if len(self._names) < MAX_NAMES else "others"] = None

    def drop_others(self, holder: Mapping[str, object], known: Container[str], where: str) -> None:
        """Every field of an object at `where` that is not known, unless it says nothing."""
        for field, value in holder.items():
            if field not in known and value is not None and value != []:
                self.drop(f"{where}.{field}")

    def drop_field(self, field: str) -> None:
        """A field of `Prompt`, or of an object in one: `thinking.visible`."""
        outer, dot, inner = field.partition(".")
        self.drop(self._prompt_fields.get(field) or self._prompt_fields.get(outer, outer) + dot + inner)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._names)


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """How some models differ from their protocol. `models` is searched for in the model's name.

    `lacks` are fields of `Prompt` that they do not take (refused or dropped as everywhere), `drops` fields that are
    dropped though they are no hints, `either` pairs of which only the first is sent where both are given.
    `thinking` True: only while the model thinks.
    """

    models: str
    lacks: frozenset[str] = frozenset()
    drops: frozenset[str] = frozenset()
    either: tuple[tuple[str, str], ...] = ()
    thinking: bool = False


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """What requests of a protocol can hold. What is not named here cannot be sent.

    `fields` are those of `Prompt` beside `ALWAYS`; `drops` are dropped where they cannot be sent, though they are no
    hints. `parts` may stand in a turn of a role, `results` in a tool's result. `image_sources` and `document_sources`
    are the fields of `Image` and `Document` that may say where the content is. `part_fields` are those that parts may
    have beside it: `cache`, `detail`, `name`, `context`, `cite`, `is_error`; without them they are dropped.
    `not_in_tool_names` finds the characters that a tool's name cannot have (`tollgate.wire.names`). `origins` are the
    families whose signatures are taken back, `plain_reasoning` whether unsigned thoughts are. A cap on output below
    `least_output_tokens` is refused by the protocol.
    """

    fields: frozenset[str]
    parts: Mapping[Role, frozenset[type[Part]]]
    drops: frozenset[str] = frozenset()
    results: frozenset[type[Part]] = frozenset()
    image_sources: frozenset[str] = frozenset()
    document_sources: frozenset[str] = frozenset()
    part_fields: frozenset[str] = frozenset()
    origins: frozenset[Family] = frozenset()
    plain_reasoning: bool = False
    ranges: Mapping[str, tuple[float, float]] = {}
    max_stops: int | None = None
    least_output_tokens: int = 1
    not_in_tool_names: str = r"[^a-zA-Z0-9_-]"
    max_tool_name_chars: int = 64
    rules: tuple[Rule, ...] = ()


_FIELDS = tuple((field.name, field.default) for field in msgspec.structs.fields(Prompt) if field.name not in ALWAYS)


def fit(prompt: Prompt, scope: Scope, *, model: str, losses: Losses) -> Prompt:
    """The prompt as this model can be told it. Names in `losses` what it cannot; raises `NotCarried`.

    Results of tools get the names of their tools, for the protocols that want them.
    """
    rules = _rules(prompt, scope, model)
    lacking = frozenset[str]().union(*(rule.lacks for rule in rules))
    dropping = HINTS.union(scope.drops, *(rule.drops for rule in rules))
    changes: dict[str, object] = {}
    for field, default in _FIELDS:
        value = getattr(prompt, field)
        if value == default or (field in scope.fields and field not in lacking):
            continue
        if field in DEFAULTS and DEFAULTS[field] == value:
            changes[field] = default
        elif field in dropping:
            losses.drop_field(field)
            changes[field] = default
        else:
            raise NotCarried(field)
    for kept, lost in (pair for rule in rules for pair in rule.either):
        both = getattr(prompt, kept) is not None and getattr(prompt, lost) is not None
        if both and kept not in changes and lost not in changes:
            losses.drop_field(lost)
            changes[lost] = None
    for field, (lowest, highest) in scope.ranges.items():
        value = getattr(prompt, field)
        if field not in changes and value is not None and not lowest <= value <= highest:
            raise NotCarried(field, f"is not between {lowest:g} and {highest:g}, as this provider's protocol wants it")
    if scope.max_stops is not None and len(prompt.stop) > scope.max_stops and "stop" not in changes:
        raise NotCarried(
            "stop", f"has {len(prompt.stop)} entries, and this provider's protocol takes {scope.max_stops}"
        )
    if prompt.max_output_tokens is not None and prompt.max_output_tokens < scope.least_output_tokens:
        raise NotCarried(
            "max_output_tokens", f"is below {scope.least_output_tokens}, the least that this provider's protocol takes"
        )
    changes["turns"] = _fit_turns(prompt.turns, scope, losses)
    if "cache" not in scope.part_fields and any(tool.cache for tool in prompt.tools):
        changes["tools"] = tuple(_without_cache(tool, losses) for tool in prompt.tools)
    return msgspec.structs.replace(prompt, **changes)


def _rules(prompt: Prompt, scope: Scope, model: str) -> list[Rule]:
    """The rules for this model; those of a model that thinks only where it can be asked to."""
    rules = [rule for rule in scope.rules if re.search(rule.models, model)]
    mute = "thinking" not in scope.fields or any("thinking" in rule.lacks for rule in rules)
    thinks = prompt.thinking is not None and not prompt.thinking.off and not mute
    return [rule for rule in rules if thinks or not rule.thinking]


def _fit_turns(turns: Iterable[Turn], scope: Scope, losses: Losses) -> tuple[Turn, ...]:
    names: dict[str, str] = {}  # of the tools that were called, by the call's id
    fitted: list[Turn] = []
    for turn in turns:
        parts: list[Part] = []
        for part in turn.parts:
            if isinstance(part, Reasoning):
                if _is_taken_back(part, scope):
                    parts.append(_without_cache(part, losses))  # no protocol marks thoughts
                else:
                    losses.drop(part.path)
                continue
            if type(part) not in scope.parts.get(turn.role, frozenset()):
                raise NotCarried(part.path)
            if isinstance(part, ToolCall):
                names[part.id] = part.name
                if part.signature is not None and part.origin not in scope.origins:
                    losses.drop(part.path, "signature")
                    part = msgspec.structs.replace(part, signature=None, origin=None)
            elif isinstance(part, ToolResult):
                part = _fit_result(part, names.get(part.call_id), scope, losses)
            parts.append(_fit_part(part, scope, losses))
        fitted.append(msgspec.structs.replace(turn, parts=tuple(parts)))
    return tuple(fitted)


def _is_taken_back(part: Reasoning, scope: Scope) -> bool:
    return scope.plain_reasoning if part.origin is None else part.origin in scope.origins


def _fit_result(result: ToolResult, name: str | None, scope: Scope, losses: Losses) -> ToolResult:
    parts: list[ResultPart] = []
    for part in result.parts:
        if type(part) not in scope.results:
            raise NotCarried(part.path)
        parts.append(_fit_part(part, scope, losses))
    return msgspec.structs.replace(result, parts=tuple(parts), name=result.name or name)


_EMPTY: Mapping[str, object] = {
    "cache": None,
    "detail": None,
    "name": None,
    "context": None,
    "cite": False,
    "is_error": False,
}
_OWN_FIELDS: Mapping[type, tuple[str, ...]] = {
    Image: ("detail",),
    Document: ("name", "context", "cite"),
    ToolResult: ("is_error",),
}


def _fit_part(part: _P, scope: Scope, losses: Losses) -> _P:
    sources = None
    if isinstance(part, Image):
        sources = scope.image_sources
    elif isinstance(part, Document):
        sources = scope.document_sources
    if sources is not None and not any(getattr(part, source, None) is not None for source in sources):
        raise NotCarried(part.path)
    lost = [
        field
        for field in ("cache", *_OWN_FIELDS.get(type(part), ()))
        if field not in scope.part_fields and getattr(part, field) != _EMPTY[field]
    ]
    for field in lost:
        losses.drop(part.path, field)
    return msgspec.structs.replace(part, **{field: _EMPTY[field] for field in lost}) if lost else part


def _without_cache(holder: _Holder, losses: Losses) -> _Holder:
    if holder.cache is None:
        return holder
    losses.drop(holder.path, "cache")
    return msgspec.structs.replace(holder, cache=None)
