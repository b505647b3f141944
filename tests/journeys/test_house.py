"""A house comes up truthfully, and leaves nothing behind however it ends."""

from __future__ import annotations

import asyncio
import io
import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from square import right

from headrace.testing.house import TestHouse, patience, until
from headrace.testing.load import Load

MODELS = """
    import os
    import time
    import headrace

    class Square(headrace.Model):
        batching = headrace.Batching(max_size=8)

        def golden(self):
            return 3, 10

        def predict(self, items: list[int]) -> list[int]:
            time.sleep(0.02)
            return [n * n + 1 for n in items]

    class Where(headrace.Model):
        def predict(self, items: list[int]) -> list[tuple[str, str, int, int]]:
            time.sleep(0.1)
            seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            return [(self.device, seen, self.slot, os.getpid()) for _ in items]

    class Wide(headrace.Model):
        batching = headrace.Batching(max_size=4)

        def predict(self, items: list[int]) -> list[str]:
            return ["x" * n for n in items]

    class Pixels(headrace.Model):
        def predict(self, items: list[headrace.Image]) -> list[tuple[int, int]]:
            return [image.pil().size for image in items]
"""
SQUARE = """
    [models.square]
    class = "models:Square"
"""


def load(house: TestHouse) -> Load:
    return Load(house.port, "square", itertools.count(), right=right, connections=20)


# -- the end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
async def test_told_to_stop_under_load(how: signal.Signals, tmp_path: Path) -> None:
    """In order: what is open is answered. `TestHouse` looks for processes and files left."""
    async with TestHouse(MODELS, SQUARE, tmp_path) as house:
        async with load(house) as calls:
            await calls.until(50)
            assert len(house.residue()) >= 6, "house, broker, gateway, worker, model and a folder"
            house.process.send_signal(how)
            calls.stop()
            assert await house.ended(10) == 0
        calls.ledger.all_right()
        house.leaves_nothing()


async def test_ctrl_c_twice_hurries(tmp_path: Path) -> None:
    """A model that runs for 20 s holds up the first Ctrl-C, and not the second."""
    slow = MODELS.replace("0.02", "20 if 1 in items else 0.02")
    async with TestHouse(slow, SQUARE, tmp_path) as house:
        call = asyncio.create_task(house.call("square", 1))
        await asyncio.sleep(0.3)
        house.process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.7)
        assert house.process.poll() is None, "it did not wait for the open call"
        began = time.monotonic()
        house.process.send_signal(signal.SIGINT)
        assert await house.ended(10) == 0
        assert time.monotonic() - began < 5.0 * patience()
        house.leaves_nothing()
        with pytest.raises((asyncio.IncompleteReadError, OSError)):
            await call


async def test_killed_the_roles_end_by_themselves(tmp_path: Path) -> None:
    """kill -9 of the house itself. Its temporary files stay until a house of the name starts."""
    async with TestHouse(MODELS, SQUARE, tmp_path) as house:
        assert (await house.call("square", 2)).json["result"] == 5
        [pid] = house.pids("house")
        await house.kill(pid)
        house.process.wait()
        took_s = await until(lambda: not house.commands(), 40.0, "the roles ended")
        assert took_s < 10.0 * patience()
        left = house.residue()
        assert left, "nothing to sweep: the test shows nothing"
        await house.start()
        assert not set(left) & set(house.residue())
        assert (await house.call("square", 2)).json["result"] == 5


# -- readiness -------------------------------------------------------------------------------------

BROKEN = {
    "golden": ("models:Golden", "golden call: got 9, expected 10"),
    "raises": ("models:Raises", "load failed: RuntimeError: no weights here"),
    "dies": ("models:Dies", "the model process ended while loading .exit status 7."),
    "missing": ("models:Nobody", "models has no headrace.Model Nobody"),
    "module": ("nowhere:Model", "no module 'nowhere'"),
    "package": ("needs:Model", "needs 'surely_not_installed', which is not installed"),
    "untyped": ("models:Untyped", "predict"),
    "slow": ("models:SlowLoad", "load took more than 2 s"),
}
BROKEN_MODELS = """
    import os
    import time
    import headrace

    class Golden(headrace.Model):
        def golden(self):
            return 3, 10
        def predict(self, items: list[int]) -> list[int]:
            return [n * n for n in items]

    class Raises(headrace.Model):
        def load(self, files):
            raise RuntimeError("no weights here")
        def predict(self, items: list[int]) -> list[int]:
            return items

    class Dies(headrace.Model):
        def load(self, files):
            os._exit(7)
        def predict(self, items: list[int]) -> list[int]:
            return items

    class Untyped(headrace.Model):
        def predict(self, items):
            return items

    class SlowLoad(headrace.Model):
        def load(self, files):
            time.sleep(1000)
        def predict(self, items: list[int]) -> list[int]:
            return items
"""


