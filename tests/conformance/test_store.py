"""The store's exam, on SQLite and on PostgreSQL alike: who owns a job, what may follow what, and
that nothing which was promised is lost."""

import asyncio
import random
import time
from collections import Counter

import pytest
from sqlalchemy import select, update

from headrace.clerk.decide import LOST_MOST, decide
from headrace.clerk.retain import remove_old
from headrace.errors import Problem
from headrace.records import Ending, Priority, State, new_id
from headrace.store.ends import Keep
from headrace.store.engine import now
from headrace.store.tables import deliveries, jobs, losses, removals, webhooks
from headrace.store.webhooks import Webhooks, switch_off

from .stored import (
    EMPTY,
    FAILED,
    LEASE_S,
    a_job,
    claimed,
    count_of,
    done,
    look,
    opened,
    records,
    set_row,
    sql,
    state,
    submit,
)

# -- submit ----------------------------------------------------------------------------------------


async def test_a_submitted_job_waits_and_is_all_there(store):
    [job] = await submit(store, priority=Priority.BULK, ttl_s=60.0)
    record = await store.jobs.get("acme", job)
    assert (record.state, record.priority, record.attempt, record.tries) == (
        State.WAITING, Priority.BULK, 0, 0,
    )  # fmt: skip
    assert record.deadline - record.created == pytest.approx(60.0, abs=0.5)
    assert record.started is record.finished is record.problem is None and not record.input_gone


async def test_many_are_one_transaction(store):
    """One that cannot be stored takes the others along: nobody was promised anything."""
    good, bad = a_job(), a_job(tenant=None)
    with pytest.raises(Exception, match=r"NULL|null"):
        await store.jobs.submit([good, bad])
    assert await count_of(store, jobs) == 0
    ids = await submit(store, 256)
    assert None not in await records(store, ids)
    assert await count_of(store, jobs) == 256


async def test_a_key_stands_for_one_job(store):
    first, again, other = a_job(key="k"), a_job(key="k"), a_job(key="k", tenant="other")
    assert await store.jobs.submit([first]) == [None]
    [record, none] = await store.jobs.submit([again, other])
    assert record.id == first.id and none is None
    assert (await store.jobs.by_key("acme", "k")).id == first.id
    assert (await store.jobs.by_key("other", "k")).id == other.id
    assert await store.jobs.by_key("acme", "K") is None, "keys are what they are, to the letter"


async def test_a_key_twice_in_one_batch(store):
    batch = [a_job(key="k"), a_job(), a_job(key="k"), a_job(key="l")]
    answers = await store.jobs.submit(batch)
    assert [answer and answer.id for answer in answers] == [None, None, batch[0].id, None]
    assert await count_of(store, jobs) == 3


async def test_a_key_from_many_sides_at_once(store, url):
    """Two gateways, 20 submissions of each of 10 keys, in orders of their own."""
    async with opened(url) as second:
        batches = []
        for number in range(20):
            batch = [a_job(key=f"k{n}") for n in range(10)]
            random.Random(number).shuffle(batch)
            batches.append(((store, second)[number % 2], batch))
        answers = await asyncio.gather(*(each.jobs.submit(batch) for each, batch in batches))
    stands_for: dict[str, set[str]] = {}
    new = Counter()
    for (_, batch), told in zip(batches, answers, strict=True):
        for submission, record in zip(batch, told, strict=True):
            stands_for.setdefault(submission.key, set()).add((record or submission).id)
            new[submission.key] += record is None
    assert all(len(ids) == 1 for ids in stands_for.values()), "all were told of the same job"
    assert set(new.values()) == {1} and len(new) == 10
    assert await count_of(store, jobs) == 10


async def test_a_key_is_free_again_when_its_job_is_removed(store):
    [first] = await submit(store, key="k")
    await store.jobs.cancel("acme", first)
    assert await store.jobs.discard("acme", first)
    await remove_old(store)
    assert await submit(store, key="k")


# -- claim, renew, finish --------------------------------------------------------------------------


