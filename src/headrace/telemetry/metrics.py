"""Every metric of the house: this file names them all.

Counted in plain lists and dicts (0.2 us an observation where prometheus_client takes 1-2, ten of
which stand on the path of a call) and handed to prometheus_client when somebody scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any

STAGE_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
BATCH_SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Metric:
    """One name, with its help and label names; values by label values. `read`, where it is set,
    gives them when somebody scrapes."""

    kind = "counter"

    def __init__(self, name: str, help: str, *labels: str) -> None:
        self.name, self.help, self.labels = name, help, labels
        self.values: dict[tuple[str, ...], Any] = {}
        self.read: Callable[[], dict[tuple[str, ...], float]] | None = None

    def add(self, *labels: str, by: float = 1) -> None:
        self.values[labels] = self.values.get(labels, 0) + by


class Gauge(Metric):
    kind = "gauge"

    def set(self, value: float, *labels: str) -> None:
        self.values[labels] = value


class Counts:
    """The buckets of one histogram under one set of labels."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Ten at once cost what three cost one by one."""
        counts, bounds = self.counts, self.bounds
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.total += sum(values)


class Histogram(Metric):
    kind = "histogram"

    def __init__(self, name: str, help: str, bounds: tuple[float, ...], *labels: str) -> None:
        super().__init__(name, help, *labels)
        self.bounds = bounds

    def of(self, *labels: str) -> Counts:
        """Keep this where it is used often: it spares the look-up."""
        counts: Counts | None = self.values.get(labels)
        if counts is None:
            counts = self.values[labels] = Counts(self.bounds)
        return counts


_TROUBLE = "Bodies of stored jobs that the fallback served, or that were damaged, by what."


class GatewayMetrics:
    """What a gateway counts."""

    def __init__(self) -> None:
        self.stage = Histogram(
            "headrace_stage_seconds",
            "Time a call spent in a stage: read, queued, gathered, features, executed, returned.",
            STAGE_SECONDS, "model", "stage",
        )  # fmt: skip
        self.call = Histogram(
            "headrace_call_seconds", "Time from the last byte in to the answer.", STAGE_SECONDS,
            "model",
        )  # fmt: skip
        self.answers = Metric("headrace_answers", "Answers by HTTP status.", "model", "status")
        self.refusals = Metric(
            "headrace_refusals", "Calls refused, by problem code.", "model", "code"
        )
        self.unknown = Metric(
            "headrace_replies_unknown",
            "Outcomes that no call waits for: answered before, given up, or another life's.",
        )
        self.in_flight = Gauge("headrace_calls_in_flight", "Calls this gateway waits for.", "model")
        self.oldest = Gauge(
            "headrace_oldest_call_seconds", "Age of the oldest call waited for.", "model"
        )
        self.reply_depth = Gauge(
            "headrace_reply_queue", "Outcomes that the last reply message brought at once."
        )
        self.reply_lag = Gauge(
            "headrace_reply_lag_seconds", "Time the last reply waited before it was read."
        )
        self.connections = Gauge("headrace_connections", "Open client connections.")
        self.workers = Gauge(
            "headrace_workers", "Workers heard of lately, by readiness.", "model", "ready"
        )
        self.moved = Metric(
            "headrace_calls_moved",
            "Calls whose version brought them to no result, and that another one got.",
            "model",
        )
        self.shadow = Metric(
            "headrace_shadow_calls", "Calls for the shadow, by what came of them.", "model", "how"
        )
        self.submitted = Metric("headrace_jobs_submitted", "Stored jobs accepted.", "model")
        self.jobs_waiting = Gauge(
            "headrace_jobs_waiting", "Stored jobs that wait, as a clerk last said.", "model"
        )
        self.unposted = Metric(
            "headrace_jobs_unposted",
            "Parcels of stored jobs that the broker did not take at once, by problem code: the "
            "clerk publishes them again.",
            "code",
        )
        self.reuse = Metric(
            "headrace_reuse", "Calls of models that reuse results, by how they were answered.",
            "model", "how",
        )  # fmt: skip
        self.cache_errors = Metric(
            "headrace_cache_errors", "What a shared cache did not do, by why.", "why"
        )
        self.objects = Metric("headrace_objects_trouble", _TROUBLE, "what")

    def all(self) -> list[Metric]:
        return list(vars(self).values())


