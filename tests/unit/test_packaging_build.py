"""The context of an image: the same input is the same bytes, and nothing is in it that is not for
an image."""

from __future__ import annotations

import asyncio
import shutil
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from headrace.cli import app
from headrace.packaging import build as packing
from headrace.packaging import containerfile, start, tools, wheels
from headrace.packaging.build import Context, Wanted
from headrace.packaging.listing import settle
from headrace.packaging.needs import Pin
from headrace.packaging.proof import Proof, prove
from headrace.packaging.unbuildable import Unbuildable
from headrace.registry.choose import desk
from headrace.registry.inspect import inspect
from headrace.registry.kept import Kept
from headrace.registry.rules import Rules
from headrace.registry.version import Version
from headrace.settings import ModelSettings, Settings, load

SECRET = "between-us-4711"
#: A header of its length, and no tensor.
TENSORS = b"\x02" + b"\0" * 7 + b"{}"
MODELS = '''
import headrace
class Iris(headrace.Model):
    """Which iris?"""
    def golden(self):
        return 2.0, 4.0
    def predict(self, items: list[float]) -> list[float]:
        return [2 * item for item in items]
'''
TOML = f"""
[house]
name = "garden"
[broker]
url = "amqp://me:{SECRET}@broker/"
[database]
url = "postgresql://me:{SECRET}@db/house"
[models.iris]
class = "models:Iris"
slots = 2
devices = ["cpu", "cuda:0"]
max_wait_ms = 1.5
[models.rose]
class = "models:Rose"
"""


def wheel(folder: Path, name: str, version: str = "1.0", **members: str) -> Path:
    path = folder / f"{name}-{version}-py3-none-any.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as packed:
        for member, text in (members or {f"{name}/__init__.py": "x = 1\n"}).items():
            packed.writestr(member, text)
    return path


# -- wheels ----------------------------------------------------------------------------------------


def test_a_wheel_is_unpacked_without_its_programs(tmp_path: Path) -> None:
    path = wheel(
        tmp_path, "a",
        **{"a/__init__.py": "", "a-1.0.data/purelib/b.py": "", "a-1.0.data/scripts/run": "#!",
           "a-1.0.data/headers/a.h": "", "a-1.0.dist-info/METADATA": ""},
    )  # fmt: skip
    wheels.unpack(path, tmp_path / "to")
    found = {p.relative_to(tmp_path / "to").as_posix() for p in (tmp_path / "to").rglob("*.*")}
    assert found == {"a/__init__.py", "b.py", "a-1.0.dist-info"}


@pytest.mark.parametrize("name", ["../out.py", "/etc/out.py", "a-1.0.data/purelib/../../out.py"])
def test_a_wheel_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Unbuildable, match="leads elsewhere"):
        wheels.unpack(wheel(tmp_path, "a", **{name: "x"}), tmp_path / "in" / "to")
    assert not list(tmp_path.rglob("out.py"))


def test_two_wheels_may_share_a_file_of_the_same_bytes_alone(tmp_path: Path) -> None:
    for name, text in (("a", "one"), ("b", "one"), ("c", "two")):
        wheel(tmp_path, name, **{"shared/__init__.py": text})
    wheels.unpack(tmp_path / "a-1.0-py3-none-any.whl", tmp_path / "to")
    wheels.unpack(tmp_path / "b-1.0-py3-none-any.whl", tmp_path / "to")
    with pytest.raises(Unbuildable, match="another one's"):
        wheels.unpack(tmp_path / "c-1.0-py3-none-any.whl", tmp_path / "to")


def test_wheels_are_fetched_once_and_pinned_by_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = wheel(tmp_path / "source", "Some_Thing", "1.0")
    digest = sha256(made.read_bytes()).hexdigest()
    fetched: list[str] = []

    def fetch(pins, folder, source):
        fetched.extend(pin.name for pin in pins)
        shutil.copy(made, folder)

    monkeypatch.setattr(wheels, "_fetch", fetch)
    pins = [Pin("some-thing", "1.0", ("a" * 64, digest))]
    [(pin, path)] = wheels.wheels(pins, tmp_path / "kept")
    assert pin.hashes == (digest,) and path.read_bytes() == made.read_bytes()
    assert wheels.wheels(pins, tmp_path / "kept") == [(pin, path)]
    assert fetched == ["some-thing"]
    with pytest.raises(Unbuildable, match="no wheel of some-thing"):  # one of another hash
        wheels.wheels([Pin("some-thing", "1.0", ("a" * 64,))], tmp_path / "kept")


def test_what_pip_cannot_find_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unbuildable, match="cannot be fetched: No matching distribution"):
        wheels.wheels([Pin("thing", "1.0", ("a" * 64,))], tmp_path / "kept", tmp_path)


