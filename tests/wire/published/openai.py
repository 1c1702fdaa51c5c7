"""Cuts what the tests judge by out of OpenAI's published OpenAPI document, into openai.json beside this file.

    git clone https://github.com/openai/openai-openapi
    python -m tests.wire.published.openai openai-openapi

What is kept are the schemas of the requests that a translation writes, and all that they refer to; what is left out are
words for readers: descriptions, examples, extensions. The document's licence (MIT) goes with the extract.
"""

import argparse
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

FILE = Path(__file__).parent / "openai.json"
SOURCE = "https://github.com/openai/openai-openapi"
ROOTS = ("CreateChatCompletionRequest", "CreateResponse")
_FOR_READERS = frozenset({"default", "deprecated", "description", "discriminator", "example", "examples", "title"})
_NAMES_FIELDS = frozenset({"properties", "patternProperties"})
_REFERENCE = "#/components/schemas/"


def extract(document: Any) -> dict[str, Any]:
    """The schemas by name, as JSON Schema that refers to `#/$defs`."""
    published = document["components"]["schemas"]
    found: dict[str, Any] = {}
    wanted = list(ROOTS)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = _plain(published[name])
            wanted += _references(found[name])
    return dict(sorted(found.items()))


def _plain(schema: Any) -> Any:
    """Without words for readers; `nullable`, which only OpenAPI 3.0 knew, as JSON Schema says it."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {
        word: {name: _plain(one) for name, one in value.items()} if word in _NAMES_FIELDS else _plain(value)
        for word, value in schema.items()
        if word not in _FOR_READERS and not word.startswith("x-")
    }
    if isinstance(kept.get("$ref"), str):
        kept["$ref"] = kept["$ref"].replace(_REFERENCE, "#/$defs/")
    return {"anyOf": [kept, {"type": "null"}]} if kept.pop("nullable", False) else kept


def _references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if isinstance(schema.get("$ref"), str):
            yield schema["$ref"].rpartition("/")[2]
        for one in schema.values():
            yield from _references(one)
    elif isinstance(schema, list):
        for one in schema:
            yield from _references(one)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository", type=Path, help=f"a clone of {SOURCE}")
    repository = parser.parse_args().repository

    def git(*words: str) -> bytes:
        return subprocess.run(["git", "-C", str(repository), *words], check=True, capture_output=True).stdout

    commit = git("log", "-1", "--format=%H %cs").decode().strip()
    heading = {
        "$comment": f"An extract of openapi.json from {SOURCE} at {commit}, written by openai.py beside this file.",
        "license": git("show", "HEAD:LICENSE").decode(),
    }
    schemas = extract(orjson.loads(git("show", "HEAD:openapi.json")))
    lines = b",\n".join(b"%b: %b" % (orjson.dumps(name), orjson.dumps(schema)) for name, schema in schemas.items())
    FILE.write_bytes(orjson.dumps(heading)[:-1] + b',\n"$defs": {\n' + lines + b"\n}}\n")


if __name__ == "__main__":
    main()
