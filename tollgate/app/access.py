"""What each role does on a Kafka cluster: asked of the cluster at the start, and documented as the ACLs to grant.

Every role counts the partitions of every topic, and so must be allowed to describe them all.
"""

from collections import defaultdict
from collections.abc import Mapping

from tollgate.app.sinking import GROUP as SINKS
from tollgate.log.kafka_access import Access, Operation

READ: tuple[Operation, ...] = ("Read",)
WRITE: tuple[Operation, ...] = ("Write",)
BOTH: tuple[Operation, ...] = ("Read", "Write")

WORKERS = "tollgate"

ROLES: Mapping[str, Access] = {
    "ingress": Access(
        topics={
            "requests": BOTH,
            "completions": READ,
            "audit": WRITE,
            "control": READ,
            "replies": READ,
            "seals": BOTH,
        }
    ),
    "worker": Access(
        topics={
            "requests": BOTH,  # what became of calls that were handed over, and shares of limits
            "completions": BOTH,
            "costs": WRITE,
            "tollgate-state-changelog": BOTH,
            "audit": WRITE,
            "control": BOTH,
            "replies": WRITE,
            "seals": BOTH,
            "dead-letters": WRITE,
        },
        groups=(WORKERS,),
    ),
    "sink": Access(
        topics={"completions": READ, "audit": READ, "control": READ, "seals": BOTH, "dead-letters": WRITE},
        groups=(SINKS,),
    ),
    # The commands that read the log: sql, replay, reconcile.
    "reader": Access(topics={"completions": READ, "costs": READ, "audit": READ}),
    # The command that reads all of it: log export.
    "mover": Access(
        topics=dict.fromkeys(("requests", "completions", "costs", "audit", "control", "seals", "dead-letters"), READ)
    ),
}


def access_of(role: str) -> Access:
    """What a process of the role does; `all` does what every role of a gateway does."""
    if role != "all":
        return ROLES[role]
    parts = [ROLES[part] for part in ("ingress", "worker", "sink")]
    topics: defaultdict[str, set[Operation]] = defaultdict(set)
    for part in parts:
        for topic, operations in part.topics.items():
            topics[topic].update(operations)
    return Access(topics=topics, groups=sorted({group for part in parts for group in part.groups}))
