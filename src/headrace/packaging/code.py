"""The author's code: the modules that a class needs, and what they import from elsewhere.

Read, never run: a module takes what its import statements name, wherever in it they stand. A
package is taken whole, with what lies in it beside code.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from headrace.packaging.unbuildable import Unbuildable

#: What of headrace brings an extra with it, though its author never imports that.
EXTRA_OF = {"Image": "images", "Tensor": "arrays"}
_SECRET = (".key", ".pem", ".p12", ".pfx", ".env")


class Traced(NamedTuple):
    #: Relative to the folder.
    files: tuple[Path, ...]
    #: Top-level names of modules that are neither the author's nor Python's own.
    imports: frozenset[str]
    #: Of those: the ones that the code can do without (inside of `try`).
    optional: frozenset[str]
    #: Of headrace.
    extras: frozenset[str]


def trace(
    target: str, folder: Path, include: tuple[str, ...] = (), own: Path | None = None
) -> Traced:
    """What `target` ("module:Class") needs of that folder; `include`: globs of more; `own`: the
    version's files, where its code is looked for first. Raises Unbuildable."""
    first = target.partition(":")[0].split(".")[0]
    places = [own, folder] if own else [folder]
    wanted, seen = [first], set[str]()
    files: set[Path] = set()
    imports: dict[str, bool] = {}
    extras: set[str] = set()
    while wanted:
        top = wanted.pop().split(".")[0]
        if top in seen:
            continue
        place = next((place for place in places if _module(place, top)), None)
        if place is None:
            continue
        seen.add(top)
        found = _module(place, top)
        if place is folder:
            files.update(found)
        for path in found:
            if path.suffix == ".py":
                for name, needed in _imports(place / path, extras):
                    imports[name] = imports.get(name, False) or needed
        wanted += imports
    if first not in seen:
        raise Unbuildable(f"class = {target!r}: no module {first!r} in {folder}")
    files.update(_included(folder, include))
    others = {
        name: needed
        for name, needed in imports.items()
        if name not in sys.stdlib_module_names and name != "headrace" and name not in seen
    }
    return Traced(
        tuple(sorted(files)),
        frozenset(others),
        frozenset(name for name, needed in others.items() if not needed),
        frozenset(extras),
    )


def _module(folder: Path, top: str) -> list[Path]:
    """The files of one top-level module or package; none where it is not the author's."""
    if (folder / f"{top}.py").is_file():
        return [Path(f"{top}.py")]
    package = folder / top
    if not top.isidentifier() or not package.is_dir() or not any(package.rglob("*.py")):
        return []
    return sorted(p.relative_to(folder) for p in package.rglob("*") if _is_code(p, folder))


def _is_code(path: Path, folder: Path) -> bool:
    parts = path.relative_to(folder).parts
    hidden = any(part.startswith(".") or part == "__pycache__" for part in parts)
    return path.is_file() and not hidden and path.suffix not in (".pyc", *_SECRET)


def _included(folder: Path, globs: tuple[str, ...]) -> Iterator[Path]:
    for pattern in globs:
        found = [path for path in sorted(folder.glob(pattern)) if path.is_file()]
        if not found:
            raise Unbuildable(f"--include {pattern!r}: no file in {folder}")
        for path in found:
            if not path.resolve().is_relative_to(folder.resolve()):
                raise Unbuildable(f"--include {pattern!r}: {path} lies outside of {folder}")
            if not _is_code(path, folder):
                raise Unbuildable(
                    f"--include {pattern!r}: {path.name} looks like a secret, or is hidden"
                )
            yield path.relative_to(folder)


def _imports(path: Path, extras: set[str]) -> Iterator[tuple[str, bool]]:
    """Top-level names, and whether the module cannot do without. Raises Unbuildable."""
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        raise Unbuildable(f"{path}: cannot be read as Python: {error}") from None
    yield from _walk(tree, True, extras)


def _walk(node: ast.AST, needed: bool, extras: set[str]) -> Iterator[tuple[str, bool]]:
    if isinstance(node, ast.If) and _is_type_checking(node.test):
        for other in node.orelse:
            yield from _walk(other, needed, extras)
        return
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name.split(".")[0], needed
    elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
        yield node.module.split(".")[0], needed
        if node.module == "headrace":
            extras.update(EXTRA_OF[a.name] for a in node.names if a.name in EXTRA_OF)
    elif (
        isinstance(node, ast.Attribute)
        and getattr(node.value, "id", "") == "headrace"
        and node.attr in EXTRA_OF
    ):
        extras.add(EXTRA_OF[node.attr])
    for child in ast.iter_child_nodes(node):
        guarded = isinstance(node, ast.Try) and child in node.body and _forgives(node)
        yield from _walk(child, needed and not guarded, extras)


def _is_type_checking(test: ast.expr) -> bool:
    name = test.attr if isinstance(test, ast.Attribute) else getattr(test, "id", "")
    return name == "TYPE_CHECKING"


def _forgives(node: ast.Try) -> bool:
    """Does it catch a module that is not there?"""
    caught = {
        getattr(name, "id", "")
        for handler in node.handlers
        for name in ast.walk(handler.type or ast.Name("Exception"))
    }
    return bool(caught & {"ImportError", "ModuleNotFoundError", "Exception"})
