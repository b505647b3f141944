"""A version of the registry -> what its model processes start with.

the digest that deploy decided --> what is kept, or the registry --> files by their digests
                                                                --> folder, class, golden calls
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import structlog

from headrace.registry.choose import Desk
from headrace.registry.version import Golden

if TYPE_CHECKING:
    from headrace.store.door import StoreDoor

log = structlog.get_logger("headrace.worker")

#: Longer than the door of a database that is there takes to open on a busy machine.
DATABASE_S = 10.0


class Placed(NamedTuple):
    """`target`: "module:Class", "": what the settings name. `code`: looked for in `files` first."""

    files: str
    target: str
    code: bool
    golden: list[Golden]


#: Raises Refusal, OSError.
Place = Callable[[], Awaitable[Placed]]


def place_of(desk: Desk, door: StoreDoor, model: str, number: int) -> Place:
    """The registry may be down, or lie: what was decided is served from what is kept here, and
    nothing else is served in its place."""

    async def place() -> Placed:
        digest = await _decided(door, model, number)
        version = await desk.kept.meant(desk.registry, model, number, digest)
        folder = await desk.kept.files(desk.registry, version)
        manifest = version.manifest
        return Placed(str(folder), manifest.target, manifest.format == "code", manifest.golden)

    return place


async def _decided(door: StoreDoor, model: str, number: int) -> str:
    """The digest of the deployment; "" where there is none, or no database for whatever reason: a
    worker must start without one, and then goes by what its machine saw first."""
    try:
        async with asyncio.timeout(DATABASE_S):
            store = await door.open()
            from headrace.store.deploying import Deploying  # SQLAlchemy: as slow as the door

            return await Deploying(store.database).digest(model, number)
    except Exception as error:
        reason = getattr(error, "detail", "") or repr(error)
        log.warning("no word of the digest", model=model, version=number, reason=reason)
        return ""