# -- the whole context -----------------------------------------------------------------------------


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "author"
    folder.mkdir()
    (folder / "headrace.toml").write_text(TOML)
    (folder / "models.py").write_text(MODELS)
    (folder / "token").write_text(SECRET)
    return load(folder / "headrace.toml", environment={})


async def registered(settings: Settings, tmp_path: Path, text: str = "one") -> tuple[Version, Path]:
    (tmp_path / text).mkdir()
    (tmp_path / text / "notes.txt").write_text(text)
    (tmp_path / text / "model.safetensors").write_bytes(TENSORS)
    (tmp_path / text / "manifest.json").write_text('{"model": "iris", "format": "safetensors"}')
    at = desk(settings)
    version = await at.registry.register(inspect(tmp_path / text, Rules()))
    return version, await at.kept.files(at.registry, version)


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """One small wheel in place of all, no bytecode, no proof. Gives the names that were asked
    for."""
    asked: list[list[str]] = []

    def packed(pins, kept, source=None):
        asked.append([pin.name for pin in pins])
        return [(Pin("some", "1.0", ("a" * 64,)), wheel(tmp_path / "w", "some"))]

    monkeypatch.setattr(packing.wheels, "wheels", packed)
    monkeypatch.setattr(packing.bytecode, "compile_all", lambda folder, place: None)
    monkeypatch.setattr(packing.proof, "prove", lambda *_: Proof(True, 1.0))
    return asked


async def test_the_same_input_is_the_same_context(
    settings: Settings, light: list[list[str]], tmp_path: Path
) -> None:
    version, files = await registered(settings, tmp_path)
    one = packing.build(settings, version, files, tmp_path / "out" / "one", Wanted())
    two = packing.build(settings, version, files, tmp_path / "two", Wanted())
    assert one.digest == two.digest and one.proof.golden
    assert contents(tmp_path / "out" / "one") == contents(tmp_path / "two")
    assert [p.name for p in tmp_path.glob(".build-*")] == []
    # Settings' URLs say what a worker must be able to reach.
    assert {"asyncpg", "pamqp"} <= set(light[0]) and "redis" not in light[0]


async def test_a_layer_changes_alone(
    settings: Settings, light: list[list[str]], tmp_path: Path
) -> None:
    def changed(before: Context, after: Context) -> list[str]:
        pairs = zip(before.layers, after.layers, strict=True)
        return [one.name for one, other in pairs if one.digest != other.digest]

    out = tmp_path / "out"
    version, files = await registered(settings, tmp_path)
    first = packing.build(settings, version, files, out, Wanted())
    version, files = await registered(settings, tmp_path, "two")
    second = packing.build(settings, version, files, out, Wanted())  # in place of the first
    assert changed(first, second) == ["version"] and second.workload == "iris@2"
    (Path(settings.folder) / "models.py").write_text(MODELS + "# better\n")
    third = packing.build(settings, version, files, out, Wanted())
    assert changed(second, third) == ["code"]


async def test_a_context_has_one_version_no_secret_and_nothing_that_was_not_asked_for(
    settings: Settings, light: list[list[str]], tmp_path: Path
) -> None:
    await registered(settings, tmp_path, "one")
    version, files = await registered(settings, tmp_path, "two")
    out = tmp_path / "out"
    packing.build(settings, version, files, out, Wanted())
    for path in out.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert {p.name for p in (out / "3-code").iterdir()} == {"models.py", "headrace.toml"}
    packed = {p.name for p in (out / "2-headrace" / "headrace").iterdir()}
    assert "worker" in packed and not packed & {"cli", "testing", "__main__.py", "__pycache__"}
    # The image's own settings can be read, and are the model's alone.
    inside = load(out / "3-code" / "headrace.toml", environment={})
    assert list(inside.models) == ["iris"] and inside.house.name == "garden"
    assert inside.models["iris"] == settings.models["iris"]
    # What a worker does at its start, without a registry and without writing anything.
    house = out / "4-version"
    before = contents(house)
    at = desk(start.of_image(inside, str(house)))
    assert [found.number for found in await at.registry.versions("iris")] == [2]
    found = await at.kept.get(at.registry, "iris", 2)
    folder = await at.kept.files(at.registry, found)
    assert found == version and (folder / "notes.txt").read_text() == "two"
    assert await Kept(house / "versions", Rules()).remembered("iris", 2) == version
    assert contents(house) == before


