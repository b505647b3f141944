"""Pins -> wheels -> a folder of modules. Wheels are fetched by pip, compared with their hashes, and
kept; they are unpacked here, so that the same wheels are always the same files.

Programs, headers and data of a wheel are left out: an image runs modules alone.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from headrace.packaging.needs import Pin, normal, requirements
from headrace.packaging.unbuildable import Unbuildable


def wheels(pins: list[Pin], kept: Path, source: Path | None = None) -> list[tuple[Pin, Path]]:
    """A wheel each, with the pin that has exactly its hash. `kept`: where those lie that were
    fetched before; `source`: a folder of wheels to take in place of the index. Raises Unbuildable;
    OSError."""
    place = kept / f"cp{sys.version_info.major}{sys.version_info.minor}-{platform.machine()}"
    place.mkdir(parents=True, exist_ok=True)
    missing = [pin for pin in pins if not _find(pin, place)]
    if missing:
        with tempfile.TemporaryDirectory(dir=place, prefix=".") as folder:
            _fetch(missing, Path(folder), source)
            for path in Path(folder).glob("*.whl"):
                path.replace(place / path.name)
    return [_exact(pin, place) for pin in pins]


def unpack(wheel: Path, folder: Path) -> None:
    """Into a folder that others are in, too. Raises Unbuildable where it would leave it, or where
    another has the same file with other bytes."""
    with zipfile.ZipFile(wheel) as packed:
        for member in packed.infolist():
            name = _place(PurePosixPath(member.filename))
            if member.is_dir() or name is None:
                continue
            if name.is_absolute() or ".." in name.parts:
                raise Unbuildable(f"{wheel.name}: {member.filename!r} leads elsewhere")
            path, data = folder / name, packed.read(member)
            if path.exists() and path.read_bytes() != data:
                raise Unbuildable(f"{wheel.name}: {name} is another one's, too")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def _place(name: PurePosixPath) -> PurePosixPath | None:
    """Where a member goes; None: nowhere."""
    if not name.parts or not name.parts[0].endswith(".data"):
        return name
    if len(name.parts) > 2 and name.parts[1] in ("purelib", "platlib"):
        return PurePosixPath(*name.parts[2:])
    return None


def _exact(pin: Pin, place: Path) -> tuple[Pin, Path]:
    path = _find(pin, place)
    if path is None:
        raise Unbuildable(f"no wheel of {pin.name} {pin.version} came")
    return pin._replace(hashes=(_sha256(path),)), path


def _find(pin: Pin, place: Path) -> Path | None:
    for path in sorted(place.glob("*.whl")):
        name, version, *_ = path.name.split("-")
        same = normal(name) == pin.name and version == pin.version.replace("-", "_")
        if same and (not pin.hashes or _sha256(path) in pin.hashes):
            return path
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(pins: Iterable[Pin], folder: Path, source: Path | None) -> None:
    """By pip, with its own settings of where from. Raises Unbuildable."""
    wanted = folder / "requirements.txt"
    wanted.write_text(requirements(pins))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(folder), "--requirement", str(wanted)]
    if source is not None:
        command += ["--no-index", "--find-links", str(source.resolve())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        raise Unbuildable(f"wheels cannot be fetched: {said[-1].removeprefix('ERROR: ')}")
    shutil.rmtree(wanted, ignore_errors=True)
