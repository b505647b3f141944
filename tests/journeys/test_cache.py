"""Results are reused: run once for all who ask the same, kept, shared between gateways, never in
the way."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import time
from pathlib import Path

from square import right

from headrace.house import free_port
from headrace.testing.house import RolesApart, TestHouse, patience
from headrace.testing.load import Connection, Load, post
from headrace.testing.services import Redis

MODELS = """
    import time
    from pathlib import Path
    import headrace

    class Square(headrace.Model):
        version = "1"

        def golden(self):
            return 3, 10

        def predict(self, items: list[int]) -> list[int | headrace.ItemError]:
            with (Path(__file__).parent / "runs.log").open("a") as log:
                log.write("".join(f"{n}\\n" for n in items))
            time.sleep(0.2)
            bad = headrace.ItemError("negative", "it is below 0")
            return [bad if n < 0 else n * n + 1 for n in items]

    class Plain(Square):
        pass
"""
TOML = """
    [models.square]
    class = "models:Square"
    cache_ttl_s = 60

    [models.plain]
    class = "models:Plain"
"""


def runs(folder: Path, n: int) -> int:
    """How often the model was given it."""
    return (folder / "runs.log").read_text().split().count(str(n))


async def test_fifty_calls_of_the_same_run_once(tmp_path: Path) -> None:
    async with TestHouse(MODELS, TOML, tmp_path) as house:
        answers = await asyncio.gather(*(house.call("square", 7) for _ in range(50)))
        assert {(a.status, a.json["result"]) for a in answers} == {(200, 50)}
        assert runs(tmp_path, 7) == 1
        how = [answer.json.get("reuse", "") for answer in answers]
        assert (how.count(""), how.count("coalesced")) == (1, 49)
        for answer in answers:
            assert answer.headers.get("headrace-reuse", "") == answer.json.get("reuse", "")
            times = answer.json["timings"]
            ran = times["executed_ms"]
            assert (ran == 0) == ("reuse" in answer.json)
            assert ran > 150 or times["queued_ms"] > 50
        assert len({answer.json["request_id"] for answer in answers}) == 50

        hit = await house.call("square", 7)
        assert (hit.json["result"], hit.json["reuse"]) == (50, "hit")
        assert hit.json["timings"]["total_ms"] < 50 * patience()
        assert "reuse" not in (await house.call("square", 7, cache_control="no-cache")).json
        assert runs(tmp_path, 7) == 2
        assert "reuse" not in (await house.call("square", 8, cache_control="no-store")).json
        assert "reuse" not in (await house.call("square", 8)).json

        # What the model says of an input it says to all; it is not kept.
        refused = await asyncio.gather(*(house.call("square", -1) for _ in range(5)))
        assert {(a.status, a.code) for a in refused} == {(422, "negative")}
        assert runs(tmp_path, -1) == 1
        await house.call("square", -1)
        assert runs(tmp_path, -1) == 2

        await asyncio.gather(*(house.call("plain", 9) for _ in range(5)))
        assert runs(tmp_path, 9) == 5, "who does not ask for it does not get it"

        for kind, count in {"coalesced": 53, "hit_memory": 1, "miss": 6}.items():
            counted = await house.total("headrace_reuse_total", model="square", how=kind)
            assert counted == count, kind
        assert await house.total("headrace_reuse_total", model="plain") == 0
        assert await house.total("headrace_answers_total", model="square", status="200") == 54
        # Only what was run has stages.
        stage = {"model": "square", "stage": "executed"}
        assert await house.total("headrace_stage_seconds_count", **stage) == 4


async def test_who_waits_survives_who_leads(tmp_path: Path) -> None:
    async with TestHouse(MODELS, TOML, tmp_path) as house:
        leads = Connection(house.port)
        call = asyncio.create_task(leads.call("/models/square/predict", b"5"))
        await asyncio.sleep(0.05)
        waits = asyncio.create_task(house.call("square", 5))
        hasty = asyncio.create_task(house.call("square", 5, headrace_deadline_ms="40"))
        await asyncio.sleep(0.05)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert ((await hasty).status, (await hasty).code) == (504, "deadline-exceeded")
        assert ((await waits).json["result"], (await waits).json["reuse"]) == (26, "coalesced")
        assert runs(tmp_path, 5) == 1

        # A leader in a hurry: who waits with it gets a run of its own.
        await house.call("square", 6)
        hasty = asyncio.create_task(house.call("square", 11, headrace_deadline_ms="100"))
        await asyncio.sleep(0.02)
        waits = asyncio.create_task(house.call("square", 11))
        assert (await hasty).status == 504
        assert (await waits).json["result"] == 122


async def test_two_gateways_and_a_cache(tmp_path: Path) -> None:
    """Each gateway joins its own calls, redis joins the gateways; its death is nobody's."""
    with Redis() as redis:
        async with RolesApart(MODELS, TOML, tmp_path) as house:
            other = free_port()
            for port in (house.port, other):
                house.gateway(port, HEADRACE_CACHE__URL=redis.url)
            house.worker("square")
            house.worker("plain")
            await house.workers_ready("square", 1)
            await house.ready()
            await house.ready(port=other)

            ports = [house.port, other] * 25
            answers = await asyncio.gather(*(house.call("square", 7, port) for port in ports))
            assert {answer.json["result"] for answer in answers} == {50}
            assert runs(tmp_path, 7) in (1, 2), "once a gateway, or once"

            # Written behind the answer's back, and gone without where it takes longer than 50 ms.
            async with asyncio.timeout(10):
                for n in itertools.count(12):
                    await house.call("square", n, other)
                    here = await house.call("square", n)
                    assert here.json["result"] == n * n + 1
                    if here.json.get("reuse") == "hit":
                        break
            assert runs(tmp_path, n) == 1
            assert await house.total("headrace_reuse_total", how="hit_shared") == 1

            # It hangs, it dies, it comes back empty: results come all the same.
            numbers = itertools.cycle(range(100, 140))
            async with Load(house.port, "square", numbers, right=right, connections=8) as one:
                await one.until(20)
                redis.kill(signal.SIGSTOP)
                await one.until(one.ledger.done + 60)
                redis.kill()
                await one.until(one.ledger.done + 60)
                await asyncio.to_thread(redis.start)
                await one.until(one.ledger.done + 60)
                one.stop()
            one.ledger.all_right()
            assert await house.total("headrace_cache_errors_total") > 0
            async with asyncio.timeout(10):
                for n in itertools.count(1000):
                    await house.call("square", n, other)
                    if (await house.call("square", n)).json.get("reuse") == "hit":
                        break  # shared again


