"""Ready means: requests may be sent here."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from tollgate.app import watch
from tollgate.app.watch import Watch
from tollgate.control import Control
from tollgate.errors import LogUnavailable
from tollgate.log import Unacknowledged
from tollgate.log import ends as ends_of_log
from tollgate.processors.app import Processors
from tollgate.processors.metrics import Backlog
from tollgate.replies import LocalReplies


class FakeLog:
    """Ends that a test sets; None: no answer."""

    def __init__(self) -> None:
        self.tops: dict[str, dict[int, int]] = {"requests": {}, "control": {0: 7}, "replies": {3: 100}}
        self.answers = True
        self.absent: str | None = None

    async def ends(self, topic: str) -> dict[int, int]:
        if not self.answers:
            raise LogUnavailable("nobody is there")
        return self.tops.get(topic, {})

    def waits_for(self) -> str | None:
        return self.absent

    def unacknowledged(self) -> Unacknowledged:
        return Unacknowledged(0, 0, 0.0)


class FakeBacklogs:
    def __init__(self) -> None:
        self.settled = True
        self.backlogs = {0: Backlog(0, 0.0)}

    def look(self) -> dict[int, Backlog]:
        return self.backlogs


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends_of_log, "ASK_EVERY_S", 0.0)


def started(log: FakeLog, role: str) -> Any:
    control = Control()
    control.offset = 7
    watched: Any = Watch(log, CollectorRegistry(), role=role, control=control, replies=LocalReplies("3/a/x"))  # type: ignore[arg-type]
    watched.has_started()
    watched.control = control
    return watched


async def problems(watched: Any) -> list[str]:
    return list((await watched.readiness()).waiting_for)


async def test_a_process_whose_log_does_not_answer_is_not_ready_and_does_not_ask_it_anything():
    log = FakeLog()
    watched = started(log, "ingress")
    assert await problems(watched) == []
    log.answers = False
    assert await problems(watched) == [], "not at the first missed answer"
    log.absent = "the log: it has not answered for 3 s"
    assert await problems(watched) == watched.not_ready() == ["the log: it has not answered for 3 s"]
    log.absent = None
    assert await problems(watched) == watched.not_ready() == []


async def test_a_process_that_starts_names_the_log_before_the_rest():
    log = FakeLog()
    log.absent = "the log: no broker has answered yet"
    watched = Watch(log, CollectorRegistry(), role="sink", control=Control(), replies=LocalReplies("3/a/x"))  # type: ignore[arg-type]
    assert await problems(watched) == [log.absent, watch.START]


async def test_a_log_that_hangs_holds_the_probe_up_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch):
    class Hanging(FakeLog):
        async def ends(self, topic: str) -> dict[int, int]:
            return await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(ends_of_log, "PATIENCE_S", 0.01)
    async with asyncio.timeout(5):
        assert await problems(started(Hanging(), "sink")) == []


async def test_an_ingress_is_ready_when_it_reads_its_replies_and_knows_the_keys():
    log = FakeLog()
    watched = started(log, "ingress")
    watched.reader = SimpleNamespace(partition=3, position=100)
    assert await problems(watched) == []
    log.tops["replies"][3] += watch.MAX_UNREAD_REPLIES + 1
    log.tops["control"][0] += 2
    assert await problems(watched) == ["5001 replies that are not read yet", "2 records of the control topic"]


async def test_a_worker_is_ready_when_it_has_taken_over_and_is_not_far_behind():
    watched = started(FakeLog(), "worker")
    backlogs = FakeBacklogs()
    owners: Any = SimpleNamespace(owners=[SimpleNamespace(partition=4), SimpleNamespace(partition=0)])
    watched.processors = Processors(owners, backlogs, None, lambda: None)  # type: ignore[arg-type]
    assert (await watched.readiness()).doing == {"role": "worker", "partitions": [0, 4]}
    assert await problems(watched) == []
    backlogs.settled = False
    backlogs.backlogs = {0: Backlog(12, 11.0), 4: Backlog(3, 0.5)}
    assert await problems(watched) == [
        "partitions that are being taken over",
        "partition 0, which is 11 s behind with 12 events",
    ]


async def test_a_sink_says_whether_it_writes_or_stands_by():
    watched = started(FakeLog(), "sink")
    watched.sink_runs()
    assert await watched.readiness() == ([], {"role": "sink", "sink": "standing by"})
    watched.sink = object()
    assert await watched.readiness() == ([], {"role": "sink", "sink": "elected"})
