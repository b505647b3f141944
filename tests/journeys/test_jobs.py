"""Stored jobs from end to end: waited for, cancelled, retried, replayed, expired, large, forgotten;
bulk and interactive ones side by side."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from desk import Desk, ask

from headrace.testing.house import TestHouse, patience, until
from headrace.testing.load import get, post, quantile

MODELS = """
    import time
    from pathlib import Path
    import headrace

    MENDED = Path(__file__).parent / "mended"

    class Square(headrace.Model):
        version = "7"
        batching = headrace.Batching(max_size=8)

        def golden(self):
            return 3, 10

        def predict(self, items: list[int]) -> list[int]:
            time.sleep(0.02)
            return [n * n + 1 for n in items]

    class Slow(headrace.Model):
        \"\"\"Takes so many milliseconds.\"\"\"
        batching = headrace.Batching(max_size=1)

        def golden(self):
            return 1, 1

        def predict(self, items: list[int]) -> list[int]:
            time.sleep(sum(items) / 1000)
            return items

    class Broken(headrace.Model):
        \"\"\"Raises until it is mended; a 0 is the caller's fault.\"\"\"

        def predict(self, items: list[int]) -> list[int | headrace.ItemError]:
            if 0 in items:
                return [headrace.ItemError("zero", "it is 0") for _ in items]
            if not MENDED.exists():
                raise RuntimeError("not mended yet")
            return [n * n + 1 for n in items]

    class Echo(headrace.Model):
        def predict(self, items: list[str]) -> list[str]:
            return [text[::-1] for text in items]
"""
TOML = """
    [jobs]
    max_attempts = 3
    backoff_s = 0.3
    {jobs}
    [models.square]
    class = "models:Square"
    [models.slow]
    class = "models:Slow"
    [models.broken]
    class = "models:Broken"
    [models.echo]
    class = "models:Echo"
