"""The chain passes the exam, and loses neither a put nor a get to a primary that refuses, is
silent, is killed or damages what it holds."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest

from headrace.house import free_port
from headrace.objects.chain import Chained
from headrace.objects.cloud import CloudObjects
from headrace.objects.file import FileObjects
from headrace.objects.keyring import Key, Keyring
from headrace.objects.port import ObjectMissing, Objects, ObjectsDown
from headrace.objects.sealed import Sealed, Sealer
from headrace.testing.objects_exam import QUESTIONS, Exam
from headrace.testing.services import SeaweedFS

#: What can be answered without the primary. The others ask what is not there any more, or what
#: there is altogether: those are refused, see below.
WITHOUT_PRIMARY = [
    "what_was_put_is_got", "put_again_is_replaced", "what_is_no_name_is_refused",
    "nobody_reads_half",
]  # fmt: skip
LIMIT_S = 1.0


def s3(endpoint: str, prefix: str = "", bucket: str = "headrace") -> CloudObjects:
    query = {
        "endpoint": endpoint,
        "region": "us-east-1",
        "access_key_id": SeaweedFS.access_key,
        "secret_access_key": SeaweedFS.secret_key,
    }
    return CloudObjects(f"s3://{bucket}/{prefix}?{urlencode(query)}", limit_s=2.0, retries=0)


def durable(folder: Path) -> FileObjects:
    return FileObjects(f"file://{folder}/fallback", durable=True)


@pytest.mark.parametrize("question", QUESTIONS)
async def test_exam_on_s3_and_a_folder(question: str, seaweedfs: SeaweedFS, tmp_path: Path) -> None:
    prefix = f"chain/{secrets.token_hex(4)}"
    sealer = Sealer(Keyring([Key("k", secrets.token_bytes(32))]))

    def make() -> Objects:
        chain = Chained(s3(seaweedfs.url, prefix), durable(tmp_path))
        return Sealed(chain, sealer, lambda name: "acme")

    await getattr(Exam(make), question)()


@asynccontextmanager
async def away(how: str) -> AsyncIterator[CloudObjects]:
    """An S3 store that nobody serves; or one whose connections are taken and never read."""
    if how == "refusing":
        yield s3(f"http://127.0.0.1:{free_port()}")
        return
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as silent:
        yield s3(f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("question", WITHOUT_PRIMARY)
@pytest.mark.parametrize("how", ["refusing", "silent"])
async def test_exam_without_the_primary(how: str, question: str, tmp_path: Path) -> None:
    async with away(how) as primary:
        chain = Chained(primary, durable(tmp_path), limit_s=LIMIT_S)
        await getattr(Exam(lambda: chain), question)()


@pytest.mark.parametrize("how", ["refusing", "silent"])
async def test_the_first_waits_for_the_limit_and_nobody_after_it(how: str, tmp_path: Path) -> None:
    async with away(how) as primary:
        chain = Chained(primary, durable(tmp_path), limit_s=LIMIT_S)
        took: list[float] = []
        for number in range(30):
            started = time.monotonic()
            await chain.put(f"jobs/acme/{number}/input", b"x" * 10_000)
            took.append(time.monotonic() - started)
        assert took[0] < LIMIT_S + 0.2
        assert sorted(took[1:])[len(took) // 2] < LIMIT_S / 3
        started = time.monotonic()
        for number in range(30):
            assert await chain.get(f"jobs/acme/{number}/input") == b"x" * 10_000
        # Reading finds out for itself, once.
        assert time.monotonic() - started < LIMIT_S + 1
        assert chain.fell_back == 60


@pytest.mark.parametrize("how", ["refusing", "silent"])
async def test_what_only_the_primary_can_know_is_refused_in_time(how: str, tmp_path: Path) -> None:
    async with away(how) as primary:
        chain = Chained(primary, durable(tmp_path), limit_s=LIMIT_S)
        await chain.put("a", b"x")
        for act in (chain.get("nobody-put-it"), chain.delete("a"), chain.names()):
            started = time.monotonic()
            with pytest.raises(ObjectsDown):
                await act
            assert time.monotonic() - started < 2 * LIMIT_S + 0.2


class GoesAway:
    """A primary that is there for so many calls and then never again."""

    def __init__(self, objects: Objects, calls: int) -> None:
        self._objects, self._left = objects, calls

    def _there(self) -> Objects:
        self._left -= 1
        if self._left < 0:
            raise ObjectsDown("it went away")
        return self._objects

    async def put(self, name: str, data: bytes) -> None:
        await self._there().put(name, data)

    async def get(self, name: str) -> bytes:
        return await self._there().get(name)

    async def delete(self, name: str) -> None:
        await self._there().delete(name)

    async def names(self, prefix: str = "") -> list[str]:
        return await self._there().names(prefix)


@pytest.mark.parametrize("question", ["put_again_is_replaced", "what_is_no_name_is_refused"])
@pytest.mark.parametrize("calls", [0, 1, 2, 3])
async def test_exam_with_a_primary_that_goes_away(
    calls: int, question: str, tmp_path: Path
) -> None:
    primary = GoesAway(FileObjects(f"file://{tmp_path}/primary"), calls)
    chain = Chained(primary, durable(tmp_path))
    if (question, calls) == ("put_again_is_replaced", 2):
        # Both puts are in what is now away: nobody else can know.
        with pytest.raises(ObjectsDown):
            await getattr(Exam(lambda: chain), question)()
    else:
        await getattr(Exam(lambda: chain), question)()


async def test_killed_under_load_and_back_again(tmp_path: Path) -> None:
    """SeaweedFS dies by SIGKILL while puts go on. Each that returned is got, before its return if
    it was put since, after it all of them; a repair then empties the fallback."""
    with SeaweedFS() as seaweedfs:
        primary, fallback = s3(seaweedfs.url, "killed"), durable(tmp_path)
        chain = Chained(primary, fallback, limit_s=10.0, probe_s=0.2)
        names: list[str] = []

        async def put_some(number: int) -> None:
            for turn in range(40):
                name = f"jobs/acme/{number}-{turn}/input"
                await chain.put(name, name.encode() * 100)
                names.append(name)
                await asyncio.sleep(0.01)

        putting = [asyncio.create_task(put_some(number)) for number in range(8)]
        await asyncio.sleep(0.15)
        before = list(names)
        seaweedfs.kill()
        await asyncio.gather(*putting)
        fell_back = await fallback.names()
        assert before and fell_back and len(names) == 320
        for name in fell_back:
            assert await chain.get(name) == name.encode() * 100
        with pytest.raises(ObjectsDown):
            await chain.delete(before[0])

        await asyncio.to_thread(seaweedfs.restart)
        async with asyncio.timeout(5):
            while chain.reading.is_open or chain.writing.is_open:
                await asyncio.sleep(0.05)
        for name in names:
            assert await chain.get(name) == name.encode() * 100
        assert sorted(await chain.names()) == sorted(names)
        assert await chain.repair() <= len(fell_back)  # some had landed there after all
        assert await fallback.names() == []
        assert sorted(await primary.names()) == sorted(names)
        await chain.delete(before[0])
        with pytest.raises(ObjectMissing):
            await chain.get(before[0])


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
async def test_damage_in_the_store_is_met_by_the_other_copy(
    damage: str, seaweedfs: SeaweedFS, tmp_path: Path
) -> None:
    primary = s3(seaweedfs.url, f"damage/{secrets.token_hex(4)}")
    chain = Chained(primary, durable(tmp_path))
    body = secrets.token_bytes(100_000)
    await chain.put("a", body)
    whole = await primary.get("a")
    await chain.fallback.put("a", whole)
    flipped = whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]
    await primary.put("a", {"cut": whole[:50_000], "flipped": flipped, "empty": b""}[damage])
    assert await chain.get("a") == body and chain.corrupt == 1
    assert await chain.repair() == 1
    assert await primary.get("a") == whole
