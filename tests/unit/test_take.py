"""Jobs in hand: settled parcel by parcel, room asked for whenever one came to nothing."""

import time

import pytest

from headrace.jobs import Cancel, Form, Job, cancel_bytes, parcel_bytes, stored_job
from headrace.objects.memory import MemoryObjects
from headrace.records import Queue
from headrace.telemetry.metrics import WorkerMetrics
from headrace.worker.take import MAX_ATTEMPTS, Take


class FakeDelivery:
    def __init__(self, *jobs, attempt=1):
        self.data, self.attempt, self.ends = parcel_bytes(list(jobs)), attempt, []

    def ack(self):
        self.ends.append("ack")

    def give_back(self):
        self.ends.append("give back")

    def hold(self):
        self.ends.append("hold")


class Bench:
    def __init__(self):
        self.ready, self.refused, self.asked, self.rooms = [], [], [], 0
        self.metrics = WorkerMetrics("m")
        self.take = Take(
            MemoryObjects("memory://take"), self.metrics, ready=self.ready.append,
            refuse=lambda held, problem: self.refused.append(problem.code), room=self.room,
            claim=self.asked.append, ack_wait_s=3.0,
        )  # fmt: skip

    def room(self):
        self.rooms += 1

    def ends(self):
        return {labels[1]: count for labels, count in self.metrics.jobs.values.items()}


@pytest.fixture
def bench():
    return Bench()


def job(number=1, seconds=60.0, ref=""):
    now = time.time()
    return Job(number, "gw", "r", now + seconds, now, Form.JSON, b"x", ref)


def test_a_parcel_is_acked_with_the_last_of_its_jobs(bench):
    delivery = FakeDelivery(job(1), job(2), job(3))
    bench.take.on_delivery(delivery)
    first, second, third = bench.ready
    bench.take.settle(second)
    bench.take.settle(first)
    assert delivery.ends == [] and len(bench.take.in_hand) == 1
    bench.take.settle(third)
    assert delivery.ends == ["ack"] and not bench.take.in_hand


def test_a_parcel_of_which_one_is_given_back_is_given_back(bench):
    delivery = FakeDelivery(job(1), job(2))
    bench.take.on_delivery(delivery)
    bench.take.give_back(bench.ready[0])
    assert delivery.ends == []
    bench.take.settle(bench.ready[1])
    assert delivery.ends == ["give back"]


def test_an_expired_job_is_dropped_and_its_room_is_free_again(bench):
    delivery = FakeDelivery(job(1, seconds=-1))
    bench.take.on_delivery(delivery)
    assert bench.ready == [] and delivery.ends == ["ack"]
    assert bench.rooms == 1 and bench.ends() == {"expired": 1}


def test_a_cancel_reaches_a_job_in_hand_and_one_to_come(bench):
    bench.take.on_delivery(FakeDelivery(job(1)))
    bench.take.on_cancel(cancel_bytes(Cancel("gw", 1)))
    assert bench.ready[0].cancelled
    bench.take.on_cancel(cancel_bytes(Cancel("gw", 2)))
    delivery = FakeDelivery(job(2))
    bench.take.on_delivery(delivery)
    assert len(bench.ready) == 1 and delivery.ends == ["ack"] and bench.rooms == 1
    assert bench.ends() == {"cancelled": 1}


def test_a_job_that_comes_twice_runs_once_and_settles_both(bench):
    old, new = FakeDelivery(job(1)), FakeDelivery(job(1), attempt=2)
    bench.take.on_delivery(old)
    bench.take.on_delivery(new)
    assert len(bench.ready) == 1 and bench.rooms == 1
    bench.take.settle(bench.ready[0])
    assert (old.ends, new.ends) == (["ack"], ["ack"])


def test_a_job_that_outlived_too_many_workers_is_refused(bench):
    bench.take.on_delivery(FakeDelivery(job(1), attempt=MAX_ATTEMPTS))
    assert len(bench.ready) == 1
    bench.take.on_delivery(FakeDelivery(job(2), attempt=MAX_ATTEMPTS + 1))
    assert bench.refused == ["poison-input"]


# -- stored jobs -----------------------------------------------------------------------------------


def test_a_stored_job_is_claimed_first(bench):
    """Whatever the clocks say, and however often it came: that is the database's to judge."""
    delivery = FakeDelivery(stored_job("a" * 32, 0.0), job(1), attempt=MAX_ATTEMPTS + 9)
    bench.take.on_delivery(delivery, Queue.BULK)
    [held] = bench.asked
    assert bench.ready == [] and held.queue is Queue.BULK and held.claim is None
    assert held.job.stored == "a" * 32 and len(bench.take.in_hand) == 1
    assert bench.refused == ["poison-input"], "of the other, which is not stored"


def test_what_runs_again_comes_one_by_one_and_says_nothing_of_the_others(bench):
    bench.take.on_delivery(FakeDelivery(*(job(number) for number in range(8))))
    expected = bench.take.per_delivery
    bench.take.on_delivery(FakeDelivery(stored_job("b" * 32, 0.0)), Queue.AGAIN)
    assert bench.asked[-1].queue is Queue.AGAIN
    assert bench.ready[0].queue is Queue.INTERACTIVE
    assert bench.take.per_delivery == expected


def test_stored_jobs_are_told_apart_by_their_own_ids(bench):
    """They have the same number, and no gateway that waits."""
    bench.take.on_delivery(FakeDelivery(*(stored_job(name * 32, 0.0) for name in "abc")))
    assert len(bench.asked) == len(bench.take.in_hand) == 3


def test_a_stored_job_that_comes_twice_is_claimed_once(bench):
    """Published again by the clerk while it waits here, on the other queue even."""
    first, second = (FakeDelivery(stored_job("a" * 32, 0.0)) for _ in range(2))
    bench.take.on_delivery(first, Queue.BULK)
    bench.take.on_delivery(second)
    [held] = bench.asked
    bench.take.give_back(held)
    assert first.ends == second.ends == ["give back"] and bench.rooms == 1
    bench.take.on_delivery(FakeDelivery(stored_job("a" * 32, 0.0), attempt=2))
    assert len(bench.asked) == 2, "and it may come again"


def test_a_cancel_of_a_call_means_no_stored_job(bench):
    bench.take.on_cancel(cancel_bytes(Cancel("", 0)))
    bench.take.on_delivery(FakeDelivery(stored_job("a" * 32, 0.0)))
    assert len(bench.asked) == 1 and not bench.asked[0].cancelled
