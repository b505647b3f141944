"""The exam every registry adapter passes: one test a method of `Exam`.

`make()` gives a new adapter to the same registry each time; `folder` is an empty one for what is
registered; `models` begins the names of the models of this exam, so that several share a server.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import msgspec

from headrace.errors import Invalid, NotFound, Refusal
from headrace.house import free_port
from headrace.registry.fetch import fetch
from headrace.registry.inspect import inspect
from headrace.registry.port import Inspected, Registry
from headrace.registry.refusals import Rejected
from headrace.registry.rules import Rules
from headrace.registry.version import MANIFEST, Golden, Manifest, Version

Make = Callable[[], Registry]

LARGE = 3_000_000
NO_ALIASES = ["", "latest", "v3", "Production", "a b", "a/b", "../a", "é", "x" * 64]


class Exam:
    """One method, one promise of `registry.port`."""

    def __init__(self, make: Make, folder: Path, models: str = "exam") -> None:
        self.make, self.folder, self._models = make, folder, models
        self._made = 0

    async def what_was_registered_is_read_back(self) -> None:
        async with self._open() as registry:
            given = self._inspected("iris", "one", large=True)
            made = await registry.register(given)
            got = await registry.get(made.model, made.number)
            assert got == made and got.number == 1
            assert got.files == given.files and got.manifest == given.manifest
            assert got.manifest.golden[0].output == {"label": "Zürich"}
            await self._same(registry, got, given)

    async def files_lie_in_folders(self) -> None:
        async with self._open() as registry:
            given = self._inspected("iris", "one", below="a/b-1/c.d_e/")
            await self._same(registry, await registry.register(given), given)

    async def numbers_count_from_one(self) -> None:
        async with self._open() as registry:
            for number, text in enumerate(("one", "two", "three"), 1):
                assert (await registry.register(self._inspected("iris", text))).number == number
            other = await registry.register(self._inspected("wine", "one"))
            assert other.number == 1
            found = await registry.versions(self._model("iris"))
            assert [version.number for version in found] == [3, 2, 1]
            assert len({version.digest for version in found}) == 3
            assert found[0].created >= found[2].created > 1_500_000_000

    async def the_same_again_is_the_same_version(self) -> None:
        async with self._open() as registry:
            first = await registry.register(self._inspected("iris", "one"))
            await registry.register(self._inspected("iris", "two"))
            assert await registry.register(self._inspected("iris", "one")) == first
            assert len(await registry.versions(first.model)) == 2

    async def who_register_at_once_get_two_numbers(self) -> None:
        given = [self._inspected("iris", f"text {number}") for number in range(4)]

        async def register(one: Inspected) -> Version:
            async with self._open() as registry:
                return await registry.register(one)

        made = await asyncio.gather(*map(register, given))
        assert sorted(version.number for version in made) == [1, 2, 3, 4]
        async with self._open() as registry:
            for one, version in zip(given, made, strict=True):
                await self._same(registry, version, one)

    async def what_is_not_there_is_not_found(self) -> None:
        async with self._open() as registry:
            assert await registry.versions(self._model("nobody")) == []
            await registry.register(self._inspected("iris", "one"))
            for model, number in ((self._model("nobody"), 1), (self._model("iris"), 2)):
                await self._refused(NotFound, registry.get(model, number))
                await self._refused(NotFound, registry.point(model, "production", number))
            await self._refused(NotFound, registry.get("../iris", 1))

    async def aliases_are_moved(self) -> None:
        async with self._open() as registry:
            model = self._model("iris")
            for text in ("one", "two"):
                await registry.register(self._inspected("iris", text))
            assert (await registry.state())[model] == {}
            assert await registry.point(model, "production", 1) is None
            assert await registry.point(model, "canary", 2) is None
            assert (await registry.state())[model] == {"production": 1, "canary": 2}
            assert await registry.point(model, "production", 2) == 1
            assert await registry.point(model, "production", 2) == 2
            assert await registry.point(model, "canary", None) == 2
            assert await registry.point(model, "canary", None) is None
        async with self._open() as registry:
            assert (await registry.state())[model] == {"production": 2}

    async def aliases_belong_to_a_model(self) -> None:
        async with self._open() as registry:
            for model in ("iris", "wine"):
                await registry.register(self._inspected(model, "one"))
            await registry.point(self._model("iris"), "production", 1)
            state = await registry.state()
            assert state[self._model("iris")] == {"production": 1}
            assert state[self._model("wine")] == {}

    async def what_is_no_alias_is_refused(self) -> None:
        async with self._open() as registry:
            await registry.register(self._inspected("iris", "one"))
            for alias in NO_ALIASES:
                await self._refused(Refusal, registry.point(self._model("iris"), alias, 1))
            assert (await registry.state())[self._model("iris")] == {}

    async def what_changed_since_it_was_inspected_is_rejected(self) -> None:
        async with self._open() as registry:
            for change in (b"other", b"longer than it was", b""):
                given = self._inspected("iris", "small")
                (given.folder / "notes.txt").write_bytes(change)
                await self._refused(Rejected, registry.register(given))
            assert await registry.versions(self._model("iris")) == []

    async def a_webhook_comes_or_is_refused(self) -> None:
        """To an address where nobody is: who sends any says that it was not taken."""
        async with self._open() as registry:
            place = f"http://127.0.0.1:{free_port()}/hooks"
            for secret in ("it has 16 letters", "another 16 letters"):
                try:
                    assert await registry.hook(place, secret), "nobody was there"
                except Invalid:
                    return

    # -- what the questions share --------------------------------------------------------------

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[Registry]:
        registry = self.make()
        await registry.open()
        try:
            yield registry
        finally:
            await registry.close()

    def _open(self) -> AbstractAsyncContextManager[Registry]:
        return self._opened()

    def _model(self, name: str) -> str:
        return f"{self._models}-{name}"

    def _inspected(self, model: str, text: str, below: str = "", large: bool = False) -> Inspected:
        self._made += 1
        folder = self.folder / str(self._made)
        write(folder, self._model(model), text, below, LARGE if large else 0)
        return inspect(folder, Rules())

    async def _same(self, registry: Registry, version: Version, given: Inspected) -> None:
        self._made += 1
        target = self.folder / str(self._made)
        target.mkdir()
        await fetch(registry, version, target)
        for file in given.files:
            data = (target / file.path).read_bytes()
            assert hashlib.sha256(data).hexdigest() == file.sha256
            assert data == (given.folder / file.path).read_bytes()

    async def _refused(self, kind: type[Refusal], asked: Awaitable[object]) -> None:
        try:
            await asked
        except kind:
            return
        raise AssertionError("nothing was raised")


QUESTIONS = [name for name in vars(Exam) if not name.startswith("_") and name != "make"]


def write(folder: Path, model: str, text: str, below: str = "", more: int = 0) -> None:
    """A folder that may be registered: a safetensors file without a model's worth in it."""
    (folder / below).mkdir(parents=True, exist_ok=True)
    (folder / "notes.txt").write_text(text)
    header = msgspec.json.encode({"w": {"dtype": "U8", "shape": [more], "data_offsets": [0, more]}})
    weights = len(header).to_bytes(8, "little") + header + bytes(range(256)) * (more // 256 + 1)
    (folder / below / "weights.safetensors").write_bytes(weights[: 8 + len(header) + more])
    manifest = Manifest(
        model=model,
        format="safetensors",
        golden=[Golden(input=[1.5, 2], output={"label": "Zürich"})],
        profile={"fixed_ms": 1.5},
        metrics={"accuracy": 0.97},
        commit="0123abc",
        tags={"made": "for an exam"},
    )
    (folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
