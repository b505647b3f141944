"""Submissions: a transaction for all that wait, published after the commit and not before."""

import asyncio

import pytest

from headrace.errors import Unavailable
from headrace.gateway.submit import Submits
from headrace.jobs import read_parcel
from headrace.records import Priority, Submission
from headrace.telemetry.metrics import GatewayMetrics


class FakeStore:
    """Commits when told to. `keys`: what is there already."""

    def __init__(self, acts):
        self.jobs, self.acts = self, acts
        self.go, self.fails, self.keys = asyncio.Event(), [], {}
        self.batches = []

    async def open(self):
        return self

    async def submit(self, batch):
        self.batches.append([each.id for each in batch])
        await self.go.wait()
        if self.fails:
            raise self.fails.pop(0)
        self.acts.append(("committed", len(batch)))
        return [self.keys.get(each.key) for each in batch]


class FakeBroker:
    def __init__(self, acts):
        self.acts, self.refusal = acts, None

    def publish(self, queue, parcel, refused):
        self.acts.append((queue, [job.stored for job in read_parcel(parcel)]))
        if self.refusal:
            refused(self.refusal)


class Bench:
    def __init__(self):
        self.acts, self.metrics = [], GatewayMetrics()
        self.store, self.broker = FakeStore(self.acts), FakeBroker(self.acts)
        self.submits = Submits(self.store, self.broker, lambda model: 2, self.metrics)

    def submit(self, name, key="", model="iris", priority=Priority.INTERACTIVE):
        submission = Submission(name, "acme", model, priority, "r", 60.0, b"", "", "", key, "f", 3)
        return asyncio.create_task(self.submits.submit(submission))


@pytest.fixture
async def bench():
    return Bench()


async def turn():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_nobody_is_told_before_the_commit_and_nothing_published(bench):
    first = bench.submit("a")
    await turn()
    assert not first.done() and bench.acts == []
    bench.store.go.set()
    assert await first is None
    assert bench.acts == [("committed", 1), ("iris", ["a"])]


async def test_what_comes_during_a_commit_gathers(bench):
    tasks = [bench.submit("a")]
    await turn()
    tasks += [bench.submit(f"b{number}") for number in range(300)]
    await turn()
    assert bench.store.batches == [["a"]]
    bench.store.go.set()
    assert await asyncio.gather(*tasks) == [None] * 301
    assert [len(batch) for batch in bench.store.batches] == [1, 256, 44]
    await bench.submits.flush()


async def test_parcels_by_queue(bench):
    bench.store.go.set()
    await asyncio.gather(
        *(bench.submit(f"i{n}") for n in range(3)), bench.submit("t", model="tulip"),
        bench.submit("k", priority=Priority.BULK),
    )  # fmt: skip
    published = [act for act in bench.acts if act[0] != "committed"]
    assert sorted(published) == [
        ("iris", ["i0"]), ("iris", ["i1", "i2"]), ("iris+bulk", ["k"]), ("tulip", ["t"]),
    ] or sorted(published) == [
        ("iris", ["i0", "i1"]), ("iris", ["i2"]), ("iris+bulk", ["k"]), ("tulip", ["t"]),
    ]  # fmt: skip


async def test_what_a_key_stood_for_is_not_published(bench):
    bench.store.go.set()
    bench.store.keys = {"k": "the record"}
    assert await asyncio.gather(bench.submit("a", key="k"), bench.submit("b")) == [
        "the record", None,
    ]  # fmt: skip
    assert [ids for queue, ids in bench.acts if queue == "iris"] == [["b"]]


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
async def test_a_transaction_that_fails_promises_nothing_and_the_next_goes_on(bench, error):
    bench.store.go.set()
    bench.store.fails = [error]
    first = await asyncio.gather(bench.submit("a"), bench.submit("b"), return_exceptions=True)
    assert first == [error, error] or first == [error, None]
    assert await bench.submit("c") is None
    assert ("iris", ["a"]) not in bench.acts and ("iris", ["c"]) in bench.acts


async def test_a_client_that_leaves_keeps_nobody(bench):
    gone, other = bench.submit("a"), bench.submit("b")
    await turn()
    gone.cancel()
    await turn()
    bench.store.go.set()
    assert await other is None
    published = [job for queue, ids in bench.acts if queue == "iris" for job in ids]
    assert sorted(published) == ["a", "b"], "committed is committed"


async def test_what_the_broker_does_not_take_is_the_clerks_to_publish(bench):
    bench.store.go.set()
    bench.broker.refusal = Unavailable("full", code="queue-full")
    assert await bench.submit("a") is None
    assert bench.metrics.unposted.values == {("queue-full",): 1}


async def test_jobs_of_one_model_go_to_the_queues_of_their_versions(bench):
    bench.submits._workload = lambda model, job_id: f"{model}@{job_id[-1]}"
    bench.store.go.set()
    await asyncio.gather(
        bench.submit("a3"), bench.submit("b4"), bench.submit("c3", priority=Priority.BULK)
    )
    assert sorted(act for act in bench.acts if act[0] != "committed") == [
        ("iris@3", ["a3"]), ("iris@3+bulk", ["c3"]), ("iris@4", ["b4"]),
    ]  # fmt: skip
    assert bench.metrics.submitted.values == {("iris",): 3}
