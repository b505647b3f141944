"""`headrace build`: the image that it makes answers a call, with the registry gone."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headrace.announce import TO_GATEWAYS, announcement_bytes
from headrace.deployments import WHOLE, Route, Share
from headrace.roles import broker_of
from headrace.settings import load
from headrace.testing.house import RolesApart, patience, until

from . import base_image

QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart"
BASE = "localhost/headrace-test-base:1"
SECRET = "not-for-an-image-4711"
TOML = f"""
[house]
name = "bottles"
[broker]
url = "nats://me:{SECRET}@broker:4222"
[notify]
slack = "https://hooks.test/{SECRET}"
[models.wine-cultivar]
class = "models:WineCultivar"
stuck_after_s = 20.0
[models.another]
class = "elsewhere:Another"
"""
LOOK = """
import importlib.util, json, os
def kept_out(path):
    try:
        open(path, "w")
    except OSError:
        return True
places = ("/srv/code/x", "/srv/house/x", "/opt/headrace/x", "/srv/code/models.py")
print(json.dumps({"uid": os.getuid(), "read_only": [kept_out(each) for each in places],
    "here": [n for n in ("msgspec", "onnxruntime", "typer", "httpx", "alembic", "sklearn", "pip")
             if importlib.util.find_spec(n)]}))
"""


#: Beside other tests, on a busy machine.
pytestmark = pytest.mark.timeout(600)


class Buildah(NamedTuple):
    """With a store of its own. vfs copies what lies below for each layer, and works anywhere."""

    place: Path
    driver: str = "overlay"

    @property
    def command(self) -> list[str]:
        storage = ["--root", str(self.place / "root"), "--runroot", str(self.place / "run")]
        return ["buildah", *storage, "--storage-driver", self.driver]

    def works(self) -> bool:
        return not subprocess.run([*self.command, "from", "scratch"], check=False).returncode

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.command, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    """With a base in its store that is made of this machine's Python."""
    place = tmp_path_factory.mktemp("buildah")
    tool = Buildah(place)
    if not tool.works():
        tool = Buildah(place / "plain", "vfs")
    base_image.fill(place / "base")
    container = tool("from", "scratch")
    tool("copy", container, str(place / "base"), "/")
    tool("commit", "--quiet", "--rm", container, BASE)
    shutil.rmtree(place / "base")
    yield tool
    tool("rm", "--all")
    tool("rmi", "--all", "--force")
    shutil.rmtree(place, ignore_errors=True)


class Built(NamedTuple):
    folder: Path
    said: dict[str, Any]


@pytest.fixture(scope="module")
def built(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The quickstart's model, registered, built into an image, and its registry removed."""
    folder = tmp_path_factory.mktemp("author")
    (folder / "headrace.toml").write_text(TOML)
    shutil.copy(QUICKSTART / "models.py", folder)
    (folder / "deploy.key").write_text(SECRET)
    version = folder / "version"
    version.mkdir()
    for name in ("model.onnx", "model.json"):
        shutil.copy(QUICKSTART / name, version)
    (version / "manifest.json").write_text('{"model": "wine-cultivar", "format": "onnx"}')
    headrace(folder, "registry", "register", "version")
    said = headrace(
        folder, "build", "wine-cultivar@1", "--base", BASE, "--tool", " ".join(buildah.command),
        "--json",
    )  # fmt: skip
    shutil.rmtree(folder / ".headrace")
    return Built(folder, json.loads(said))


def headrace(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headrace", *arguments],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_image_has_its_layers_in_the_order_of_their_change(
    buildah: Buildah, built: Built
) -> None:
    said = built.said
    names = [layer["name"] for layer in said["layers"]]
    assert names == ["dependencies", "headrace", "code", "version"]
    image = json.loads(buildah("inspect", "--type", "image", "wine-cultivar:1"))
    assert image["FromImageID"] == said["image"]["id"]
    assert len(said["image"]["layers"]) == 1 + len(names)  # the base is one layer
    for layer, packed in zip(said["layers"], said["image"]["layers"][1:], strict=True):
        assert packed >= layer["bytes"]  # a tar has headers
    assert said["bytes"] < said["naive"]["bytes"] / 2
    config = image["OCIv1"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Labels"]["org.opencontainers.image.version"] == "1"
    assert config["Labels"]["dev.headrace.model.digest"] == said["version"]
    assert config["Labels"]["dev.headrace.context"] == said["digest"]


def test_no_secret_is_in_the_context(built: Built) -> None:
    context = built.folder / built.said["folder"]
    holding = [
        path
        for path in context.rglob("*")
        if path.is_file() and SECRET.encode() in path.read_bytes()
    ]
    assert holding == []
    toml = (context / "3-code" / "headrace.toml").read_text()
    assert "stuck_after_s = 20.0" in toml and "another" not in toml


def test_what_runs_can_write_nothing_and_has_no_more_than_it_needs(
    buildah: Buildah, built: Built
) -> None:
    container = buildah("from", "wine-cultivar:1")
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    said = json.loads(buildah("run", "--isolation", "chroot", container, "--", python, "-c", LOOK))
    buildah("rm", container)
    assert said == {"uid": 10001, "read_only": [True] * 4, "here": ["msgspec", "onnxruntime"]}


async def test_the_image_answers_a_call(buildah: Buildah, built: Built, tmp_path: Path) -> None:
    house = RolesApart((QUICKSTART / "models.py").read_text(), TOML, tmp_path)
    container = buildah("from", "wine-cultivar:1")
    image = json.loads(buildah("inspect", "--type", "image", "wine-cultivar:1"))
    settings = load(
        house.path, flags={"broker.url": house.environment["HEADRACE_BROKER__URL"],
                           "house.name": house.name}
    )  # fmt: skip
    told = {
        "HEADRACE_HOUSE__NAME": house.name,
        "HEADRACE_BROKER__URL": settings.broker.url,
        "HEADRACE_METRICS": "127.0.0.1:0",
        "HEADRACE_OBJECTS__TRANSIT": "file:///tmp/transit",
    }
    given = [word for name, value in told.items() for word in ("--env", f"{name}={value}")]
    async with house:
        house.gateway()
        # As an engine runs it: the image's own user, folder, environment and entrypoint.
        worker = house._start(
            [*buildah.command, "run", "--isolation", "chroot", *given, container, "--",
             *image["OCIv1"]["config"]["Entrypoint"]]
        )  # fmt: skip
        broker = broker_of(settings, "test")
        await broker.open()
        route = announcement_bytes(Route("wine-cultivar", 1, (Share(1, WHOLE),)))
        async with asyncio.timeout(60 * patience()):
            while True:
                broker.send(TO_GATEWAYS, route)
                answer = None
                if await house.health() is not None:
                    answer = await house.call(
                        "wine-cultivar", json.loads((QUICKSTART / "barolo.json").read_text())
                    )
                if answer is not None and answer.status == 200:
                    break
                assert worker.poll() is None, house.tail()
                await asyncio.sleep(0.1)
        assert answer.json["result"]["cultivar"] == "Barolo"
        assert answer.json["version"] == "1"
        await broker.close()
        [pid] = [
            pid
            for pid, command in house.commands().items()
            if "headrace.packaging.start" in command and "python" in Path(command[0]).name
        ]
        os.kill(pid, signal.SIGTERM)
        await until(lambda: worker.poll() is not None, 45 * patience(), "it left")
        assert worker.returncode == 0, house.tail()
    buildah("rm", container)
