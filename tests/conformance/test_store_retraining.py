"""Trainings, on both databases, as two retrainers write them."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from headrace.retraining import Training
from headrace.store.retraining import Trainings

ASKED = Training(model="wine", key="k1", at=100.0, reason="because", run="r1", before=3)


@pytest.fixture
def trainings(store):
    return Trainings(store.database)


def changed(**more):
    return msgspec.structs.replace(ASKED, **more)


async def test_a_wish_has_one_row_whoever_of_two_is_first(trainings):
    won = await asyncio.gather(*(trainings.begin(changed(run=f"r{n}")) for n in range(5)))
    assert sum(won) == 1
    [stands] = await trainings.of("wine")
    assert stands == changed(run=f"r{won.index(True)}")
    assert await trainings.begin(changed(model="other"))


async def test_it_ends_once_and_what_came_of_it_is_kept(trainings):
    await trainings.begin(ASKED)
    ended = changed(state="promoted", ended=160.0, took_s=55.5, version=4, outcome="goes")
    won = await asyncio.gather(*(trainings.end(ended) for _ in range(4)))
    assert sum(won) == 1
    assert await trainings.of("wine") == [ended]
    assert not await trainings.end(changed(key="k2", ended=1.0)), "there is none of that key"


async def test_the_newest_come_first(trainings):
    for n in range(4):
        await trainings.begin(changed(key=f"k{n}", at=100.0 + n))
        if n:
            await trainings.end(changed(key=f"k{n}", state="out", ended=200.0 + n))
    assert [each.key for each in await trainings.of("wine", 3)] == ["k3", "k2", "k1"]