"""


def a_house(tmp_path: Path, jobs: str = "", models: str = "square slow broken echo") -> TestHouse:
    toml = TOML.format(jobs=jobs)
    kept, _, tables = toml.partition("[models.")
    wanted = [
        t for t in ("[models." + tables).split("[models.") if t.split("]")[0] in models.split()
    ]
    return TestHouse(MODELS, kept + "".join(f"[models.{table}" for table in wanted), tmp_path)


def rows(house: TestHouse, query: str) -> list[Any]:
    path = house.folder / ".headrace" / f"{house.name}.db"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def objects(house: TestHouse) -> list[Path]:
    folder = house.folder / ".headrace" / "objects"
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_submit_wait_read(tmp_path: Path) -> None:
    async with a_house(tmp_path, models="square slow") as house:
        desk = Desk(house.port)
        await desk.submit("square", 0)  # the store is opened with the first job
        await desk.many("square", list(range(1, 100)))
        views = await desk.all_right()
        for view in views.values():
            assert view["attempt"] == 1 and view["tries"] == 0 and view["version"] == "7"
            assert view["created"] <= view["started"] <= view["finished"]
        print(f"submit: p50 {quantile(desk.took_s, 0.5) * 1e3:.1f} ms, "
              f"p95 {quantile(desk.took_s, 0.95) * 1e3:.1f} ms")  # fmt: skip
        waited = await post(house.port, "/models/square/jobs", 12, prefer="wait=20")
        assert waited.status == 200 and waited.json["result"] == 145
        early = await post(house.port, "/models/slow/jobs", 900, prefer="wait=0")
        assert early.status == 202 and early.headers["location"] == f"/jobs/{early.json['id']}"
        began = time.monotonic()
        answer = await ask(house.port, "GET", early.headers["location"], prefer="wait=20")
        assert answer.json["state"] == "succeeded" and time.monotonic() - began < 2.5 * patience()
        later = await post(house.port, "/models/slow/predict", 50, prefer="respond-async")
        assert later.status == 202
        assert (await desk.until(later.json["id"]))["result"] == 50
        result = await get(house.port, f"/jobs/{later.json['id']}/result")
        assert result.status == 200 and result.body == b"50"


async def test_a_cancelled_job_does_not_run_and_what_runs_is_refused(tmp_path: Path) -> None:
    async with a_house(tmp_path, models="slow") as house:
        desk = Desk(house.port)
        running = await desk.submit("slow", 1500)
        await desk.until(running, "running")
        waiting = await desk.submit("slow", 10)
        for job in (waiting, running):
            answer = await ask(house.port, "DELETE", f"/jobs/{job}")
            assert answer.status == 200 and answer.json["state"] == "cancelled"
        assert (await ask(house.port, "DELETE", f"/jobs/{running}")).status == 409
        assert (await get(house.port, f"/jobs/{running}/result")).code == "job-cancelled"
        third = await desk.submit("slow", 5)
        assert (await desk.until(third))["state"] == "succeeded"
        for job in (waiting, running):
            assert (await desk.view(job))["state"] == "cancelled"
        assert house.logged("lease lost") or house.logged("ending refused")


async def test_a_model_that_raises_and_is_mended(tmp_path: Path) -> None:
    async with a_house(tmp_path, models="broken") as house:
        desk = Desk(house.port)
        job = await desk.submit("broken", 4)
        view = await desk.until(job)
        assert (view["state"], view["tries"], view["attempt"]) == ("dead", 3, 3)
        assert view["problem"]["code"] == "model-failed"
        assert len(view["losses"]) == 2
        pauses = [view["finished"] - view["losses"][0]["at"]]
        assert pauses[0] >= 0.3, "0.15 s at least, then 0.3 s at least"
        blamed = await desk.submit("broken", 0)
        view = await desk.until(blamed)
        assert (view["state"], view["attempt"]) == ("failed", 1), "a second run would say the same"
        assert view["problem"]["code"] == "zero"
        (tmp_path / "mended").touch()
        answer = await ask(house.port, "POST", f"/jobs/{job}/replay")
        assert answer.status == 202 and answer.json["state"] == "waiting"
        view = await desk.until(job, "succeeded")
        assert view["result"] == 17 and view["attempt"] == 4
        assert (await ask(house.port, "POST", f"/jobs/{job}/replay")).status == 409


async def test_what_is_too_old_expires(tmp_path: Path) -> None:
    """Where it waits, and where its model is not up."""
    async with a_house(tmp_path, models="slow") as house:
        desk = Desk(house.port)
        await desk.submit("slow", 1500)
        late = await desk.submit("slow", 1, headrace_deadline_ms="400")
        view = await desk.until(late)
        # It may lie claimed behind the running batch; it is not run, and no worker is blamed.
        assert view["state"] == "expired" and view["attempt"] <= 1 and view.get("result") is None
        assert view["finished"] - view["deadline"] < 2.5 * patience(), "no lease is waited for"
        assert "losses" not in view
        answer = await get(house.port, f"/jobs/{late}/result")
        assert (answer.status, answer.code) == (504, "deadline-exceeded")


async def test_large_inputs_and_results(tmp_path: Path) -> None:
    """Through the objects, back whole, and gone when the job is discarded."""
    async with a_house(tmp_path, models="echo") as house:
        desk = Desk(house.port)
        text = "abcdefghij" * 30_000
        job = await desk.submit("echo", text)
        view = await desk.until(job)
        assert view["state"] == "succeeded" and view["result"] == text[::-1]
        assert len(objects(house)) == 2
        assert rows(house, "SELECT input, result FROM jobs") == [(None, None)]
        assert (await ask(house.port, "POST", f"/jobs/{job}/discard")).status == 202
        await until(lambda: not objects(house), 15.0, "objects removed")
        await until(lambda: not rows(house, "SELECT 1 FROM jobs"), 5.0, "row removed")
        assert (await get(house.port, f"/jobs/{job}")).status == 404


async def test_inputs_kept_for_no_time(tmp_path: Path) -> None:
    async with a_house(tmp_path, "retain_input_hours = 0", "echo broken") as house:
        desk = Desk(house.port)
        small, large = await desk.submit("echo", "x"), await desk.submit("echo", "y" * 100_000)
        dead = await desk.submit("broken", 1)
        for job in (small, large, dead):
            await desk.until(job)
        assert rows(house, "SELECT count(*) FROM jobs WHERE input IS NOT NULL") == [(0,)]
        await until(lambda: len(objects(house)) == 1, 15.0, "the large input removed")
        assert (await desk.view(large))["result"] == "y" * 100_000, "the result stays"
        answer = await ask(house.port, "POST", f"/jobs/{dead}/replay")
        assert answer.status == 409 and "input" in answer.json["detail"]


async def test_a_keyed_predict_is_answered_once_for_all(tmp_path: Path) -> None:
    async with a_house(tmp_path, models="square slow") as house:
        first = await house.call("square", 5, idempotency_key="a")
        again = await house.call("square", 5, idempotency_key="a")
        assert first.json["result"] == again.json["result"] == 26
        assert again.headers["idempotent-replayed"] == "true"
        late = await house.call("slow", 1200, idempotency_key="b", headrace_deadline_ms="300")
        assert late.status == 504
        found = await house.call("slow", 1200, idempotency_key="b")
        assert found.status == 200 and found.json["result"] == 1200


async def test_bulk_is_in_nobodys_way(tmp_path: Path) -> None:
    """500 bulk jobs of 20 ms wait, 10 s of work; interactive ones that come then go first."""
    async with a_house(tmp_path, models="slow") as house:
        desk = Desk(house.port)
        await desk.submit("slow", 1)
        await desk.many("slow", [20] * 500, 16, headrace_priority="bulk")
        took = []
        for _ in range(30):
            began = time.monotonic()
            answer = await post(house.port, "/models/slow/jobs", 20, prefer="wait=20")
            assert answer.status == 200 and answer.json["result"] == 20
            took.append(time.monotonic() - began)
        waiting = rows(house, "SELECT count(*) FROM jobs WHERE state = 'waiting'")[0][0]
        print(f"interactive beside bulk: p50 {quantile(took, 0.5) * 1e3:.0f} ms, "
              f"p95 {quantile(took, 0.95) * 1e3:.0f} ms, bulk left {waiting}")  # fmt: skip
        assert waiting > 50, "there was nothing to go in front of"
        assert quantile(took, 0.95) < 0.5 * patience()
        views = await desk.all_ended()
        assert {view["state"] for view in views.values()} == {"succeeded"}
        assert {view["tries"] for view in views.values()} == {0}


async def test_bulk_ages(tmp_path: Path) -> None:
    """Under a load of interactive jobs that never ends, bulk comes through when it is old."""
    async with a_house(tmp_path, "ageing_s = 2.0", "slow") as house:
        desk = Desk(house.port)
        await desk.submit("slow", 1)
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                answer = await post(house.port, "/models/slow/jobs", 20, prefer="wait=20")
                assert answer.status == 200

        callers = [asyncio.create_task(load()) for _ in range(40)]
        try:
            await asyncio.sleep(2.0)
            bulk = [await desk.submit("slow", 5, headrace_priority="bulk") for _ in range(10)]
            views = [await desk.until(job, wait_s=30) for job in bulk]
        finally:
            stop.set()
            await asyncio.gather(*callers)
        waits = [view["started"] - view["created"] for view in views]
        print(f"bulk under load waited {min(waits):.1f} to {max(waits):.1f} s")
        assert {view["state"] for view in views} == {"succeeded"}
        assert quantile(waits, 0.5) > 1.5, "the load was none"
        assert max(waits) < 10.0 * patience()