async def test_a_claim_is_exclusive(store, url):
    """Eight workers on two connections' pools claim the same 100, all at once."""
    ids = await submit(store, 100)
    async with opened(url) as second:

        async def worker(number):
            mine = random.Random(number).sample(ids, 100)
            each = (store, second)[number % 2]
            found = await asyncio.gather(
                *(
                    each.jobs.claim(mine[n : n + 10], f"w{number}", LEASE_S)
                    for n in range(0, 100, 10)
                )
            )
            return [claim.id for claims in found for claim in claims]

        owned = [job for jobs in await asyncio.gather(*map(worker, range(8))) for job in jobs]
    assert sorted(owned) == sorted(ids)
    rows = await sql(store, select(jobs.c.attempt, jobs.c.worker))
    assert {row.attempt for row in rows} == {1} and all(row.worker for row in rows)


async def test_what_cannot_be_claimed(store):
    early, late, owned, over = await submit(store, 4)
    at = (await sql(store, select(now())))[0][0]
    await set_row(store, early, not_before=at + 60)
    await set_row(store, late, deadline=at - 1)
    await store.jobs.claim([owned], "x", LEASE_S)
    await store.jobs.cancel("acme", over)
    assert await store.jobs.claim([early, late, owned, over, new_id()], "w", LEASE_S) == []


async def test_a_claim_has_what_a_run_needs(store):
    [job] = await submit(store, input=b"\0\xff", ttl_s=50.0, max_attempts=7)
    [claim] = await store.jobs.claim([job], "w", LEASE_S)
    assert (claim.attempt, claim.tries, claim.max_attempts, claim.input) == (1, 0, 7, b"\0\xff")
    assert 45 < claim.left_s <= 50
    record = await store.jobs.get("acme", job)
    assert record.state is State.RUNNING and record.worker == "w" and record.started


async def test_an_older_attempt_is_refused(store):
    old = await claimed(store)
    await set_row(store, old.id, due=0.0)
    await look(store)  # the clerk: its lease is over
    [new] = await store.jobs.claim([old.id], "other", LEASE_S)
    assert new.attempt == 2 and new.tries == 1
    assert await store.jobs.finish([done(old, result=b"zombie")]) == set()
    assert await store.jobs.renew({old.id: old.attempt}, "w", LEASE_S) == {old.id}
    assert await store.jobs.finish([done(new, result=b"right")]) == {new.id}
    record = await store.jobs.get("acme", old.id)
    assert (record.result, record.attempt, record.worker) == (b"right", 2, "other")


async def test_a_renewal_keeps_what_is_owned_and_tells_what_is_not(store):
    kept, cancelled, over = [await claimed(store) for _ in range(3)]
    await store.jobs.cancel("acme", cancelled.id)
    await store.jobs.finish([done(over)])
    await set_row(store, kept.id, due=1.0, lease_until=1.0)
    owned = {claim.id: claim.attempt for claim in (kept, cancelled, over)}
    assert await store.jobs.renew(owned, "w", LEASE_S) == {cancelled.id, over.id}
    assert (await look(store)).due == 0, "late, but before the clerk came"


async def test_the_same_ending_twice_is_one(store):
    """A commit whose answer was lost is written again: it is not somebody else's."""
    claim = await claimed(store)
    await Webhooks(store.database).add("acme", "https://a.example/", ["*"])
    assert await store.jobs.finish([done(claim, result_ref="named")]) == {claim.id}
    before = await store.jobs.get("acme", claim.id)
    assert await store.jobs.finish([done(claim, result_ref="named")]) == {claim.id}
    assert await store.jobs.get("acme", claim.id) == before
    assert await count_of(store, deliveries) == 1
    other = done(claim, state=State.FAILED, result=b"", problem=FAILED)
    assert await store.jobs.finish([other]) == set(), "an end is the end"
    assert await store.jobs.get("acme", claim.id) == before


