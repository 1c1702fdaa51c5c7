"""Names of tools that a protocol does not take: replaced on the way to the provider, and back in its answer.

Anthropic takes 128 characters and tools of MCP servers use them; most others take 64. A replacement depends on the name
only, so that every turn of a conversation has the same one. Pure.
"""

import hashlib
import re
from collections.abc import Callable

import msgspec

from tollgate.wire.content import Choice, Delta, Prompt, ToolCall, ToolChoice, ToolResult
from tollgate.wire.scope import Scope

_DIGEST_CHARS = 8
_Rename = Callable[[str], str]


class ToolNames:
    """The tools of one request, as the client and as the provider call them."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._originals: dict[str, str] = {}  # by what the provider is told instead

    def replace(self, prompt: Prompt) -> Prompt:
        """The prompt with names that the protocol takes. Itself where all are."""
        names = {tool.name for tool in prompt.tools}
        names |= {part.name for turn in prompt.turns for part in turn.parts if isinstance(part, ToolCall)}
        self._originals = {new: name for name in names if (new := self._safe(name)) != name}
        return _renamed(prompt, self._safe) if self._originals else prompt

    def restore_delta(self, delta: Delta) -> Delta:
        name = self._originals.get(delta.name)
        return delta if name is None else msgspec.structs.replace(delta, name=name)

    def restore_choices(self, choices: tuple[Choice, ...]) -> tuple[Choice, ...]:
        if not self._originals:
            return choices
        return tuple(
            msgspec.structs.replace(
                choice,
                parts=tuple(
                    msgspec.structs.replace(part, name=self._originals.get(part.name, part.name))
                    if isinstance(part, ToolCall)
                    else part
                    for part in choice.parts
                ),
            )
            for choice in choices
        )

    def _safe(self, name: str) -> str:
        longest = self._scope.max_tool_name_chars
        cleaned = re.sub(self._scope.not_in_tool_names, "_", name)
        if cleaned == name and len(name) <= longest:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_CHARS]
        return f"{cleaned[: longest - _DIGEST_CHARS - 1]}_{digest}"


def _renamed(prompt: Prompt, rename: _Rename) -> Prompt:
    choice = prompt.tool_choice
    return msgspec.structs.replace(
        prompt,
        turns=tuple(
            msgspec.structs.replace(
                turn,
                parts=tuple(
                    msgspec.structs.replace(part, name=rename(part.name))
                    if isinstance(part, ToolCall | ToolResult) and part.name
                    else part
                    for part in turn.parts
                ),
            )
            for turn in prompt.turns
        ),
        tools=tuple(msgspec.structs.replace(tool, name=rename(tool.name)) for tool in prompt.tools),
        tool_choice=choice and ToolChoice(choice.mode, tuple(rename(name) for name in choice.names)),
    )
