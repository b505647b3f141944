"""Every objects adapter passes the exam."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from headrace.objects.file import FileObjects
from headrace.objects.port import Objects
from headrace.schemes import OBJECTS, build
from headrace.testing.objects_exam import QUESTIONS, Exam


def url(scheme: str, folder: Path) -> str:
    return {"memory": f"memory://{secrets.token_hex(4)}", "file": f"file://{folder}/a%20b"}[scheme]


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("scheme", OBJECTS)
async def test_exam(scheme: str, question: str, tmp_path: Path) -> None:
    where = url(scheme, tmp_path)

    def make() -> Objects:
        objects: Objects = build("objects.url", OBJECTS, where)
        return objects

    await getattr(Exam(make), question)()


@pytest.mark.parametrize("name", ["", "..", "../a", "a/b", "/etc/passwd", ".hidden", "a\0b", "é"])
async def test_a_file_is_in_its_folder_or_nowhere(name: str, tmp_path: Path) -> None:
    objects = FileObjects(f"file://{tmp_path}/in")
    for act in (objects.put(name, b"x"), objects.get(name), objects.delete(name)):
        with pytest.raises(ValueError, match="object name"):
            await act
    assert [path.name for path in tmp_path.rglob("*")] == ["in"]


async def test_the_folder_is_this_users_alone(tmp_path: Path) -> None:
    objects = FileObjects(f"file://{tmp_path}/in")
    assert objects.folder.stat().st_mode & 0o777 == 0o700
