"""What survives a power cut is decided by the order of writes and syncs."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

from headrace.objects.file import FileObjects
from headrace.objects.port import ObjectsDown


@pytest.fixture
def order(monkeypatch):
    """What was synced and renamed, in order: ("sync", path) and ("rename", path)."""
    seen = []
    fsync, rename, unlink = os.fsync, Path.rename, Path.unlink

    def see_fsync(number):
        seen.append(("sync", str(Path(f"/proc/self/fd/{number}").readlink())))
        assert threading.current_thread() is not threading.main_thread()
        fsync(number)

    def see_rename(path, to):
        rename(path, to)
        seen.append(("rename", str(to)))

    def see_unlink(path, **options):
        unlink(path, **options)
        seen.append(("unlink", str(path)))

    def watch():
        monkeypatch.setattr(os, "fsync", see_fsync)
        monkeypatch.setattr(Path, "rename", see_rename)
        monkeypatch.setattr(Path, "unlink", see_unlink)
        return seen

    return watch


async def test_a_put_is_synced_before_it_has_its_name_and_its_name_before_it_returns(
    order, tmp_path
):
    objects, seen = FileObjects(f"file://{tmp_path}/in", durable=True), order()
    await objects.put("jobs/acme/input", b"x")
    folder = str(tmp_path / "in")
    assert seen[0][0] == "sync" and Path(seen[0][1]).name.startswith(".")
    assert seen[1:] == [
        ("rename", f"{folder}/jobs/acme/input"),
        ("sync", f"{folder}/jobs/acme"),
        ("sync", f"{folder}/jobs"),
        ("sync", folder),
    ]


async def test_a_deletion_is_synced_before_it_returns(order, tmp_path):
    objects = FileObjects(f"file://{tmp_path}/in", durable=True)
    for name in ("jobs/acme/1/input", "jobs/b/1/input"):
        await objects.put(name, b"x")
    seen, folder = order(), str(tmp_path / "in")
    await objects.delete("jobs/acme/1/input")
    assert seen == [
        ("unlink", f"{folder}/jobs/acme/1/input"),
        ("sync", f"{folder}/jobs"),  # those below are gone
        ("sync", folder),
    ]
    seen.clear()
    await objects.delete("jobs/acme/1/input")  # the first may have died before its sync
    assert ("sync", f"{folder}/jobs") in seen


async def test_the_quick_form_syncs_nothing(order, tmp_path):
    objects, seen = FileObjects(f"file://{tmp_path}/in"), order()
    await objects.put("a/b", b"x")
    await objects.delete("a/b")
    assert {what for what, _ in seen} == {"rename", "unlink"}


async def test_a_disk_that_cannot_sync_is_no_put(monkeypatch, tmp_path):
    objects = FileObjects(f"file://{tmp_path}/in", durable=True)

    def fail(number):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ObjectsDown, match="Input/output error"):
        await objects.put("a", b"x")
    assert list(objects.folder.iterdir()) == []


async def test_a_slow_disk_does_not_hold_up_the_loop(monkeypatch, tmp_path):
    objects = FileObjects(f"file://{tmp_path}/in", durable=True)
    go = threading.Event()
    monkeypatch.setattr(os, "fsync", lambda number: go.wait(5))
    putting = asyncio.create_task(objects.put("a", b"x"))
    for _ in range(5):
        await asyncio.sleep(0.001)
    assert not putting.done()
    go.set()
    await putting


@pytest.mark.parametrize("durable", [False, True])
async def test_a_put_makes_anew_the_folder_that_a_deletion_just_took(
    durable, monkeypatch, tmp_path
):
    objects = FileObjects(f"file://{tmp_path}/in", durable=durable)
    rename, taken = Path.rename, []

    def rename_too_late(path, to):
        if len(taken) < 3 and to.parent.exists():
            to.parent.rmdir()
            taken.append(to.parent)
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", rename_too_late)
    await objects.put("jobs/a", b"x")
    assert len(taken) == 3 and await objects.get("jobs/a") == b"x"


async def test_a_folder_that_was_removed_is_down(tmp_path):
    objects = FileObjects(f"file://{tmp_path}/in")
    objects.folder.rmdir()
    with pytest.raises(ObjectsDown, match="No such file"):
        await objects.put("a", b"x")


def test_there_is_room_for_names_of_the_longest_part(tmp_path):
    objects = FileObjects(f"file://{tmp_path}/in")
    asyncio.run(objects.put("x" * 201, b"x"))
    assert asyncio.run(objects.names()) == ["x" * 201]
