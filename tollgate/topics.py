"""topics.yaml: what every topic is, and where a cluster differs from it. Pure but for reading the file."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from .errors import ConfigError, why

PACKAGED = Path(__file__).with_name("topics.yaml")

# Kafka's own defaults, for the settings that the embedded log follows as well.
DEFAULT_RETENTION_MS = 604_800_000
DEFAULT_DELETE_RETENTION_MS = 86_400_000
DEFAULT_DIRTY_RATIO = 0.5
DEFAULT_MAX_MESSAGE_BYTES = 1_048_588

# One key, one partition count: the owner of a partition finds its whole state under one number.
TOGETHER = ("requests", "completions", "costs", "tollgate-state-changelog")

_Setting = str | int | float | bool
_Shape = TypeVar("_Shape")


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: str
    partitions: int
    events: list[str] = []
    config: dict[str, _Setting] = {}


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    topics: dict[str, Any]
    replication_factor: int = 1
    defaults: dict[str, _Setting] = {}


class Topic(msgspec.Struct, frozen=True, kw_only=True):
    """One declared topic; `config` holds Kafka's settings in Kafka's words, the file's defaults included."""

    name: str
    partitions: int
    key: str = ""
    events: tuple[str, ...] = ()
    config: dict[str, str] = {}

    @property
    def compacted(self) -> bool:
        """Whether only the newest record of each key is kept."""
        return "compact" in self._policies

    @property
    def retention_ms(self) -> int | None:
        """How long records are kept; None: for ever."""
        kept_ms = int(self.config.get("retention.ms", DEFAULT_RETENTION_MS))
        return None if kept_ms < 0 or "delete" not in self._policies else kept_ms

    @property
    def delete_retention_ms(self) -> int:
        """How long the tombstone of a compacted topic stays readable."""
        return int(self.config.get("delete.retention.ms", DEFAULT_DELETE_RETENTION_MS))

    @property
    def dirty_ratio(self) -> float:
        """The share of not yet compacted records from which compaction is worth its work."""
        return float(self.config.get("min.cleanable.dirty.ratio", DEFAULT_DIRTY_RATIO))

    @property
    def max_message_bytes(self) -> int:
        """The largest record."""
        return int(self.config.get("max.message.bytes", DEFAULT_MAX_MESSAGE_BYTES))

    @property
    def _policies(self) -> list[str]:
        return [word.strip() for word in self.config.get("cleanup.policy", "delete").split(",")]


class Topics(msgspec.Struct, frozen=True, kw_only=True):
    """Every topic that a log has. Indexing by an unknown name is a `ConfigError`."""

    topics: dict[str, Topic]
    replication_factor: int = 1

    def __getitem__(self, name: str) -> Topic:
        try:
            return self.topics[name]
        except KeyError:
            raise ConfigError(f"topics.yaml: there is no topic '{name}'") from None

    def __iter__(self) -> Iterator[Topic]:
        return iter(self.topics.values())


class ActualTopic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic as a cluster has it: all settings in force, and those that were set for the topic itself."""

    partitions: int
    config: dict[str, str]
    own: dict[str, str] = {}


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One point in which a cluster is not as declared; its text is fit to be shown."""

    topic: str
    what: Literal["missing", "partitions", "config"]
    setting: str = ""
    declared: str
    actual: str = ""

    @property
    def applicable(self) -> bool:
        """Whether it can be set right: the partition count of a topic is fixed for the life of a log."""
        return self.what != "partitions"

    def __str__(self) -> str:
        match self.what:
            case "missing":
                return f"{self.topic}: is missing; declared with {self.declared} partitions"
            case "partitions":
                return (
                    f"{self.topic}: has {self.actual} partitions, declared are {self.declared}; "
                    "the count is fixed for the life of a log"
                )
            case "config":
                return f"{self.topic}: {self.setting} is {self.actual or 'not set'}, declared is {self.declared}"


def plan(declared: Topics, actual: Mapping[str, ActualTopic]) -> list[Difference]:
    """Where `actual` is not as declared, in the order of the file; what is not declared is no difference."""
    differences = []
    for topic in declared:
        found = actual.get(topic.name)
        if found is None:
            differences.append(Difference(topic=topic.name, what="missing", declared=str(topic.partitions)))
            continue
        if found.partitions != topic.partitions:
            differences.append(
                Difference(
                    topic=topic.name,
                    what="partitions",
                    declared=str(topic.partitions),
                    actual=str(found.partitions),
                )
            )
        differences += [
            Difference(topic=topic.name, what="config", setting=key, declared=value, actual=found.config.get(key, ""))
            for key, value in topic.config.items()
            if not _same(value, found.config.get(key))
        ]
    return differences


def _same(declared: str, actual: str | None) -> bool:
    """Whether two settings mean the same: 0.10 is 0.1."""
    if declared == actual or actual is None:
        return declared == actual
    try:
        return float(declared) == float(actual)
    except ValueError:
        return False


def load_topics(path: Path | None = None) -> Topics:
    """Read a topics file; None reads the one that the package brings. Raises `ConfigError`."""
    path = path or PACKAGED
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {why(error)}") from None
    return parse_topics(text, source=path.name)


def parse_topics(text: str, *, source: str = "topics.yaml") -> Topics:
    """The declarations in the text of a topics file. Raises `ConfigError` that names the file and the key."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}") from None
    file = _convert(document, _File, source)
    if file.version != 1:
        raise ConfigError(f"{source}: version is {file.version}; this program reads version 1")
    if file.replication_factor < 1:
        raise ConfigError(f"{source}: replication_factor is {file.replication_factor}; it must be at least 1")
    topics = {name: _topic(name, entry, file.defaults, source) for name, entry in file.topics.items()}
    _check_together(topics, source)
    return Topics(topics=topics, replication_factor=file.replication_factor)


def _topic(name: str, entry: object, defaults: Mapping[str, _Setting], source: str) -> Topic:
    declared = _convert(entry, _Entry, f"{source}: '{name}'")
    if declared.partitions < 1:
        raise ConfigError(f"{source}: '{name}' has {declared.partitions} partitions; it needs at least 1")
    config = {key: _word(value) for key, value in {**defaults, **declared.config}.items()}
    topic = Topic(
        name=name,
        partitions=declared.partitions,
        key=declared.key,
        events=tuple(declared.events),
        config=config,
    )
    try:
        _ = (topic.retention_ms, topic.delete_retention_ms, topic.dirty_ratio, topic.max_message_bytes)
    except ValueError as error:
        raise ConfigError(f"{source}: '{name}' has a setting that is no number: {error}") from None
    return topic


def _check_together(topics: Mapping[str, Topic], source: str) -> None:
    counts = {name: topics[name].partitions for name in TOGETHER if name in topics}
    for name, count in counts.items():
        first = next(iter(counts))
        if count != counts[first]:
            raise ConfigError(
                f"{source}: '{name}' has {count} partitions, '{first}' has {counts[first]}; they must be equal"
            )


def _convert(value: object, shape: type[_Shape], where: str) -> _Shape:
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from None


def _word(value: _Setting) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
