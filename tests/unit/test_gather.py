"""Batches: formed when a slot is free, from what waits then."""

import asyncio
import time
from dataclasses import dataclass, field

import pytest

from headrace.fit import Fit
from headrace.model import Batching
from headrace.records import Queue
from headrace.worker.gather import Gather


@dataclass(eq=False)
class FakeHeld:
    number: int = 0
    deadline: float = field(default_factory=lambda: time.time() + 60)
    taken: float = field(default_factory=time.time)
    gathered_ms: float = 0.0
    cancelled: bool = False
    queue: Queue = Queue.INTERACTIVE
    published: float = field(default_factory=time.time)

    @property
    def job(self):
        return self


class Bench:
    """A gather with slots that are free until told otherwise."""

    def __init__(self, max_size=4, max_wait_ms=0.0, free=1):
        self.free, self.batches, self.expired, self.fit = free, [], [], Fit()
        self.gather = Gather(
            Batching(max_size, max_wait_ms), self.fit, free=lambda: self.free, run=self.run,
            expired=self.expired.append, ageing_s=60.0,
        )  # fmt: skip

    def run(self, batch):
        self.free -= 1
        self.batches.append([held.number for held in batch])

    def add(self, *numbers):
        for number in numbers:
            self.gather.add(FakeHeld(number))


async def turn():
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_jobs_that_come_together_run_together():
    bench = Bench()
    bench.add(1, 2, 3)
    await turn()
    assert bench.batches == [[1, 2, 3]]


async def test_with_no_slot_free_they_wait_and_then_run_full():
    bench = Bench(free=0)
    bench.add(1, 2, 3, 4, 5, 6)
    await turn()
    assert bench.batches == []
    bench.free = 1
    bench.gather.turn()
    assert bench.batches == [[1, 2, 3, 4]]
    bench.free = 1
    bench.gather.turn()
    assert bench.batches == [[1, 2, 3, 4], [5, 6]]


async def test_every_free_slot_gets_a_batch():
    bench = Bench(free=2)
    bench.add(1, 2, 3, 4, 5)
    await turn()
    assert bench.batches == [[1, 2, 3, 4], [5]]


async def test_a_wait_counts_from_the_first_job():
    bench = Bench(max_wait_ms=40)
    bench.add(1)
    await asyncio.sleep(0.025)
    bench.add(2)
    assert bench.batches == []
    await asyncio.sleep(0.03)
    assert bench.batches == [[1, 2]]


async def test_the_wait_counts_from_when_the_slot_became_free():
    bench = Bench(max_wait_ms=40, free=0)
    bench.add(1)
    await asyncio.sleep(0.06)
    bench.free = 1
    bench.gather.freed()
    assert bench.batches == [], "callers answered just now come back within the wait"
    bench.add(2)
    await asyncio.sleep(0.06)
    assert bench.batches == [[1, 2]]


async def test_a_full_batch_does_not_wait():
    bench = Bench(max_wait_ms=60_000)
    bench.add(1, 2, 3, 4)
    await turn()
    assert bench.batches == [[1, 2, 3, 4]]


async def test_a_near_deadline_ends_the_wait():
    bench = Bench(max_wait_ms=60_000)
    bench.fit.learn(1, 100.0)
    bench.gather.add(FakeHeld(1, time.time() + 0.115))
    await turn()
    assert bench.batches == [[1]]


@pytest.mark.parametrize("left_s", [-1.0, 0.0, 0.02])
async def test_what_cannot_be_answered_in_time_never_reaches_the_model(left_s):
    bench = Bench(max_size=1)  # so that others wait behind it
    bench.fit.learn(1, 100.0)
    late = FakeHeld(1, time.time() + left_s)
    bench.gather.add(late)
    bench.add(2)
    await turn()
    assert bench.batches == [[2]]
    assert bench.expired == [late]


