"""May this folder be a version? Looked at file by file; nothing in it is loaded, nothing run.

    names and kinds of files -> first bytes -> what the ending promises -> what belongs together

Allowed are the endings below, and the data files that an ONNX model names; all else is refused.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.registry import names
from headrace.registry.magic import check_magic, why_not
from headrace.registry.onnx import Outside, inspect_onnx
from headrace.registry.pickles import is_pickle
from headrace.registry.port import Inspected
from headrace.registry.refusals import Rejected
from headrace.registry.rules import Rules
from headrace.registry.safetensors import inspect_safetensors
from headrace.registry.version import MANIFEST, MAX_FILES, File, read_manifest

MAX_TEXT = 16 << 20
IMAGES = {
    "jpg": (b"\xff\xd8\xff",), "jpeg": (b"\xff\xd8\xff",), "png": (b"\x89PNG\r\n\x1a\n",),
    "webp": (b"RIFF",),
}  # fmt: skip
#: What a format must have at least one of.
NEEDED = {"onnx": "onnx", "safetensors": "safetensors", "code": "py"}


def inspect(folder: Path, rules: Rules) -> Inspected:
    """The folder, with the digest of each file and what its manifest says. Raises Rejected;
    OSError where it cannot be read."""
    found = _walk(folder, rules)
    names.check_together(found)
    if MANIFEST not in found:
        raise Rejected(f"{folder}: no {MANIFEST}, by which its maker says what it is")
    look = _Look(rules)
    for name, path in sorted(found.items()):
        look.file(name, path)
    look.together()
    manifest = read_manifest(look.manifest)
    if not any(_ending(name) == NEEDED[manifest.format] for name in found):
        raise Rejected(
            f"{folder}: its format is {manifest.format}, and it has no .{NEEDED[manifest.format]}"
        )
    for golden in manifest.golden:
        if golden.file and golden.file not in found:
            raise Rejected(f"{MANIFEST}: the golden input {golden.file} is not there")
    return Inspected(folder, tuple(sorted(look.files)), manifest)


class _Look:
    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.files: list[File] = []
        self.manifest = b""
        self._outside: list[tuple[str, Outside]] = []  # with the model that names it
        self._unnamed: set[str] = set()  # allowed as data of an ONNX model alone
        self._kinds: dict[str, Callable[[str, memoryview], None]] = {
            "onnx": self._onnx,
            "safetensors": inspect_safetensors,
            "json": self._json,
            "py": self._code,
            **dict.fromkeys(("txt", "csv", "tsv", "md"), _text),
            **dict.fromkeys(IMAGES, _image),
        }

    def file(self, name: str, path: Path) -> None:
        """Raises Rejected; OSError."""
        with _opened(path, name) as fd:
            size = os.fstat(fd).st_size
            if size == 0:
                raise Rejected(f"{name}: empty")
            # Freed with its last slice: an error that is being told still holds some.
            data = memoryview(mmap.mmap(fd, size, access=mmap.ACCESS_READ))
        self.data(name, data)
        self.files.append(File(name, len(data), hashlib.sha256(data).hexdigest()))

    def data(self, name: str, data: memoryview) -> None:
        """Raises Rejected."""
        if is_pickle(data):
            raise Rejected(f"{name}: a pickle runs code when it is read; export the model to ONNX")
        check_magic(name, data)
        look = self._kinds.get(_ending(name))
        if look is None:
            self._unnamed.add(name)
            return
        look(name, data)
        if name == MANIFEST:
            self.manifest = bytes(data)

    def together(self) -> None:
        """Each file is one that is allowed by itself, or data that a model names, and as long as
        it says. Raises Rejected."""
        sizes = {file.path: file.bytes for file in self.files}
        for model, outside in self._outside:
            size = sizes.get(outside.path)
            if size is None:
                raise Rejected(f"{model}: its data file {outside.path} is not there")
            if _ending(outside.path) in self._kinds:
                raise Rejected(f"{model}: {outside.path} is no file of data")
            if outside.offset + (outside.size or 0) > size:
                raise Rejected(f"{model}: {outside.path} is shorter than the model says")
        for name in sorted(self._unnamed - {outside.path for _, outside in self._outside}):
            raise Rejected(f"{name} {why_not(name)}")

    def _onnx(self, name: str, data: memoryview) -> None:
        self._outside += [(name, one) for one in inspect_onnx(name, data, self.rules)]

    def _json(self, name: str, data: memoryview) -> None:
        _text(name, data)
        try:
            json.loads(bytes(data))
        except (ValueError, RecursionError) as error:
            raise Rejected(f"{name}: not JSON: {str(error)[:200]}") from None

    def _code(self, name: str, data: memoryview) -> None:
        digest = hashlib.sha256(data).hexdigest()
        if digest not in self.rules.trusted:
            raise Rejected(
                f"{name}: code that nobody has vouched for: read it, then name its SHA-256 "
                f"{digest} in registry.trusted"
            )
        _text(name, data)


def _walk(folder: Path, rules: Rules) -> dict[str, Path]:
    """Name -> file. Raises Rejected; OSError."""
    found: dict[str, Path] = {}
    total, folders = 0, [(folder, "")]
    while folders:
        at, below = folders.pop()
        for entry in sorted(os.scandir(at), key=lambda entry: entry.name):
            name = names.checked(f"{below}{entry.name}")
            about = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(about.st_mode):
                folders.append((Path(entry.path), f"{name}/"))
                continue
            _check_regular(name, about.st_mode)
            found[name] = Path(entry.path)
            total += about.st_size
            if len(found) > MAX_FILES:
                raise Rejected(f"{folder}: more than {MAX_FILES} files")
    if total > rules.max_bytes:
        raise Rejected(f"{folder}: {total:,} bytes; at most {rules.max_bytes:,} are allowed")
    return found


def _check_regular(name: str, mode: int) -> None:
    if stat.S_ISLNK(mode):
        raise Rejected(f"{name}: a symbolic link; put the file itself there")
    if not stat.S_ISREG(mode):
        raise Rejected(f"{name}: not a file: a device, a pipe or a socket")


@contextmanager
def _opened(path: Path, name: str) -> Iterator[int]:
    """The file itself, whatever was put in its place since it was found. Raises Rejected;
    OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Rejected(f"{name}: a symbolic link") from None
        raise
    try:
        _check_regular(name, os.fstat(fd).st_mode)
        yield fd
    finally:
        os.close(fd)


def _ending(name: str) -> str:
    return name.rpartition("/")[2].rpartition(".")[2].lower() if "." in name else ""


def _text(name: str, data: memoryview) -> None:
    if len(data) > MAX_TEXT:
        raise Rejected(f"{name}: {len(data):,} bytes of text; at most {MAX_TEXT:,}")
    try:
        text = bytes(data).decode()
    except UnicodeDecodeError:
        raise Rejected(f"{name}: not text in UTF-8") from None
    if "\0" in text:
        raise Rejected(f"{name}: not text: it has NULs")


def _image(name: str, data: memoryview) -> None:
    if not bytes(data[:8]).startswith(IMAGES[_ending(name)]):
        raise Rejected(f"{name}: not the image that its name says")
