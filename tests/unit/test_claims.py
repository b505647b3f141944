"""A worker's claims: asked for together, again while the database is away, let go in order."""

import asyncio
import time
from types import SimpleNamespace

import pytest

from headrace.errors import Unavailable
from headrace.jobs import stored_job
from headrace.records import Claim, Queue
from headrace.testing.house import until
from headrace.worker import claim as module
from headrace.worker.claim import Claims
from headrace.worker.take import Held


class FakeStore:
    """Who owns what, and whether it is away."""

    def __init__(self):
        self.jobs = self.bodies = self
        self.free, self.asked, self.fails = {}, [], []
        self.renewed, self.lost = [], set()
        self.gone, self.away, self.slow = set(), set(), asyncio.Event()
        self.ref, self.fetched = "", asyncio.Event()
        self.slow.set()
        self.fetched.set()

    async def open(self):
        return self

    async def claim(self, ids, worker, lease_s):
        self.asked.append(ids)
        await self.slow.wait()
        if self.fails:
            raise self.fails.pop(0)
        found = [job for job in ids if self.free.pop(job, False)]
        return [Claim(job, 3, 1, 5, "acme", 60.0, b"in", self.ref) for job in found]

    async def fetch(self, tenant, purpose, job, inline, ref):
        await self.fetched.wait()
        if job in self.gone:
            raise Unavailable("the body is gone", code="artifact-unavailable", retry_after_s=0)
        if job in self.away:
            raise Unavailable("the body cannot be read", code="artifact-unavailable")
        return inline

    async def renew(self, owned, worker, lease_s):
        self.renewed.append(owned)
        if self.fails:
            raise self.fails.pop(0)
        return {job for job in owned if job in self.lost}


class Bench:
    def __init__(self, lease_s=0.04):
        self.store, self.most = FakeStore(), 100
        self.ready, self.nothing, self.refused, self.later = [], [], [], []
        self.claims = Claims(
            self.store,
            "w",
            lease_s,
            ready=self.ready.append,
            refuse=lambda held, problem: self.refused.append((held, problem.code)),
            later=lambda held, wait_s: self.later.append((held, wait_s)),
            nothing=self.nothing.append,
            room=lambda: self.most - len(self.ready),
        )

    def hold(self, *names, free=True, queue=Queue.INTERACTIVE):
        helds = []
        for name in names:
            helds.append(Held(stored_job(name, 0.0), SimpleNamespace(), time.time(), queue))
            self.store.free[name] = free
            self.claims.ask(helds[-1])
        return helds


@pytest.fixture
async def bench(monkeypatch):
    monkeypatch.setattr(module, "AGAIN_S", 0.005)
    return Bench()


async def soon():
    await asyncio.sleep(0.03)


async def test_those_of_a_turn_are_asked_for_together(bench):
    helds = bench.hold("a", "b", "c")
    await soon()
    assert bench.store.asked == [["a", "b", "c"]]
    assert bench.ready == helds and [held.claim.attempt for held in helds] == [3] * 3
    assert helds[0].body == b"in" and 55 < helds[0].deadline - time.time() <= 60
    assert set(bench.claims.owned) == {"a", "b", "c"}


async def test_anothers_come_to_nothing(bench):
    mine = bench.hold("a")
    others = bench.hold("b", free=False)
    await soon()
    assert (bench.ready, bench.nothing) == (mine, others) and others[0].claim is None


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
async def test_while_the_database_is_away_they_wait(bench, error):
    bench.store.fails = [error, error]
    helds = bench.hold("a", "b")
    await until(lambda: bench.ready, 2.0, "claimed")
    assert bench.ready == helds and len(bench.store.asked) == 3
    more = bench.hold("c")
    await soon()
    assert bench.ready == helds + more, "and it goes on"


