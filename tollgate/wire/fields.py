"""Reading the fields of a client's request: each has the type it should have, or the request is refused by its name.

`null` is the same as absent, as it is for the providers. Pure.
"""

from collections.abc import Mapping

import orjson

from tollgate.errors import Refusal
from tollgate.wire import Body

MAX_MODEL_CHARS = 256

# Fields that tollgate adds to the dialects. They speak to the gateway and never go to a provider.
EXTENSION_FIELDS = frozenset(
    {
        "tollgate",
        "provider",
        "task",
        "session_id",
        "routingStrategy",
        "routing_strategy",
        "fallbackProviders",
        "fallback_providers",
        "retryAttempts",
        "retry_attempts",
        "maxCostPerRequest",
        "max_cost_per_request",
    }
)


def kind_of(holder: object) -> str | None:
    """The `type` of an item, part, block or tool, if it has one: text, whatever else was sent there."""
    kind = holder.get("type") if isinstance(holder, dict) else None
    return kind if isinstance(kind, str) else None


def invalid(param: str, message: str, *, code: str = "invalid_value") -> Refusal:
    """A field that is wrong in itself, whatever provider would get it."""
    return Refusal(400, code, f"'{param}' {message}", param=param)


def missing(param: str) -> Refusal:
    return invalid(param, "is required", code="missing_required_parameter")


def wrong_type(param: str, wanted: str, value: object) -> Refusal:
    return invalid(param, f"must be {wanted}, not {_json_type(value)}", code="invalid_type")


def boolean(body: Body, name: str) -> bool:
    """True or false, false when absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong_type(name, "true or false", value)
    return bool(value)


def optional_boolean(body: Body, name: str, *, path: str = "") -> bool | None:
    """True or false, None when absent."""
    value = body.get(name)
    if value is not None and not isinstance(value, bool):
        raise wrong_type(path or name, "true or false", value)
    return value


def integer(
    body: Body, name: str, *, minimum: int | None = None, maximum: int | None = None, path: str = ""
) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(path or name, "an integer", value)
    if minimum is not None and value < minimum:
        raise invalid(path or name, f"must be at least {minimum}, not {value}", code="integer_below_min_value")
    if maximum is not None and value > maximum:
        raise invalid(path or name, f"must be at most {maximum}, not {value}", code="integer_above_max_value")
    return value


def number(body: Body, name: str) -> float | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(name, "a number", value)
    return value


def text(body: Body, name: str, *, path: str = "") -> str | None:
    """A string. `path` is how the client finds the field, when it is not at the top."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise wrong_type(path or name, "a string", value)
    return value


def required_text(body: Body, name: str, where: str) -> str:
    """A string that must be there; `where` is the path of `body`."""
    value = text(body, name, path=f"{where}.{name}")
    if value is None:
        raise missing(f"{where}.{name}")
    return value


def mapping(body: Body, name: str, *, path: str = "") -> Body:
    """An object, empty when absent."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong_type(path or name, "an object", value)
    return value


def items(body: Body, name: str, *, path: str = "") -> list[object]:
    """A list, empty when absent."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise wrong_type(path or name, "a list", value)
    return value


def texts(values: list[object], name: str) -> tuple[str, ...]:
    """A list of strings; `name` is the list's."""
    for at, value in enumerate(values):
        if not isinstance(value, str):
            raise wrong_type(f"{name}[{at}]", "a string", value)
    return tuple(str(value) for value in values)


def model(body: Body) -> str:
    name = text(body, "model")
    if name is None:
        raise missing("model")
    if not name:
        raise invalid("model", "must not be empty")
    if len(name) > MAX_MODEL_CHARS:
        raise invalid("model", f"must be at most {MAX_MODEL_CHARS} characters", code="string_above_max_length")
    return name


def messages(body: Body) -> list[Body]:
    """The conversation: at least one message, each an object with a role."""
    if body.get("messages") is None:
        raise missing("messages")
    found: list[Body] = []
    for index, message in enumerate(items(body, "messages")):
        if not isinstance(message, dict):
            raise wrong_type(f"messages[{index}]", "an object", message)
        if message.get("role") is None:
            raise missing(f"messages[{index}].role")
        text(message, "role", path=f"messages[{index}].role")
        found.append(message)
    if not found:
        raise invalid("messages", "must not be empty", code="empty_array")
    return found


def size(body: Body) -> int:
    """Bytes of the request as it goes on, in JSON. Refuses what is nested too deeply to be written again."""
    try:
        return len(orjson.dumps(body))
    except orjson.JSONEncodeError:
        deep = next(name for name, value in body.items() if not _writable(value))
        raise invalid(deep, "is nested too deeply") from None


def _writable(value: object) -> bool:
    try:
        orjson.dumps([value])
    except orjson.JSONEncodeError:
        return False
    return True


def _json_type(value: object) -> str:
    """What JSON calls it; the value itself may be a prompt and is not repeated."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


def changes_price(body: Body, neutral: frozenset[str], at_value: Mapping[str, tuple[object, ...]]) -> str | None:
    """The first field that may change what a token costs, or how many there are, in a way that no bound allows for.

    `neutral` do not, whatever they hold; those of `at_value` do not at these values. A field that is known to neither
    is taken for one that does: a budget must not rest on a field that nobody here has heard of.
    """
    for field, value in body.items():
        if value is None or field in neutral or field in EXTENSION_FIELDS:
            continue
        if field not in at_value or value not in at_value[field]:
            return field
    return None