async def test_an_ending_of_many_writes_those_that_are_the_workers(store):
    mine = [await claimed(store) for _ in range(3)]
    await store.jobs.cancel("acme", mine[1].id)
    ends = [
        done(mine[0]),
        done(mine[1]),
        done(mine[2], state=State.DEAD, result=b"", problem=FAILED),
    ]
    assert await store.jobs.finish(ends) == {mine[0].id, mine[2].id}
    records = [await store.jobs.get("acme", claim.id) for claim in mine]
    assert [r.state for r in records] == [State.SUCCEEDED, State.CANCELLED, State.DEAD]
    assert records[2].problem == FAILED and records[2].tries == 1 and records[1].result == b""


async def test_a_retry_waits_for_its_time(store):
    claim = await claimed(store)
    again = done(claim, state=State.WAITING, result=b"", problem=FAILED, wait_s=60.0)
    assert await store.jobs.finish([again]) == {claim.id}
    assert await store.jobs.claim([claim.id], "w", LEASE_S) == []
    assert (await look(store)).due == 0
    await set_row(store, claim.id, not_before=1e9, due=1e9)  # the time has come
    looked = await look(store)
    assert [posting.id for posting in looked.postings] == [claim.id]
    [second] = await store.jobs.claim([claim.id], "w", LEASE_S)
    assert (second.attempt, second.tries) == (2, 1)
    [lost] = await store.jobs.lost_runs(claim.id)
    assert (lost.attempt, lost.worker, lost.reason) == (1, "w", "it raised")


async def test_what_is_given_back_is_not_charged(store):
    claim = await claimed(store)
    given = Ending(claim.id, claim.attempt, State.WAITING, charged=False)
    assert await store.jobs.finish([given]) == {claim.id}
    [second] = await store.jobs.claim([claim.id], "x", LEASE_S)
    assert (second.attempt, second.tries) == (2, 0)
    assert await store.jobs.lost_runs(claim.id) == []


@pytest.mark.parametrize("detail", ["a \0 byte", "x" * 100_000, "\U0001f4a3 \u202e", ""])
async def test_what_a_model_says_can_be_stored(store, detail):
    """Whatever it raised with: else its worker could write nothing any more."""
    claim = await claimed(store)
    problem = Problem(500, "model-failed", detail)
    ending = done(claim, state=State.WAITING, result=b"", problem=problem)
    assert await store.jobs.finish([ending]) == {claim.id}
    assert len(await store.jobs.lost_runs(claim.id)) == 1


async def test_a_version_of_any_length(store):
    claim = await claimed(store)
    assert await store.jobs.finish([done(claim, version="v" * 500)]) == {claim.id}
    assert await state(store, claim.id) is State.SUCCEEDED


async def test_writers_that_meet_in_any_order(store, url):
    """Leases renewed, jobs ended, claimed, cancelled and looked at, over and over and at once: all
    gets written, whoever met whom."""
    ids = await submit(store, 60, max_attempts=1000)
    dice = random.Random(7)
    async with opened(url) as second:
        end = time.monotonic() + 2.0

        async def writer(number):
            each, ran = (store, second)[number % 2].jobs, 0
            while time.monotonic() < end:
                mine = dice.sample(ids, 40)
                claims = await each.claim(mine, f"w{number}", LEASE_S)
                owned = {claim.id: claim.attempt for claim in claims}
                back = [Ending(c.id, c.attempt, State.WAITING, charged=False) for c in claims]
                dice.shuffle(back)
                await asyncio.gather(
                    each.renew(
                        dict(dice.sample(sorted(owned.items()), len(owned))), f"w{number}", 9
                    ),
                    each.finish(back[::2]),
                    each.finish(back[1::2]),
                )
                ran += len(claims)
            return ran

        assert all(await asyncio.gather(*map(writer, range(6))))


# -- the clerk's look ------------------------------------------------------------------------------


