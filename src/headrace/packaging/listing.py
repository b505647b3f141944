"""A folder as an image will have it: measured, with no trace of when and where it was made."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

#: Of every file: the first second that a zip can name.
EPOCH = 315_532_800


class Measured(NamedTuple):
    """`digest`: "sha256:" and that of a line a file: SHA-256, path; sorted by path."""

    files: int
    bytes: int
    digest: str


def settle(folder: Path) -> Measured:
    """Sets times and modes, and measures. All may read, nobody may write. Raises OSError."""
    lines, total = [], 0
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
            continue
        path.chmod(0o644)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        total += path.stat().st_size
        lines.append(f"{digest} {path.relative_to(folder).as_posix()}\n")
    for path in (*folder.rglob("*"), folder):
        os.utime(path, (EPOCH, EPOCH))
    whole = hashlib.sha256("".join(lines).encode()).hexdigest()
    return Measured(len(lines), total, f"sha256:{whole}")


def size_of(folder: Path, without: frozenset[str] = frozenset()) -> int:
    """Bytes of all files below it; folders of those names are left out."""
    total = 0
    for found, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in without]
        for name in files:
            path = Path(found) / name
            if not path.is_symlink():
                total += path.stat().st_size
    return total
