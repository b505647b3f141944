"""What a pipeline wants of the registry: the version in production, and a place for a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Protocol, TypeVar

from headrace.registry.choose import Desk
from headrace.registry.port import PRODUCTION
from headrace.registry.version import MANIFEST, Golden, Manifest, Version

_T = TypeVar("_T")


class Shelf(Protocol):
    """Every verb raises errors.Unavailable."""

    def production(self, model: str) -> Version | None:
        """The version that the alias names."""

    def fetch(self, version: Version, folder: Path) -> None:
        """Its files, each compared with its digest. Raises Rejected."""

    def register(self, folder: Path) -> Version:
        """The same folder again is the same version. Raises Rejected."""


class RegistryShelf:
    """The registry port, for code that is not asynchronous. Opened for each verb: a run asks three
    times."""

    def __init__(self, make: Callable[[], Desk]) -> None:
        self._make = make

    def production(self, model: str) -> Version | None:
        async def find(desk: Desk) -> Version | None:
            registry = desk.registry
            number = (await registry.state()).get(model, {}).get(PRODUCTION)
            return await registry.get(model, number) if number else None

        return self._ask(find)

    def fetch(self, version: Version, folder: Path) -> None:
        from headrace.registry.fetch import fetch

        async def bring(desk: Desk) -> None:
            await fetch(desk.registry, version, folder)

        self._ask(bring)

    def register(self, folder: Path) -> Version:
        from headrace.registry.inspect import inspect

        async def put(desk: Desk) -> Version:
            return await desk.registry.register(inspect(folder, desk.rules))

        return self._ask(put)

    def _ask(self, act: Callable[[Desk], Coroutine[Any, Any, _T]]) -> _T:
        async def whole() -> _T:
            desk = self._make()
            await desk.registry.open()
            try:
                return await act(desk)
            finally:
                await desk.registry.close()

        return asyncio.run(whole())


def format_of(files: list[str]) -> str:
    """What the registry calls a folder with these files."""
    endings = {Path(name).suffix for name in files}
    return next((form for form in ("onnx", "safetensors") if f".{form}" in endings), "code")


def goldens(calls: list[dict[str, Any]]) -> list[Golden]:
    return [Golden(input=call["input"], output=call["output"]) for call in calls]


__all__ = ["MANIFEST", "Manifest", "RegistryShelf", "Shelf", "Version", "format_of", "goldens"]
