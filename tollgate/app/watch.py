"""What a process says of itself, whatever its role: whether it is ready, and the metrics that no stage has."""

import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tollgate.app.reload import Reloading
from tollgate.control import TOPIC as CONTROL
from tollgate.control import Control
from tollgate.ingress.probes import Readiness
from tollgate.log import WritableLog
from tollgate.log.ends import Ends
from tollgate.processors.app import Processors
from tollgate.processors.metrics import TOPIC as REQUESTS
from tollgate.processors.metrics import WorkerMetrics
from tollgate.replies import LocalReplies
from tollgate.reply_topic import TOPIC as REPLIES
from tollgate.reply_topic import ReplyReader
from tollgate.sinks.fold import TOPICS as PROJECTED
from tollgate.sinks.metrics import SinkMetrics
from tollgate.sinks.sink import Sink

# Beyond this, a process is not ready: others should be asked, where there are others.
MAX_QUEUE_AGE_S = 10.0  # of the oldest event that a worker has not decided
MAX_UNREAD_REPLIES = 5_000  # of an ingress's partition

START = "the start: the log is being read"


class Watch:
    """The process, as probes and metrics see it. A stage that is None is not of its role, or does not work yet."""

    def __init__(
        self,
        log: WritableLog,
        registry: CollectorRegistry,
        *,
        role: str,
        control: Control,
        replies: LocalReplies,
        reloading: Reloading | None = None,
    ) -> None:
        self.waiting_for = [START]
        """What a new request would wait for, beside a log that does not answer."""
        self.leaving: list[str] = []
        """Why new requests should be sent elsewhere, though they are taken; nothing while they are welcome."""
        self.reader: ReplyReader | None = None
        self.processors: Processors | None = None
        self.sink: Sink | None = None  # at work here
        self.stands_for_sink = False
        self.ends = Ends(log, tuple(dict.fromkeys((REQUESTS, CONTROL, REPLIES, *PROJECTED))))
        self._log = log
        self._registry = registry
        self._role = role
        self._control = control
        self._reloading = reloading
        registry.register(_ProcessMetrics(self, log, role=role, control=control, replies=replies))
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

    def has_started(self) -> None:
        """Every stage of the process runs."""
        self.waiting_for.remove(START)

    def not_ready(self) -> Sequence[str]:
        """What a new request would wait for; nothing when it may come. Costs next to nothing: each request asks."""
        absent = self._log.waits_for()
        return self.waiting_for if absent is None else [absent, *self.waiting_for]

    def worker_runs(self, processors: Processors) -> None:
        """The worker of this process has taken its partitions over."""
        self.processors = processors
        self._registry.register(
            WorkerMetrics(processors.partitions, processors.backlogs, processors.counts, processors.setup)
        )

    def sink_runs(self) -> None:
        """This process writes Parquet, or stands by to do so."""
        self.stands_for_sink = True
        self._registry.register(SinkMetrics(lambda: self.sink, self.ends))

    async def readiness(self) -> Readiness:
        """Whether requests should be sent here, or else what it waits for; and what the process does."""
        doing: dict[str, object] = {"role": self._role}
        if self._reloading is not None:
            doing["configuration"] = self._reloading.shown()
        waiting_for = [*self.not_ready(), *self.leaving]
        if not waiting_for:
            await self.ends.refresh()
            if self.reader is not None:
                waiting_for += self._ingress_problems(self.reader)
            if self.processors is not None:
                doing["partitions"] = sorted(owner.partition for owner in self.processors.partitions.owners)
                waiting_for += _worker_problems(self.processors)
            if self.stands_for_sink:
                doing["sink"] = "elected" if self.sink is not None else "standing by"
        return Readiness(waiting_for, doing)

    def _ingress_problems(self, reader: ReplyReader) -> Iterator[str]:
        unread = self.ends.of(REPLIES).get(reader.partition, 0) - reader.position
        if unread > MAX_UNREAD_REPLIES:
            yield f"{unread} replies that are not read yet"
        missing = self.ends.of(CONTROL).get(0, 0) - self._control.offset
        if missing > 0:
            yield f"{missing} records of the control topic"


def _worker_problems(processors: Processors) -> Iterator[str]:
    if not processors.backlogs.settled:
        yield "partitions that are being taken over"
    for partition, backlog in sorted(processors.backlogs.look().items()):
        if backlog.age_s > MAX_QUEUE_AGE_S:
            yield f"partition {partition}, which is {backlog.age_s:.0f} s behind with {backlog.records} events"


class _ProcessMetrics(Collector):
    """What every process has."""

    def __init__(self, watch: Watch, log: WritableLog, *, role: str, control: Control, replies: LocalReplies) -> None:
        self._watch = watch
        self._log = log
        self._role = role
        self._control = control
        self._replies = replies

    def collect(self) -> Iterator[Metric]:
        watch = self._watch
        info = GaugeMetricFamily("tollgate_info", "1; the labels say what runs.", labels=("role", "version"))
        info.add_metric((self._role, version("tollgate")), 1)
        yield info
        yield GaugeMetricFamily(
            "tollgate_ready", "1 once it has started and until it stops, while the log answers.", not watch.not_ready()
        )
        records, size, oldest_s = self._log.unacknowledged()
        yield GaugeMetricFamily("tollgate_log_unacknowledged_records", "Appends not known to be durable.", records)
        yield GaugeMetricFamily("tollgate_log_unacknowledged_bytes", "Their bytes in memory.", size)
        yield GaugeMetricFamily("tollgate_log_unacknowledged_seconds", "Age of the oldest of them.", oldest_s)
        yield GaugeMetricFamily(
            "tollgate_log_unheard_seconds", "Since the log last said where it ends.", watch.ends.age_s
        )
        if self._role != "sink":
            yield from self._of_control()
        yield from self._of_replies()

    def _of_control(self) -> Iterator[Metric]:
        missing = max(0, self._watch.ends.of(CONTROL).get(0, 0) - self._control.offset)
        yield GaugeMetricFamily("tollgate_control_lag", "Records of 'control' not applied yet.", missing)
        age_s = time.monotonic() - self._control.heard_s
        yield GaugeMetricFamily("tollgate_control_age_seconds", "Since the last record of 'control'.", age_s)

    def _of_replies(self) -> Iterator[Metric]:
        dropped = CounterMetricFamily(
            "tollgate_replies_dropped", "Pieces of answers not delivered.", labels=("reason",)
        )
        for reason, number in self._replies.dropped.items():
            dropped.add_metric((reason,), number)
        yield dropped
        reader = self._watch.reader
        unread = (
            0 if reader is None else max(0, self._watch.ends.of(REPLIES).get(reader.partition, 0) - reader.position)
        )
        yield GaugeMetricFamily("tollgate_replies_lag", "Records of the own partition of 'replies' not read.", unread)
