"""The settings as documents: the page `docs/settings.md` and the JSON Schema, both made from the code.

`python -m tollgate.app.docs_settings` prints the page; `tollgate config schema` prints the schema.
"""

import typing
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, Literal

import msgspec

from tollgate.config import GatewayFile
from tollgate.environment import VARIABLES
from tollgate.secret import Secret
from tollgate.settings_file import bare_type, description

SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"

# In a file any value may come from the environment, also where the schema asks for a number.
REFERENCE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}

PAGE = """# Settings

<!-- Made by `make docs` from `tollgate/config.py` and `tollgate/environment.py`; edit those. -->

A flag beats the environment, the environment beats `gateway.yaml`, the file beats the default.

## Environment

| variable | what it is for |
|---|---|
{variables}

## `gateway.yaml`

The file is `gateway.yaml` in the working directory, or the one that `--config` or `TOLLGATE_CONFIG` names. Every key is
optional unless it says *required*; an unknown or repeated key is an error. `${{NAME}}` in a value is replaced by the
environment variable, `${{NAME:-default}}` by the default if that is unset or empty, `$${{` stands for `${{`. A value is
taken as it is written and read as the type of its key: quotes make no difference. `tollgate config check` says what the
file comes to, `tollgate config schema` prints a JSON Schema for editors. While the gateway runs, all but `log` and
`server` is read again when the file changes ([how](operations.md#changing-the-configuration)).

| key | type | default | meaning |
|---|---|---|---|
{keys}
"""


def page() -> str:
    """`docs/settings.md`."""
    variables = "\n".join(f"| `{name}` | {text} |" for name, text in VARIABLES.items())
    return PAGE.format(variables=variables, keys="\n".join(_rows(GatewayFile, "")))


def json_schema() -> dict[str, Any]:
    """A JSON Schema of `gateway.yaml`; what it refuses, the gateway refuses as well (but not the other way round)."""

    def hook(type: type) -> dict[str, Any]:
        if type is Secret:
            return {"type": "string", "minLength": 1}
        raise TypeError(type)

    schema = msgspec.json.schema(GatewayFile, schema_hook=hook)
    definitions = {name: _with_references(part) for name, part in schema["$defs"].items()}
    title = {"$schema": SCHEMA_DIALECT, "title": "tollgate's gateway.yaml"}
    return {**title, "$ref": schema["$ref"], "$defs": definitions}


def _with_references(definition: dict[str, Any]) -> dict[str, Any]:
    return {**definition, "properties": {key: _property(part) for key, part in definition["properties"].items()}}


def _property(part: dict[str, Any]) -> dict[str, Any]:
    """The schema of one key, which also takes a `${NAME}`, and numbers for decimals."""
    words: dict[str, Any] = {key: part[key] for key in ("description", "default") if key in part}
    rest = {key: value for key, value in part.items() if key not in words}
    if rest.get("format") == "decimal":
        return {**words, "type": ["string", "number"]}
    if rest.get("type") in ("integer", "number", "boolean") or "enum" in rest:
        return {**words, "anyOf": [rest, REFERENCE]}
    return part


def _rows(struct: type[msgspec.Struct], prefix: str) -> Iterator[str]:
    for field in msgspec.structs.fields(struct):
        key, bare = f"{prefix}{field.name}", bare_type(field.type)
        inner = _inner_struct(bare)
        if inner is None:
            yield f"| `{key}` | {_kind(bare)} | {_default(field)} | {description(field.type)} |"
        elif inner is bare:
            yield from _rows(inner, f"{key}.")
        else:
            inside = f"{key}.NAME." if typing.get_origin(bare) is dict else f"{key}[]."
            yield f"| `{key}` | {_kind(bare)} | {_default(field)} | {description(field.type)} |"
            yield from _rows(inner, inside)


def _inner_struct(bare: Any) -> type[msgspec.Struct] | None:
    """The struct that a key holds: itself, or as the items of a list or mapping."""
    for candidate in (bare, *typing.get_args(bare)):
        if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
            return candidate
    return None


def _kind(bare: Any) -> str:
    origin, arguments = typing.get_origin(bare), typing.get_args(bare)
    if origin is Literal:
        return " \\| ".join(f"`{word}`" for word in arguments)
    if origin in (tuple, frozenset):
        return f"list of {_kind(bare_type(arguments[0]))}" if _inner_struct(bare) is None else "list"
    if origin is dict:
        return "mapping"
    return {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "`true` \\| `false`",
        Decimal: "USD",
        Secret: "secret",
    }[bare]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "*required*"
    if field.default is msgspec.NODEFAULT or field.default in ((), frozenset(), None, ""):
        return ""
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if isinstance(field.default, tuple):
        return f"`[{', '.join(field.default)}]`"
    return f"`{field.default}`"


if __name__ == "__main__":
    print(page(), end="")