async def test_a_lease_that_is_over(store):
    again, last, late = (
        await claimed(store),
        await claimed(store),
        await claimed(store),
    )
    at = (await sql(store, select(now())))[0][0]
    for claim in (again, last, late):
        await set_row(store, claim.id, due=at - 1, lease_until=at - 1)
    await set_row(store, late.id, deadline=at - 1)
    await set_row(store, last.id, tries=LOST_MOST - 1)
    looked = await look(store)
    assert [posting.id for posting in looked.postings] == [again.id]
    assert set(looked.ended) == {last.id, late.id} and looked.due == 3
    waits, dead, expired = [await store.jobs.get("acme", c.id) for c in (again, last, late)]
    assert (waits.state, waits.tries) == (State.WAITING, 1)
    assert dead.state is State.DEAD and dead.problem.code == "job-dead"
    assert expired.state is State.EXPIRED
    for claim in (again, last, late):
        [lost] = await store.jobs.lost_runs(claim.id)
        assert lost.worker == "w" and "lease" in lost.reason
    assert (await look(store)).due == 0


async def test_a_job_whose_message_was_lost_is_published_later_and_later(store):
    [job] = await submit(store)
    assert (await look(store)).due == 0, "given the time to be claimed"
    waits = []
    for _ in range(4):
        at = (await sql(store, select(now())))[0][0]
        await set_row(store, job, due=at)
        assert [posting.id for posting in (await look(store)).postings] == [job]
        [row] = await sql(store, select(jobs.c.due).where(jobs.c.id == job))
        waits.append(row.due - at)
    assert waits == [pytest.approx(wait, abs=0.3) for wait in (2, 4, 8, 16)]


async def test_looks_while_the_broker_is_away_do_not_count(store):
    """A pause that ended meanwhile is published when it is back, whatever else waits there."""
    claim = await claimed(store)
    await store.jobs.finish([done(claim, state=State.WAITING, result=b"", problem=FAILED)])
    for _ in range(5):
        await set_row(store, claim.id, due=1.0)
        away = await store.jobs.look(lambda job, at: decide(job, at, {}, 60.0), 10)
        assert away.postings == [] and away.due == 1
    await set_row(store, claim.id, due=1.0)
    full = dict.fromkeys(EMPTY, 1000)
    back = await store.jobs.look(lambda job, at: decide(job, at, full, 60.0), 10)
    assert [posting.id for posting in back.postings] == [claim.id]


async def test_nobody_looks_beyond_a_deadline(store):
    [job] = await submit(store, ttl_s=0.5)
    await set_row(store, job, due=0.0)
    await look(store)
    [row] = await sql(store, select(jobs.c.due, jobs.c.deadline).where(jobs.c.id == job))
    assert row.due == row.deadline


async def test_two_clerks_share_no_job(store, url):
    ids = await submit(store, 200)
    await sql(store, update(jobs).values(due=1.0))
    async with opened(url) as second:
        looks = await asyncio.gather(*(look(each, 30) for each in (store, second) * 5))
    posted = [posting.id for looked in looks for posting in looked.postings]
    assert len(posted) == len(set(posted)) and set(posted) <= set(ids)
    assert (await look(store, 500)).due == 200 - len(posted)


async def test_a_look_that_breaks_changes_nothing(store):
    claim = await claimed(store)
    await Webhooks(store.database).add("acme", "https://a.example/", ["*"])
    [other] = await submit(store)
    await sql(store, update(jobs).values(due=1.0, deadline=1.0))

    def breaks(job, at):
        if job.id == other:
            raise RuntimeError("a bug")
        return decide(job, at, EMPTY, 60.0)

    await set_row(store, other, due=2.0)  # second in line
    with pytest.raises(RuntimeError):
        await store.jobs.look(breaks, 10)
    assert await state(store, claim.id) is State.RUNNING
    assert await count_of(store, losses) == await count_of(store, deliveries) == 0


async def test_waiting_jobs_are_counted_by_model(store):
    await submit(store, 3)
    await submit(store, 2, model="tulip")
    await claimed(store)
    assert await store.jobs.waiting() == {"iris": 3, "tulip": 2}


# -- cancel, replay, discard -----------------------------------------------------------------------


