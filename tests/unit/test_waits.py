"""Waiting for jobs: woken by news, or by the clock; nothing is left of who went."""

import asyncio
import time

from headrace.gateway.waits import Waits, heard_within


async def test_news_wake_all_who_wait_for_it_and_nobody_else():
    waits = Waits()
    woken = []

    async def wait(job, name):
        with waits.on(job) as event:
            await heard_within(event, 0.05)
            woken.append((name, time.monotonic() - began))

    began = time.monotonic()
    tasks = [asyncio.create_task(wait(*each)) for each in (("a", 1), ("a", 2), ("b", 3))]
    await asyncio.sleep(0)
    waits.heard(["a", "unknown"])
    await asyncio.gather(*tasks)
    took = dict(woken)
    assert took[1] < 0.03 and took[2] < 0.03 and took[3] >= 0.045
    assert waits._waits == {}


async def test_news_before_the_wait_are_not_forgotten():
    waits = Waits()
    with waits.on("a") as event:
        waits.heard(["a"])
        began = time.monotonic()
        await heard_within(event, 5.0)
        assert time.monotonic() - began < 0.05
        await heard_within(event, 0.01)  # heard once: looked up, and waited for again
        assert time.monotonic() - began >= 0.009


async def test_who_leaves_is_forgotten():
    waits = Waits()

    async def wait():
        with waits.on("a") as event:
            await heard_within(event, 5.0)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    assert list(waits._waits) == ["a"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert waits._waits == {}
    waits.heard(["a"])


async def test_all_are_woken_when_the_gateway_leaves():
    waits = Waits()
    with waits.on("a") as first, waits.on("b") as second:
        waits.wake()
        assert first.is_set() and second.is_set()