async def test_a_model_that_cannot_serve_never_becomes_ready_and_says_why(tmp_path: Path) -> None:
    (tmp_path / "needs.py").write_text("import surely_not_installed\n")
    toml = "\n".join(
        f'[models.{name}]\nclass = "{target}"\nload_limit_s = 2.0'
        for name, (target, _) in BROKEN.items()
    )
    async with TestHouse(BROKEN_MODELS, toml, tmp_path, wait_ready=False) as house:
        waiting = dict(BROKEN)
        began = time.monotonic()
        while waiting and time.monotonic() - began < 25:
            health = await house.health()
            assert health is not None and health.status == 503
            assert health.json["ready"] is False
            for name, view in health.json["models"].items():
                assert view["ready"] is False
                if name in waiting and pytest_matches(waiting[name][1], view["reason"]):
                    del waiting[name]
            await asyncio.sleep(0.1)
        assert not waiting, (await house.health()).body
        for name, (_, why) in BROKEN.items():
            assert house.logged("model process gone", why), f"{name}: not in the log"
        refused = await house.call("golden", 3)
        assert (refused.status, refused.code) == (503, "model-not-ready")
        assert "retry-after" in refused.headers


def pytest_matches(pattern: str, text: str) -> bool:
    import re

    return re.search(pattern, text) is not None


async def test_ready_follows_the_model_process(tmp_path: Path) -> None:
    async with TestHouse(MODELS, SQUARE, tmp_path) as house:
        [model] = house.pids("model")
        await house.kill(model)
        await house.ready(1.0 * patience(), want=False)
        view = (await house.health()).json["models"]["square"]
        assert view == {"ready": False, "reason": "the model process ended (SIGKILL)"}
        # Callers are let in meanwhile: it will be back within their deadline.
        assert (await house.call("square", 4)).json["result"] == 17
        await house.ready(10)
        [again] = house.pids("model")
        assert again != model


# -- bodies, packing, batches ----------------------------------------------------------------------


def jpeg(size: int) -> bytes:
    """A textured picture of at least so many bytes."""
    import random

    from PIL import Image

    dice = random.Random(7)
    side = 640
    while True:
        image = Image.frombytes("RGB", (side, side), dice.randbytes(side * side * 3))
        out = io.BytesIO()
        image.save(out, "JPEG", quality=92)
        if len(out.getvalue()) >= size:
            return out.getvalue()
        side += 64


async def test_large_bodies_go_by_reference(tmp_path: Path) -> None:
    """In: a picture of 1 MB. Out: JSON of 1 and of 3 MB, and batches of such. Nothing stays in the
    objects folder, and the broker (1 MB a message) never had to carry them."""
    pytest.importorskip("PIL")
    toml = """
        [models.pixels]
        class = "models:Pixels"
        [models.wide]
        class = "models:Wide"
    """
    objects = tmp_path / "objects"
    environment = {"HEADRACE_OBJECTS__TRANSIT": f"file://{objects}"}
    async with TestHouse(MODELS, toml, tmp_path, environment=environment) as house:
        picture = jpeg(1_000_000)
        answer = await house.call("pixels", picture, content_type="image/jpeg")
        assert answer.status == 200 and answer.json["result"][0] >= 640
        for size in (1_000_000, 3_000_000):
            answer = await house.call("wide", size)
            assert answer.status == 200 and answer.json["result"] == "x" * size
        many = [n * 100_000 for n in range(1, 13)]
        answers = await asyncio.gather(*(house.call("wide", size) for size in many))
        assert [len(each.json["result"]) for each in answers] == many
        await until(lambda: not list(objects.iterdir()), 5.0, "the objects folder is empty")
        assert not house.logged("role ended") and not house.logged("model process gone")
        assert await house.total("headrace_worker_redeliveries_total") == 0


