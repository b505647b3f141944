"""Acts of gateways, workers, zombies and clerks in any order, against what is legal."""

import random
from collections import Counter

import pytest
from sqlalchemy import func, select

from headrace.records import MOVES, TERMINAL, Ending, State
from headrace.store.tables import jobs

from .stored import FAILED, LEASE_S, look, records, set_row, sql, submit


class Walk:
    """Six jobs, what is known of each, and every claim there ever was."""

    def __init__(self, store, dice):
        self.store, self.dice = store, dice
        self.seen, self.tokens, self.pauses = {}, {}, {}
        self.moved = Counter()

    async def add(self):
        [job] = await submit(self.store, max_attempts=2)
        [self.seen[job]] = await records(self.store, [job])
        self.tokens[job] = [0]  # an attempt that never was
        self.pauses[job] = False

    async def claim(self, job):
        got = await self.store.jobs.claim([job], "w", LEASE_S)
        self.tokens[job] += [each.attempt for each in got]
        free = self.seen[job].state is State.WAITING and not self.pauses[job]
        assert bool(got) == free

    async def finish(self, job):
        attempt = self.dice.choice(self.tokens[job])
        to = self.dice.choice(sorted(MOVES[State.RUNNING] - {State.EXPIRED, State.CANCELLED}))
        problem = None if to is State.SUCCEEDED else FAILED
        wait_s = self.dice.choice([0.0, 60.0])
        ending = Ending(job, attempt, to, result=b"1", problem=problem, wait_s=wait_s)
        record = self.seen[job]
        legal = record.attempt == attempt and record.state in (State.RUNNING, to)
        assert await self.store.jobs.finish([ending]) == ({job} if legal else set())
        if legal and to is State.WAITING and record.state is State.RUNNING:
            self.pauses[job] = wait_s > 0

    async def lease_over(self, job):
        await set_row(self.store, job, due=None if self.seen[job].ended else 1.0)
        await look(self.store)

    async def expire(self, job):
        if not self.seen[job].ended:
            await set_row(self.store, job, deadline=1.0, due=1.0)
            await look(self.store)
            await set_row(self.store, job, deadline=self.seen[job].deadline)

    async def pause_over(self, job):
        await set_row(self.store, job, not_before=1.0)
        self.pauses[job] = False

    async def cancel(self, job):
        record = await self.store.jobs.cancel("acme", job)
        before = self.seen[job]
        assert record.state is (before.state if before.ended else State.CANCELLED)

    async def replay(self, job):
        record = await self.store.jobs.replay("acme", job, 600.0)
        assert bool(record) == (self.seen[job].state is State.DEAD)
        if record:
            self.pauses[job] = False

    async def renew(self, job):
        """One who died long ago renews nothing."""
        before = self.seen[job]
        for attempt in set(self.tokens[job]):
            lost = await self.store.jobs.renew({job: attempt}, "w", LEASE_S)
            kept = before.state is State.RUNNING and before.attempt == attempt
            assert lost == (set() if kept else {job})

    async def fresh(self, job):
        """One in the place of a job that will not move any more."""
        if self.seen[job].ended and self.seen[job].state is not State.DEAD:
            del self.seen[job]
            await self.add()

    async def compare(self, act):
        for record in await records(self.store, list(self.seen)):
            before = self.seen[record.id]
            if record.state is not before.state:
                self.moved[before.state, record.state] += 1
                assert record.state in MOVES[before.state], (act, before, record)
            elif before.ended:
                assert record == before, act
            runs = before.state is State.WAITING and record.state is State.RUNNING
            assert record.attempt - before.attempt == runs, (act, before, record)
            assert (record.finished is not None) == record.ended
            self.seen[record.id] = record


@pytest.mark.parametrize("seed", range(3))
async def test_any_order_of_acts_makes_legal_moves_alone(store, seed):
    """After each of 400 acts by chance: states moved as MOVES says, attempts grew by claims alone,
    an end stayed (but for a replay), and what was told is so."""
    walk = Walk(store, random.Random(seed))
    for _ in range(6):
        await walk.add()
    acts = [walk.claim] * 3 + [walk.finish] * 4 + [walk.fresh] * 3
    acts += [walk.lease_over, walk.expire, walk.pause_over, walk.cancel, walk.replay, walk.renew]
    for _ in range(400):
        act = walk.dice.choice(acts)
        await act(walk.dice.choice(sorted(walk.seen)))
        await walk.compare(act.__name__)
    assert len(walk.moved) >= 8, walk.moved
    stuck = select(func.count()).where(
        (jobs.c.due.is_(None)) == (jobs.c.state.in_(["waiting", "running"]))
    )
    assert (await sql(store, stuck))[0][0] == 0, "who has not ended is looked after, nobody else"


def test_every_state_can_be_left_or_is_an_end():
    assert set(MOVES) == set(State)
    assert {state for state in State if State.RUNNING in MOVES[state]} == {State.WAITING}
    assert {state for state in State if not MOVES[state]} == TERMINAL - {State.DEAD}
