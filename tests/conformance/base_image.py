"""A base for images, made of this machine: its Python and the libraries that this needs, 40 MB.

What a registry's `python:3.N-slim` is to others, without the network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

NOT_NEEDED = shutil.ignore_patterns(
    "site-packages", "dist-packages", "test", "__pycache__", "idlelib", "tkinter", "ensurepip",
    "lib2to3", "turtledemo", "config-*", "*.a", "_tkinter*", "pydoc_data", "_test*",
)  # fmt: skip
#: What wheels expect of any Linux (manylinux).
EXPECTED = ("libstdc++.so.6", "libgcc_s.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1")


def fill(root: Path) -> None:
    """A root file system with `python3.N` on its PATH."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    bin_, lib = root / "usr/local/bin", root / "usr/local/lib"
    bin_.mkdir(parents=True)
    program = Path(sys.executable).resolve()
    shutil.copy(program, bin_ / version)
    stdlib = Path(sysconfig.get_path("stdlib"))
    shutil.copytree(stdlib, lib / version, ignore=NOT_NEEDED, symlinks=True)
    extensions = (lib / version / "lib-dynload").glob("*.so")
    for path in _libraries([program, *extensions]):
        _put(path, root)
    for name in ("tmp", "dev", "proc", "sys", "etc", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/false\n")


def _libraries(programs: Iterable[Path]) -> set[Path]:
    told = subprocess.run(
        ["ldd", *map(str, programs)], capture_output=True, text=True, check=False
    ).stdout
    found = {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+)", told, re.MULTILINE)}
    cache = subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    for name in EXPECTED:
        if at := re.search(rf"^\t{re.escape(name)} \(libc6,(?!x32).*=> (\S+)", cache, re.MULTILINE):
            found.add(Path(at[1]))
    return found


def _put(path: Path, root: Path) -> None:
    """Where the loader looks first for what it is asked for by that name."""
    name = path.name
    place = path.parent.relative_to("/") if name.startswith("ld-") else "lib"
    target = root / place / name
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():
        shutil.copy(path.resolve(), target)
