"""The registry as people reach it through the house: what is there, and moving an alias."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
import structlog
from msgspec import Meta

from headrace.background import Background
from headrace.control.people import Who
from headrace.errors import NotFound
from headrace.httpapi.answer import answer_json
from headrace.httpapi.body import read_struct
from headrace.httpapi.errands import Errands
from headrace.httpapi.listing import read_limit, read_query
from headrace.httpserver import Request
from headrace.notify.notice import Told, promoted
from headrace.registry.choose import Desk, desk
from headrace.registry.port import PRODUCTION
from headrace.registry.promote import promote
from headrace.registry.refusals import unavailable
from headrace.registry.version import checked_model
from headrace.settings import Settings, SettingsError

if TYPE_CHECKING:
    from headrace.registry.audit import Audit, Entry
    from headrace.registry.version import Version

log = structlog.get_logger("headrace.control")

T = TypeVar("T")

ANSWER_S = 8.0  # below the patience of the clients, 10 s
AT_ONCE = 4  # a registry that hangs does not hold all threads of this process
MOST_VERSIONS = 200  # in one answer


class Promotion(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The body of a promotion; `version` None: the alias is taken away."""

    version: Annotated[int, Meta(ge=1, lt=10**9)] | None
    reason: str
    alias: str = PRODUCTION
    #: Only if the alias names that one now.
    instead_of: Annotated[int, Meta(ge=1, lt=10**9)] | None = None


class RegistryApi:
    """`look`: has whoever deploys ask the registry, now."""

    def __init__(
        self, settings: Settings, errands: Errands[Who], told: Told, look: Callable[[], None]
    ) -> None:
        self._settings, self._errands, self._told, self._look = settings, errands, told, look
        self._desk: Desk | None = None
        self._opening, self._free = asyncio.Lock(), asyncio.Semaphore(AT_ONCE)
        self._asked = Background()

    async def all(self, request: Request, who: Who) -> None:
        read_query(request)
        answer_json(request, {"models": await self._ask(lambda desk: desk.registry.state())})

    async def one(self, request: Request, who: Who, model: str) -> None:
        read_query(request)
        versions, aliases = await self._ask(lambda desk: _of(desk, model))
        if not versions and not aliases:
            raise NotFound(f"the registry has no versions of {model}", code="model-not-found")
        shown = [_shown(version, aliases) for version in versions[:MOST_VERSIONS]]
        answer_json(request, {"model": model, "aliases": aliases, "versions": shown})

    async def promotions(self, request: Request, who: Who, model: str = "") -> None:
        """What was asked for, and what came of it: two entries of one id. Newest first."""
        query = read_query(request, "limit")
        audit = await self._audit()
        found = await audit.entries(model, read_limit(query.get("limit", "100")))
        answer_json(request, {"promotions": found})

    async def promote(self, request: Request, who: Who, model: str) -> None:
        asked = read_struct(request, Promotion)
        done = await self.move(model, asked, who)
        answer_json(request, {"promotion": done})

    async def check(self, model: str, version: int) -> None:
        """Raises NotFound; Rejected; Unavailable."""
        await self._ask(lambda desk: desk.registry.get(model, version))

    async def move(self, model: str, asked: Promotion, who: Who) -> Entry:
        """Raises NotFound; Rejected; Invalid; Conflict; Unavailable."""
        audit = await self._audit()

        async def moved(desk: Desk) -> Entry:
            """Also where nobody waits for it any more."""
            done = await promote(
                desk.registry,
                audit,
                model,
                asked.version,
                alias=asked.alias,
                author=who.name,
                reason=asked.reason,
                seen=asked.instead_of,
            )
            self._look()
            self._tell(done)
            return done

        return await self._ask(moved)

    def _tell(self, done: Entry) -> None:
        names = {"model": done.model, "alias": done.alias, "author": done.author}
        log.info("promoted", before=done.before, to=done.to, **names)
        if done.before == done.to:
            return
        moved = f"{done.alias} from {done.before or 'none'} to {done.to or 'none'}"
        text = f"{done.author} moved {moved}: {done.reason}"
        details = msgspec.to_builtins(done)
        self._told.tell(promoted(done.model, text, done.at, id=done.id, data=details))

    async def _ask(self, ask: Callable[[Desk], Awaitable[T]]) -> T:
        """Raises Unavailable where there is no answer in time: what was asked for goes on, and the
        audit tells what came of it."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await self._free.acquire()
                asked = self._asked.spawn(self._at(ask))
                asked.add_done_callback(lambda _: self._free.release())
                answered: T = await asyncio.shield(asked)
                return answered
        except TimeoutError:
            raise unavailable(f"the registry did not answer in {ANSWER_S:g} s") from None

    async def _at(self, ask: Callable[[Desk], Awaitable[T]]) -> T:
        async with self._opening:
            if self._desk is None:
                try:
                    opened = await asyncio.to_thread(desk, self._settings)
                    await opened.registry.open()
                except (ImportError, OSError, SettingsError) as error:
                    raise unavailable(str(error)) from None
                self._desk = opened
        return await ask(self._desk)

    async def _audit(self) -> Audit:
        """Raises Unavailable."""
        store = await self._errands.store()  # first: it loads SQLAlchemy, off the loop
        from headrace.store.deploying import Deploying

        return Deploying(store.database)

    async def close(self) -> None:
        await self._asked.close()
        if self._desk is not None:
            await self._desk.registry.close()


async def _of(desk: Desk, model: str) -> tuple[list[Version], dict[str, int]]:
    checked_model(model)
    state = await desk.registry.state()
    return await desk.registry.versions(model), state.get(model, {})


def _shown(version: Version, aliases: dict[str, int]) -> dict[str, Any]:
    manifest = version.manifest
    return {
        "number": version.number,
        "digest": version.digest,
        "format": manifest.format,
        "bytes": version.bytes,
        "created": version.created,
        "metrics": manifest.metrics,
        "run": manifest.run,
        "commit": manifest.commit,
        "aliases": sorted(alias for alias, number in aliases.items() if number == version.number),
    }
