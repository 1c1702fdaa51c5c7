"""What each role does on Kafka: with the topics that there are, and as the operations page says."""

import re
from collections import defaultdict
from pathlib import Path

from tollgate.app.access import ROLES, access_of
from tollgate.app.sinking import GROUP
from tollgate.log.kafka_access import Access
from tollgate.topics import load_topics

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text()
TOPICS = {topic.name for topic in load_topics()}


def test_roles_use_topics_that_are_declared():
    assert {topic for access in ROLES.values() for topic in access.topics} == TOPICS


def test_a_process_of_all_roles_does_what_each_of_them_does():
    everything = access_of("all")

    for role in ("ingress", "worker", "sink"):
        assert set(access_of(role).groups) <= set(everything.groups)
        for topic, operations in access_of(role).topics.items():
            assert set(operations) <= set(everything.topics[topic])
    assert set(everything.groups) == {"tollgate", GROUP}


def test_the_operations_page_grants_each_role_what_it_does_and_no_more():
    topics: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for role, operation, names in re.findall(r"^allow (\w+) (Read|Write) (.+)$", PAGE, re.MULTILINE):
        for name in names.split():
            topics[role][name].add(operation)
    groups = dict(re.findall(r"^join (\w+) (\S+)$", PAGE, re.MULTILINE))

    assert {role: (dict(topics[role]), [groups[role]] if role in groups else []) for role in topics} == {
        role: (by_topic(access), list(access.groups)) for role, access in ROLES.items()
    }


def by_topic(access: Access) -> dict[str, set[str]]:
    return {topic: set(operations) for topic, operations in access.topics.items()}


def test_the_operations_page_lets_every_role_describe_every_topic():
    (names,) = re.findall(r'^topics="(.+)"$', PAGE, re.MULTILINE)
    (roles,) = re.findall(r"^for user in (.+); do allow \$user Describe \$topics; done$", PAGE, re.MULTILINE)

    assert set(names.split()) == TOPICS
    assert set(roles.split()) == set(ROLES)
