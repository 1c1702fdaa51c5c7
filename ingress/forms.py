"""Bodies of the management API as forms: what is wrong is told by its field, in words of JSON and without its value."""

import re
from typing import Any

import msgspec

from tollgate.credentials import to_secret
from tollgate.errors import Refusal

_CAPITAL = re.compile(r"(?<=[a-z0-9])[A-Z]")
_NO_FIELD = re.compile(r"Object (contains unknown|missing required) field `(.*)`")
# msgspec's words, and ours. The patterns are those of `Name` and `Entity`, a role and an AWS key.
_WORDS = {
    r"Expected `int` >= (\S+)": r"must be a whole number of at least \1",
    r"Expected `int` <= (\S+)": r"must be a whole number of at most \1",
    r"Expected `str` of length >= (\S+)": r"must have at least \1 character",
    r"Expected `str` of length <= (\S+)": r"must have at most \1 characters",
    r"Expected `str` matching regex '\^\[A-Z.*": "may have 64 letters, digits, '.', '_' and '-'",
    r"Expected `str` matching regex '\^arn.*": "must be a role's ARN, as arn:aws:iam::123456789012:role/NAME",
    r"Expected `str` matching regex '\^\\\\?w.*": "may have 4 to 128 letters, digits and '_'",
    r"Expected `str` matching regex .*": "holds a control character",
    r"Invalid decimal string": "must be an amount in USD, such as 12.50",
    r"Invalid RFC3339 encoded datetime": "must be a time such as 2027-01-31T00:00:00Z",
    r"Expected `datetime` with a timezone component": "must say its time zone, as in 2027-01-31T00:00:00Z",
    r"Expected `(.*)`, got `(.*)`": r"must be \1, not \2",
    r"\bstr\b": "text",
    r"\bfloat\b": "a fraction",
    r"\bint( \| null)?\b": "a whole number",
    r"\bdecimal( \| null)?\b": "an amount",
    r"\bdatetime( \| null)?\b": "a time",
    r" (object|array)\b": r" an \1",
}
_PLACE = re.compile(r" - at `\$\.?(.*)`$")


def read_form(body: dict[str, Any], form: type[Any]) -> Any:
    """The body as a form, its fields in snake_case or camelCase. Raises `Refusal` (400) that names the field."""
    try:
        return msgspec.convert(_snake(body, ""), form, dec_hook=to_secret)
    except msgspec.ValidationError as error:
        param, problem = _told(str(error), form)
        raise Refusal(400, "invalid_value", f"'{param}' {problem}." if param else f"{problem}.", param=param) from None


def _told(message: str, form: type[Any]) -> tuple[str | None, str]:
    """The field that msgspec's message is about, and what is wrong with it, in words of JSON."""
    place = _PLACE.search(message)
    where = place[1] if place else ""
    problem = _PLACE.sub("", message)
    if found := _NO_FIELD.fullmatch(problem):
        field = f"{where}.{found[2]}" if where else found[2]
        return field, "is required" if found[1] == "missing required" else f"is not known; there are {_fields(form)}"
    for pattern, words in _WORDS.items():
        problem = re.sub(pattern, words, problem)
    return where or None, problem


def _fields(form: type[Any], before: str = "") -> str:
    """The names of all that the form may say: `name, limits.requests_per_minute, ...`."""
    names = []
    for field in msgspec.structs.fields(form):
        inner = field.type if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct) else None
        names.append(_fields(inner, f"{before}{field.name}.") if inner else f"{before}{field.name}")
    return ", ".join(names)


def _snake(value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        return value
    fields: dict[str, Any] = {}
    for name, inner in value.items():
        snake = _CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", name)
        if snake in fields:
            param = f"{path}{snake}"
            raise Refusal(400, "duplicate_key", f"'{param}' is there twice, in two spellings.", param=param)
        fields[snake] = _snake(inner, f"{path}{snake}.")
    return fields
