"""Models that hang, crash, raise: the culprit alone pays, and the others go on."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from square import right

from headrace.testing.house import RolesApart, TestHouse, patience, until
from headrace.testing.load import Load, post

MODELS = """
    import ctypes
    import os
    import signal
    import time
    import headrace

    def crash(n: int) -> None:
        if n == -1:
            os._exit(3)
        if n == -2:
            os.kill(os.getpid(), signal.SIGSEGV)
        if n == -3:
            os.abort()          # as where memory cannot be had
        if n == -4:
            time.sleep(1000)
        if n == -5:
            while True:
                pass
        if n == -6:             # a helper process keeps our socket open
            if os.fork() == 0:
                time.sleep(1000)
            os._exit(3)

    class Careless(headrace.Model):
        batching = headrace.Batching(max_size=8)

        def predict(self, items: list[int]) -> list[int]:
            time.sleep(0.01)
            for n in items:
                crash(n)
                if n == -10:
                    raise ValueError("a bad item takes the batch along")
            return [
                headrace.model.ItemError("too-odd", "13 is not for us") if n == 13 else n * n + 1
                for n in items
            ]
"""
TOML = """
    [models.careless]
    class = "models:Careless"
    slots = {slots}
    stuck_after_s = {stuck}
"""


def one_in_100(culprit: int) -> list[int]:
    return [culprit if n == 50 else n + 100 for n in range(100)]


async def test_poison(tmp_path: Path) -> None:
    """Three kinds of death, each by one input in 100."""
    async with TestHouse(MODELS, TOML.format(slots=1, stuck=30), tmp_path) as house:
        for count, culprit in enumerate((-1, -2, -3, -6), 1):
            inputs = one_in_100(culprit)
            async with Load(house.port, "careless", inputs, right=right, connections=20) as load:
                pass
            assert load.ledger.ok == 99, load.ledger
            assert load.ledger.refused == {"422 poison-input": 1}
            assert load.ledger.refused_inputs == [culprit]
            assert len(house.logged("poison input")) == count
        before = len(house.logged("model process gone"))
        assert (await house.call("careless", -1)).code == "poison-input"
        gone = house.logged("model process gone")
        assert len(gone) == before + 3, "alone, it is tried three times"
        reasons = {entry["reason"].partition("(")[2].rstrip(")") for entry in gone}
        assert reasons == {"exit status 3", "SIGSEGV", "SIGABRT"}
        # Its helpers went with the model process.
        await until(lambda: len(house.pids("model")) == 1, 30.0, "one model process")
        await house.ready()


async def test_one_item_raises_or_is_refused(tmp_path: Path) -> None:
    """No process dies of an exception: the batch is halved in the model process."""
    async with TestHouse(MODELS, TOML.format(slots=1, stuck=30), tmp_path) as house:
        [model] = house.pids("model")
        async with Load(house.port, "careless", one_in_100(-10), right=right) as load:
            pass
        assert (load.ledger.ok, load.ledger.refused) == (99, {"500 model-failed": 1})
        async with Load(house.port, "careless", one_in_100(13), right=right) as load:
            pass
        assert (load.ledger.ok, load.ledger.refused) == (99, {"422 too-odd": 1})
        many = await post(house.port, "/models/careless/predict-many", [1, 13, -10, 2, -1, 3])
        outcomes = [
            each.get("result", each.get("problem", {}).get("code")) for each in many.json["results"]
        ]
        assert outcomes == [2, "too-odd", "model-failed", 5, "poison-input", 10]
        assert house.pids("model") != [model]


async def test_a_hang_costs_its_slot_alone(tmp_path: Path) -> None:
    """Two slots; one hangs in sleep, then in a busy loop. It is killed after stuck_after_s, three
    times until the input is to blame; the other slot answers all the while."""
    async with TestHouse(MODELS, TOML.format(slots=2, stuck=0.5), tmp_path) as house:
        for number, culprit in enumerate((-4, -5), 1):
            numbers = iter(range(100, 10**9))
            hung = asyncio.create_task(house.call("careless", culprit))
            await asyncio.sleep(0.05)  # it runs, alone
            async with Load(house.port, "careless", numbers, right=right, connections=2) as load:
                answer = await hung
                load.stop()
            assert (answer.status, answer.code) == (422, "poison-input")
            load.ledger.all_right()
            assert load.ledger.ok > 50, "the others had to wait for it"
            # The suspect waits for a second slot to be up: never are both away at once.
            assert max(load.ledger.took_s) < 1.0 * patience()
            stuck = house.logged("model process stuck", "a batch took more than 0.5 s")
            assert len(stuck) == 3 * number
            assert not set(house.pids("model")) & {entry["pid"] for entry in stuck}
        # Its own deadline comes first: 504, and the slot is cleared all the same.
        late = await house.call("careless", -4, headrace_deadline_ms="300")
        assert (late.status, late.code) == (504, "deadline-exceeded")
        await asyncio.sleep(0.5)
        answers = await asyncio.gather(*(house.call("careless", n) for n in range(20, 40)))
        assert [each.json["result"] for each in answers] == [n * n + 1 for n in range(20, 40)]


async def test_a_stopped_worker_is_a_zombie_without_harm(tmp_path: Path) -> None:
    """SIGSTOP for 5 s in mid-batch: its jobs go to the other worker. What it says when it wakes
    (replies, acks) is late and does nothing."""
    async with RolesApart(MODELS, TOML.format(slots=1, stuck=30), tmp_path) as house:
        house.gateway()
        zombie = house.worker("careless", failpoints="worker.executing=stop@5")
        await house.workers_ready("careless", 1)
        house.worker("careless")
        await house.workers_ready("careless", 2)
        numbers = iter(range(100, 10**9))
        async with Load(
            house.port, "careless", numbers, right=right, connections=20, deadline_ms=15_000
        ) as load:
            await load.until(200)
            stopped = time.monotonic()
            stat = Path(f"/proc/{zombie.pid}/stat").read_text()
            assert stat.rpartition(") ")[2][0] == "T", "the failpoint did not stop it"
            while time.monotonic() - stopped < 8.0:
                await asyncio.sleep(0.1)
            redelivered = await house.total("headrace_worker_redeliveries_total")
            assert redelivered > 0
            zombie.send_signal(signal.SIGCONT)
            at = load.ledger.done
            await load.until(at + 500)
            load.stop()
        load.ledger.all_right()
        assert max(load.ledger.took_s) < 7.0 * patience(), max(load.ledger.took_s)
        await house.workers_ready("careless", 2)
        # Late replies came, to nobody: each call was answered once.
        assert await house.total("headrace_replies_unknown_total") > 0
