"""Minutes, decisions, overrides and alarms, on both databases, as two autoscalers write them."""

import asyncio

import pytest

from headrace.policy import Override
from headrace.store.scaling import Made, Minute, Scaling

AT = 1_767_600_000.0
M = int(AT // 60)


@pytest.fixture
async def scaling(store):
    return Scaling(store.database)


def made(minute=M, **more):
    given = {
        "model": "ocr", "minute": minute, "at": minute * 60.0, "mode": "act", "count": 5,
        "asked": 3, "reason": "raised from 3 to 5: because", "inputs": {"rate": 1.5},
        "clamps": ["a hold"], "zones": {"a": 3, "b": 2},
    }  # fmt: skip
    return Made(**(given | more))


async def test_a_minute_that_one_did_not_see_is_filled_in_by_the_other(scaling):
    await scaling.put_minutes([Minute(model="ocr", minute=M, waiting=2.0)])
    await scaling.put_minutes([Minute(model="ocr", minute=M, calls=7.0, waiting=9.0, ready=1.0)])
    await scaling.put_minutes([Minute(model="ocr", minute=M, calls=100.0)])
    [one] = await scaling.minutes("ocr", M)
    assert one == Minute(model="ocr", minute=M, calls=7.0, waiting=2.0, ready=1.0)


async def test_minutes_come_in_order_and_unseen_ones_have_no_calls(scaling):
    await scaling.put_minutes([])
    seen = [Minute(model="ocr", minute=M + n, calls=None if n == 1 else 1.0 * n) for n in range(4)]
    await scaling.put_minutes([*reversed(seen), Minute(model="other", minute=M, calls=1.0)])
    assert await scaling.minutes("ocr", M) == seen
    assert await scaling.minutes("ocr", M + 1, M + 3) == seen[1:3]
    assert await scaling.calls("ocr", M) == [(M, 0.0), (M + 2, 2.0), (M + 3, 3.0)]


async def test_of_two_autoscalers_one_decides_a_minute(scaling):
    won = await asyncio.gather(*(scaling.put_decision(made(count=n)) for n in range(6)))
    assert sum(won) == 1
    [stands] = await scaling.decisions("ocr")
    assert stands == made(count=won.index(True))
    assert await scaling.put_decision(made(model="other"))


async def test_a_decision_is_applied_and_settled_once_its_time_is_over(scaling):
    span = {"foretold": 90.0, "from_minute": M + 10, "to_minute": M + 15}
    await scaling.put_decision(made(**span))
    await scaling.put_decision(made(M + 1))
    assert await scaling.raised_at("ocr") == 0.0, "not known to be applied"
    await scaling.applied("ocr", M, "yes")
    await scaling.settle("ocr", {M: 99.0})
    await scaling.settle("ocr", {})
    assert await scaling.forecasts("ocr", M - 1) == [made(**span, came=99.0, applied="yes")]
    assert await scaling.raised_at("ocr") == AT
    assert [each.minute for each in await scaling.decisions("ocr")] == [M + 1, M]
    assert await scaling.decisions("ocr", 1, M + 1) == await scaling.forecasts("ocr", M)
    stood = await scaling.decision("ocr", M + 30)
    assert stood is not None and stood.minute == M + 1
    assert await scaling.decision("ocr", M - 1) is None


async def test_an_override_takes_the_place_of_its_kind_and_ends(scaling):
    set_ = {"author": "ann", "reason": "a sale", "at": AT, "expires": AT + 60}
    first = await scaling.set_override("ocr", "set", 3, **set_)
    floor = await scaling.set_override("ocr", "floor", 2, **set_)
    second = await scaling.set_override("ocr", "set", 4, **(set_ | {"at": AT + 1}))
    held = await scaling.overrides("ocr", AT + 2)
    assert sorted(held, key=lambda hand: hand.count) == [floor, second]
    assert second.override() == Override(
        kind="set", count=4, author="ann", reason="a sale", expires=AT + 60
    )
    assert await scaling.overrides("ocr", AT + 60) == [], "expired"
    assert await scaling.overrides("other", AT) == []
    [cleared] = await scaling.clear_override("ocr", by="bob", at=AT + 3, override_id=floor.id)
    assert (cleared.id, cleared.cleared_by, cleared.cleared_at) == (floor.id, "bob", AT + 3)
    assert await scaling.clear_override("ocr", by="bob", at=AT + 3, override_id=floor.id) == []
    assert [h.id for h in await scaling.clear_override("ocr", by="bob", at=AT + 4)] == [second.id]
    known = await scaling.hands("ocr")
    by = {hand.id: hand.cleared_by for hand in known}
    assert by == {second.id: "bob", floor.id: "bob", first.id: "ann"}
    assert await scaling.hands("ocr", 1, known[0].id) == [known[1]]


async def test_an_alarm_is_open_once(scaling):
    began = await asyncio.gather(
        *(scaling.begin_alarm("ocr", "reply-side", AT, f"seen by {n}") for n in range(4))
    )
    [alarm] = [each for each in began if each]
    assert await scaling.alarms(open_only=True) == [alarm]
    assert await scaling.end_alarm("ocr", "reply-side", AT + 60)
    assert not await scaling.end_alarm("ocr", "reply-side", AT + 61)
    again = await scaling.begin_alarm("ocr", "reply-side", AT + 90, "once more")
    assert [each.ended for each in await scaling.alarms("ocr")] == [None, AT + 60]
    [older] = await scaling.alarms("ocr", before=again.id)
    assert older.id == alarm.id
    assert await scaling.alarms("other") == []


async def test_start_up_times_are_the_last_ones(scaling):
    for n in range(4):
        await scaling.put_start("ocr", AT + n, 10.0 * n)
    assert await scaling.starts("ocr", 2) == [30.0, 20.0]
    assert await scaling.starts("other") == []


async def test_what_is_long_over_goes(scaling):
    await scaling.put_minutes([Minute(model="ocr", minute=M + n) for n in (0, 1)])
    for n in (0, 1):
        await scaling.put_decision(made(M + n))
        await scaling.put_start("ocr", AT + 60 * n, 5.0 + n)
    set_ = {"author": "ann", "reason": "", "at": AT - 60}
    await scaling.set_override("ocr", "set", 3, expires=AT, **set_)
    kept = await scaling.set_override("ocr", "cap", 3, expires=AT + 600, **set_)
    await scaling.begin_alarm("ocr", "reply-side", AT - 60, "")
    await scaling.end_alarm("ocr", "reply-side", AT)
    await scaling.begin_alarm("ocr", "worker-side", AT - 60, "")
    await scaling.remove_old(AT + 60)
    assert [each.minute for each in await scaling.minutes("ocr", 0)] == [M + 1]
    assert [each.minute for each in await scaling.decisions("ocr")] == [M + 1]
    assert await scaling.starts("ocr") == [6.0]
    assert await scaling.hands("ocr") == [kept]
    assert [each.name for each in await scaling.alarms()] == ["worker-side"]
