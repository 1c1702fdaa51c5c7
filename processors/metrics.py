"""The metrics of a worker: read from its state when they are asked for, so that requests pay nothing for them.

Labels have few values by construction: partitions, states, the providers of the configuration.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tollgate.log.ends import Ends
from tollgate.money import usd
from tollgate.processors.counts import Counts
from tollgate.processors.partitions import Partitions
from tollgate.processors.setup import Setup

TOPIC = "requests"
COUNTED = ("requests", "tokens", "input_tokens", "output_tokens")  # of what a provider may name, that which is shown


class Undone(NamedTuple):
    """The first event of a partition that need be delivered again, and when it was appended; None: it was not read."""

    offset: int
    since_ms: int | None


class Stream(Protocol):
    """What the metrics ask of whoever reads `requests`."""

    @property
    def settled(self) -> bool:
        """Is every assigned partition taken over?"""
        ...

    def undone(self) -> Mapping[int, Undone]:
        """By partition; a partition of which nothing was read since it was taken over is absent."""
        ...


class Backlog(NamedTuple):
    """What a partition has before its owner: records, and the age of the first of them."""

    records: int
    age_s: float


class Backlogs:
    """How far the owners are behind the log."""

    def __init__(self, partitions: Partitions, stream: Stream, ends: Ends) -> None:
        self._partitions = partitions
        self._stream = stream
        self._ends = ends
        self._unread: dict[int, tuple[int, float]] = {}  # partition → what comes next, and since when it is seen there

    @property
    def settled(self) -> bool:
        return self._stream.settled

    def look(self) -> dict[int, Backlog]:
        """By partition. What is on the log but not read yet has no age known: it is that of its first sight here."""
        undone, ends, now_s = self._stream.undone(), self._ends.of(TOPIC), time.monotonic()
        unread, self._unread = self._unread, {}
        found = {}
        for owner in self._partitions.owners:
            partition = owner.partition
            offset, since_ms = undone.get(partition) or Undone(owner.ledger.decided + 1, None)
            records = max(0, ends.get(partition, 0) - offset)
            age_s = 0.0
            if since_ms is not None:
                age_s = max(0.0, time.time() - since_ms / 1000)
            elif records:
                seen = unread.get(partition)
                self._unread[partition] = seen = seen if seen and seen[0] == offset else (offset, now_s)
                age_s = now_s - seen[1]
            found[partition] = Backlog(records, age_s)
        return found


class WorkerMetrics(Collector):
    """To be registered with the process's registry."""

    def __init__(
        self,
        partitions: Partitions,
        backlogs: Backlogs,
        counts: Counts,
        setup: Callable[[], Setup],
    ) -> None:
        self._partitions = partitions
        self._backlogs = backlogs
        self._counts = counts
        self._setup = setup

    def collect(self) -> Iterator[Metric]:
        yield from self._by_partition()
        yield from self._totals()
        yield self._accounts()
        yield from self._counters()

    def _by_partition(self) -> Iterator[Metric]:
        lag = _of_partition("tollgate_requests_lag", "Events of the topic 'requests' that are not decided yet.")
        age = _of_partition("tollgate_queue_age_seconds", "Age of the oldest event that is not decided yet.")
        epoch = _of_partition("tollgate_partition_epoch", "Journal offset of the take-over by this process.")
        checkpoint = _of_partition(
            "tollgate_checkpoint_age_seconds", "How long something has been changed that is in no checkpoint."
        )
        for partition, (records, age_s) in sorted(self._backlogs.look().items()):
            lag.add_metric((str(partition),), records)
            age.add_metric((str(partition),), age_s)
        for owner in sorted(self._partitions.owners, key=lambda owner: owner.partition):
            epoch.add_metric((str(owner.partition),), owner.ledger.epoch)
            checkpoint.add_metric((str(owner.partition),), owner.checkpoint_age_s)
        yield from (lag, age, epoch, checkpoint)

    def _totals(self) -> Iterator[Metric]:
        partitions = self._partitions
        held = [
            request.admitted.hold_pusd
            for owner in partitions.owners
            for request in owner.ledger.open.values()
            if request.admitted.hold_pusd
        ]
        opened = sum(len(owner.ledger.open) for owner in partitions.owners)
        yield GaugeMetricFamily("tollgate_partitions_owned", "Partitions of this worker.", partitions.count)
        yield GaugeMetricFamily("tollgate_open_requests", "Requests admitted and not ended.", opened)
        yield GaugeMetricFamily("tollgate_holds", "Requests for which budget is held.", len(held))
        yield GaugeMetricFamily("tollgate_held_usd", "Budget held, in USD.", float(usd(sum(held))))
        calls = GaugeMetricFamily(
            "tollgate_calls_running", "Calls under way, here or for the next owner.", labels=("owner",)
        )
        calls.add_metric(("here",), partitions.calls)
        calls.add_metric(("elsewhere",), partitions.calls_released)
        yield calls

    def _accounts(self) -> Metric:
        left = GaugeMetricFamily(
            "tollgate_account_limit_left_ratio",
            "What is left of a provider's rate limit, as its newest answer said.",
            labels=("provider", "account", "counts"),
        )
        for (provider, account), transport in self._setup().transports.items():
            for window in transport.limits:
                if window.limit and window.counts in COUNTED:
                    left.add_metric((provider, account, window.counts), min(1.0, window.remaining / window.limit))
        return left

    def _counters(self) -> Iterator[Metric]:
        counts = self._counts
        yield CounterMetricFamily(
            "tollgate_takeovers", "Partitions that this process has taken over.", counts.taken_over
        )
        yield CounterMetricFamily("tollgate_handovers", "Partitions that it has handed over.", counts.released)
        yield CounterMetricFamily(
            "tollgate_calls_handed_over",
            "Calls that ran on when their partition was handed over.",
            counts.calls_released,
        )
        yield CounterMetricFamily(
            "tollgate_journal_gaps", "Finds of a replaced writer's records between this one's.", counts.gaps
        )
        yield CounterMetricFamily(
            "tollgate_dead_letters", "Events of 'requests' that could not be read.", counts.dead_letters
        )
        probes = CounterMetricFamily(
            "tollgate_probes", "Whether clients of lost calls still waited, as their ingress said.", labels=("answer",)
        )
        for answer in ("waiting", "gone", "silent"):
            probes.add_metric((answer,), counts.probes[answer])
        ends = CounterMetricFamily("tollgate_requests_ended", "Requests ended, by how.", labels=("status",))
        for status in ("completed", "failed", "rejected", "cancelled", "abandoned"):
            ends.add_metric((status,), counts.ends[status])
        attempts = CounterMetricFamily(
            "tollgate_attempts", "Attempts of the requests that ended.", labels=("provider", "outcome")
        )
        for (provider, outcome), number in counts.attempts.items():
            attempts.add_metric((provider, outcome), number)
        yield from (probes, ends, attempts)


def _of_partition(name: str, meaning: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, labels=("partition",))
