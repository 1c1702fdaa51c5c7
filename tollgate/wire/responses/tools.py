"""The tools of a client's request, and which of them may be called."""

from tollgate.wire import Body, fields
from tollgate.wire.content import Tool, ToolChoice
from tollgate.wire.openai.words import CHOICE_MODES
from tollgate.wire.responses.words import CUSTOM_INPUT, OFFERED_TOOLS, kind_of, namespaced
from tollgate.wire.scope import Losses, NotCarried


def read_tools(tools: list[object], losses: Losses) -> tuple[Tool, ...]:
    found: list[Tool] = []
    for at, tool in enumerate(tools):
        where = f"tools[{at}]"
        if not isinstance(tool, dict):
            raise fields.wrong_type(where, "an object", tool)
        kind = kind_of(tool)
        if kind in OFFERED_TOOLS:
            losses.drop(f"{where}.{kind}")
        elif kind == "namespace":
            losses.drop_others(tool, ("type", "name", "tools"), where)
            namespace = fields.required_text(tool, "name", where)
            for inner_at, inner in enumerate(fields.items(tool, "tools", path=f"{where}.tools")):
                inside = f"{where}.tools[{inner_at}]"
                if not isinstance(inner, dict):
                    raise fields.wrong_type(inside, "an object", inner)
                found.append(_read_tool(inner, inside, losses, namespace=namespace))
        else:
            found.append(_read_tool(tool, where, losses))
    return tuple(found)


def _read_tool(tool: Body, where: str, losses: Losses, *, namespace: str | None = None) -> Tool:
    """A tool that the client runs. A custom one, which takes any text, becomes a function of one argument."""
    kind = kind_of(tool)
    if kind not in ("function", "custom"):
        raise NotCarried(f"{where}.type")
    name = namespaced(namespace, fields.required_text(tool, "name", where))
    description = fields.text(tool, "description", path=f"{where}.description")
    if kind == "custom":
        losses.drop_others(tool, ("type", "name", "description", "format"), where)
        form = fields.mapping(tool, "format", path=f"{where}.format")
        losses.drop_others(form, ("type", "syntax", "definition"), f"{where}.format")
        return Tool(name=name, description=_with_grammar(description, form), schema=_CUSTOM_SCHEMA, path=where)
    losses.drop_others(tool, ("type", "name", "description", "parameters", "strict"), where)
    return Tool(
        name=name,
        description=description,
        schema=fields.mapping(tool, "parameters", path=f"{where}.parameters") or None,
        strict=fields.optional_boolean(tool, "strict", path=f"{where}.strict"),
        path=where,
    )


_CUSTOM_SCHEMA: Body = {
    "type": "object",
    "properties": {CUSTOM_INPUT: {"type": "string", "description": "The whole input of the tool, as plain text."}},
    "required": [CUSTOM_INPUT],
    "additionalProperties": False,
}


def _with_grammar(description: str | None, form: Body) -> str | None:
    """A grammar binds nobody in another protocol; the model is told of it at least."""
    definition = form.get("definition")
    if not isinstance(definition, str):
        return description
    return f"{description or ''}\n\nThe input must match this {form.get('syntax')} grammar:\n{definition}".strip()


def read_tool_choice(body: Body, losses: Losses) -> ToolChoice | None:
    choice = body.get("tool_choice")
    if choice is None:
        return None
    if isinstance(choice, str) and choice in CHOICE_MODES:
        return CHOICE_MODES[choice]
    if not isinstance(choice, dict):
        raise fields.invalid("tool_choice", f"must be one of {', '.join(CHOICE_MODES)}, or an object")
    if kind_of(choice) in ("function", "custom"):
        return ToolChoice("required", (_chosen(choice, "tool_choice", losses),))
    if kind_of(choice) == "allowed_tools":
        losses.drop_others(choice, ("type", "mode", "tools"), "tool_choice")
        named = fields.items(choice, "tools", path="tool_choice.tools")
        names = tuple(_chosen(tool, "tool_choice.tools[]", losses) for tool in named if isinstance(tool, dict))
        return ToolChoice("required" if choice.get("mode") == "required" else "auto", names)
    raise NotCarried("tool_choice")


def _chosen(tool: Body, where: str, losses: Losses) -> str:
    losses.drop_others(tool, ("type", "name", "namespace"), where)
    return namespaced(fields.text(tool, "namespace"), fields.required_text(tool, "name", where))