async def test_cancel_against_finish(store, url):
    """Whoever comes first has it; both are told the truth. One delivery each."""
    await Webhooks(store.database).add("acme", "https://a.example/", ["*"])
    claims = [await claimed(store) for _ in range(30)]
    ended = Counter()
    async with opened(url) as second:
        for number, claim in enumerate(claims):
            acts = [store.jobs.finish([done(claim)]), second.jobs.cancel("acme", claim.id)]
            if number % 2:
                acts.reverse()
            got = await asyncio.gather(*acts)
            written, record = got if not number % 2 else got[::-1]
            assert (record.state is State.SUCCEEDED) == bool(written), (record, written)
            assert await state(store, claim.id) is record.state
            ended[record.state] += 1
    assert set(ended) <= {State.SUCCEEDED, State.CANCELLED}
    assert await count_of(store, deliveries) == 30


async def test_cancel_before_and_after(store):
    [waits] = await submit(store)
    runs = await claimed(store)
    over = await claimed(store)
    await store.jobs.finish([done(over)])
    assert (await store.jobs.cancel("acme", waits)).state is State.CANCELLED
    assert (await store.jobs.cancel("acme", runs.id)).state is State.CANCELLED
    assert (await store.jobs.cancel("acme", over.id)).state is State.SUCCEEDED
    assert await store.jobs.cancel("acme", new_id()) is None
    assert await store.jobs.claim([waits], "w", LEASE_S) == []


async def dead_job(store, **more):
    claim = await claimed(store, **more)
    await store.jobs.finish([done(claim, state=State.DEAD, result=b"", problem=FAILED)])
    return claim


async def test_a_dead_job_is_replayed_with_all_its_tries(store):
    dead = await dead_job(store)
    record = await store.jobs.replay("acme", dead.id, 60.0)
    assert (record.state, record.tries, record.attempt) == (State.WAITING, 0, 1)
    assert record.problem is record.finished is None
    assert [posting.id for posting in (await look(store)).postings] == [dead.id], "at once"
    [claim] = await store.jobs.claim([dead.id], "x", LEASE_S)
    assert claim.attempt == 2 and claim.input == b"in", "the token grows on"
    assert await store.jobs.finish([done(dead)]) == set()
    assert await store.jobs.finish([done(claim)]) == {claim.id}


async def test_what_cannot_be_replayed(store):
    others = [await claimed(store) for _ in range(3)]
    await store.jobs.finish([done(others[0])])
    await store.jobs.finish([done(others[1], state=State.FAILED, result=b"", problem=FAILED)])
    for claim in others:
        assert await store.jobs.replay("acme", claim.id, 60.0) is None
    without = await dead_job(store)
    await store.retention.forget_inputs([without.id])
    await set_row(store, without.id, input=None)
    assert await store.jobs.replay("acme", without.id, 60.0) is None
    going = await dead_job(store)
    await store.jobs.discard("acme", going.id)
    assert await store.jobs.replay("acme", going.id, 60.0) is None, "it is about to be removed"
    assert await store.jobs.replay("acme", new_id(), 60.0) is None


async def test_a_replayed_job_is_not_removed_by_who_had_looked_before(store):
    dead = await dead_job(store)
    await set_row(store, dead.id, input_until=1.0, row_until=1.0)
    old_inputs, old_rows = await store.retention.inputs(10), await store.retention.rows(10)
    assert [old.id for old in old_inputs + old_rows] == [dead.id] * 2
    await set_row(store, dead.id, state="waiting", input_until=None, row_until=None)
    await store.retention.forget_inputs([dead.id])
    await store.retention.forget_rows([dead.id])
    record = await store.jobs.get("acme", dead.id)
    assert record is not None and not record.input_gone
    assert await count_of(store, removals) == 0


async def test_only_what_has_ended_is_discarded(store):
    [waits] = await submit(store)
    claim = await claimed(store)
    assert not await store.jobs.discard("acme", waits)
    assert not await store.jobs.discard("acme", claim.id)
    await store.jobs.finish([done(claim)])
    assert await store.jobs.discard("acme", claim.id)
    await remove_old(store)
    assert await store.jobs.get("acme", claim.id) is None


