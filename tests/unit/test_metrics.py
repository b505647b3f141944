"""What is counted comes out in the Prometheus format, whole."""

from prometheus_client.parser import text_string_to_metric_families

from headrace.telemetry.metrics import GatewayMetrics, Histogram, WorkerMetrics, exposition


def samples(metrics):
    families = text_string_to_metric_families(exposition(metrics).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for f in families for s in f.samples}


def test_a_histogram_is_cumulative_and_ends_at_infinity():
    histogram = Histogram("h_seconds", "help", (0.1, 1.0), "model")
    counts = histogram.of("m")
    for value in (0.05, 0.1, 0.5, 5.0):
        counts.observe(value)
    found = samples([histogram])
    assert found["h_seconds_bucket", (("le", "0.1"), ("model", "m"))] == 2
    assert found["h_seconds_bucket", (("le", "1.0"), ("model", "m"))] == 3
    assert found["h_seconds_bucket", (("le", "+Inf"), ("model", "m"))] == 4
    assert found["h_seconds_count", (("model", "m"),)] == 4
    assert abs(found["h_seconds_sum", (("model", "m"),)] - 5.65) < 1e-9


def test_many_at_once_counts_as_one_by_one():
    one, many = Histogram("a", "", (1.0, 2.0)), Histogram("a", "", (1.0, 2.0))
    values = [0.5, 1.0, 1.5, 2.0, 9.0]
    for value in values:
        one.of().observe(value)
    many.of().observe_all(values)
    assert one.of().counts == many.of().counts
    assert one.of().total == many.of().total


def test_a_worker_counts_its_batches():
    metrics = WorkerMetrics("m")
    metrics.batch([0.001, 0.002], [0.0, 0.0], 0.005, failed=1)
    metrics.dropped("expired")
    metrics.redelivered(1)
    found = samples(metrics.all())
    assert found["headrace_worker_jobs_total", (("end", "answered"), ("model", "m"))] == 1
    assert found["headrace_worker_jobs_total", (("end", "failed"), ("model", "m"))] == 1
    assert found["headrace_worker_jobs_total", (("end", "expired"), ("model", "m"))] == 1
    assert found["headrace_worker_redeliveries_total", (("model", "m"),)] == 1
    assert found["headrace_worker_batch_size_sum", (("model", "m"),)] == 2


def test_names_are_unique_and_start_alike():
    names = [m.name for m in GatewayMetrics().all() + WorkerMetrics("m").all()]
    assert len(names) == len(set(names))
    assert all(name.startswith("headrace_") for name in names)
