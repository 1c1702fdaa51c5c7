"""The events as documents: the page `docs/events.md` and a JSON Schema of each, both made from the code.

`python -m tollgate.app.docs_events` prints the page; with `--schemas FOLDER` it writes one schema file per event.
"""

import inspect
import re
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tollgate import events
from tollgate.topics import load_topics

PAGE = """# Events

<!-- Made by `make docs` from `tollgate/events.py` and `topics.yaml`; edit those. -->

Everything that happens is an event: a fact in the past tense, JSON on a topic of the log, never changed. `type` is its
name and version. Fields at their default are left out. Amounts end in `_pusd` and are whole pico-dollars (1e-12 USD),
times end in `_ms` and are Unix milliseconds, bytes are base64. A reader ignores fields it does not know. A version that
was ever written stays readable: one of each lies in `tests/golden/events/`. The JSON Schemas are in `docs/schemas/`.

| topic | key | partitions | kept | events |
|---|---|---|---|---|
{topics}

{events}
## Parts

Parts stand inside events, never on the log by themselves.

{parts}"""


def page() -> str:
    """`docs/events.md`."""
    return PAGE.format(
        topics="\n".join(_topic_rows()),
        events="\n".join(_section(event) for event in event_types()),
        parts="\n".join(_section(part, level="###") for part in part_types()),
    )


def event_types() -> list[type[msgspec.Struct]]:
    """Every event, in the order of the module."""
    return list(typing.get_args(events.Event))


def part_types() -> list[type[msgspec.Struct]]:
    """Every struct that stands inside an event, in the order of the module."""
    found = [value for value in vars(events).values() if isinstance(value, type) and issubclass(value, events._Part)]
    return [part for part in found if part is not events._Part]


def schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    """(`<type>.<version>`, JSON Schema 2020-12) of every event."""
    for event in event_types():
        tag = tag_of(event)
        title = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": tag}
        yield tag, {**title, **msgspec.json.schema(event)}


def tag_of(event: type[msgspec.Struct]) -> str:
    return str(event.__struct_config__.tag)


def _topic_rows() -> Iterator[str]:
    by_topic: dict[str, list[str]] = {topic.name: [] for topic in load_topics()}
    for topic in load_topics():
        by_topic[topic.name] = [f"[`{name}`](#{name})" for name in topic.events]
    for topic in load_topics():
        retention = topic.retention_ms
        kept = "compacted" if topic.compacted else "for ever" if retention is None else _days(retention)
        listed = ", ".join(by_topic[topic.name]) or "not events"
        yield f"| `{topic.name}` | {topic.key} | {topic.partitions} | {kept} | {listed} |"


def _days(milliseconds: int) -> str:
    minutes = milliseconds // 60_000
    return f"{minutes // 1440} days" if minutes >= 1440 else f"{minutes} minutes"


def _section(struct: type[msgspec.Struct], level: str = "##") -> str:
    tag = struct.__struct_config__.tag
    is_event = issubclass(struct, events._Event)
    name = str(tag).rpartition(".")[0] if is_event else struct.__name__
    lines = [f"{level} {name}", "", *([f"`{tag}`", ""] if tag else []), _text(struct), ""]
    fields = msgspec.structs.fields(struct)
    if fields:
        comments = _comments(struct)
        lines += ["| field | type | default | |", "|---|---|---|---|"]
        lines += [
            f"| `{field.name}` | {_kind(field.type)} | {_default(field)} | {comments.get(field.name, '')} |"
            for field in fields
        ]
        lines.append("")
    return "\n".join(lines)


def _text(struct: type[msgspec.Struct]) -> str:
    return " ".join(inspect.getdoc(struct).split())  # type: ignore[union-attr]


def _comments(struct: type[msgspec.Struct]) -> dict[str, str]:
    """What stands behind a field in the code, after `#`."""
    source = inspect.getsource(struct)
    return {name: comment.strip() for name, comment in re.findall(r"^    (\w+): .*?  # (.*)$", source, re.MULTILINE)}


def _kind(annotation: Any) -> str:
    arguments = typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if typing.get_origin(annotation) is typing.Literal:
        return " \\| ".join(f"`{word}`" for word in arguments)
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if typing.get_origin(annotation) is tuple:
        return f"list of {_kind(arguments[0])}"
    if typing.get_origin(annotation) is dict:
        return f"mapping to {_kind(arguments[1])}"
    if arguments:
        return " \\| ".join(_kind(argument) for argument in arguments)
    return {str: "text", int: "whole number", bool: "true \\| false", bytes: "bytes"}[annotation]


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "*required*"
    if field.default is msgspec.NODEFAULT:
        return "empty"
    return f"`{msgspec.json.encode(field.default).decode()}`"


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--schemas"]:
        folder = Path(arguments[1])
        folder.mkdir(parents=True, exist_ok=True)
        for tag, schema in schemas():
            text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
            (folder / f"{tag}.json").write_text(text + "\n")
    else:
        print(page(), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