class WorkerMetrics:
    """What a worker counts. One worker serves one model: the label is filled in at once."""

    def __init__(self, model: str) -> None:
        self._model = model
        self.queued = Histogram(
            "headrace_worker_queued_seconds", "Time a job waited on the broker.", STAGE_SECONDS,
            "model",
        )  # fmt: skip
        self.gathered = Histogram(
            "headrace_worker_gathered_seconds", "Time a job waited for its batch.", STAGE_SECONDS,
            "model",
        )  # fmt: skip
        self.executed = Histogram(
            "headrace_worker_executed_seconds", "Time a batch took, hop included.", STAGE_SECONDS,
            "model",
        )  # fmt: skip
        self.batch_size = Histogram(
            "headrace_worker_batch_size", "Jobs in a batch.", BATCH_SIZES, "model"
        )
        self.jobs = Metric("headrace_worker_jobs", "Jobs by what became of them.", "model", "end")
        self.redeliveries = Metric(
            "headrace_worker_redeliveries", "Jobs taken that were delivered before.", "model"
        )
        self.gone = Metric(
            "headrace_worker_processes_gone", "Model processes that ended, by state.", "model",
            "was",
        )  # fmt: skip
        self.slots = Gauge("headrace_worker_slots", "Slots by state.", "model", "state")
        self.in_hand = Gauge("headrace_worker_in_hand", "Jobs held and not replied.", "model")
        self.waiting = Gauge("headrace_queue_waiting", "Parcels no worker has taken.", "model")
        self.unacked = Gauge("headrace_queue_in_hand", "Parcels taken and not acked.", "model")
        self.objects = Metric("headrace_worker_objects_trouble", _TROUBLE, "what")
        self._queued, self._gathered = self.queued.of(model), self.gathered.of(model)
        self._executed, self._size = self.executed.of(model), self.batch_size.of(model)

    def all(self) -> list[Metric]:
        return [m for m in vars(self).values() if isinstance(m, Metric)]

    def redelivered(self, jobs: int) -> None:
        self.redeliveries.add(self._model, by=jobs)

    def dropped(self, why: str) -> None:
        self.jobs.add(self._model, why)

    def batch(
        self, queued_s: list[float], gathered_s: list[float], executed_s: float, failed: int
    ) -> None:
        """One batch is done: what each of its jobs waited, what it took, how many failed."""
        size = len(queued_s)
        self._queued.observe_all(queued_s)
        self._gathered.observe_all(gathered_s)
        self._executed.observe(executed_s)
        self._size.observe(size)
        self.jobs.add(self._model, "answered", by=size - failed)
        if failed:
            self.jobs.add(self._model, "failed", by=failed)


def exposition(metrics: list[Metric]) -> bytes:
    """The Prometheus text format."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(_Collector(metrics))
    return generate_latest(registry)


class _Collector:
    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Any]:
        return map(_family, self._metrics)


def _family(metric: Metric) -> Any:
    from prometheus_client import core

    if isinstance(metric, Histogram):
        family = core.HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, counts in list(metric.values.items()):
            family.add_metric(labels, _buckets(counts), counts.total)
        return family
    values = list((metric.read() if metric.read else metric.values).items())
    if isinstance(metric, Gauge):
        gauge = core.GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in values:
            gauge.add_metric(labels, value)
        return gauge
    counter = core.CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        counter.add_metric(labels, value)
    return counter


def _buckets(counts: Counts) -> list[tuple[str, float]]:
    total, buckets = 0, []
    for bound, count in zip(counts.bounds, counts.counts, strict=False):
        total += count
        buckets.append((str(bound), float(total)))
    buckets.append(("+Inf", float(total + counts.counts[-1])))
    return buckets
