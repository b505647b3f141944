"""An archive to a folder, before it is inspected: nothing lands outside, nothing grows without end.

Only plain files and folders come out. Links, devices and sparse files, names that lead elsewhere,
a name twice, too many files or bytes: refused, with nothing left.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from headrace.registry import names
from headrace.registry.refusals import Rejected
from headrace.registry.rules import Rules
from headrace.registry.version import MAX_FILES

CHUNK = 1 << 20
MAX_MEMBERS = 4 * MAX_FILES  # folders count, too
#: An extended header says its own length, and is read in one piece.
MAX_READ = 4 << 20
#: What the headers and the padding of a tar may add to its files.
TAR_OVERHEAD = 16 << 20

_OPEN: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error, lzma.LZMAError,
    ValueError, NotImplementedError, RuntimeError, OverflowError,
)  # fmt: skip


def unpack(archive: Path, folder: Path, rules: Rules) -> None:
    """Into a folder that is made, and removed where this fails. Raises Rejected; OSError where the
    archive is not there."""
    with archive.open("rb") as file:
        head = file.read(8)
    folder.mkdir(parents=True, mode=0o700)
    try:
        if head.startswith(b"PK"):
            _unzip(archive, folder, rules)
        else:
            _untar(archive, head, folder, rules)
    except _BROKEN as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise Rejected(f"{archive.name}: not an archive that can be read: {error}") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


class _Careful(io.FileIO):
    """Of a tar: no read is larger than a header may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_READ:
            raise Rejected("a header of this archive is too long")
        return super().read(size) or b""


def _untar(archive: Path, head: bytes, folder: Path, rules: Rules) -> None:
    """Decompressed first, so that what tarfile reads has an end that we know."""
    budget = _Budget(archive.name, rules)
    with tempfile.NamedTemporaryFile(dir=folder.parent, prefix=".") as plain:
        opened = next((o for magic, o in _OPEN.items() if head.startswith(magic)), None)
        path = archive
        if opened is not None:
            with opened(archive) as packed:
                _copy(_chunks(packed), plain, _Budget(archive.name, rules, TAR_OVERHEAD))
            plain.flush()
            path = Path(plain.name)
        with _Careful(path) as raw, tarfile.TarFile(fileobj=raw, mode="r") as tar:
            for member in _members(tar):
                budget.member(member.name.rstrip("/"), member.isdir())
                if member.isdir():
                    continue
                if not member.isreg() or member.issparse():
                    raise Rejected(
                        f"{archive.name}: {member.name[:200]!r} is a link, a device or sparse"
                    )
                source = tar.extractfile(member)
                assert source is not None
                _write(folder / member.name, _chunks(source), budget)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        yield member
        tar.members = []  # type: ignore[attr-defined]  # else they are all kept


def _unzip(archive: Path, folder: Path, rules: Rules) -> None:
    budget = _Budget(archive.name, rules)
    with zipfile.ZipFile(archive) as packed:
        for member in packed.infolist():
            mode = member.external_attr >> 16
            budget.member(member.filename.rstrip("/"), member.is_dir())
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise Rejected(f"{archive.name}: {member.filename[:200]!r} is a link or a device")
            if member.flag_bits & 1:
                raise Rejected(f"{archive.name}: {member.filename[:200]!r} is encrypted")
            if not member.is_dir():
                with packed.open(member) as source:
                    _write(folder / member.filename, _chunks(source), budget)


class _Budget:
    def __init__(self, archive: str, rules: Rules, more: int = 0) -> None:
        self._archive, self._left, self._most = archive, rules.max_bytes + more, rules.max_bytes
        self._seen: set[str] = set()
        self._members = 0

    def member(self, name: str, folder: bool) -> None:
        """Raises Rejected."""
        self._members += 1
        if self._members > MAX_MEMBERS:
            raise Rejected(f"{self._archive}: more than {MAX_MEMBERS} members")
        names.checked(name)
        if not folder and name.lower() in self._seen:
            raise Rejected(f"{self._archive}: {name!r} comes twice")
        self._seen.add(name.lower())

    def bytes(self, size: int) -> None:
        """Raises Rejected."""
        self._left -= size
        if self._left < 0:
            raise Rejected(f"{self._archive}: more than {self._most:,} bytes")


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(CHUNK):
        yield chunk


def _copy(chunks: Iterator[bytes], target: Any, budget: _Budget) -> None:
    for chunk in chunks:
        budget.bytes(len(chunk))
        target.write(chunk)


def _write(path: Path, chunks: Iterator[bytes], budget: _Budget) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.open("xb") as target:
        _copy(chunks, target, budget)
