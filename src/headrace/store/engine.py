"""The database: SQLite (WAL) or PostgreSQL, by its URL; its clock; what to do when it is away.

A statement that meets a database that is down opens the circuit: from then on everybody is refused
at once with 503 `storage-unavailable`, until a probe, four times a second, gets through.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from sqlalchemy import (
    ARRAY,
    Boolean,
    Connection,
    Dialect,
    Double,
    Engine,
    Row,
    String,
    Text,
    TypeDecorator,
    create_engine,
    event,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import FunctionElement
from sqlalchemy.util import greenlet_spawn

from headrace.errors import Unavailable
from headrace.store.lean import Lean
from headrace.store.postgresql import engine_of

T = TypeVar("T")
AnyRow = Row[*tuple[Any, ...]]
log = structlog.get_logger("headrace.store")

PROBE_EVERY_S = 0.25
BUSY_S = 5.0  # SQLite has one writer: others wait for it this long
#: Left to itself SQLite asks ever more seldom, at last ten times a second, and who waits longest is
#: the least likely to find the moment between two others: it begins anew to ask after so long.
ASK_ANEW_MS = 10
#: Two transactions that lock the same rows in different orders: PostgreSQL ends one, and it is run
#: again.
CLASHES, CLASH_WAIT_S = 4, 0.05
_CLASH_CLASS = "40"
SCHEMES = ("sqlite", "postgresql")
_READ, _WRITE, _LEAN, _ALONE = "read", "write", "lean", "alone"


class now(FunctionElement[float]):  # noqa: N801 - named as the function it is in SQL
    """The database's clock, in Unix seconds: leases of all machines are measured by one clock."""

    type = Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


NOW = select(now())


class Ids(TypeDecorator[list[str]]):
    """A list of ids as one parameter: an IN would be another statement for each length."""

    impl = ARRAY(String)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(Text() if dialect.name == "sqlite" else ARRAY(String))

    def process_bind_param(self, value: list[str] | None, dialect: Dialect) -> Any:
        return json.dumps(value) if dialect.name == "sqlite" else value


class one_of(FunctionElement[bool]):  # noqa: N801 - named as the function it is in SQL
    """`one_of(column, bindparam(name, type_=Ids))`"""

    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        """As it is: SQLAlchemy would ask SQLite for `... = 1`, which no index answers."""
        return self


@compiles(one_of, "sqlite")
def _one_of_sqlite(element: Any, compiler: Any, **more: Any) -> str:
    column, ids = (compiler.process(clause, **more) for clause in element.clauses)
    return f"{column} IN (SELECT value FROM json_each({ids}))"  # noqa: S608 - names of ours


@compiles(one_of, "postgresql")
def _one_of_postgresql(element: Any, compiler: Any, **more: Any) -> str:
    column, ids = (compiler.process(clause, **more) for clause in element.clauses)
    return f"{column} = ANY({ids})"


def unavailable() -> Unavailable:
    return Unavailable("the database cannot be reached", code="storage-unavailable")


