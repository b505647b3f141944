"""Deployments, routes, rollouts, orders, on both databases, as two deploy processes write them."""

import asyncio

import pytest
from msgspec import structs

from headrace.deployments import WHOLE, Deployment, Rollout, Route, Share
from headrace.records import new_id
from headrace.registry.audit import Entry
from headrace.store.deploying import Change, Deploying, Event
from headrace.store.scaling import Made, Scaling

from .stored import opened

AT = 1_767_600_000.0


@pytest.fixture(params=["sqlite", "postgresql"])
async def deploying(request, tmp_path):
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/house.db"
    else:
        postgres = request.getfixturevalue("postgres")
        url = await asyncio.to_thread(postgres.database)
    async with opened(url) as store:
        yield Deploying(store.database)


def rollout(**more):
    given = {
        "id": new_id(), "model": "wine", "from_version": 1, "to_version": 2, "digest": "sha256:2",
        "strategy": "canary", "author": "ann", "reason": "better", "started": AT, "updated": AT,
        "since": AT, "named": 2, "figures": {"errors": {"new": 0.5}},
    }  # fmt: skip
    return Rollout(**(given | more))


def route(revision=1, new=0, model="wine"):
    shares = (Share(1, WHOLE - new), Share(2, new)) if new else (Share(1, WHOLE),)
    return Route(model, revision, shares, watched=bool(new))


async def test_of_two_who_start_one_does(deploying):
    first, second = rollout(), rollout()
    won = await asyncio.gather(
        *(deploying.commit(Change(model="wine", rollout=each)) for each in (first, second))
    )
    assert sorted(won) == [False, True]
    stands = await deploying.open_rollout("wine")
    assert stands == structs.replace((first, second)[won.index(True)], revision=1)
    assert await deploying.commit(Change(model="other", rollout=rollout(model="other")))
    assert await deploying.open_rollout("third") is None


async def test_of_two_who_change_it_one_does_and_nothing_of_the_other_is_written(deploying):
    assert await deploying.commit(Change(model="wine", route=route()))
    assert await deploying.commit(Change(model="wine", rollout=rollout()))
    seen = await deploying.open_rollout("wine")
    changes = [
        Change(
            model="wine",
            rollout=structs.replace(seen, state="stepping", step=n),
            route=route(2 + n, 100 + n),
            deployments=[Deployment(model="wine", version=10 + n, since=AT)],
            events=[Event(rollout=seen.id, model="wine", at=AT, kind=f"k{n}", author="a", text="t",
                          figures={"n": n})],
        )
        for n in range(4)
    ]  # fmt: skip
    won = await asyncio.gather(*(deploying.commit(change) for change in changes))
    assert sum(won) == 1
    n = won.index(True)
    stands = await deploying.open_rollout("wine")
    assert (stands.step, stands.state, stands.revision) == (n, "stepping", 2)
    assert await deploying.routes() == [route(2 + n, 100 + n)]
    assert [each.version for each in await deploying.deployments()] == [10 + n]
    [event] = await deploying.events(seen.id)
    assert (event.kind, event.figures) == (f"k{n}", {"n": n})


async def test_a_route_is_placed_first_once_and_never_goes_back(deploying):
    assert await deploying.stable("wine") is None
    placed = await asyncio.gather(
        *(deploying.commit(Change(model="wine", route=route(n))) for n in (5, 6))
    )
    assert sorted(placed) == [False, True]
    assert await deploying.stable("wine") == 1
    older = Change(model="wine", rollout=rollout(), route=route(5, 50))
    assert not await deploying.commit(older)
    assert await deploying.open_rollout("wine") is None, "it went with the route"
    newer = Change(model="wine", rollout=rollout(), route=route(7, 50))
    assert await deploying.commit(newer)
    assert await deploying.route("wine") == route(7, 50)
    assert await deploying.commit(Change(model="ale", route=route(1, model="ale")))
    assert [each.model for each in await deploying.routes()] == ["ale", "wine"]


async def test_a_deployment_changes_as_it_was_seen(deploying):
    kept = Deployment(
        model="wine", version=1, digest="sha256:1", state="kept", since=AT, until=AT + 9, count=2
    )
    await deploying.commit(Change(model="wine", deployments=[kept]))
    assert await deploying.deployments("wine") == [kept]
    assert [await deploying.digest("wine", number) for number in (1, 2)] == ["sha256:1", ""]
    retired = structs.replace(kept, state="retired", since=AT + 10, until=None, count=0)
    assert await deploying.change(kept, retired)
    assert not await deploying.change(kept, structs.replace(kept, state="serving"))
    assert await deploying.deployments("wine") == [retired]
    assert await deploying.deployments("other") == []


