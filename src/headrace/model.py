"""What the author of a model writes.

class FaceMatch(headrace.Model):
    batching = headrace.Batching(max_size=8)
    def load(self, files): ...
    def predict(self, pairs: list[Pair]) -> list[Score]: ...
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from headrace.errors import ItemError

__all__ = ["Batching", "Golden", "ItemError", "Model", "kebab"]

Golden = tuple[Any, Any | Callable[[Any], bool]]


@dataclass(frozen=True, slots=True)
class Batching:
    """How many jobs one `predict` may be given.

    A batch is formed when the model is free, from whatever waits then. `max_wait_ms` lets it wait
    for more, counted from its first job or from when the model became free, whichever is later: 0
    never waits; a few ms pay where a batch has a high fixed cost. A full batch never waits.
    """

    max_size: int = 1
    max_wait_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.max_size < 1:
            raise ValueError(f"Batching max_size = {self.max_size}: expected 1 or more")
        if self.max_wait_ms < 0:
            raise ValueError(f"Batching max_wait_ms = {self.max_wait_ms}: expected 0 or more")


class Model:
    """Subclass this. One instance lives in each model process; `predict` is never called twice at
    once in one process.

    The class docstring becomes the API's description. The annotations of `predict` are the API.
    """

    name: ClassVar[str] = ""  # set by the class; kebab case of the class name by default
    version: ClassVar[str] = "1"
    batching: ClassVar[Batching] = Batching()

    #: "cpu", or "cuda:0" and so on: the device assigned to this model process.
    device: str = "cpu"
    #: 0, 1, 2, ...: which of the worker's model processes this is.
    slot: int = 0

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = kebab(cls.__name__)
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", cls.name):
            raise ValueError(
                f"{cls.__qualname__}.name = {cls.name!r}: expected 1 to 63 of a-z, 0-9, - and _"
            )

    def load(self, files: Path) -> None:
        """Called once in each model process, before anything else. `files`: the model's folder."""

    def golden(self) -> Golden | None:
        """One input and what must come back: an output, or a function that judges it.

        Readiness is proven with it: a model whose golden call fails takes no traffic.
        """
        return None

    def predict(self, items: list[Any]) -> list[Any]:
        """One result, or one `ItemError`, per item, in the same order."""
        raise NotImplementedError


def kebab(name: str) -> str:
    """FaceMatch -> face-match, OCRPage -> ocr-page."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