class Database:
    """One process's connections. What runs in a transaction is a plain function of a connection:
    on SQLite in a thread, one hop for the whole of it; on PostgreSQL over asyncpg."""

    def __init__(self, url: str, *, connections: int = 4, timeout_s: float = 2.0) -> None:
        """Raises ValueError for a URL of another scheme, ImportError that says what to install."""
        scheme = urlsplit(url).scheme
        if scheme not in SCHEMES:
            expected = " or ".join(f"{known}://" for known in SCHEMES)
            raise ValueError(f"database.url: no adapter for {scheme!r}; expected {expected}")
        self.sqlite = scheme == "sqlite"
        self.down = False
        self._free = asyncio.Semaphore(connections)
        # SQLite has one writer, and of those who wait for it whoever came last asks most often: of
        # one process one waits at a time, or endings would wait until no more claims come.
        self._turn = asyncio.Semaphore(1) if self.sqlite else contextlib.nullcontext()
        self._probe: asyncio.Task[None] | None = None
        if self.sqlite:
            self._timeout_s = max(timeout_s, BUSY_S + 1)
            self._local = _sqlite(url)
            self._threads = ThreadPoolExecutor(connections, "database")
        else:
            self._timeout_s = timeout_s
            self._remote = engine_of(url, connections, timeout_s)
            # One statement each: no round trips for BEGIN and COMMIT.
            self._reading = self._remote.execution_options(isolation_level="AUTOCOMMIT")
            self._lean = Lean(url, self._remote.dialect, timeout_s)

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Commits at the end of `work`, or rolls back what it did. Raises Unavailable where the
        database is away, slow beyond its limit, or full."""
        return await self._guarded(work, _WRITE)

    async def write_lean(self, work: Callable[[Connection], T], *, alone: bool = False) -> T:
        """The same for what is done for every job, of statements that are made once and nothing but
        `execute`: see `lean`. `alone`: it is one statement. Raises Unavailable."""
        return await self._guarded(work, _ALONE if alone else _LEAN)

    async def read(self, work: Callable[[Connection], T]) -> T:
        """The same for what writes nothing. Raises Unavailable."""
        return await self._guarded(work, _READ)

    async def _guarded(self, work: Callable[[Connection], T], way: str) -> T:
        if self.down:
            raise unavailable()
        # Waiting for a connection of our own says nothing of the database.
        async with contextlib.nullcontext() if way is _READ else self._turn, self._free:
            return await self._watched(work, way)

    async def _watched(self, work: Callable[[Connection], T], way: str) -> T:
        if self.down:
            raise unavailable()
        try:
            for _ in range(CLASHES):
                try:
                    return await self._in_time(work, way)
                except DBAPIError as error:
                    if _sqlstate(error)[:2] != _CLASH_CLASS:
                        raise
                    await asyncio.sleep(random.uniform(0, CLASH_WAIT_S))
            return await self._in_time(work, way)
        except DBAPIError as error:
            if not _away(error):
                raise
            self._open_circuit(error)
            if "full" in str(error.orig).lower() or _sqlstate(error) == _DISK_FULL:
                code = "insufficient-storage"
                raise Unavailable("the database is full", code=code) from None
            raise unavailable() from None
        except (TimeoutError, OSError, PoolTimeout) as error:
            self._open_circuit(error)
            raise unavailable() from None

    async def _in_time(self, work: Callable[[Connection], T], way: str) -> T:
        """Raises TimeoutError when the time is over, and not when the driver, which says goodbye to
        a server that does not answer, is done with that."""
        running = asyncio.ensure_future(self._run(work, way))
        try:
            done, _ = await asyncio.wait((running,), timeout=self._timeout_s)
        except asyncio.CancelledError:
            running.cancel()
            raise
        if done:
            return running.result()
        running.add_done_callback(_unheard)
        running.cancel()
        raise TimeoutError

    async def _run(self, work: Callable[[Connection], T], way: str) -> T:
        if self.sqlite:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._in_thread, work, way is _READ)
        if way is _LEAN or way is _ALONE:
            return await self._lean.run(work, alone=way is _ALONE)
        engine = self._reading if way is _READ else self._remote
        return await greenlet_spawn(_in_transaction, engine, work)

    def _in_thread(self, work: Callable[[Connection], T], reading: bool) -> T:
        engine = self._local.execution_options(reading=True) if reading else self._local
        return _in_transaction(engine, work)

    def _open_circuit(self, error: BaseException) -> None:
        if not self.down:
            log.error("database away", reason=type(error).__name__, detail=_brief(error))
            self.down = True
            self._probe = asyncio.create_task(self._until_back())

    async def _until_back(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            try:
                await self._in_time(_probe, _WRITE)
            except Exception as error:  # whatever it is, the next probe may get through
                log.debug("database still away", reason=type(error).__name__)
                continue
            self.down = False
            log.info("database back")
            return

    async def close(self) -> None:
        if self._probe:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        if self.sqlite:
            self._threads.shutdown(wait=True)
            self._local.dispose()
        else:
            await self._lean.close()
            await greenlet_spawn(self._remote.dispose)


def _in_transaction(engine: Engine, work: Callable[[Connection], T]) -> T:
    with engine.begin() as connection:
        return work(connection)


def _probe(connection: Connection) -> None:
    connection.execute(text("SELECT 1"))


def _unheard(running: asyncio.Future[Any]) -> None:
    """What became of it nobody waits for."""
    if not running.cancelled():
        running.exception()


def _sqlite(url: str) -> Engine:
    path = Path(url.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    engine = create_engine(
        f"sqlite+pysqlite:///{path}", connect_args={"timeout": BUSY_S, "check_same_thread": False}
    )

    @event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions are ours to begin
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The writer's place at once: a reader that turns writer meets another's write and fails.
        if connection.get_execution_options().get("reading"):
            connection.exec_driver_sql("BEGIN")
            return
        raw: Any = connection.connection.dbapi_connection
        raw.execute(f"PRAGMA busy_timeout = {ASK_ANEW_MS}")
        try:
            if not _begun(raw):
                connection.exec_driver_sql("BEGIN IMMEDIATE")  # which says why not
        finally:
            raw.execute(f"PRAGMA busy_timeout = {BUSY_S * 1000:.0f}")

    return engine


def _begun(raw: Any) -> bool:
    """Is the writer's place ours, within BUSY_S?"""
    end = time.monotonic() + BUSY_S
    while time.monotonic() < end:
        try:
            raw.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                return False
        else:
            return True
    return False


#: PostgreSQL's classes of errors: connection gone, no room, going down or coming up.
_AWAY_CLASSES = ("08", "53", "57")
_DISK_FULL = "53100"
#: A table that is not there yet, a database that takes no connections now.
_AWAY_STATES = ("42P01", "42703", "55000")
_AWAY_WORDS = ("unable to open", "disk i/o", "is full", "is locked", "readonly", "no such table",
               "connection is closed", "connection was closed")  # fmt: skip


def _away(error: DBAPIError) -> bool:
    """Is it the database that fails, and not the statement?"""
    if error.connection_invalidated or isinstance(error, InterfaceError):
        return True
    state = _sqlstate(error)
    if state:
        return state[:2] in _AWAY_CLASSES or state in _AWAY_STATES
    words = str(error.orig).lower()
    return any(word in words for word in _AWAY_WORDS)


def _sqlstate(error: DBAPIError) -> str:
    """PostgreSQL's; "" of SQLite, or where the error is the driver's."""
    return str(getattr(error.orig, "sqlstate", None) or "")


def _brief(error: BaseException) -> str:
    """Without the statement and its parameters: they hold inputs."""
    return str(getattr(error, "orig", "") or "")[:200]