async def test_slots_have_their_devices_and_all_work(tmp_path: Path) -> None:
    toml = """
        [models.where]
        class = "models:Where"
        slots = 3
        devices = ["cuda:0", "cuda:1"]
    """
    async with TestHouse(MODELS, toml, tmp_path) as house:
        status = (await house.status())["where"]["workers"][0]
        await until(lambda: len(house.pids("model")) == 3, 10, "three model processes")
        while status["slots_ready"] < 3:
            await asyncio.sleep(0.05)
            status = (await house.status())["where"]["workers"][0]
        answers = await asyncio.gather(*(house.call("where", n) for n in range(24)))
        seen = {tuple(answer.json["result"]) for answer in answers}
        assert {each[:3] for each in seen} == {
            ("cuda:0", "0", 0), ("cuda:1", "1", 1), ("cuda:0", "0", 2),
        }  # fmt: skip
        assert {each[3] for each in seen} == set(house.pids("model"))


async def batches(house: TestHouse) -> tuple[float, float]:
    """How many batches ran, and how many jobs in them."""
    return (
        await house.total("headrace_worker_batch_size_count"),
        await house.total("headrace_worker_batch_size_sum"),
    )


async def test_batches_grow_with_the_load_and_the_answers_stay_the_same(tmp_path: Path) -> None:
    async with TestHouse(MODELS, SQUARE, tmp_path) as house:
        sizes = {}
        for connections in (1, 32):
            before = await batches(house)
            async with Load(
                house.port, "square", range(20 * connections), right=right, connections=connections
            ) as calls:
                pass
            calls.ledger.all_right(20 * connections)
            after = await batches(house)
            assert after[1] - before[1] == 20 * connections
            sizes[connections] = (after[1] - before[1]) / (after[0] - before[0])
        assert sizes[1] == 1.0
        assert sizes[32] > 6.0, sizes


async def test_a_wait_is_for_company_and_never_longer_than_asked(tmp_path: Path) -> None:
    """max_wait_ms = 400: one alone waits that long; a full batch does not wait at all."""
    toml = SQUARE + "    max_wait_ms = 400\n"
    async with TestHouse(MODELS, toml, tmp_path) as house:
        alone = await house.call("square", 2)
        gathered_ms = alone.json["timings"]["gathered_ms"]
        assert 395 <= gathered_ms < 600 * patience()
        before = await batches(house)

        async def late(n: int) -> float:
            await asyncio.sleep(0.03 * n)
            return float((await house.call("square", n)).json["timings"]["gathered_ms"])

        # The wait counts from the first: who comes 90 ms later waits 90 ms less.
        waited = await asyncio.gather(*(late(n) for n in range(4)))
        assert (await batches(house))[0] - before[0] == 1
        assert max(waited) < 600 * patience() and waited[0] > waited[3] + 60
        full = await asyncio.gather(*(house.call("square", n) for n in range(8)))
        assert max(each.json["timings"]["gathered_ms"] for each in full) < 300 * patience()
        assert [each.json["result"] for each in full] == [n * n + 1 for n in range(8)]


# -- the broker ------------------------------------------------------------------------------------


async def test_the_broker_is_killed_under_load(tmp_path: Path) -> None:
    """It comes back empty (its streams are in memory): what was open is published again."""
    async with TestHouse(MODELS, SQUARE + "    workers = 2\n", tmp_path) as house:
        async with load(house) as calls:
            for _ in range(3):
                await calls.until(calls.ledger.done + 60)
                [broker] = house.pids("broker")
                assert calls.ledger.sent > calls.ledger.done, "no call was open"
                await house.kill(broker)
                await calls.until(calls.ledger.done + 60)
            calls.stop()
        calls.ledger.all_right()
        assert [entry["role"] for entry in house.logged("role ended")] == ["broker"] * 3
        assert house.pids("broker") != [broker]
        await house.ready(5)


def test_a_role_whose_settings_are_wrong_says_so_in_one_line(tmp_path):
    (tmp_path / "headrace.toml").write_text("""
        [autoscale]
        mode = "shadow"
        [models.square]
        class = "models:Square"
        [[models.square.scale.schedule]]
        start = "08:00"
        end = "10:00"
        zone = "Europe/Nowhere"
        """)
    command = [sys.executable, "-m", "headrace.roles", "autoscale", str(tmp_path / "headrace.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    [line] = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 2
    assert "models.square.scale.schedule[0]: zone = 'Europe/Nowhere'" in line
