"""Background work: kept, awaited for a while, ended together."""

import asyncio
import time

from headrace.background import Background


async def test_it_is_idle_when_also_what_began_meanwhile_has_ended():
    background, done = Background(), []

    async def first():
        await asyncio.sleep(0)
        background.spawn(second())

    async def second():
        await asyncio.sleep(0.005)
        done.append("second")

    background.spawn(first())
    await background.idle(5.0)
    assert done == ["second"]


async def test_idle_does_not_wait_for_ever_and_close_ends_all():
    background = Background()
    tasks = [background.spawn(asyncio.sleep(60)) for _ in range(3)]
    began = time.monotonic()
    await background.idle(0.02)
    assert 0.015 < time.monotonic() - began < 5 and not any(task.done() for task in tasks)
    await background.close()
    assert all(task.cancelled() for task in tasks)
    await background.close()


async def test_what_fails_is_told_what_is_cancelled_is_not():
    told = []
    background = Background(told.append)

    async def fail():
        raise ValueError("x")

    background.spawn(fail())
    background.spawn(asyncio.sleep(60))
    await asyncio.sleep(0.005)
    await background.close()
    assert [str(error) for error in told] == ["x"]
