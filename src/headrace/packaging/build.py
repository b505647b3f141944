"""A version, its model's code and what they need -> a folder that an image is made of.

    Containerfile, .containerignore      how
    requirements.txt                     the dependencies' wheels, with hashes: a lock for the next
    build.json                           what lies here, by digests
    1-dependencies 2-headrace 3-code 4-version

The same input gives the same bytes, wherever and whenever.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

import headrace
from headrace.deployments import workload_of
from headrace.packaging import baked, bytecode, needs, proof, wheels
from headrace.packaging.code import Traced, trace
from headrace.packaging.containerfile import BASE, IGNORE, LAYERS, containerfile, settings_toml
from headrace.packaging.listing import Measured, settle, size_of
from headrace.packaging.needs import Pin
from headrace.packaging.proof import Proof
from headrace.packaging.unbuildable import Unbuildable
from headrace.registry import disk
from headrace.registry.version import Version
from headrace.schemes import BROKERS, OBJECTS, Adapter
from headrace.settings import ModelSettings, Settings

#: Of headrace, what a worker has no use for.
NOT_PACKED = ("cli", "testing", "__main__.py")
#: Of the folder of the author's code, what no copy of it would have.
NOT_COPIED = frozenset((".git", ".venv", "__pycache__", "build"))


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asks for beside the version."""

    base: str = BASE
    #: The text of a lock with hashes; "": what is installed here.
    lock: str = ""
    #: A folder of wheels in place of the index.
    wheels: Path | None = None
    #: Globs of further files of the code's folder.
    include: tuple[str, ...] = ()
    #: Extras of headrace, beside those that the settings' URLs and the code ask for.
    extras: tuple[str, ...] = ()


class LayerBuilt(msgspec.Struct, frozen=True):
    name: str
    changes: str
    files: int
    bytes: int
    digest: str


class Naive(msgspec.Struct, frozen=True):
    """Bytes of what an image of everything would have above its base."""

    environment: int
    folder: int
    versions: int

    @property
    def bytes(self) -> int:
        return self.environment + self.folder + self.versions


class Context(msgspec.Struct, frozen=True, kw_only=True):
    workload: str
    #: Of the version.
    version: str
    #: Of all that the image is made of.
    digest: str
    base: str
    #: Unix seconds: SOURCE_DATE_EPOCH, else when the version was registered.
    created: int
    #: Of the code: git's, a + behind it where not all is committed; "": not git's.
    commit: str
    packages: list[str]
    layers: list[LayerBuilt]
    proof: Proof

    @property
    def bytes(self) -> int:
        return sum(layer.bytes for layer in self.layers)


def build(settings: Settings, version: Version, files: Path, out: Path, wanted: Wanted) -> Context:
    """Writes the context to `out`, in place of an earlier one. `files`: of the version, compared
    with their digests. Raises Unbuildable; OSError."""
    model = _model(settings, version)
    if out.exists() and any(out.iterdir()) and not (out / "build.json").exists():
        raise Unbuildable(f"{out} is there, and no build made it: name another with --output")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent.resolve(), prefix=".build-") as place:
        context = Path(place) / "context"
        made = _fill(context, settings, model, version, files, wanted)
        disk.remove(out) if out.exists() else None
        context.replace(out)
    return made


def naive(settings: Settings, versions: int) -> Naive:
    """`versions`: bytes of all that the registry has."""
    places = {str(dist.locate_file("")) for dist in distributions()}
    installed = sum(size_of(Path(place)) for place in places if "-packages" in place)
    state = settings.state().name
    return Naive(installed, size_of(Path(settings.folder), NOT_COPIED | {state}), versions)


def _model(settings: Settings, version: Version) -> ModelSettings:
    """As the version is served: the class is the manifest's where it names one."""
    try:
        model = settings.models[version.model]
    except KeyError:
        known = ", ".join(settings.models) or "none"
        raise Unbuildable(f"the settings have no [models.{version.model}], only: {known}") from None
    return msgspec.structs.replace(model, target=version.manifest.target or model.target)


def _fill(
    context: Path,
    settings: Settings,
    model: ModelSettings,
    version: Version,
    files: Path,
    wanted: Wanted,
) -> Context:
    folder = Path(settings.folder)
    own = files if version.manifest.format == "code" else None
    traced = trace(model.target, folder, wanted.include, own)
    extras = {*wanted.extras, *_extras(settings)}
    at = [context / layer.folder for layer in LAYERS]
    packed = _dependencies(at[0], traced, extras, settings, wanted)
    _headrace(at[1] / "headrace")
    for path in traced.files:
        _copy(folder / path, at[2] / path)
    toml = settings_toml(version.model, model, settings.house.name)
    (at[2] / "headrace.toml").write_text(toml)
    held = baked.bake(version, files, at[3])
    for layer, each in zip(LAYERS[:3], at, strict=False):
        bytecode.compile_all(each, layer.place)
    proven = proof.prove(model.target, at[2], held, [at[1], at[0]])
    sizes = [settle(each) for each in at]
    return _write(context, version, wanted.base, packed, sizes, commit_of(folder), proven)


