"""The versions that a machine keeps: from a registry that is down, lies or changes (F20)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec import structs

from headrace.errors import NotFound, Unavailable
from headrace.registry.file import FileRegistry
from headrace.registry.inspect import inspect
from headrace.registry.kept import CREATED, LISTING, MANIFEST, Kept
from headrace.registry.refusals import Rejected, unavailable
from headrace.registry.rules import Rules
from headrace.registry.version import Version
from headrace.testing.registry_exam import write


class Moody(FileRegistry):
    """A registry that can be down, count who fetches, and say other things than it did."""

    down = False
    fetched = 0
    says: Version | None = None

    def _up(self) -> None:
        if self.down:
            raise unavailable("down")

    async def get(self, model, number):
        self._up()
        return self.says or await super().get(model, number)

    async def state(self):
        self._up()
        return await super().state()

    async def chunks(self, version, file):
        self._up()
        self.fetched += 1
        await asyncio.sleep(0)
        async for chunk in super().chunks(version, file):
            yield chunk

    def stored(self, number: int = 1, name: str = "notes.txt") -> Path:
        return self.folder / "iris" / str(number) / "files" / name


@pytest.fixture
async def registry(tmp_path: Path) -> Moody:
    made = Moody(f"file://{tmp_path}/registry")
    for text in ("one", "two"):
        write(tmp_path / text, "iris", text)
        await made.register(inspect(tmp_path / text, Rules()))
    await made.point("iris", "production", 1)
    return made


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "versions", Rules())


def again(kept: Kept) -> Kept:
    """After a restart."""
    return Kept(kept.folder, Rules())


async def test_a_version_is_fetched_once(registry, kept):
    version = await kept.get(registry, "iris", 1)
    folder = await kept.files(registry, version)
    assert (folder / "notes.txt").read_text() == "one"
    assert kept.digests() == [version.digest]
    count = registry.fetched
    assert await kept.files(registry, version) == folder
    assert await again(kept).files(registry, version) == folder
    assert registry.fetched == count == len(version.files)


async def test_many_who_want_it_at_once_fetch_it_once(registry, kept):
    version = await kept.get(registry, "iris", 1)
    folders = await asyncio.gather(*(kept.files(registry, version) for _ in range(5)))
    assert len(set(folders)) == 1 and registry.fetched == len(version.files)


async def test_two_processes_may_fetch_the_same(registry, kept):
    version = await kept.get(registry, "iris", 1)
    one, two = await asyncio.gather(
        kept.files(registry, version), again(kept).files(registry, version)
    )
    assert one == two and kept.digests() == [version.digest]
    assert [path.name for path in one.parent.iterdir()] == [one.name]


async def test_it_starts_without_the_registry(registry, kept):
    version = await kept.get(registry, "iris", 1)
    await kept.files(registry, version)
    assert await kept.state(registry) == ({"iris": {"production": 1}}, True)
    registry.down = True
    later = again(kept)
    state, fresh = await later.state(registry)
    assert state == {"iris": {"production": 1}} and not fresh
    found = await later.get(registry, "iris", state["iris"]["production"])
    assert found == version
    assert (await later.files(registry, found) / "notes.txt").read_text() == "one"


async def test_what_was_never_seen_is_unavailable_while_it_is_down(registry, kept, tmp_path):
    await kept.get(registry, "iris", 2)  # seen, and not fetched
    registry.down = True
    for number in (1, 2):
        with pytest.raises(Unavailable):
            await kept.get(registry, "iris", number)
    with pytest.raises(NotFound):
        await kept.get(registry, "../iris", 1)
    with pytest.raises(Unavailable):
        await kept.state(registry)


@pytest.mark.parametrize("change", [b"onE", b"on", b"one and more", b"x" * 5_000_000, b""])
async def test_files_that_changed_under_a_version_are_refused(change, registry, kept):
    version = await kept.get(registry, "iris", 1)
    registry.stored().write_bytes(change)
    with pytest.raises(Rejected, match="not what was registered"):
        await kept.files(registry, version)
    assert kept.digests() == [] and list(kept.folder.glob("sha256/*/.*")) == []


async def test_what_is_kept_stays_when_the_registry_lies(registry, kept):
    version = await kept.get(registry, "iris", 1)
    folder = await kept.files(registry, version)
    registry.stored().write_bytes(b"other")
    other = await registry.get("iris", 2)
    registry.says = structs.replace(other, number=1)
    with pytest.raises(Rejected, match="a version never changes"):
        await kept.get(registry, "iris", 1)
    assert await kept.remembered("iris", 1) == version
    assert await kept.files(registry, version) == folder
    assert (folder / "notes.txt").read_text() == "one"


async def test_what_was_decided_is_served_from_here_while_the_registry_lies(registry, kept):
    version = await kept.get(registry, "iris", 1)
    folder = await kept.files(registry, version)
    registry.says = structs.replace(await registry.get("iris", 2), number=1)
    for digest in (version.digest, ""):
        assert await kept.meant(registry, "iris", 1, digest) == version
        assert await kept.files(registry, version) == folder
    registry.down = True
    assert await kept.meant(registry, "iris", 1, version.digest) == version


async def test_a_machine_that_has_not_got_what_was_decided_takes_nothing_else(registry, kept):
    version = await registry.get("iris", 1)
    registry.says = other = structs.replace(await registry.get("iris", 2), number=1)
    with pytest.raises(Rejected, match="when it was deployed"):
        await kept.meant(registry, "iris", 1, version.digest)
    assert await kept.meant(registry, "iris", 1, "") == other, "nobody says what was meant"
    registry.says = None
    found = await kept.meant(registry, "iris", 1, version.digest)
    assert found == version, "the decision goes before what was seen here"
    assert (await kept.files(registry, found) / "notes.txt").read_text() == "one"
    registry.down = True
    assert await again(kept).remembered("iris", 1) == version
    with pytest.raises(Unavailable):
        await kept.meant(registry, "iris", 2, "")


@pytest.mark.parametrize("name", [LISTING, CREATED, MANIFEST])
async def test_what_is_kept_about_a_version_may_be_damaged_too(name, registry, kept):
    version = await kept.get(registry, "iris", 1)
    folder = await kept.files(registry, version)
    (folder / name).chmod(0o644)
    (folder / name).write_bytes(b"\xff")
    found = await kept.meant(registry, "iris", 1, version.digest)
    assert found == version and await kept.files(registry, found) == folder
    whole = b"\xff" not in (folder / name).read_bytes()
    assert whole or name == CREATED, "two versions of one digest may say another time"


async def test_a_damaged_file_is_noticed_and_fetched_again(registry, kept):
    version = await kept.get(registry, "iris", 1)
    folder = await kept.files(registry, version)
    (folder / "notes.txt").chmod(0o644)
    (folder / "notes.txt").write_text("onE")
    assert await kept.files(registry, version) == folder
    assert (folder / "notes.txt").read_text() == "one"
    registry.down = True
    (folder / "notes.txt").chmod(0o644)
    (folder / "notes.txt").write_text("onE")
    with pytest.raises(Unavailable):
        await kept.files(registry, version)


async def test_a_file_that_was_added_is_noticed(registry, kept):
    version = await kept.get(registry, "iris", 1)
    folder = await kept.files(registry, version)
    assert folder.stat().st_mode & 0o777 == 0o555
    folder.chmod(0o755)
    (folder / "evil.pkl").write_bytes(b"x")
    assert not (await kept.files(registry, version) / "evil.pkl").exists()


async def test_it_is_inspected_here_too(registry, tmp_path):
    """Who registered it may have allowed more."""
    strict = Kept(tmp_path / "versions", Rules(max_bytes=100))
    version = await strict.get(registry, "iris", 1)
    with pytest.raises(Rejected, match="at most 100"):
        await strict.files(registry, version)
    assert strict.digests() == []


async def test_an_interrupted_fetch_leaves_nothing(registry, kept):
    version = await kept.get(registry, "iris", 1)
    fetching = asyncio.create_task(kept.files(registry, version))
    while not registry.fetched:
        await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert kept.digests() == [] and list(kept.folder.glob("sha256/*/.*")) == []
    assert await kept.files(registry, version)


async def test_what_is_removed_is_gone(registry, kept):
    version = await kept.get(registry, "iris", 1)
    folder = await kept.files(registry, version)
    kept.remove(version.digest)
    kept.remove(version.digest)
    assert kept.digests() == [] and not folder.exists() and not list(folder.parent.iterdir())


async def test_what_the_dead_left_is_swept(registry, kept, tmp_path):
    version = await kept.get(registry, "iris", 1)
    folder = await kept.files(registry, version)
    half = folder.with_name(".0123456789abcdef")
    half.mkdir()
    (half / "notes.txt").write_text("on")
    kept.sweep()
    assert half.exists()
    kept.sweep(older_than_s=-1)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    left = registry.folder / "iris" / ".0123456789abcdef"
    left.mkdir()
    write(tmp_path / "three", "iris", "three")
    assert (await registry.register(inspect(tmp_path / "three", Rules()))).number == 3
    assert not left.exists()
