"""Promotions: checked, written down before and after, and never half told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.errors import Conflict, Invalid, NotFound, Unavailable
from headrace.registry.audit import Entry, FileAudit
from headrace.registry.file import FileRegistry
from headrace.registry.promote import promote, register
from headrace.registry.refusals import unavailable
from headrace.registry.rules import Rules
from headrace.testing.registry_exam import write

WHO = {"author": "ann", "reason": "better on the night shift"}


@pytest.fixture
async def registry(tmp_path: Path) -> FileRegistry:
    made = FileRegistry(f"file://{tmp_path}/registry")
    for text in ("one", "two"):
        write(tmp_path / text, "iris", text)
        await register(made, tmp_path / text, Rules())
    return made


@pytest.fixture
def audit(tmp_path: Path) -> FileAudit:
    return FileAudit(tmp_path / "audit" / "promotions.jsonl")


async def test_a_promotion_is_written_down(registry, audit):
    first = await promote(registry, audit, "iris", 1, **WHO)
    second = await promote(registry, audit, "iris", 2, **WHO)
    assert (first.before, first.to, second.before, second.to) == (None, 1, 1, 2)
    assert await registry.state() == {"iris": {"production": 2}}
    done, asked, *earlier = await audit.entries("iris")
    assert (asked.outcome, done.outcome, asked.id) == ("asked", "done", done.id)
    assert done.author == "ann" and done.reason == WHO["reason"] and done.at >= asked.at
    assert done.digest == (await registry.get("iris", 2)).digest
    assert [entry.to for entry in earlier] == [1, 1]


async def test_an_alias_is_taken_away(registry, audit):
    await promote(registry, audit, "iris", 1, alias="canary", **WHO)
    assert (await promote(registry, audit, "iris", None, alias="canary", **WHO)).before == 1
    assert await registry.state() == {"iris": {}}


async def test_who_saw_another_version_is_told(registry, audit):
    await promote(registry, audit, "iris", 1, **WHO)
    await promote(registry, audit, "iris", 2, seen=1, **WHO)
    with pytest.raises(Conflict, match="is 2 by now, not 1"):
        await promote(registry, audit, "iris", 1, seen=1, **WHO)
    assert await registry.state() == {"iris": {"production": 2}}


@pytest.mark.parametrize(("changed", "kind"), [
    ({"number": 9}, NotFound), ({"model": "wine"}, NotFound), ({"model": "../iris"}, NotFound),
    ({"alias": "latest"}, Invalid), ({"alias": "v3"}, Invalid), ({"alias": "../x"}, Invalid),
    ({"author": ""}, Invalid), ({"reason": " "}, Invalid), ({"reason": "a\nb"}, Invalid),
    ({"reason": "x" * 1001}, Invalid), ({"author": "\x1b[31m"}, Invalid),
])  # fmt: skip
async def test_what_cannot_be_is_refused_and_not_written_down(changed, kind, registry, audit):
    asked = {"model": "iris", "number": 1, **WHO} | changed
    with pytest.raises(kind):
        await promote(registry, audit, asked.pop("model"), asked.pop("number"), **asked)
    assert await audit.entries() == []


async def test_one_that_failed_is_told_as_such(registry, audit, monkeypatch):
    async def point(*_):
        raise unavailable("down")

    monkeypatch.setattr(registry, "point", point)
    with pytest.raises(Unavailable):
        await promote(registry, audit, "iris", 1, **WHO)
    failed, asked = await audit.entries()
    assert (failed.outcome, failed.detail, asked.outcome) == ("failed", "down", "asked")


async def test_without_an_audit_nothing_is_moved(registry, tmp_path):
    (tmp_path / "audit").write_text("a file, where the folder would be")
    with pytest.raises(OSError, match=r"exists|directory"):
        await promote(registry, FileAudit(tmp_path / "audit" / "p.jsonl"), "iris", 1, **WHO)
    assert await registry.state() == {"iris": {}}


def entry(number: int, model: str = "iris") -> Entry:
    return Entry(id=str(number), at=1.0, outcome="done", model=model, alias="production",
                 to=number, author="ann", reason="x")  # fmt: skip


async def test_the_newest_come_first_of_one_model_or_all(audit):
    for number in range(1, 6):
        await audit.append(entry(number, "iris" if number % 2 else "wine"))
    assert [one.to for one in await audit.entries()] == [5, 4, 3, 2, 1]
    assert [one.to for one in await audit.entries("wine")] == [4, 2]
    assert [one.to for one in await audit.entries("iris", limit=2)] == [5, 3]
    assert await audit.entries("nobody") == []


@pytest.mark.parametrize("cut", [b'{"id": "2", "at"', b"\xff\n", b"\n\n", b'{"id": 3}\n'])
async def test_a_line_that_was_cut_off_spoils_no_other(cut, audit):
    await audit.append(entry(1))
    with audit.path.open("ab") as file:
        file.write(cut)
    await audit.append(entry(3))
    assert [one.to for one in await audit.entries()] == [3, 1]
    assert audit.path.stat().st_mode & 0o777 == 0o600


async def test_it_is_on_the_disk_before_it_returns(audit, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_size), fsync(fd)))
    await audit.append(entry(1))
    assert audit.path.stat().st_size in synced
