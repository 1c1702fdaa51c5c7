"""The metrics of a sink: read from its state when they are asked for."""

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tollgate.log.ends import Ends
from tollgate.sinks.fold import TOPICS, cursor_key
from tollgate.sinks.manifest import Cursor
from tollgate.sinks.sink import Sink


class SinkMetrics(Collector):
    """To be registered with the process's registry. `active` gives the sink at work here; None while another is."""

    def __init__(self, active: Callable[[], Sink | None], ends: Ends) -> None:
        self._active = active
        self._ends = ends

    def collect(self) -> Iterator[Metric]:
        sink = self._active()
        yield GaugeMetricFamily(
            "tollgate_sink_active", "1 while this process writes, 0 while it stands by.", bool(sink)
        )
        yield from self._projection(sink)
        yield from self._work(sink)

    def _projection(self, sink: Sink | None) -> Iterator[Metric]:
        labels = ("topic", "partition")
        lag = GaugeMetricFamily("tollgate_sink_lag_records", "Records of the log not yet in Parquet.", labels=labels)
        age = GaugeMetricFamily(
            "tollgate_sink_lag_seconds",
            "Age of the last record in Parquet, while others wait behind it.",
            labels=labels,
        )
        cursors = sink.manifest.state.cursors if sink is not None else {}
        for topic in TOPICS if sink is not None else ():
            for partition, end in self._ends.of(topic).items():
                cursor = cursors.get(cursor_key(topic, partition), Cursor())
                behind = max(0, end - cursor.offset)
                of = (topic, str(partition))
                lag.add_metric(of, behind)
                known = behind and cursor.time_ms
                age.add_metric(of, max(0.0, time.time() - cursor.time_ms / 1000) if known else 0.0)
        yield from (lag, age)

    def _work(self, sink: Sink | None) -> Iterator[Metric]:
        numbers = (
            (sink.rows_waiting, sink.rows_written, sink.records_skipped, sink.records_fenced) if sink else (0,) * 4
        )
        waiting, written, skipped, fenced = numbers
        yield GaugeMetricFamily("tollgate_sink_rows_waiting", "Rows read and not yet written.", waiting)
        yield CounterMetricFamily("tollgate_sink_rows", "Rows written.", written)
        yield CounterMetricFamily("tollgate_sink_skipped", "Records of which no row could be made.", skipped)
        yield CounterMetricFamily(
            "tollgate_sink_fenced",
            "Ends in the journal that count for nothing: their writer had been replaced.",
            fenced,
        )
