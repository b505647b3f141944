"""What a step returned <-> kept files: JSON with the digests of what is large.

    Split(rows=<frame>, seed=3)
    {"record": {"rows": {"polars": "ab12..."}, "seed": {"value": 3}}}

Nothing is pickled. Dataclasses and structs are made again from the annotated type, so reading an
output never imports what a file names.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import sys
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from headrace.pipeline.kept import Kept

Tree = dict[str, Any]
_PLAIN = (str, int, float, bool, type(None))


class OutputError(TypeError):
    """A step returned what cannot be kept, or not what its annotation says."""


class Folder(msgspec.Struct, frozen=True):
    """Files by name, "/" between parts, and their digests."""

    files: dict[str, str]


def keep(value: Any, kind: Any, kept: Kept) -> str:
    """The digest of the tree. `kind` is the annotation, Any where there is none. Raises
    OutputError."""
    tree = _Writer(kept).write(value, kind, "")
    return kept.put(msgspec.json.encode(tree))


def load(digest: str, kind: Any, kept: Kept) -> Any:
    """What was kept. Raises Lost, OutputError."""
    return _read(msgspec.json.decode(kept.get(digest)), kind, kept)


def keep_folder(folder: Path, kept: Kept) -> Folder:
    """Raises OutputError for links and for what is no file."""
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise OutputError(f"{name}: expected plain files, not a link or a device")
        if path.is_file():
            files[name] = kept.put_file(path)
    return Folder(files)


def lay_out(folder: Folder, at: Path, kept: Kept) -> None:
    """The files, into a folder that is there. Raises Lost."""
    for name, digest in folder.files.items():
        path = at / name
        if ".." in path.parts or Path(name).is_absolute():
            raise OutputError(f"{name}: leads out of the folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        kept.copy(digest, path)


def note(value: Any) -> str:
    """A few words for people: "178 rows, 14 columns"."""
    shape = getattr(value, "shape", None)
    if _is_frame(value):
        return f"{shape[0]:,} rows, {shape[1]} columns"  # type: ignore[index]
    if _is_array(value):
        return f"array of {' x '.join(map(str, shape or (1,)))}"
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, list | tuple | Mapping) and not hasattr(value, "_fields"):
        return f"{len(value):,} items"
    if fields(value) is not None:
        named = {name: note(getattr(value, name)) for name in fields(value) or ()}
        return "; ".join(f"{name}: {said}" for name, said in named.items() if said)
    return ""


class _Writer:
    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def write(self, value: Any, kind: Any, at: str) -> Tree:
        kind = _bare(kind, type(value))
        if isinstance(value, _PLAIN):
            return {"value": value}
        if _is_frame(value):
            flavour, data = _frame_bytes(value, at)
            return {flavour: self._kept.put(data)}
        if _is_array(value):
            return {"array": self._kept.put(_array_bytes(value, at))}
        if isinstance(value, bytes | bytearray):
            return {"bytes": self._kept.put(bytes(value))}
        if isinstance(value, Folder):
            return {"folder": value.files}
        if fields(value) is not None:
            return self._record(value, kind, at)
        if isinstance(value, Mapping):
            return self._mapping(value, kind, at)
        if isinstance(value, list | tuple):
            inner = _item_kinds(kind, len(value))
            each = zip(value, inner, strict=True)
            return {"items": [self.write(v, k, f"{at}[{n}]") for n, (v, k) in enumerate(each)]}
        name = f"{type(value).__module__}.{type(value).__qualname__}"
        raise OutputError(
            f"{at.lstrip('.') or 'it'} is a {name}, which cannot be kept: expected frames,"
            " arrays, bytes, numbers, text, lists, dicts, dataclasses or structs (a model is"
            " written into the folder of `train`)"
        )

    def _record(self, value: Any, kind: Any, at: str) -> Tree:
        if kind is not type(value):
            said = getattr(kind, "__qualname__", str(kind))
            raise OutputError(
                f"{at.lstrip('.') or 'it'} is a {type(value).__qualname__}, and its annotation says"
                f" {said}: it could not be made again"
            )
        kinds = _hints(kind)
        names = fields(value) or ()
        return {
            "record": {
                name: self.write(getattr(value, name), kinds.get(name, Any), f"{at}.{name}")
                for name in names
            }
        }

    def _mapping(self, value: Mapping[Any, Any], kind: Any, at: str) -> Tree:
        for key in value:
            if not isinstance(key, str):
                raise OutputError(f"{at.lstrip('.') or 'it'} has the key {key!r}: expected text")
        inner = (*get_args(kind), Any, Any)[1]
        return {
            "dict": {key: self.write(each, inner, f"{at}.{key}") for key, each in value.items()}
        }


def _read(tree: Tree, kind: Any, kept: Kept) -> Any:
    ((form, held),) = tree.items()
    kind = _bare(kind, *{"items": (list, tuple), "dict": (dict,)}.get(form, ()))
    if form == "value":
        return held
    if form == "items":
        inner = _item_kinds(kind, len(held))
        items = [_read(each, one, kept) for each, one in zip(held, inner, strict=True)]
        return tuple(items) if (get_origin(kind) or kind) is tuple else items
    if form == "dict":
        inner = (*get_args(kind), Any, Any)[1]
        return {key: _read(each, inner, kept) for key, each in held.items()}
    if form == "record":
        return _make(held, kind, kept)
    if form == "folder":
        return Folder(held)
    return _large(form, kept.get(held))


def _make(held: dict[str, Tree], kind: Any, kept: Kept) -> Any:
    for each in _options(kind):
        if isinstance(each, type) and fields(each) is not None:
            kinds = _hints(each)
            values = {name: _read(tree, kinds.get(name, Any), kept) for name, tree in held.items()}
            if set(values) <= set(fields(each) or ()):
                return each(**values)
    raise OutputError(f"expected the annotation of a record with {', '.join(held)}, got {kind}")


def _large(form: str, data: bytes) -> Any:
    if form == "bytes":
        return data
    if form == "array":
        import numpy as np

        return np.load(io.BytesIO(data), allow_pickle=False)
    if form == "polars":
        import polars

        return polars.read_parquet(io.BytesIO(data))
    if form == "pandas":
        return importlib.import_module("pandas").read_parquet(io.BytesIO(data))
    raise OutputError(f"{form!r} is not a form that this version knows")


def _options(kind: Any) -> tuple[Any, ...]:
    if get_origin(kind) in (Union, types.UnionType):
        return get_args(kind)
    return (kind,)


def _bare(kind: Any, *of: type) -> Any:
    """Without Annotated; of a union the part that is of one of these types."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return next((each for each in _options(kind) if (get_origin(each) or each) in of), kind)