# -- retention -------------------------------------------------------------------------------------


async def large_job(store):
    """Input and result in the objects."""
    job = new_id()
    inline, ref = await store.bodies.rest("acme", "input", job, b"i" * 100)
    assert (inline, ref) == (b"", f"jobs/acme/{job}-input")
    await store.jobs.submit([a_job(id=job, input=b"", input_ref=ref)])
    [claim] = await store.jobs.claim([job], "w", LEASE_S)
    _, result_ref = await store.bodies.rest("acme", f"result-{claim.attempt}", job, b"r" * 100)
    await store.jobs.finish([done(claim, result=b"", result_ref=result_ref)])
    return claim


async def test_the_input_goes_first_and_the_row_later(store):
    claim = await large_job(store)
    objects = store.bodies._objects
    assert await remove_old(store) == 0 and len(await objects.names()) == 2
    await set_row(store, claim.id, input_until=1.0)
    assert await remove_old(store) == 1
    record = await store.jobs.get("acme", claim.id)
    assert record.input_gone and record.state is State.SUCCEEDED
    assert await objects.names() == [record.result_ref]
    await set_row(store, claim.id, row_until=1.0)
    assert await remove_old(store) == 1
    assert await store.jobs.get("acme", claim.id) is None and await objects.names() == []
    rows = await sql(store, select(removals).order_by(removals.c.id))
    assert [(row.job_id, row.tenant, row.what) for row in rows] == [
        (claim.id, "acme", "input"),
        (claim.id, "acme", "row"),
    ]
    assert await remove_old(store) == 0 and await count_of(store, removals) == 2


async def test_objects_that_cannot_be_removed_are_removed_later(store):
    claim = await large_job(store)
    small = await claimed(store)
    await store.jobs.finish([done(small)])
    await sql(store, update(jobs).values(input_until=1.0, row_until=1.0))
    objects = store.bodies._objects
    objects.down = True
    await remove_old(store)
    assert await store.jobs.get("acme", claim.id) is not None, "else nobody knew of its objects"
    assert await store.jobs.get("acme", small.id) is None, "nothing of the others' trouble"
    assert len(await objects.names()) == 2
    objects.down = False
    assert await remove_old(store) == 0, "not at once again"
    await set_row(store, claim.id, input_until=1.0, row_until=1.0)
    await remove_old(store)
    assert await objects.names() == [] and await count_of(store, jobs) == 0


async def test_an_input_that_is_kept_for_no_time(url):
    async with opened(url, keep=Keep(0, 60)) as store:
        claim = await claimed(store)
        await store.jobs.finish([done(claim)])
        assert (await store.jobs.get("acme", claim.id)).input_gone
        assert await remove_old(store) == 1
        [row] = await sql(store, select(removals.c.what))
        assert row.what == "input"


async def test_two_clerks_remove_a_row_once(store, url):
    for _ in range(5):
        claim = await claimed(store)
        await store.jobs.finish([done(claim)])
    await sql(store, update(jobs).values(input_until=1.0, row_until=1.0))
    async with opened(url) as second:
        second.bodies = store.bodies
        await asyncio.gather(*(remove_old(each) for each in (store, second) * 3))
    rows = Counter(await sql(store, select(removals.c.job_id, removals.c.what)))
    assert len(rows) == 10 and set(rows.values()) == {1}


# -- whose ---------------------------------------------------------------------------------------


async def test_a_tenant_sees_and_changes_its_own_alone(store):
    dead = await dead_job(store)
    [waits] = await submit(store)
    for job in (dead.id, waits):
        assert await store.jobs.get("other", job) is None
        assert await store.jobs.cancel("other", job) is None
        assert await store.jobs.replay("other", job, 60.0) is None
        assert not await store.jobs.discard("other", job)
    assert await store.jobs.page("other") == []
    assert await state(store, waits) is State.WAITING
    assert await state(store, dead.id) is State.DEAD


