"""Reads a YAML settings file into frozen structs; every error names file, line, key and the way out.

YAML gives the structure, the types give the meaning: a scalar is taken as the text that was written and converted to
the type of its key, so that `no`, `0123` or `0.1` never turn into something else on the way. `${NAME}` and
`${NAME:-default}` are replaced inside values after parsing, so that no value can change the structure; `$${` stands
for `${`. A key without a value keeps its default. Errors never show a value: a secret may stand in the wrong place.

Knows nothing of what the settings mean.
"""

import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import msgspec
import yaml

from tollgate.errors import ConfigError, Mistakes
from tollgate.secret import Secret

MAX_FILE_BYTES = 1 << 20

T = TypeVar("T", bound=msgspec.Struct)

_REFERENCE = re.compile(
    r"(?P<escape>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}|(?P<broken>\$\{)"
)


class Settings(Generic[T]):
    """What a file said: `values`, and the line of each key."""

    def __init__(self, values: T, file: str, lines: Mapping[tuple[str, ...], int]) -> None:
        self.values = values
        self._file = file
        self._lines = lines

    def error(self, path: tuple[str, ...], message: str) -> ConfigError:
        """An error about the key at `path`, or the closest thing above it that stands in the file."""
        known = path
        while known and known not in self._lines:
            known = known[:-1]
        return ConfigError(f"{self._file}:{self._lines.get(known, 1)}: {_dotted(path)} {message}")


def read_settings(path: Path, shape: type[T], env: Mapping[str, str]) -> Settings[T]:
    """The settings in the file at `path`. Raises `ConfigError` with everything that is wrong."""
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes; is it the right file?")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}; check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: byte {error.start}; save it as UTF-8") from error
    return parse_settings(text, shape, env, file=str(path))


def parse_settings(text: str, shape: type[T], env: Mapping[str, str], *, file: str) -> Settings[T]:
    """The settings in `text`; `file` names it in errors."""
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"{file}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{file}: not YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: nested too deeply to be a settings file") from error
    if root is None:
        return Settings(shape(), file, {})
    reader = _Reader(file, env)
    values = None
    with reader.mistakes:
        values = reader.struct(root, shape, ())
    reader.mistakes.problems.sort(key=lambda problem: int(problem[len(file) + 1 :].partition(":")[0]))  # by line
    reader.mistakes.tell()
    assert values is not None
    return Settings(values, file, reader.lines)


