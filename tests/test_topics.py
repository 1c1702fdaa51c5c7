from pathlib import Path

import pytest

from tollgate.errors import ConfigError
from tollgate.topics import PACKAGED, ActualTopic, Difference, Topics, load_topics, parse_topics, plan

TWO = """
version: 1
replication_factor: 3
defaults: {retention.ms: 1000, compression.type: producer}
topics:
  requests: {key: organisation, partitions: 6, config: {retention.ms: -1}}
  control:
    key: entity
    partitions: 1
    events: [key_set]
    config: {cleanup.policy: compact, min.cleanable.dirty.ratio: 0.1}
"""


def as_declared(topics: Topics) -> dict[str, ActualTopic]:
    return {topic.name: ActualTopic(partitions=topic.partitions, config=dict(topic.config)) for topic in topics}


def test_the_packaged_declarations_are_read() -> None:
    topics = load_topics()
    assert {topic.name for topic in topics} >= {"requests", "completions", "costs", "control", "audit", "replies"}
    assert topics["requests"].partitions == topics["tollgate-state-changelog"].partitions == 6
    assert topics["requests"].retention_ms == 7 * 86_400_000
    assert topics["completions"].retention_ms is None
    assert topics["control"].compacted and not topics["requests"].compacted
    assert PACKAGED.samefile(Path(__file__).parents[1] / "topics.yaml")


def test_defaults_hold_where_a_topic_says_nothing() -> None:
    topics = parse_topics(TWO)
    assert topics.replication_factor == 3
    assert topics["requests"].config == {"retention.ms": "-1", "compression.type": "producer"}
    control = topics["control"]
    assert (control.events, control.key, control.dirty_ratio) == (("key_set",), "entity", 0.1)
    assert control.retention_ms is None, "a compacted topic keeps the newest record of each key for ever"
    assert control.delete_retention_ms == 86_400_000


def test_both_cleanup_policies_may_hold_at_once() -> None:
    both = parse_topics(TWO.replace("cleanup.policy: compact", "cleanup.policy: 'compact,delete'"))["control"]
    assert both.compacted
    assert both.retention_ms == 1000


def test_an_unknown_topic_is_named() -> None:
    with pytest.raises(ConfigError, match=r"topics\.yaml: there is no topic 'other'"):
        load_topics()["other"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("version: 1", "version: 2", "topics.yaml: version is 2; this program reads version 1"),
        ("replication_factor: 3", "replication_factor: 0", "replication_factor is 0; it must be at least 1"),
        ("partitions: 6", "partitions: 0", "'requests' has 0 partitions; it needs at least 1"),
        ("partitions: 6", "partitions: six", "'requests': Expected `int`, got `str`"),
        ("key: organisation", "kay: organisation", "'requests': Object contains unknown field `kay`"),
        ("topics:", "tropics:", "unknown field `tropics`"),
        ("retention.ms: -1", "retention.ms: ever", "'requests' has a setting that is no number"),
        ("version: 1", "version: [", "topics.yaml: not YAML"),
        ("version: 1", "- version", "topics.yaml: not YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_topics(TWO.replace(old, new, 1))
    assert message in str(raised.value)


def test_topics_that_belong_together_have_one_partition_count() -> None:
    text = "version: 1\ntopics:\n  requests: {key: o, partitions: 6}\n  costs: {key: o, partitions: 3}\n"
    with pytest.raises(ConfigError) as raised:
        parse_topics(text)
    assert str(raised.value) == ("topics.yaml: 'costs' has 3 partitions, 'requests' has 6; they must be equal")


def test_a_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_topics(tmp_path / "topics.yaml")


def test_a_cluster_as_declared_has_no_differences() -> None:
    topics = parse_topics(TWO)
    assert plan(topics, as_declared(topics)) == []


def test_a_missing_topic_is_a_difference() -> None:
    topics = parse_topics(TWO)
    actual = as_declared(topics)
    del actual["requests"]
    (difference,) = plan(topics, actual)
    assert str(difference) == "requests: is missing; declared with 6 partitions"
    assert difference.applicable


def test_another_partition_count_cannot_be_applied() -> None:
    topics = parse_topics(TWO)
    actual = as_declared(topics) | {"requests": ActualTopic(partitions=8, config=topics["requests"].config)}
    (difference,) = plan(topics, actual)
    assert "has 8 partitions, declared are 6" in str(difference)
    assert not difference.applicable


def test_each_setting_that_differs_is_named_and_those_not_declared_are_not() -> None:
    topics = parse_topics(TWO)
    config = {"retention.ms": "5", "segment.ms": "1", "compression.type": "producer"}
    actual = as_declared(topics) | {"requests": ActualTopic(partitions=6, config=config)}
    assert plan(topics, actual) == [
        Difference(topic="requests", what="config", setting="retention.ms", declared="-1", actual="5")
    ]
    assert str(plan(topics, actual)[0]) == "requests: retention.ms is 5, declared is -1"


def test_numbers_are_compared_as_numbers() -> None:
    topics = parse_topics(TWO)
    config = {**topics["control"].config, "min.cleanable.dirty.ratio": "0.10"}
    assert plan(topics, as_declared(topics) | {"control": ActualTopic(partitions=1, config=config)}) == []
