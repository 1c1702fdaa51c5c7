"""Schemas as Google first had them, a subset of OpenAPI 3.0 with types in capitals, read as JSON Schema."""

from collections.abc import Mapping

from tollgate.wire import Body
from tollgate.wire.gemini.words import camel_name

_COUNTS = frozenset({"maxItems", "minItems", "maxProperties", "minProperties", "maxLength", "minLength"})
DIGITS = 19  # of a 64-bit number
_NOT_IN_JSON_SCHEMA = frozenset({"nullable", "propertyOrdering", "example"})


def json_schema(schema: object) -> Body:
    """The same in JSON Schema. What is not a schema is one that allows everything."""
    if not isinstance(schema, dict):
        return {}
    found: Body = {}
    for field, value in schema.items():
        name = _NAMES.get(field) or camel_name(field)
        if value is None or name in _NOT_IN_JSON_SCHEMA:
            continue
        match name:
            case "type":
                if isinstance(value, str) and value != "TYPE_UNSPECIFIED":
                    found["type"] = value.lower()
                elif isinstance(value, list):
                    found["type"] = [one.lower() for one in value if isinstance(one, str)]
            case "properties" | "$defs" if isinstance(value, dict):
                found[name] = {key: json_schema(inner) for key, inner in value.items()}
            case "items" | "additionalProperties" if isinstance(value, dict):
                found[name] = json_schema(value)
            case "anyOf" | "prefixItems" if isinstance(value, list):
                found[name] = [json_schema(one) for one in value]
            case _ if name in _COUNTS and isinstance(value, str) and value.isdecimal() and len(value) < DIGITS:
                # 64-bit numbers are text
                found[name] = int(value)
            case _:
                found[name] = value
    return _nullable(found) if schema.get("nullable") is True else found


_NAMES: Mapping[str, str] = {"defs": "$defs", "ref": "$ref"}


def _nullable(schema: Body) -> Body:
    kind = schema.get("type")
    if isinstance(kind, str):
        found = {**schema, "type": [kind, "null"]}
        if isinstance(values := schema.get("enum"), list) and None not in values:
            found["enum"] = [*values, None]
        return found
    if isinstance(branches := schema.get("anyOf"), list):
        return {**schema, "anyOf": [*branches, {"type": "null"}]}
    return schema