async def test_two_versions_share_nothing(tmp_path: Path) -> None:
    """A rolling change: while both run, nothing is looked up; after it, only the new one's."""
    async with RolesApart(MODELS, TOML, tmp_path) as house:
        house.gateway()
        house.worker("plain")
        old = house.worker("square")
        await house.workers_ready("square", 1)
        await house.ready()
        await house.call("square", 7)
        assert (await house.call("square", 7)).json["reuse"] == "hit"

        models = tmp_path / "models.py"
        models.write_text(models.read_text().replace('version = "1"', 'version = "2"'))
        house.worker("square")
        await house.workers_ready("square", 2)
        assert "reuse" not in (await house.call("square", 7)).json
        old.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(old.wait, 10) == 0
        await house.workers_ready("square", 1)
        began = time.monotonic()
        seen = set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                while "hit" not in seen:
                    answer = await house.call("square", 7)
                    assert answer.json["version"] == "2"
                    seen.add(answer.json.get("reuse"))
        assert "hit" in seen, f"{seen} in {time.monotonic() - began:.1f} s"


async def test_many_inputs_reuse_one_by_one(tmp_path: Path) -> None:
    async with TestHouse(MODELS, TOML, tmp_path) as house:
        await house.call("square", 1)
        answer = await post(house.port, "/models/square/predict-many", [1, 2, 2, -3, 3])
        got = [(r["status"], r.get("result"), r.get("reuse")) for r in answer.json["results"]]
        assert got == [
            (200, 2, "hit"), (200, 5, None), (200, 5, "coalesced"), (422, None, None),
            (200, 10, None),
        ]  # fmt: skip
        assert runs(tmp_path, 2) == 1
        answer = await post(house.port, "/models/square/predict-many", [1, 2, 3])
        assert {r["reuse"] for r in answer.json["results"]} == {"hit"}
        await post(house.port, "/models/plain/predict-many", [5, 5])
        assert runs(tmp_path, 5) == 2
