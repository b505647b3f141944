"""The version's files as a house keeps them, with a registry of one line: who runs the image finds
both, and asks nobody.

    versions/sha256/3f/3f9a.../...    as `registry.kept` keeps them
    versions/pins/iris/3
    registry/iris/3/record.json       as `registry.file` keeps it, without the files
    registry/iris/3/files/manifest.json
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from headrace.registry.file import Record
from headrace.registry.kept import CREATED, LISTING
from headrace.registry.version import MANIFEST, Version, listing_of


def bake(version: Version, files: Path, house: Path) -> Path:
    """`files`: as `Kept.files` gave it, compared with its digests. `house`: what is `house.state`
    in the image. Gives the folder for `load`. Raises OSError."""
    digest, number = version.digest.removeprefix("sha256:"), str(version.number)
    kept = house / "versions" / "sha256" / digest[:2] / digest
    for file in version.files:
        _put(kept / file.path, (files / file.path).read_bytes())
    listing = listing_of(version.files)
    _put(kept / LISTING, listing.encode())
    _put(kept / CREATED, repr(version.created).encode())
    _put(house / "versions" / "pins" / version.model / number, version.digest.encode())
    record = house / "registry" / version.model / number
    _put(record / "record.json", msgspec.json.encode(Record(version.created, listing)))
    (record / "files").mkdir()
    shutil.copyfile(files / MANIFEST, record / "files" / MANIFEST)
    return kept


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
