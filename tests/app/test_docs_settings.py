"""The settings as documents: up to date, complete, and of one mind with the program."""

import re
from pathlib import Path

import msgspec
import pytest

from tollgate.app.docs_settings import json_schema, page
from tollgate.config import GatewayFile
from tollgate.environment import VARIABLES
from tollgate.settings_file import bare_type, description

ROOT = Path(__file__).parents[2]


def test_the_page_of_settings_is_up_to_date():
    assert (ROOT / "docs/settings.md").read_text() == page(), "run `make docs` and commit docs/settings.md"


def structs(struct: type[msgspec.Struct]):
    yield struct
    for field in msgspec.structs.fields(struct):
        bare = bare_type(field.type)
        for candidate in (bare, *getattr(bare, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, msgspec.Struct):
                yield from structs(candidate)


@pytest.mark.parametrize("struct", list(structs(GatewayFile)), ids=lambda struct: struct.__name__)
def test_every_key_says_what_it_is_for(struct):
    for field in msgspec.structs.fields(struct):
        text = description(field.type)
        assert text.endswith(".") and "|" not in text, f"{struct.__name__}.{field.name}"


def test_every_key_and_variable_stands_on_the_page():
    text = page()

    for struct in structs(GatewayFile):
        for field in msgspec.structs.fields(struct):
            assert any(key in text for key in (f"{field.name}`", f"`{field.name}.", f".{field.name}."))
    assert all(f"`{name}`" in text for name in VARIABLES)


def test_every_variable_that_the_code_reads_is_on_the_page():
    for folder in ("tollgate", "ingress", "processors", "sinks"):
        for path in (ROOT / folder).rglob("*.py"):
            for name in re.findall(r"[\"'](TOLLGATE_[A-Z_]+)[\"']", path.read_text()):
                assert name in VARIABLES, f"{path} reads {name}"


def test_the_schema_knows_the_same_keys_and_lets_a_reference_stand_for_a_number():
    schema = json_schema()
    server = schema["$defs"]["ServerConfig"]

    assert set(schema["$defs"]["GatewayFile"]["properties"]) == set(GatewayFile.__struct_fields__)
    assert server["additionalProperties"] is False
    number, reference = server["properties"]["port"]["anyOf"]
    assert number == {"type": "integer", "minimum": 0, "maximum": 65535}
    assert reference["type"] == "string"
    assert schema["$defs"]["LimitsConfig"]["properties"]["unpriced_hold_usd"]["type"] == ["string", "number"]