def _dependencies(
    folder: Path, traced: Traced, extras: set[str], settings: Settings, wanted: Wanted
) -> list[Pin]:
    chosen = needs.pins(traced, extras, wanted.lock)
    packed = wheels.wheels(chosen, settings.state() / "wheels", wanted.wheels)
    folder.mkdir(parents=True)
    for _, wheel in packed:
        wheels.unpack(wheel, folder)
    return [pin for pin, _ in packed]


def _headrace(folder: Path) -> None:
    """This one, as it is installed here."""
    source = Path(headrace.__file__).parent
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source)
        if path.is_file() and "__pycache__" not in name.parts and name.parts[0] not in NOT_PACKED:
            _copy(path, folder / name)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write(
    context: Path,
    version: Version,
    base: str,
    packed: list[Pin],
    sizes: list[Measured],
    commit: str,
    proven: Proof,
) -> Context:
    workload = workload_of(version.model, version.number)
    created = int(os.environ.get("SOURCE_DATE_EPOCH") or version.created)
    whole = hashlib.sha256("".join(f"{each.digest}\n" for each in sizes).encode()).hexdigest()
    labels = _labels(version, base, created, commit, f"sha256:{whole}")
    (context / "Containerfile").write_text(containerfile(workload, base, labels))
    for name in (".containerignore", ".dockerignore"):
        (context / name).write_text(IGNORE)
    (context / "requirements.txt").write_text(needs.requirements(packed))
    made = Context(
        workload=workload,
        version=version.digest,
        digest=f"sha256:{whole}",
        base=base,
        created=created,
        commit=commit,
        packages=[f"{pin.name} {pin.version}" for pin in packed],
        layers=[
            LayerBuilt(layer.name, layer.changes, *each)
            for layer, each in zip(LAYERS, sizes, strict=True)
        ],
        proof=proven,
    )
    plain = msgspec.json.encode(msgspec.structs.replace(made, proof=Proof(proven.golden, 0.0)))
    (context / "build.json").write_bytes(msgspec.json.format(plain) + b"\n")
    return made


def _labels(version: Version, base: str, created: int, commit: str, digest: str) -> dict[str, str]:
    from datetime import UTC, datetime

    card = version.manifest.card
    found = {
        "org.opencontainers.image.title": version.model,
        "org.opencontainers.image.version": str(version.number),
        "org.opencontainers.image.description": card.description.split("\n")[0] if card else "",
        "org.opencontainers.image.created": datetime.fromtimestamp(created, UTC).isoformat(),
        "org.opencontainers.image.revision": commit,
        "org.opencontainers.image.base.name": base,
        "dev.headrace.version": headrace.__version__,
        "dev.headrace.model": version.model,
        "dev.headrace.model.digest": version.digest,
        "dev.headrace.model.run": version.manifest.run,
        "dev.headrace.model.commit": version.manifest.commit,
        "dev.headrace.context": digest,
    }
    return {key: value for key, value in found.items() if value}


def _extras(settings: Settings) -> set[str]:
    """Those that a worker needs to reach what these settings name."""
    objects = (settings.objects.url, settings.objects.fallback, settings.objects.transit)
    found = {_extra(BROKERS, settings.broker.url), *(_extra(OBJECTS, url) for url in objects)}
    if urlsplit(settings.database.url).scheme == "postgresql":
        found.add("postgresql")
    if settings.objects.keys:
        found.add("encryption")
    return found - {""}


def _extra(table: dict[str, Adapter], url: str) -> str:
    adapter = table.get(urlsplit(url).scheme)
    return adapter.install.strip("'").partition("[")[2].rstrip("]") if adapter else ""


def commit_of(folder: Path) -> str:
    commit = _git(folder, "rev-parse", "HEAD")
    dirty = commit and _git(folder, "status", "--porcelain", "--", ".")
    return f"{commit}+" if dirty else commit


def _git(folder: Path, *arguments: str) -> str:
    """What git says; "" where it is not there, or the folder is not its."""
    try:
        told: Any = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return str(told.stdout).strip() if told.returncode == 0 else ""
