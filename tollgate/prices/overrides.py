"""Reads `pricing.yaml`: the operator's own prices, which take the place of the catalogue's.

    models:
      "local/mock-gpt": {input: 2.50, output: 10.00, cache_read: 0.25, cache_write: 3.125}
      "azure-east/gpt-4*":                       # a list is a history; each entry is the whole price from its date on
        - {input: 2.50, output: 10.00}
        - {valid_from: 2026-11-01, input: 2.00, output: 8.00, request: 0.001}
      "local/long": {input: {0: 1.25, 200000: 2.50}, output: 10.00, context_window: 1000000}

Prices are in USD per million tokens, `request` and `web_search` in USD per call. `input` and `output` must be there:
what is not written is not known, and what costs nothing is a written 0. Other classes cost what `PRICED_AS` says.
Keys are `provider/model`, in any case, with `*`, `?` and `[…]` (`*` also matches a slash).

Which entry counts: a key without wildcards before one with; then the key with more literal characters; then the one
written first. Within a key, the latest `valid_from` (UTC midnight) that has come. A key none of whose entries is in
force yet says nothing, and the next one decides.

Numbers go from the text of the file into decimals without ever being floats. Pure: no clock, no I/O.
"""

import difflib
import re
from collections.abc import Iterable
from datetime import date
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import NoReturn

import msgspec
import yaml

from tollgate.errors import ConfigError, Mistakes
from tollgate.prices.catalogue import When
from tollgate.prices.price import METER_OF_WORD, Amount, unit_pusd

MAX_USD = 1_000_000
"""A higher price is taken for a mistake in the unit."""

_LIMITS = ("context_window", "max_output_tokens")
_WORDS = (*METER_OF_WORD, *_LIMITS, "valid_from")
_REQUIRED = ("input", "output")
_WILDCARDS = re.compile(r"\[[^]]*\]|[*?]")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One whole price and, where the operator states them, the limits of the model."""

    usd: dict[str, Amount]
    when: When
    context_window: int | None = None
    max_output_tokens: int | None = None


class Rule(msgspec.Struct, frozen=True):
    """All entries under one key, newest first. `pattern` is in lower case."""

    pattern: str
    entries: tuple[Entry, ...]

    def entry(self, name: str, at_ms: int) -> Entry | None:
        """What this rule says of `provider/model` (in lower case) at that time, if anything."""
        if not fnmatchcase(name, self.pattern):
            return None
        return next((entry for entry in self.entries if entry.when.holds(at_ms)), None)


def read_rules(text: str, *, source: str = "pricing.yaml") -> tuple[Rule, ...]:
    """The rules in the file, those that count first in front.

    Raises `ConfigError` that says `source:line: what is wrong; what to do` of every entry.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{source}:{line}: not YAML: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {str(error).splitlines()[0]}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply to be a list of prices") from error
    rules = _Reader(source).file(root) if root is not None else ()
    return tuple(sorted(rules, key=_precedence))


def _precedence(rule: Rule) -> tuple[bool, int]:
    literals = _WILDCARDS.sub("", rule.pattern)
    return literals != rule.pattern, -len(literals)


