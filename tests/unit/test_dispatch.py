"""Every started job ends exactly once: outcome, refusal or deadline."""

import asyncio
import time

import pytest

from headrace.broker.memory import MemoryBroker
from headrace.dispatch import PARCEL_BYTES, Dispatch, parcels
from headrace.errors import DeadlineExceeded, Refusal
from headrace.jobs import Form, Job, Outcome, Returned, read_parcel, returned_bytes
from headrace.objects.memory import MemoryObjects


class Ends:
    def __init__(self):
        self.seen = []

    def __call__(self, outcome, returned):
        self.seen.append(outcome)


@pytest.fixture
async def door(request):
    broker, objects = MemoryBroker(f"memory://{request.node.name}"), MemoryObjects(
        f"memory://{request.node.name}"
    )  # fmt: skip
    await broker.open()
    dispatch = Dispatch(broker, objects, inline_limit=100)
    await dispatch.open()
    yield dispatch, broker, objects
    await dispatch.close()
    await broker.close()


def start(dispatch, ends, body=b"x", seconds=5.0):
    return dispatch.start(
        "m", "r-1", body, deadline=time.time() + seconds, form=Form.JSON, on_outcome=ends
    )


def reply(broker, dispatch, *ids):
    outcomes = [Outcome(i, time.time(), 0.0, 1.0, b"%d" % i) for i in ids]
    broker.send(dispatch.address, returned_bytes(Returned("m", "1", "w", time.time(), outcomes)))


async def take(broker, count=10):
    got = []
    intake = await broker.take("m", got.append)
    intake.want(count)
    await asyncio.sleep(0.02)
    return got


async def test_an_outcome_finds_its_call_and_only_once(door):
    dispatch, broker, _ = door
    await broker.ensure("m")
    one, two = Ends(), Ends()
    first, second = start(dispatch, one), start(dispatch, two)
    reply(broker, dispatch, second, first, first)
    await asyncio.sleep(0.01)
    assert [o.body for o in one.seen] == [b"%d" % first]
    assert [o.body for o in two.seen] == [b"%d" % second]
    assert dispatch.unknown == 1
    assert dispatch.by_workload == {"m": 0}


async def test_the_deadline_ends_what_nobody_answers(door):
    dispatch, broker, _ = door
    await broker.ensure("m")
    short, long = Ends(), Ends()
    start(dispatch, long, seconds=30)
    start(dispatch, short, seconds=0.05)
    await asyncio.sleep(0.12)
    assert [type(o) for o in short.seen] == [DeadlineExceeded]
    assert long.seen == []


async def test_a_queue_that_is_not_there_refuses(door):
    dispatch, _, _ = door
    ends = Ends()
    start(dispatch, ends)
    start(dispatch, ends)
    await asyncio.sleep(0)
    assert [(o.status, o.code) for o in ends.seen] == [(503, "model-not-ready")] * 2
    assert dispatch.waiting == {}


async def test_large_bodies_go_by_reference_and_are_removed(door):
    dispatch, broker, objects = door
    await broker.ensure("m")
    ends = Ends()
    number = start(dispatch, ends, body=b"y" * 101)
    [delivery] = await take(broker)
    [job] = read_parcel(delivery.data)
    assert job.body == b"" and await objects.get(job.ref) == b"y" * 101
    reply(broker, dispatch, number)
    await asyncio.sleep(0.02)
    assert len(ends.seen) == 1
    assert await objects.names() == []


async def test_jobs_of_one_turn_travel_in_parcels_no_larger_than_a_batch(door):
    dispatch, broker, _ = door
    await broker.ensure("m")
    dispatch.parcel_sizes["m"] = 4
    ids = [start(dispatch, Ends()) for _ in range(10)]
    deliveries = await take(broker)
    sizes = [[job.id for job in read_parcel(d.data)] for d in deliveries]
    assert sizes == [ids[:4], ids[4:8], ids[8:]]


def test_a_parcel_is_closed_when_it_is_heavy():
    def job(number, size):
        return Job(number, "g", "r", 0.0, 0.0, Form.JSON, b"x" * size)

    jobs = [job(1, 10), job(2, PARCEL_BYTES), job(3, 10), job(4, 10)]
    assert [[j.id for j in parcel] for parcel in parcels(jobs, 100)] == [[1, 2], [3, 4]]
    assert [[j.id for j in parcel] for parcel in parcels(jobs, 1)] == [[1], [2], [3], [4]]
    assert list(parcels([], 5)) == []


async def test_at_the_limit_a_body_is_inline(door):
    dispatch, broker, objects = door
    await broker.ensure("m")
    start(dispatch, Ends(), body=b"y" * 100)
    [delivery] = await take(broker)
    assert read_parcel(delivery.data)[0].body == b"y" * 100
    assert await objects.names() == []


async def test_objects_that_fail_refuse_the_call(door, monkeypatch):
    dispatch, broker, objects = door
    await broker.ensure("m")

    async def full(name, data):
        raise OSError("no space")

    monkeypatch.setattr(objects, "put", full)
    ends = Ends()
    start(dispatch, ends, body=b"y" * 101)
    await asyncio.sleep(0.02)
    assert [o.code for o in ends.seen if isinstance(o, Refusal)] == ["storage-unavailable"]


async def test_a_cancelled_call_is_forgotten(door):
    dispatch, broker, objects = door
    await broker.ensure("m")
    ends = Ends()
    number = start(dispatch, ends, body=b"y" * 101)
    await asyncio.sleep(0.02)
    dispatch.cancel(number)
    dispatch.cancel(number)
    reply(broker, dispatch, number)
    await asyncio.sleep(0.02)
    assert ends.seen == [] and dispatch.unknown == 1
    assert dispatch.by_workload == {"m": 0}
    assert await objects.names() == []
