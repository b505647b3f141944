"""Who makes images: podman, buildah or docker, whichever is here and works."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from headrace.packaging.unbuildable import Unbuildable

#: Tried in this order; what each answers where it works.
KNOWN = {"podman": ("info",), "buildah": ("info",), "docker": ("info",)}
INSTALL = "install podman, buildah or docker (Debian: apt-get install buildah), or name one: --tool"


class Image(NamedTuple):
    """`bytes`: of all layers, unpacked; `layers`: of each, the base's first; 0, (): not known."""

    id: str
    bytes: int
    layers: tuple[int, ...]


class Tool(NamedTuple):
    """`command`: with options of its own: `buildah --storage-driver vfs`."""

    name: str
    command: tuple[str, ...]

    def build(self, context: Path, tag: str, base: str, created: int) -> Image:
        """Raises Unbuildable with what the tool said last."""
        told = ["--file", str(context / "Containerfile"), "--tag", tag]
        told += ["--build-arg", f"BASE={base}"]
        if self.name == "docker":
            command = ["build", *told, str(context)]
        else:
            # Else buildah makes one layer of all. Its time is that of everything that it writes.
            command = ["build", "--layers", "--timestamp", str(created), *told, str(context)]
        if self.name == "buildah":
            command[1:1] = ["--isolation", "chroot"]  # nothing is run: no engine is needed
        self._run(*command)
        return self.image(tag)

    def image(self, tag: str) -> Image:
        """Raises Unbuildable."""
        if self.name == "buildah":
            said = json.loads(self._run("inspect", "--type", "image", tag))
            manifest = json.loads(said["Manifest"])
            sizes = tuple(layer["size"] for layer in manifest["layers"])
            return Image(said["FromImageID"], sum(sizes), sizes)
        said = json.loads(self._run("image", "inspect", tag))[0]
        return Image(said["Id"].removeprefix("sha256:"), said.get("Size", 0), ())

    def _run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self.command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"DOCKER_BUILDKIT": "1"},
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing"]
            raise Unbuildable(f"{self.name} {arguments[0]}: {said[-1]}")
        return done.stdout


def tool(asked: str = "") -> Tool | None:
    """The one that was asked for, a command; else the first that is here and works. None: there is
    none. Raises Unbuildable where the one asked for is not here."""
    if asked:
        command = shlex.split(asked)
        name = Path(command[0]).name
        if name not in KNOWN:
            raise Unbuildable(f"--tool {asked!r}: expected one of {', '.join(KNOWN)}, or none")
        if not shutil.which(command[0]):
            raise Unbuildable(f"--tool {asked!r}: there is no {command[0]} here")
        return Tool(name, tuple(command))
    for name, question in KNOWN.items():
        if shutil.which(name) and _works(name, question):
            return Tool(name, (name,))
    return None


def _works(name: str, question: tuple[str, ...]) -> bool:
    """A client without its server does not."""
    try:
        return not subprocess.run(
            [name, *question], capture_output=True, check=False, timeout=20
        ).returncode
    except (OSError, subprocess.TimeoutExpired):
        return False
