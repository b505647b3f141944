"""The registries pass the exam: a folder, and a real MLflow server; and what only one of them has:
webhooks that we verify, versions of others, a server that is gone."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.errors import Unavailable
from headrace.house import free_port
from headrace.registry.hooks import Hooks, Judged
from headrace.registry.inspect import inspect
from headrace.registry.kept import Kept
from headrace.registry.port import Registry
from headrace.registry.refusals import Rejected
from headrace.registry.rules import Rules
from headrace.schemes import REGISTRIES, build
from headrace.testing.faultproxy import BlackHole, FaultProxy
from headrace.testing.registry_exam import QUESTIONS, Exam, write
from headrace.testing.services.mlflow import Mlflow

SECRET = "a secret of the registry's webhooks"


def opened(url: str, **options: Any) -> Registry:
    registry: Registry = build("registry.url", REGISTRIES, url, **options)
    return registry


def maker(url: str) -> Callable[[], Registry]:
    return lambda: opened(url)


@pytest.mark.parametrize("question", QUESTIONS)
async def test_file(question: str, tmp_path: Path) -> None:
    exam = Exam(maker(f"file://{tmp_path}/a%20registry"), tmp_path / "given")
    await getattr(exam, question)()


async def test_a_webhook_of_mlflow_is_verified(mlflow: Mlflow, tmp_path: Path) -> None:
    hooks, judged = Hooks(["another secret of long ago", SECRET]), asyncio.Queue[Judged]()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        headers = dict(line.split(": ", 1) for line in head.split("\r\n")[1:-2])
        body = await reader.readexactly(int(headers["Content-Length"]))
        judged.put_nowait(hooks.judge(headers, body))
        judged.put_nowait(hooks.judge(headers, body))
        judged.put_nowait(hooks.judge(headers, body + b" "))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    port, model = free_port(), f"hooked-{secrets.token_hex(4)}"
    async with await asyncio.start_server(take, "127.0.0.1", port):
        registry = opened(mlflow.url)
        await registry.open()
        for secret in ("of yesterday, 24 letters", SECRET):
            assert await registry.hook(f"http://127.0.0.1:{port}/hooks", secret) == ""
        renewed = [await judged.get() for _ in range(6)]
        write(tmp_path / "one", model, "one")
        made = await registry.register(inspect(tmp_path / "one", Rules()))
        await registry.point(model, "production", made.number)
        first, again, forged = [await asyncio.wait_for(judged.get(), 60) for _ in range(3)]
        await registry.close()
    assert [each.status for each in renewed] == [401, 401, 401, 200, 200, 401]
    assert judged.empty(), "one webhook, not two"
    assert first.status == 200 and first.hint is not None and first.hint.model == model
    assert again == Judged(200)
    assert forged.status == 401


@pytest.mark.parametrize("question", QUESTIONS)
async def test_mlflow(question: str, mlflow: Mlflow, tmp_path: Path) -> None:
    exam = Exam(maker(mlflow.url), tmp_path, f"t{secrets.token_hex(4)}")
    await getattr(exam, question)()


async def test_versions_of_others_are_left_out(mlflow: Mlflow) -> None:
    name = f"other-{secrets.token_hex(4)}"
    api = f"http://127.0.0.1:{mlflow.node.port}/api/2.0/mlflow"
    async with httpx.AsyncClient() as client:
        await client.post(f"{api}/registered-models/create", json={"name": name})
        source = {"name": name, "source": "s3://bucket/model"}
        assert (await client.post(f"{api}/model-versions/create", json=source)).status_code == 200
    registry = opened(mlflow.url)
    assert await registry.versions(name) == []
    assert (await registry.state())[name] == {}
    for act in (registry.get(name, 1), registry.point(name, "production", 1)):
        with pytest.raises(Rejected, match="not registered by headrace"):
            await act
    await registry.close()


async def test_mlflow_that_lies_hangs_and_is_gone(mlflow: Mlflow, tmp_path: Path) -> None:
    model, kept = f"kept-{secrets.token_hex(4)}", Kept(tmp_path / "versions", Rules())
    async with FaultProxy("127.0.0.1", mlflow.node.port) as proxy:
        registry = opened(f"mlflow://127.0.0.1:{proxy.port}", timeout_s=30.0)
        for text in ("one", "two"):
            write(tmp_path / text, model, text)
            await registry.register(inspect(tmp_path / text, Rules()))
        await registry.point(model, "production", 1)
        version = await kept.get(registry, model, 1)
        folder = await kept.files(registry, version)
        assert (await kept.state(registry))[0][model] == {"production": 1}

        second = await kept.get(registry, model, 2)
        [stored] = (mlflow.node.data / "mlflow/artifacts").rglob(f"{second.digest[7:]}/notes.txt")
        for lie in (b"2wo", b"tw", b"two and more"):
            stored.write_bytes(lie)
            with pytest.raises(Rejected, match="not what was registered"):
                await kept.files(registry, second)
        assert kept.digests() == [version.digest]

        impatient = opened(f"mlflow://127.0.0.1:{proxy.port}", timeout_s=0.5)
        with proxy.toxic(BlackHole(), "back"), pytest.raises(Unavailable):
            await asyncio.wait_for(impatient.state(), 20)
        await impatient.close()

    assert await kept.get(registry, model, 1) == version
    assert await kept.files(registry, version) == folder
    state, fresh = await kept.state(registry)
    assert state[model] == {"production": 1} and not fresh
    for act in (registry.state(), registry.versions(model), kept.files(registry, second)):
        with pytest.raises(Unavailable):
            await act
    await registry.close()
