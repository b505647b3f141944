"""`module:Class` and `key=value` -> a pipeline with its parameters, and the code that it is."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec

from headrace.pipeline import outputs
from headrace.pipeline.author import Pipeline, params_type
from headrace.pipeline.run import Code


class TargetError(ValueError):
    """No such pipeline, or parameters that it does not have."""


def find(target: str, folder: Path) -> type[Pipeline[Any]]:
    """ "module:Class", looked up in `folder` first. Raises TargetError."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module_name, _, class_name = target.partition(":")
    if not class_name:
        raise TargetError(f'{target!r}: expected "module:Class"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] == error.name.split(".")[0]:
            raise TargetError(f"{target!r}: no module {error.name!r} in {folder}") from None
        raise TargetError(
            f"{target!r}: the module needs {error.name!r}, which is not installed"
        ) from error
    file = folder / f"{module_name.replace('.', '/')}.py"
    if file.exists() and Path(module.__file__ or "").resolve() != file.resolve():
        raise TargetError(f"{target!r}: another module {module_name} is loaded, {module.__file__}")
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Pipeline)):
        raise TargetError(
            f"{target!r}: {module_name} has no headrace.pipeline.Pipeline {class_name}"
        )
    if not hasattr(found, "model"):
        raise TargetError(f"{target!r}: `model` is not set: which class serves what it trains?")
    return found


def params(kind: type[Pipeline[Any]], given: dict[str, Any]) -> Any:
    """Values, also as text, -> the parameters. Raises TargetError."""
    wanted = params_type(kind)
    names = outputs.fields(wanted) or ()
    for name in given:
        if name not in names:
            known = ", ".join(names) or "none"
            raise TargetError(f"{kind.name} has no parameter {name!r}, only: {known}")
    if not names:
        return wanted()
    try:
        return msgspec.convert(given, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise TargetError(f"{kind.name}: {error}") from None


def plain(value: Any) -> Any:
    """Parameters for the record, with those that were left at their defaults. (msgspec leaves out
    of a dataclass what it did not set.)"""
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    names = outputs.fields(value)
    if names is None:
        return msgspec.to_builtins(value)
    return {name: plain(getattr(value, name)) for name in names}


def code(kind: type[Pipeline[Any]], folder: Path) -> Code:
    """What the pipeline is made of, as it lies there now."""
    files = _modules(folder)
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes() + b"\0")
    own = sys.modules[kind.__module__].__file__
    commit = _git(folder, "rev-parse", "HEAD")
    dirty = bool(
        commit
        and (
            _git(folder, "status", "--porcelain", "--untracked-files=no")
            or (own and not _git(folder, "ls-files", own))
        )
    )
    return Code(digest.hexdigest(), commit, dirty)


def _modules(folder: Path) -> list[Path]:
    """Files of the loaded modules below the folder: the author's, not what is installed there."""
    found = set()
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if not file or name.split(".")[0] == "headrace":
            continue
        path = Path(file)
        if path.is_relative_to(folder) and "site-packages" not in path.parts and path.is_file():
            found.add(path)
    return sorted(found)


def _git(folder: Path, *arguments: str) -> str:
    """What git says; "" where it is not there, or this is not its."""
    try:
        told = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return told.stdout.strip() if told.returncode == 0 else ""
