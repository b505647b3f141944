"""A worker's endings: what becomes of a job by its outcome, and that none is lost for another's
trouble."""

import asyncio
from types import SimpleNamespace

import pytest

from headrace.errors import Problem, Unavailable
from headrace.records import Claim, State
from headrace.worker import ending as module
from headrace.worker.ending import Endings

FAILED, INVALID = Problem(500, "model-failed", "x"), Problem(422, "too-small", "x")
POISON = Problem(422, "poison-input", "x")


class FakeStore:
    def __init__(self):
        self.jobs = self.bodies = self
        self.finished, self.fails, self.refused = [], [], set()
        self.put, self.removed, self.full = {}, [], set()

    async def open(self):
        return self

    async def finish(self, endings):
        await asyncio.sleep(0)
        if self.fails:
            error = self.fails.pop(0)
            if not isinstance(error, set):
                raise error
            if error & {ending.id for ending in endings}:
                self.fails.insert(0, error)
                raise RuntimeError("cannot be written")
            self.fails.insert(0, error)
        self.finished.append(endings)
        return {ending.id for ending in endings} - self.refused

    async def rest(self, tenant, purpose, job, data):
        if job in self.full:
            raise Unavailable("no room", code="storage-unavailable")
        if len(data) < 10:
            return data, ""
        ref = f"{job}-{purpose}"
        self.put[ref] = data
        return b"", ref

    async def remove(self, ref):
        self.removed.append(ref)
        raise OSError("and this fails, too")


class Bench:
    def __init__(self):
        self.store = FakeStore()
        self.settled, self.given_back, self.told = [], [], []
        self.endings = Endings(
            self.store,
            lambda held: self.settled.append(held.name),
            lambda held: self.given_back.append(held.name),
            self.told.append,
            backoff_s=1.0,
            backoff_max_s=300.0,
        )

    def add(self, name, outcome, tries=0, most=3):
        claim = Claim(name, 7, tries, most, "acme", 60.0, b"", "")
        self.endings.add(SimpleNamespace(name=name, claim=claim), outcome, 1.5)

    def not_run(self, name, wait_s=0.0):
        claim = Claim(name, 7, 2, 3, "acme", 60.0, b"", "")
        self.endings.not_run(SimpleNamespace(name=name, claim=claim), wait_s)

    def written(self):
        return {ending.id: ending for endings in self.store.finished for ending in endings}


@pytest.fixture
async def bench(monkeypatch):
    monkeypatch.setattr(module, "AGAIN_S", 0.005)
    bench = Bench()
    yield bench
    await bench.endings.flush(10.0)
    assert not bench.endings.pending


@pytest.mark.parametrize(
    ("outcome", "tries", "state"),
    [
        (b"1", 0, State.SUCCEEDED),
        (INVALID, 0, State.FAILED),
        (FAILED, 0, State.WAITING),
        (FAILED, 1, State.WAITING),
        (FAILED, 2, State.DEAD),
        (FAILED, 9, State.DEAD),
        (POISON, 0, State.DEAD),
    ],
)
async def test_what_becomes_of_a_job(bench, outcome, tries, state):
    bench.add("a", outcome, tries)
    await bench.endings.flush(10.0)
    ending = bench.written()["a"]
    assert (ending.state, ending.attempt) == (state, 7)
    assert (bench.settled, bench.given_back) == (["a"], [])
    assert bench.told == ([["a"]] if state is not State.WAITING else [])
    assert ending.charged
    if outcome is FAILED and state is State.WAITING:
        assert 0.5 * 2**tries <= ending.wait_s <= 2**tries
    else:
        assert ending.wait_s == 0


async def test_what_was_not_run_is_held_against_nobody(bench):
    """At once it goes back to the broker; after a pause the clerk publishes it."""
    bench.not_run("now")
    bench.not_run("later", 2.0)
    await bench.endings.flush(10.0)
    for name, wait_s in (("now", 0.0), ("later", 2.0)):
        ending = bench.written()[name]
        assert (ending.state, ending.charged, ending.wait_s) == (State.WAITING, False, wait_s)
    assert (bench.settled, bench.given_back, bench.told) == (["later"], ["now"], [])


async def test_those_of_a_batch_are_one_transaction(bench):
    for name in "abc":
        bench.add(name, b"1")
    await bench.endings.flush(10.0)
    assert len(bench.store.finished) == 1 and bench.settled == ["a", "b", "c"]
    assert bench.told == [["a", "b", "c"]]


async def test_while_the_database_is_away_they_are_kept_in_order(bench):
    bench.store.fails = [Unavailable("away")] * 3
    bench.add("a", b"1")
    await asyncio.sleep(0.002)
    bench.add("b", b"2")
    await bench.endings.flush(10.0)
    assert list(bench.written()) == ["a", "b"] and bench.settled == ["a", "b"]


async def test_one_that_cannot_be_written_does_not_keep_the_others(bench):
    """And the next are written as before."""
    bench.store.fails = [{"bad"}]
    for name in ("a", "bad", "b"):
        bench.add(name, b"1")
    await bench.endings.flush(10.0)
    assert sorted(bench.written()) == ["a", "b"]
    assert sorted(bench.settled) == ["a", "b", "bad"], "off the broker; its lease runs out"
    assert sorted(name for names in bench.told for name in names) == ["a", "b"]
    bench.add("c", b"1")
    await bench.endings.flush(10.0)
    assert "c" in bench.written()


async def test_large_results_that_cannot_be_stored_do_not_keep_the_small(bench):
    bench.store.full = {"large"}
    bench.add("large", b"r" * 50)
    bench.add("small", b"1")
    await asyncio.sleep(0.02)
    assert bench.settled == ["small"] and bench.told == [["small"]]
    bench.store.full = set()
    await bench.endings.flush(10.0)
    assert bench.written()["large"].result_ref == "large-result-7"
    assert bench.store.put == {"large-result-7": b"r" * 50}


async def test_what_is_refused_leaves_nothing_behind(bench):
    """Overtaken: its object goes, the broker is told, nobody is told of an end. That its object
    cannot be removed just now is in nobody's way."""
    bench.store.refused = {"late"}
    bench.add("late", b"r" * 50)
    bench.add("b", b"1")
    await bench.endings.flush(10.0)
    assert bench.store.removed == ["late-result-7"]
    assert bench.settled == ["late", "b"] and bench.told == [["b"]]


async def test_what_was_given_back_too_late_is_settled(bench):
    bench.store.refused = {"a"}
    bench.not_run("a")
    await bench.endings.flush(10.0)
    assert (bench.settled, bench.given_back) == (["a"], [])


async def test_a_flush_ends_when_its_time_is_over(bench):
    bench.store.fails = [Unavailable("away")] * 10
    bench.add("a", b"1")
    await bench.endings.flush(0.02)
    assert bench.endings.pending and bench.settled == []


async def test_runs_are_counted_as_the_gates_of_a_rollout_judge_them(bench):
    for number, outcome in enumerate([b"1", b"2", FAILED, POISON, INVALID]):
        bench.add(f"job-{number}", outcome)
    late, away = Problem(504, "deadline-exceeded", "x"), Problem(503, "model-not-ready", "x")
    bench.add("late", late)
    bench.add("away", away)
    counts = bench.endings
    assert (counts.answered, counts.failed, counts.refused) == (2, 2, 3)
