"""The objects that need no service pass the exam, and so do those that stand around others."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.objects.chain import Chained
from headrace.objects.file import FileObjects
from headrace.objects.keyring import Key, Keyring
from headrace.objects.memory import MemoryObjects
from headrace.objects.port import ObjectMissing, Objects
from headrace.objects.sealed import Sealed, Sealer
from headrace.objects.whole import Whole
from headrace.schemes import OBJECTS, build
from headrace.testing.objects_exam import NO_NAMES, QUESTIONS, Exam

SEALER = Sealer(Keyring([Key("k1", secrets.token_bytes(32))]))


def adapter(url: str) -> Objects:
    objects: Objects = build("objects.url", OBJECTS, url)
    return objects


def listed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


MAKE: dict[str, Callable[[Path], Objects]] = {
    "memory": lambda folder: adapter(f"memory://{folder.name}"),
    "file": lambda folder: adapter(f"file://{folder}/a%20b"),
    "durable": lambda folder: FileObjects(f"file://{folder}/a%20b", durable=True),
    "whole": lambda folder: Whole(FileObjects(f"file://{folder}/a")),
    "sealed": lambda folder: Sealed(FileObjects(f"file://{folder}/a"), SEALER, lambda name: "acme"),
    "chain": lambda folder: Chained(
        FileObjects(f"file://{folder}/a"), FileObjects(f"file://{folder}/b", durable=True)
    ),
    "sealed-chain": lambda folder: Sealed(
        Chained(MemoryObjects(f"memory://{folder.name}"), FileObjects(f"file://{folder}/b")),
        SEALER,
        lambda name: "acme",
    ),
}


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", MAKE)
async def test_exam(kind: str, question: str, tmp_path: Path) -> None:
    await getattr(Exam(lambda: MAKE[kind](tmp_path)), question)()


@pytest.mark.parametrize("name", NO_NAMES)
async def test_a_file_is_in_its_folder_or_nowhere(name: str, tmp_path: Path) -> None:
    objects = FileObjects(f"file://{tmp_path}/in")
    for act in (objects.put(name, b"x"), objects.get(name), objects.delete(name)):
        with pytest.raises(ValueError, match="object name"):
            await act
    if name:
        with pytest.raises(ValueError, match="object name"):
            await objects.names(f"{name}/")
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]


async def test_the_folder_is_this_users_alone(tmp_path: Path) -> None:
    objects = FileObjects(f"file://{tmp_path}/in")
    assert objects.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("durable", [False, True])
async def test_empty_folders_of_deleted_names_are_removed(durable: bool, tmp_path: Path) -> None:
    objects = FileObjects(f"file://{tmp_path}/in", durable=durable)
    await objects.put("jobs/acme/1/input", b"x")
    await objects.put("jobs/acme/2/input", b"x")
    await objects.delete("jobs/acme/1/input")
    assert listed(objects.folder / "jobs/acme") == ["2"]
    await objects.delete("jobs/acme/2/input")
    assert listed(objects.folder) == []


@pytest.mark.parametrize("durable", [False, True])
async def test_a_folder_is_no_object_and_an_object_no_folder(durable: bool, tmp_path: Path) -> None:
    objects = FileObjects(f"file://{tmp_path}/in", durable=durable)
    await objects.put("a/b", b"x")
    with pytest.raises(ObjectMissing):
        await objects.get("a")
    with pytest.raises(ObjectMissing):
        await objects.get("a/b/c")
    await objects.delete("a")
    await objects.delete("a/b/c")
    for name in ("a", "a/b/c"):
        with pytest.raises(ValueError, match="the folder of another"):
            await objects.put(name, b"y")
    assert await objects.names() == ["a/b"] and await objects.get("a/b") == b"x"
    assert [p for p in objects.folder.iterdir() if p.name.startswith(".")] == []


async def test_unfinished_files_are_never_taken_for_whole_ones_and_swept(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    await FileObjects(f"file://{folder}").put("a", b"x")
    for name, age_s in (("new", 5), ("old", 4000)):
        path = folder / f".{name}"
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age_s,) * 2)
    assert await FileObjects(f"file://{folder}").names() == ["a"]
    assert listed(folder) == [".new", "a"]
    assert FileObjects(f"file://{folder}").sweep(older_than_s=1) == 1
    assert listed(folder) == ["a"]
