"""`s3://` passes the exam on SeaweedFS; what happens when it is not there, not allowed, or slow."""

from __future__ import annotations

import secrets
import socket
import time
from urllib.parse import urlencode

import pytest

from headrace.house import free_port
from headrace.objects.cloud import CloudObjects
from headrace.objects.port import ObjectsDown
from headrace.testing.objects_exam import QUESTIONS, Exam
from headrace.testing.services import SeaweedFS


def url_of(seaweedfs: SeaweedFS, prefix: str = "", **options: str) -> str:
    query = {
        "endpoint": seaweedfs.url,
        "region": "us-east-1",
        "access_key_id": seaweedfs.access_key,
        "secret_access_key": seaweedfs.secret_key,
    }
    return f"s3://{seaweedfs.bucket}/{prefix}?{urlencode(query | options)}"


@pytest.mark.parametrize("question", QUESTIONS)
async def test_exam(question: str, seaweedfs: SeaweedFS) -> None:
    url = url_of(seaweedfs, f"exam/{secrets.token_hex(4)}")
    await getattr(Exam(lambda: CloudObjects(url)), question)()


async def test_keys_and_endpoint_may_come_from_the_environment(
    seaweedfs: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = seaweedfs.environment()
    del environment["AWS_ALLOW_HTTP"]  # the loopback needs no leave
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    objects = CloudObjects(f"s3://{seaweedfs.bucket}")
    await objects.put("from/the/environment", b"x")
    assert await objects.get("from/the/environment") == b"x"
    await objects.delete("from/the/environment")


async def test_prefixes_do_not_meet(seaweedfs: SeaweedFS) -> None:
    one, other = (CloudObjects(url_of(seaweedfs, prefix)) for prefix in ("p/one", "p/one-more"))
    await one.put("a", b"1")
    await other.put("a", b"2")
    assert await one.names() == ["a"] and await one.get("a") == b"1"
    await one.delete("a")
    assert await other.names() == ["a"]


async def test_a_wrong_key_is_not_shown(seaweedfs: SeaweedFS) -> None:
    secret = "SECRET-" + secrets.token_hex(8)
    objects = CloudObjects(url_of(seaweedfs, secret_access_key=secret))
    for act in (objects.put("a", b"x"), objects.get("a"), objects.delete("a"), objects.names()):
        with pytest.raises(ObjectsDown) as raised:
            await act
        assert secret not in f"{raised.value!r} {raised.value.__cause__!r} {objects!r}"


async def test_who_may_not_is_not_told_that_nothing_is_there(seaweedfs: SeaweedFS) -> None:
    objects = CloudObjects(url_of(seaweedfs, access_key_id="nobody"))
    for act in (objects.put("a", b"x"), objects.get("a"), objects.names()):
        with pytest.raises(ObjectsDown):
            await act


async def test_nobody_there_is_told_soon() -> None:
    objects = CloudObjects(
        f"s3://b?endpoint=http://127.0.0.1:{free_port()}&region=x&access_key_id=a&secret_access_key=b"
    )
    started = time.monotonic()
    with pytest.raises(ObjectsDown):
        await objects.get("a")
    assert time.monotonic() - started < 2


async def test_a_store_that_never_answers_is_left_in_time() -> None:
    """The kernel takes the connection and nobody reads; the limit holds for all tries together."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        objects = CloudObjects(
            f"s3://b?endpoint=http://127.0.0.1:{silent.getsockname()[1]}&region=x"
            "&access_key_id=a&secret_access_key=b",
            limit_s=0.3,
        )
        for act in (objects.put("a", b"x"), objects.get("a"), objects.delete("a"), objects.names()):
            started = time.monotonic()
            with pytest.raises(ObjectsDown, match="no answer in"):
                await act
            assert time.monotonic() - started < 0.6