async def test_an_input_that_is_gone_is_refused_one_that_is_away_waits(bench):
    bench.store.gone, bench.store.away = {"a"}, {"b"}
    gone, away, good = bench.hold("a", "b", "c")
    await soon()
    assert bench.refused == [(gone, "artifact-unavailable")] and bench.ready == [good]
    assert bench.later == [(away, module.AWAY_S)]


async def test_no_more_is_claimed_than_can_soon_be_run(bench):
    bench.most = 2
    bench.store.fails = [Unavailable("away")]
    helds = bench.hold(*"abcde")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert bench.claims.coming == 5
    await until(lambda: bench.ready, 2.0, "claimed")
    assert bench.store.asked == [["a", "b"], ["a", "b"]] and bench.ready == helds[:2]
    assert bench.claims.coming == 3 and set(bench.claims.owned) == {"a", "b"}
    bench.claims.more()
    await soon()
    assert len(bench.store.asked) == 2, "there is no room"
    del bench.ready[0]
    bench.claims.more()
    await soon()
    assert bench.store.asked[2:] == [["c"]]
    [again] = bench.hold("f", queue=Queue.AGAIN)
    del bench.ready[:]
    bench.claims.more()
    await soon()
    assert bench.store.asked[3:] == [["f", "d"]], "what runs again first"
    assert bench.ready == [again, helds[3]] and bench.claims.coming == 1


async def test_it_says_whether_the_database_is_away(bench):
    bench.store.fails = [Unavailable("away")] * 3
    bench.hold("a")
    await until(lambda: bench.claims.away, 2.0, "away")
    await until(lambda: bench.ready, 2.0, "claimed")
    assert not bench.claims.away and bench.claims.coming == 0


async def test_a_slow_place_for_inputs_holds_up_no_other(bench):
    bench.most, bench.store.fetched, bench.store.ref = 2, asyncio.Event(), "elsewhere"
    bench.hold(*"abcde")
    await soon()
    assert len(bench.claims.owned) == 5 and bench.claims.coming == 0
    bench.store.fetched.set()
    await soon()
    assert len(bench.ready) == 5


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
async def test_leases_are_renewed_while_they_are_in_hand(bench, error):
    kept, lost, done = bench.hold("a", "b", "c")
    await soon()
    bench.store.fails = [error]  # the first renewal: the next one is made all the same
    bench.store.lost = {"b"}
    bench.claims.forget(done)
    renewing = asyncio.create_task(bench.claims.renew_all())
    await until(lambda: {"a": 3} in bench.store.renewed, 2.0, "renewed without the lost one")
    renewing.cancel()
    assert bench.store.renewed[0] == {"a": 3, "b": 3} and bench.store.renewed[-1] == {"a": 3}
    assert lost.cancelled and not kept.cancelled and not done.cancelled
    assert set(bench.claims.owned) == {"a"}


async def test_a_lease_lost_before_the_job_came_anew_says_nothing_of_it(bench):
    [held] = bench.hold("a")
    await soon()
    bench.claims._lost("a", 2)
    assert not held.cancelled and "a" in bench.claims.owned
    bench.claims._lost("a", 3)
    assert held.cancelled


async def test_leaving_what_was_asked_for_is_known(bench):
    """Those that were not asked for yet come back at once; what is under way is awaited."""
    bench.store.slow.clear()
    under_way = bench.hold("a")
    await soon()
    left = bench.hold("b")
    assert bench.claims.close() == left
    landing = asyncio.create_task(bench.claims.landed(1.0))
    await asyncio.sleep(0.01)
    assert not landing.done() and bench.ready == []
    bench.store.slow.set()
    await landing
    assert bench.ready == under_way and bench.store.asked == [["a"]]


async def test_leaving_does_not_wait_for_ever(bench):
    bench.store.slow.clear()
    bench.hold("a")
    await soon()
    bench.claims.close()
    began = time.monotonic()
    await bench.claims.landed(0.03)
    assert 0.02 < time.monotonic() - began < 0.2
    bench.store.slow.set()
    await soon()