async def test_what_nobody_waits_for_any_more_never_reaches_the_model():
    bench = Bench(free=0)
    bench.add(1, 2, 3)
    bench.gather.waiting[1].cancelled = True
    bench.free = 1
    await turn()
    assert bench.batches == [[1, 3]]
    assert [held.number for held in bench.expired] == [2]


async def test_when_all_are_late_nothing_runs():
    bench = Bench()
    bench.gather.add(FakeHeld(1, time.time() - 1))
    await turn()
    assert bench.batches == [] and len(bench.expired) == 1


async def test_the_parts_of_a_crashed_batch_go_first_and_apart():
    bench = Bench(free=0)
    bench.add(1, 2)
    bench.gather.first([FakeHeld(8), FakeHeld(9)])
    bench.gather.first([FakeHeld(7)])
    await turn()
    for _ in range(3):
        bench.free = 1
        bench.gather.turn()
    assert bench.batches == [[8, 9], [7], [1, 2]]


async def test_draining_gives_up_all_that_does_not_run():
    bench = Bench(free=0)
    bench.add(1, 2)
    bench.gather.first([FakeHeld(3)])
    assert sorted(held.number for held in bench.gather.drain()) == [1, 2, 3]
    bench.free = 1
    bench.gather.turn()
    assert bench.batches == []


# -- again -----------------------------------------------------------------------------------------


async def test_what_runs_again_goes_before_all_that_waits_in_its_own_order():
    bench = Bench(free=0)
    bench.add(1, 2, 3)
    for number in (71, 72):
        bench.gather.add(FakeHeld(number, queue=Queue.AGAIN))
    bench.add(4)
    assert bench.gather.again() == 2
    for _ in range(2):
        bench.free = 1
        bench.gather.turn()
    assert bench.batches == [[71, 72, 1, 2], [3, 4]] and bench.gather.again() == 0


async def test_what_runs_again_waits_for_no_company():
    bench = Bench(max_wait_ms=60_000)
    bench.add(1)
    await turn()
    assert bench.batches == []
    bench.gather.add(FakeHeld(71, queue=Queue.AGAIN))
    await turn()
    assert bench.batches == [[71, 1]]


# -- bulk ------------------------------------------------------------------------------------------


async def test_bulk_fills_what_the_others_leave_free():
    bench = Bench(free=0)
    for number in (91, 92, 93):
        bench.gather.add(FakeHeld(number, queue=Queue.BULK))
    bench.add(1, 2)
    for _ in range(2):
        bench.free = 1
        bench.gather.turn()
    assert bench.batches == [[1, 2, 91, 92], [93]]


async def test_bulk_waits_while_others_fill_the_batch():
    bench = Bench(free=0)
    bench.gather.add(FakeHeld(91, queue=Queue.BULK))
    for batch in ((1, 2, 3, 4), (5, 6, 7, 8)):
        bench.add(*batch)
        bench.free = 1
        bench.gather.turn()
    assert bench.batches == [[1, 2, 3, 4], [5, 6, 7, 8]] and len(bench.gather.bulk) == 1
    bench.free = 1
    bench.gather.turn()
    assert bench.batches[-1] == [91]


async def test_bulk_that_is_old_stands_with_the_others():
    bench = Bench(free=0)
    bench.gather.add(FakeHeld(91, queue=Queue.BULK, published=time.time() - 61))
    bench.gather.add(FakeHeld(92, queue=Queue.BULK))
    bench.add(1, 2, 3, 4, 5)
    for _ in range(2):
        bench.free = 1
        bench.gather.turn()
        bench.add(6, 7, 8, 9)
    assert bench.batches == [[1, 2, 3, 4], [5, 91, 6, 7]]


async def test_bulk_alone_runs():
    bench = Bench()
    bench.gather.add(FakeHeld(91, queue=Queue.BULK))
    await turn()
    assert bench.batches == [[91]]


async def test_draining_gives_up_bulk_as_well():
    bench = Bench(free=0)
    bench.gather.add(FakeHeld(91, queue=Queue.BULK))
    assert [held.number for held in bench.gather.drain()] == [91]
    assert not bench.gather.bulk
