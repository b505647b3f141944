"""What the registry holds: a version is a folder of files, pinned by one digest.

manifest.json   what its maker says of it (`Manifest`); the maker writes it
model.onnx      ... whatever `load` reads

listing   a line a file, sorted by path: "SHA256 BYTES PATH", manifest.json among them
digest    "sha256:" and the SHA-256 of the listing: it pins every byte, and every claim
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from headrace.errors import Invalid, NotFound
from headrace.registry import names
from headrace.registry.refusals import Rejected
from headrace.signature import Card

MANIFEST = "manifest.json"
MAX_MANIFEST = 65_536  # it travels in one tag of MLflow, whose limit is 100,000 characters
MAX_FILES = 256  # so does the listing
FORMATS = ("onnx", "safetensors", "code")
MODEL = r"[a-z0-9][a-z0-9_-]{0,62}"
ALIAS = r"(?!latest$|v\d+$)[a-z][a-z0-9_-]{0,62}"  # MLflow keeps those two for itself
_LINE = re.compile(r"([0-9a-f]{64}) (0|[1-9]\d{0,14}) (\S+)")

Short = Annotated[str, Meta(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Word = Annotated[str, Meta(pattern=r"^[\w.@%/ :-]{1,100}$")]


class File(NamedTuple):
    """`path`: below the version's folder, with `/`. `sha256`: hex."""

    path: str
    bytes: int
    sha256: str


class Golden(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A call with a known answer. Its input is JSON as a client sends it, or a file beside it."""

    input: Any = None
    file: str = ""
    output: Any
    tolerance: float = 1e-3


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the maker of a version says of it."""

    model: Annotated[str, Meta(pattern=f"^{MODEL}$")]
    #: onnx, safetensors or code: what the folder must hold at least one file of.
    format: Annotated[str, Meta(pattern=f"^({'|'.join(FORMATS)})$")]
    #: "module:Class" that serves it; "": what the settings name.
    target: Annotated[str, Meta(pattern=r"^([\w.]+:\w+)?$")] = ""
    card: Card | None = None
    golden: list[Golden] = []
    #: What was measured, by name: fixed_ms, per_item_ms, memory_mb.
    profile: dict[Word, float] = {}
    #: What it reached when it was evaluated, by name.
    metrics: dict[Word, float] = {}
    #: The run of the pipeline that made it.
    run: Short = ""
    #: Of the code that made it.
    commit: Short = ""
    tags: dict[Word, Short] = {}


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model: for ever the same."""

    model: str
    number: int
    digest: str
    files: tuple[File, ...]
    manifest: Manifest
    #: Unix seconds.
    created: float

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @property
    def name(self) -> str:
        """ "iris 3": for people."""
        return f"{self.model} {self.number}"


def version_of(model: str, number: int, created: float, listing: str, manifest: bytes) -> Version:
    """Of what a registry answered, which is not trusted. Raises Rejected where the parts do not
    belong together."""
    files = read_listing(listing)
    said = next((file for file in files if file.path == MANIFEST), None)
    if said is None or said.sha256 != hashlib.sha256(manifest).hexdigest():
        raise Rejected(f"{model} {number}: {MANIFEST} is not the one that its listing names")
    read = read_manifest(manifest)
    if read.model != model:
        raise Rejected(f"{model} {number}: {MANIFEST} is of the model {read.model}")
    return Version(
        model=model,
        number=number,
        digest=digest_of(listing),
        files=files,
        manifest=read,
        created=created,
    )


def checked_model(model: str) -> str:
    """The name. Raises NotFound: there can be none of that name."""
    if not re.fullmatch(MODEL, model):
        raise NotFound(f"{model[:100]!r} is no name of a model", code="model-not-found")
    return model


def checked_alias(alias: str) -> str:
    """The alias. Raises Invalid."""
    if not re.fullmatch(ALIAS, alias):
        raise Invalid(
            f"alias {alias[:100]!r}: expected 1 to 63 of a-z, 0-9, - and _ after a letter, and "
            "neither latest nor v and a number"
        )
    return alias


def listing_of(files: Iterable[File]) -> str:
    return "".join(f"{f.sha256} {f.bytes} {f.path}\n" for f in sorted(files))


def digest_of(listing: str) -> str:
    return f"sha256:{hashlib.sha256(listing.encode()).hexdigest()}"


def read_listing(text: str) -> tuple[File, ...]:
    """Raises Rejected."""
    lines = text.split("\n")
    if lines.pop() != "" or len(lines) > MAX_FILES:
        raise Rejected(f"a listing has whole lines, at most {MAX_FILES}")
    files = []
    for line in lines:
        found = _LINE.fullmatch(line)
        if not found:
            raise Rejected(f"a line of a listing is SHA256 BYTES PATH, not {line[:200]!r}")
        files.append(File(names.checked(found[3]), int(found[2]), found[1]))
    names.check_together(file.path for file in files)
    if listing_of(files) != text:
        raise Rejected("a listing is sorted by path")
    return tuple(files)


def read_manifest(data: bytes) -> Manifest:
    """Raises Rejected."""
    if len(data) > MAX_MANIFEST:
        raise Rejected(
            f"{MANIFEST} has {len(data)} bytes: at most {MAX_MANIFEST}; "
            "let large golden inputs lie in files beside it"
        )
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(f"{MANIFEST}: {error}") from None
    for golden in manifest.golden:
        if golden.file:
            names.checked(golden.file)
    return manifest