class _Reader:
    """Walks the nodes of the document, which still know their lines and the text of each number."""

    def __init__(self, source: str) -> None:
        self._source = source

    def file(self, root: yaml.Node) -> tuple[Rule, ...]:
        top = self._mapping(root, "the file", ("models",))
        if "models" not in top or top["models"].value == "":
            return ()
        rules, mistakes = [], Mistakes()
        for key, node in self._mapping(top["models"], "models").items():
            with mistakes:
                rules.append(self._rule(key, node))
        mistakes.tell()
        return tuple(rules)

    def _rule(self, key: str, node: yaml.Node) -> Rule:
        provider, slash, model = key.partition("/")
        if not (provider and slash and model):
            self._fail(node, f"{key!r} is not provider/model; write 'openai/{key}' or '*/{key}'")
        nodes: list[yaml.Node] = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes:
            self._fail(node, f"{key!r} has no entry")
        entries = [self._entry(key, each) for each in nodes]
        dates = [entry.when.valid_from for entry in entries]
        for each, valid_from in zip(nodes, dates, strict=True):
            if dates.count(valid_from) > 1:
                self._fail(
                    each,
                    f"{key!r} has two entries "
                    + (f"from {valid_from}" if valid_from else "without valid_from")
                    + "; give each another valid_from",
                )
        entries.sort(key=lambda entry: entry.when.valid_from or date.min, reverse=True)
        return Rule(pattern=key, entries=tuple(entries))

    def _entry(self, key: str, node: yaml.Node) -> Entry:
        fields = self._mapping(node, repr(key), _WORDS)
        mistakes = Mistakes()
        limits: dict[str, int] = {}
        usd: dict[str, Amount] = {}
        for word in _REQUIRED:
            with mistakes:
                if word not in fields:
                    self._fail(node, f"{key!r} has no {word!r}; write {word}: 0 if it costs nothing")
        for word in fields:
            with mistakes:
                if word in _LIMITS:
                    limits[word] = self._count(key, word, fields[word])
                elif word in METER_OF_WORD:
                    usd[word] = self._amount(key, word, fields[word])
        mistakes.tell()
        usd = {word: usd[word] for word in METER_OF_WORD if word in usd}  # in whichever order they were written
        valid_from = self._date(key, fields["valid_from"]) if "valid_from" in fields else None
        return Entry(usd=usd, when=When(valid_from=valid_from), **limits)

    def _amount(self, key: str, word: str, node: yaml.Node) -> Amount:
        if not isinstance(node, yaml.MappingNode):
            return self._usd(key, word, node)
        steps = {}
        for start, value in self._mapping(node, f"{key!r}: {word}").items():
            if not start.isdecimal():
                self._fail(value, f"{key!r}: {word}: a step begins above a number of tokens, not {start!r}")
            steps[int(start)] = self._usd(key, word, value)
        if 0 not in steps:
            self._fail(node, f"{key!r}: {word}: the first step must be 0, as in {{0: 1.25, 200000: 2.50}}")
        return dict(sorted(steps.items()))

    def _usd(self, key: str, word: str, node: yaml.Node) -> Decimal:
        try:
            usd = Decimal(node.value) if isinstance(node, yaml.ScalarNode) else Decimal("NaN")
        except InvalidOperation:
            usd = Decimal("NaN")
        if not (usd.is_finite() and 0 <= usd <= MAX_USD):
            self._fail(node, f"{key!r}: {word} must be USD from 0 to {MAX_USD}, not {_shown(node)}")
        if usd and not unit_pusd(METER_OF_WORD[word], usd):
            self._fail(
                node,
                f"{key!r}: {word}: {_shown(node)} is less than a pico-dollar each; write USD per million tokens",
            )
        return usd

    def _count(self, key: str, word: str, node: yaml.Node) -> int:
        if not (isinstance(node, yaml.ScalarNode) and node.value.isdecimal() and int(node.value) > 0):
            self._fail(node, f"{key!r}: {word} must be a whole number of tokens, not {_shown(node)}")
        return int(node.value)

    def _date(self, key: str, node: yaml.Node) -> date:
        try:
            return date.fromisoformat(node.value)
        except (TypeError, ValueError):
            self._fail(node, f"{key!r}: valid_from must be a day such as 2026-11-01, not {_shown(node)}")

    def _mapping(self, node: yaml.Node, what: str, known: Iterable[str] | None = None) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self._fail(node, f"{what} must be a mapping of keys to values, not {_shown(node)}")
        fields: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else _shown(key_node)
            if known is None:
                key = key.lower()
            elif key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
                self._fail(key_node, f"{what}: unknown key {key!r}; {hint}")
            if key in fields:
                self._fail(key_node, f"{what}: {key!r} is there twice; remove one")
            fields[key] = value
        return fields

    def _fail(self, node: yaml.Node, message: str) -> NoReturn:
        raise ConfigError(f"{self._source}:{node.start_mark.line + 1}: {message}")


def _shown(node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        return repr(node.value)
    return "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