class _Reader:
    """Walks the YAML nodes and the types side by side; notes the line of every key it passes, and every mistake.

    What holds a mistake is not made: then `ConfigError` is raised without a word, for the mistake has been noted.
    """

    def __init__(self, file: str, env: Mapping[str, str]) -> None:
        self._file = file
        self._env = env
        self.lines: dict[tuple[str, ...], int] = {}
        self.mistakes = Mistakes()

    def struct(self, node: yaml.Node, shape: type[T], path: tuple[str, ...]) -> T:
        fields = {field.name: field for field in msgspec.structs.fields(shape)}
        given: dict[str, Any] = {}
        named = set()
        before = len(self.mistakes.problems)
        for key, value in () if _is_empty(node) else self._items(node, path):
            with self.mistakes:
                if key.value not in fields:
                    hint = _did_you_mean(key.value, fields) or f"; known: {', '.join(sorted(fields))}"
                    raise self._error(key, f"unknown key {key.value!r} in {_dotted(path)}{hint}")
                if not _is_empty(value):
                    named.add(key.value)
                    given[key.value] = self._value(value, fields[key.value].type, (*path, key.value))
        for name, field in fields.items():
            with self.mistakes:
                if field.required and name not in named:
                    raise self._error(node, f"{_dotted(path)} needs {name!r}{_hint(field.type)}")
        self._check_since(before)
        return shape(**given)

    def _check_since(self, before: int) -> None:
        """Raise `ConfigError` without a word where a mistake was noted since there were so many."""
        if len(self.mistakes.problems) > before:
            raise ConfigError

    def _value(self, node: yaml.Node, shape: Any, path: tuple[str, ...]) -> Any:
        bare = bare_type(shape)
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            return self.struct(node, bare, path)
        arguments = typing.get_args(bare)
        before = len(self.mistakes.problems)
        if typing.get_origin(bare) is dict:
            pairs = {}
            for key, value in self._items(node, path):
                with self.mistakes:
                    pairs[key.value] = self._value(value, arguments[1], (*path, key.value))
            self._check_since(before)
            return pairs
        if typing.get_origin(bare) in (tuple, frozenset):
            if not isinstance(node, yaml.SequenceNode):
                raise self._error(node, f"{_dotted(path)} must be a list, for instance [a, b]{_hint(shape)}")
            items = []
            for index, item in enumerate(node.value):
                with self.mistakes:
                    items.append(self._value(item, arguments[0], (*path, str(index))))
            self._check_since(before)
            return typing.get_origin(bare)(items)
        return self._scalar(node, shape, path)

    def _items(self, node: yaml.Node, path: tuple[str, ...]) -> Sequence[tuple[yaml.ScalarNode, yaml.Node]]:
        """The pairs of a mapping, whose keys are text, each given once."""
        if not isinstance(node, yaml.MappingNode):
            raise self._error(node, f"{_dotted(path)} must hold 'key: value' pairs")
        pairs = []
        seen: dict[str, int] = {}
        for key, value in node.value:
            with self.mistakes:
                if not isinstance(key, yaml.ScalarNode):
                    raise self._error(key, f"a key in {_dotted(path)} is not a word")
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise self._error(
                        key,
                        f"{key.value!r} is given twice in {_dotted(path)}, first on line {seen[key.value]}; keep one",
                    )
                seen[key.value] = line
                self.lines[(*path, key.value)] = line
                pairs.append((key, value))
        return pairs

    def _scalar(self, node: yaml.Node, shape: Any, path: tuple[str, ...]) -> Any:
        if not isinstance(node, yaml.ScalarNode) or _is_empty(node):
            raise self._error(node, f"{_dotted(path)} must be a single value{_hint(shape)}")
        text = self._interpolated(node, path)
        bare = bare_type(shape)
        if typing.get_origin(bare) is Literal:
            words = typing.get_args(bare)
            if text not in words:
                choice = f"one of {', '.join(words)}" if len(words) > 1 else words[0]
                raise self._error(node, f"{_dotted(path)} must be {choice}{_did_you_mean(text, words) or ''}")
            return text
        try:
            if bare is Secret:
                return Secret(text)
            return msgspec.convert(text, shape, strict=False)
        except msgspec.ValidationError as error:
            raise self._error(node, f"{_dotted(path)}: {_plain(error)}{_hint(shape)}") from None
        except ValueError as error:
            raise self._error(node, f"{_dotted(path)} {error}{_hint(shape)}") from None

    def _interpolated(self, node: yaml.ScalarNode, path: tuple[str, ...]) -> str:
        def replace(match: re.Match[str]) -> str:
            if match["escape"]:
                return "${"
            if match["broken"]:
                raise self._error(
                    node, f"{_dotted(path)} holds '${{' that is not ${{NAME}} or ${{NAME:-default}}; write $${{ for ${{"
                )
            name, default = match["name"], match["default"]
            value = self._env.get(name)
            if default is not None:
                return value or default
            if value is None:
                raise self._error(
                    node,
                    f"{_dotted(path)} needs the environment variable {name}, which is not set; "
                    f"export {name}=..., or give a default: ${{{name}:-...}}",
                )
            return value

        return _REFERENCE.sub(replace, node.value)

    def _error(self, node: yaml.Node, message: str) -> ConfigError:
        return ConfigError(f"{self._file}:{node.start_mark.line + 1}: {message}")


def _did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """`; did you mean '…'?` if a known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else None


def bare_type(shape: Any) -> Any:
    """`Annotated[T, …]` and `T | None` without what is around T."""
    if typing.get_origin(shape) is typing.Annotated:
        return bare_type(typing.get_args(shape)[0])
    if typing.get_origin(shape) in (types.UnionType, typing.Union):
        inner = [argument for argument in typing.get_args(shape) if argument is not types.NoneType]
        return bare_type(inner[0])
    return shape


def description(shape: Any) -> str:
    """What a key's type says about itself; empty where it says nothing."""
    if typing.get_origin(shape) is typing.Annotated:
        for note in typing.get_args(shape)[1:]:
            if isinstance(note, msgspec.Meta) and note.description:
                return note.description
    return ""


def _hint(shape: Any) -> str:
    """The description of a key as the end of a message."""
    return f" ({text})" if (text := description(shape)) else ""


def _plain(error: msgspec.ValidationError) -> str:
    text = str(error).replace(", got `str`", "")
    for name, words in (("`int`", "a whole number"), ("`float`", "a number"), ("`bool`", "true or false")):
        text = text.replace(name, words)
    return text[:1].lower() + text[1:]


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path) or "the file"
