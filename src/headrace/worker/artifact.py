"""A version of the registry -> what its model processes start with.

registry, or what is kept --> files by their digests --> folder, class, golden calls
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from headrace.registry.choose import Desk
from headrace.registry.version import Golden


class Placed(NamedTuple):
    """`target`: "module:Class", "": what the settings name. `code`: looked for in `files` first."""

    files: str
    target: str
    code: bool
    golden: list[Golden]


#: Raises Refusal, OSError.
Place = Callable[[], Awaitable[Placed]]


def place_of(desk: Desk, model: str, number: int) -> Place:
    """The registry may be down: then it is as it was kept on this machine."""

    async def place() -> Placed:
        version = await desk.kept.get(desk.registry, model, number)
        folder = await desk.kept.files(desk.registry, version)
        manifest = version.manifest
        return Placed(str(folder), manifest.target, manifest.format == "code", manifest.golden)

    return place
