"""The control API of a house: a socket for this user of the machine, and TCP for people by token.

It lives in a clerk, the first on its machine. Where another one has the socket, this one waits
until that is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from headrace.control.app import MOST_BODY, App
from headrace.control.door import Door
from headrace.control.hooks import HooksApi
from headrace.control.people import People, Who
from headrace.control.registry import RegistryApi
from headrace.control.rollouts import RolloutsApi
from headrace.control.scale import ScaleApi
from headrace.httpapi.errands import Errands
from headrace.httpserver import HttpServer
from headrace.notify.notice import Told
from headrace.settings import Settings
from headrace.store.door import StoreDoor

log = structlog.get_logger("headrace.control")

RETRY_S = 3.0
GRACE_S = 5.0


class Control:
    """`serving`: whether it is this one of the clerks. `port`: of TCP, 0 where it is not served."""

    def __init__(
        self,
        settings: Settings,
        store: StoreDoor,
        told: Told,
        look: Callable[[], None],
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        """`look`: has whoever deploys look at registry and orders, now."""
        self._settings, self._retry_s = settings, retry_s
        people = People(settings.control.people)
        self._errands: Errands[Who] = Errands(people.of, store, _refused)
        self._registry = RegistryApi(settings, self._errands, told, look)
        self._app = App(
            people,
            self._errands,
            ScaleApi(settings, self._errands, told),
            self._registry,
            RolloutsApi(settings, self._errands, told, self._registry, look),
            HooksApi(settings, look),
        )
        self._door = Door(settings.state())
        self._servers: list[HttpServer] = []
        self._waiting: asyncio.Task[None] | None = None
        self.serving, self.port = False, 0

    async def open(self) -> None:
        """Raises OSError where an address is taken, or the state folder cannot be written to."""
        if self._door.take():
            await self._serve()
        else:
            self._waiting = asyncio.create_task(self._wait_for_the_door())

    async def _wait_for_the_door(self) -> None:
        while True:
            await asyncio.sleep(self._retry_s)
            try:
                if self._door.take():
                    await self._serve()
                    return
            except OSError as error:
                log.warning("control is not served", reason=str(error))

    async def _serve(self) -> None:
        listen = self._settings.control.listen
        try:
            await self._server().open_unix(self._door.bind())
            if listen:
                host, _, port = listen.rpartition(":")
                self.port = await self._server().open(host, int(port))
        except OSError:
            await self._close_servers()
            raise
        if listen and not self._settings.control.people:
            log.warning("control.listen without control.people: nobody is let in there")
        self.serving = True
        log.info("control", socket=str(self._door.path), tcp=listen)

    def _server(self) -> HttpServer:
        app = self._app
        server = HttpServer(app.handle, app.on_head, app.refuse, MOST_BODY)
        self._servers.append(server)
        return server

    async def drain(self) -> None:
        if self._waiting:
            self._waiting.cancel()
            await asyncio.gather(self._waiting, return_exceptions=True)
        await self._close_servers()
        await self._errands.close(GRACE_S)
        await self._registry.close()

    async def _close_servers(self) -> None:
        """Who is next may take the socket before the last answers are out."""
        self._door.leave()
        await asyncio.gather(*(server.drain(GRACE_S) for server in self._servers))
        self._servers.clear()
        self.serving = False


def _refused(code: str) -> None:
    log.info("refused", code=code)