async def test_what_does_not_run_is_no_context(
    settings: Settings,
    light: list[list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def seeing_what_is_installed(target, code, files, paths):
        return prove(target, code, files, [paths[0], *map(Path, sys.path[1:])])

    monkeypatch.setattr(packing.proof, "prove", seeing_what_is_installed)
    wrong = MODELS.replace("2.0, 4.0", "2.0, 5.0")
    (Path(settings.folder) / "models.py").write_text(wrong)
    version, files = await registered(settings, tmp_path)
    out = tmp_path / "out"
    with pytest.raises(Unbuildable, match=r"does not run: .*golden call: got 4\.0, expected 5\.0"):
        packing.build(settings, version, files, out, Wanted())
    assert not out.exists()


async def test_a_folder_of_somebody_else_is_left_alone(settings: Settings, tmp_path: Path) -> None:
    version, files = await registered(settings, tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("dear to me")
    with pytest.raises(Unbuildable, match="no build made it"):
        packing.build(settings, version, files, tmp_path / "mine", Wanted())
    assert (tmp_path / "mine" / "thesis.txt").exists()


async def test_a_model_that_the_settings_do_not_have(settings: Settings, tmp_path: Path) -> None:
    version, files = await registered(settings, tmp_path)
    without = msgspec.structs.replace(settings, models={"rose": settings.models["rose"]})
    with pytest.raises(Unbuildable, match=r"no \[models.iris\], only: rose"):
        packing.build(without, version, files, tmp_path / "out", Wanted())


def contents(folder: Path) -> dict[str, tuple[float, int, bytes]]:
    """Bytes, mode and, below the layers, times."""
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mtime if path.relative_to(folder).parts[0][0].isdigit() else 0,
            path.stat().st_mode,
            path.read_bytes() if path.is_file() else b"",
        )
        for path in sorted(folder.rglob("*"))
    }


# -- small parts -----------------------------------------------------------------------------------


def test_a_folder_is_settled_whoever_made_it(tmp_path: Path) -> None:
    for name, mode in (("one", 0o600), ("two", 0o755)):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "file").write_text("the same")
        (tmp_path / name / "deep" / "file").chmod(mode)
    one, two = settle(tmp_path / "one"), settle(tmp_path / "two")
    assert one == two and one.files == 1 and one.bytes == 8
    (tmp_path / "two" / "deep" / "file").rename(tmp_path / "two" / "file")
    assert settle(tmp_path / "two").digest != one.digest


def test_an_image_keeps_its_version_and_leaves_the_rest_where_it_would_be() -> None:
    before = Settings(folder="/srv/code")
    after = start.of_image(before)
    assert after.state() == Path("/srv/house")
    assert after.database_url() == before.database_url()
    assert after.objects_url() == before.objects_url()
    assert after.registry.url == ""


def test_a_containerfile_copies_and_never_runs() -> None:
    text = containerfile.containerfile("iris@3", "base:1", {"a.b": 'say "$HOME"'})
    steps = [line.split()[0] for line in text.splitlines() if line[:1].isupper()]
    assert steps == [
        "ARG", "FROM", "COPY", "COPY", "COPY", "COPY", "ENV", "LABEL", "USER", "WORKDIR", "EXPOSE",
        "STOPSIGNAL", "ENTRYPOINT",
    ]  # fmt: skip
    assert "USER 10001:10001" in text and r'LABEL a.b="say \"\$HOME\""' in text


def test_settings_that_are_left_at_their_defaults_are_not_written() -> None:
    text = containerfile.settings_toml("iris", ModelSettings(target="m:M", files="secret"), "h")
    assert text == '[house]\nname = "h"\n\n[models.iris]\nclass = "m:M"\n'


def test_a_tool_is_found_only_where_it_works(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def program(name: str, status: int) -> None:
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / name).chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path))
    assert tools.tool() is None
    program("docker", 1)  # a client whose server is away
    assert tools.tool() is None
    program("buildah", 0)
    assert tools.tool() == tools.Tool("buildah", ("buildah",))
    asked = tools.tool("buildah --storage-driver vfs")
    assert asked == tools.Tool("buildah", ("buildah", "--storage-driver", "vfs"))
    for name, why in (("podman", "no podman here"), ("make", "expected one of")):
        with pytest.raises(Unbuildable, match=why):
            tools.tool(name)


def test_what_a_tool_said_last_is_told(tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text("#!/bin/sh\necho step 1\necho 'no such base' >&2\nexit 1\n")
    program.chmod(0o755)
    with pytest.raises(Unbuildable, match="docker build: no such base"):
        tools.Tool("docker", (str(program),)).build(tmp_path, "t", "b", 0)


def test_the_command_says_that_the_context_lies_ready(
    settings: Settings, light: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(registered(settings, tmp_path))
    monkeypatch.chdir(settings.folder)
    monkeypatch.setattr(tools, "tool", lambda asked="": None)
    monkeypatch.setattr(packing, "naive", lambda *_: packing.Naive(10**9, 10**6, 10**3))
    for more, status in ((["--tool", "none"], 0), ([], 1), (["--include", "none"], 2)):
        arguments = ["build", "iris@1", "-o", str(tmp_path / "out"), *more]
        ended = CliRunner().invoke(app, arguments)
        assert ended.exit_code == status, ended.output
        if status == 1:
            said = " ".join(ended.output.split())
            assert "context lies in" in said and "apt-get install buildah" in said
            assert "iris@1 sha256:" in said and "an image of everything: 1 GB" in said