def _item_kinds(kind: Any, count: int) -> list[Any]:
    kinds = list(get_args(kind))
    if get_origin(kind) is tuple and Ellipsis not in kinds and len(kinds) == count:
        return kinds
    return [kinds[0] if kinds else Any] * count


def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def fields(value: Any) -> tuple[str, ...] | None:
    """The names in a dataclass, struct or named tuple, or in their type."""
    if dataclasses.is_dataclass(value):
        return tuple(field.name for field in dataclasses.fields(value))
    names = getattr(value, "__struct_fields__", None) or getattr(value, "_fields", None)
    return tuple(names) if isinstance(names, tuple) else None


def _is_frame(value: Any) -> bool:
    """Only a module that is loaded can have made one."""
    return any(
        name in sys.modules and isinstance(value, sys.modules[name].DataFrame)
        for name in ("polars", "pandas")
    )


def _frame_bytes(frame: Any, at: str) -> tuple[str, bytes]:
    out = io.BytesIO()
    if type(frame).__module__.startswith("polars"):
        frame.write_parquet(out)
        return "polars", out.getvalue()
    try:
        frame.to_parquet(out)
    except ImportError as error:
        raise OutputError(f"{at.lstrip('.') or 'it'} is a frame of pandas: {error}") from None
    return "pandas", out.getvalue()


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


def _array_bytes(value: Any, at: str) -> bytes:
    import numpy as np

    out = io.BytesIO()
    try:
        np.save(out, value, allow_pickle=False)
    except ValueError:
        raise OutputError(
            f"{at.lstrip('.') or 'it'} is an array of {value.dtype}: expected numbers or text"
        ) from None
    return out.getvalue()