async def test_rollouts_are_paged_and_barred_until_they_are_not(deploying):
    made = [
        rollout(id=f"{n:032x}", ended=AT + n, state="rolled-back", barred=n == 1) for n in range(4)
    ]
    for each in made:
        assert await deploying.commit(Change(model="wine", rollout=each))
    page = await deploying.rollouts("wine", 2)
    assert [each.id for each in page] == [made[3].id, made[2].id]
    page = await deploying.rollouts("wine", 9, before=page[-1].id)
    assert [each.id for each in page] == [made[1].id, made[0].id]
    assert await deploying.rollouts("other") == []
    assert len(await deploying.rollouts()) == 4
    [barred] = await deploying.barred("wine")
    assert barred.id == made[1].id
    await deploying.remove_old(AT + 100)
    assert [each.id for each in await deploying.rollouts()] == [made[1].id], "it still bars"
    await deploying.name(barred.id, 7, AT + 101)
    await deploying.unbar(barred.id, AT + 102)
    assert await deploying.barred("wine") == []
    freed = await deploying.rollout(barred.id)
    assert (freed.named, freed.updated) == (7, AT + 102)
    assert await deploying.rollout("nothing") is None


async def test_an_order_is_seen_to_once(deploying):
    first = await deploying.order("wine", "pause", author="ann", reason="lunch", at=AT)
    second = await deploying.order(
        "wine", "start", author="bob", reason="now", at=AT + 1, version=4, strategy="shadow"
    )
    assert await deploying.orders_open() == [first, second]
    assert await deploying.orders_open("other") == []
    done = await asyncio.gather(
        *(deploying.finish_order(first.id, outcome=f"no: {n}", at=AT + 2) for n in range(3))
    )
    assert sum(done) == 1
    assert await deploying.orders_open("wine") == [second]
    assert (await deploying.find_order(first.id)).outcome == f"no: {done.index(True)}"
    assert [each.id for each in await deploying.orders("wine")] == [second.id, first.id]
    await deploying.remove_old(AT + 9)
    assert await deploying.orders("wine") == [second]


async def test_promotions_are_an_audit(deploying):
    asked = Entry(
        id="ab", at=AT, outcome="asked", model="wine", alias="production", to=2, before=None,
        digest="sha256:2", author="ann", reason="better",
    )  # fmt: skip
    done = structs.replace(asked, at=AT + 1, outcome="done", before=1)
    other = structs.replace(asked, id="cd", model="ale", to=None)
    for entry in (asked, done, other):
        await deploying.append(entry)
    assert await deploying.entries("wine") == [done, asked]
    assert await deploying.entries(limit=1) == [other]


async def test_how_a_model_stands_is_read_in_one_go(deploying):
    assert await deploying.standing("wine") == (None, {}, None, None, [], [], None)
    over = [rollout(id=f"{n:032x}", ended=AT + n, barred=True) for n in (1, 2)]
    now = rollout(id=f"{3:032x}")
    serving = Deployment(model="wine", version=1, since=AT)
    for each in (*over, now):
        assert await deploying.commit(
            Change(model="wine", rollout=each, route=route(int(each.id, 16)), deployments=[serving])
        )
    await deploying.commit(Change(model="ale", rollout=rollout(model="ale")))
    order = await deploying.order("wine", "resume", author="ann", reason="back", at=AT)
    scaling = Scaling(deploying._database)
    decided = Made(model="wine", minute=1, at=now.started, mode="act", count=9, asked=1, reason="")
    for n, change in enumerate((
        {}, {"count": 8}, {"mode": "advise", "count": 7}, {"model": "ale", "count": 6}
    )):  # fmt: skip
        assert await scaling.put_decision(structs.replace(decided, minute=n, **change))
    await deploying.order("ale", "pause", author="ann", reason="back", at=AT)
    stands = await deploying.standing("wine")
    assert stands.route == route(3)
    assert stands.deployments == {1: serving}
    assert stands.rollout.id == now.id
    assert stands.last.id == over[1].id
    assert [each.id for each in stands.barred] == [over[1].id, over[0].id]
    assert stands.orders == [order]
    assert stands.sized == 8
    early = structs.replace(decided, minute=9, at=now.started - 1)
    assert await scaling.put_decision(early)
    assert (await deploying.standing("wine")).sized == 8, (
        "what came before the rollout says nothing"
    )