async def test_pages(store):
    ids = sorted([(await submit(store, model="m", id=new_id()))[0] for _ in range(7)], reverse=True)
    await submit(store, 3, tenant="other")
    await store.jobs.cancel("acme", ids[0])
    seen, before = [], ""
    while page := await store.jobs.page("acme", before=before, limit=3):
        seen.append([record.id for record in page])
        before = page[-1].id
    assert seen == [ids[:3], ids[3:6], ids[6:]]
    found = await store.jobs.page("acme", states=[State.CANCELLED, State.DEAD], model="m")
    assert [record.id for record in found] == ids[:1]
    assert await store.jobs.page("acme", model="none") == []


async def test_a_page_has_no_results(store):
    claim = await claimed(store)
    await store.jobs.finish([done(claim, result=b"r" * 50)])
    [record] = await store.jobs.page("acme")
    assert record.result == b"" and (await store.jobs.get("acme", claim.id)).result == b"r" * 50


# -- webhooks --------------------------------------------------------------------------------------


async def test_who_asked_is_told_of_an_end(store):
    hooks = Webhooks(store.database)
    (all_of_it, _), (ends, _), (deaths, _) = [
        await hooks.add("acme", "https://a.example/", events)
        for events in (["*"], ["job.succeeded", "job.cancelled"], ["job.dead"])
    ]
    off, _ = await hooks.add("acme", "https://a.example/", ["*"])
    await store.database.write(lambda connection: switch_off(connection, [off.id], "no more"))
    await hooks.add("other", "https://a.example/", ["*"])
    claim, gone, expired = await claimed(store), await claimed(store), await claimed(store)
    await store.jobs.finish([done(claim)])
    await store.jobs.cancel("acme", gone.id)
    await set_row(store, expired.id, due=1.0, deadline=1.0)
    await look(store)
    dead = await dead_job(store)
    rows = await sql(store, select(deliveries))
    assert Counter((row.webhook_id, row.event, row.job_id) for row in rows) == Counter([
        (all_of_it.id, "job.succeeded", claim.id), (ends.id, "job.succeeded", claim.id),
        (all_of_it.id, "job.cancelled", gone.id), (ends.id, "job.cancelled", gone.id),
        (all_of_it.id, "job.expired", expired.id),
        (all_of_it.id, "job.dead", dead.id), (deaths.id, "job.dead", dead.id),
    ])  # fmt: skip
    assert all(b'"result"' not in row.payload for row in rows)


async def test_a_job_ends_with_its_deliveries_or_not_at_all(store):
    """The transaction breaks where deliveries are written: the job has not ended."""
    hook, _ = await Webhooks(store.database).add("acme", "https://a.example/", ["*"])
    claim = await claimed(store)

    def breaks(connection):
        assert store.jobs._finish(connection, [done(claim)]) == {claim.id}
        [row] = connection.execute(select(deliveries.c.webhook_id)).all()
        assert row.webhook_id == hook.id
        raise RuntimeError("a power cut")

    with pytest.raises(RuntimeError):
        await store.database.write(breaks)
    assert await state(store, claim.id) is State.RUNNING
    assert await count_of(store, deliveries) == 0
    await sql(store, webhooks.delete())
    assert await store.jobs.finish([done(claim)]) == {claim.id}


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shift_s", [-86_400.0, 86_400.0])
async def test_the_clock_is_the_databases(store, monkeypatch, shift_s):
    """A machine whose clock is a day off submits, claims, renews and looks like any other."""
    true = time.time
    monkeypatch.setattr(time, "time", lambda: true() + shift_s)
    claim = await claimed(store, ttl_s=60.0)
    assert 55 < claim.left_s <= 60
    assert await store.jobs.renew({claim.id: 1}, "w", LEASE_S) == set()
    assert (await look(store)).due == 0
    [row] = await sql(store, select(jobs).where(jobs.c.id == claim.id))
    for value in (row.created, row.started, row.deadline - 60, row.lease_until - LEASE_S):
        assert value == pytest.approx(true(), abs=5)
    await store.jobs.finish([done(claim)])
    assert (await store.jobs.get("acme", claim.id)).finished == pytest.approx(true(), abs=5)
