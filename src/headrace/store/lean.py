"""The statements of every job on PostgreSQL: compiled by SQLAlchemy once, run by asyncpg itself.

SQLAlchemy takes 0.5 ms of the processor for each statement and each transaction, asyncpg 0.1; at a
thousand jobs a second that is the house (benchmarks/RESULTS.md). What runs here is the same plain
function of a connection that runs on SQLite: of a connection, it uses `execute` alone.
"""

from __future__ import annotations

import time
from collections import namedtuple
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ClauseElement, Dialect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.util import await_only, greenlet_spawn

from headrace.store.postgresql import KEPT_PLANS, connecting

if TYPE_CHECKING:
    import asyncpg  # type: ignore[import-untyped]

T = TypeVar("T")
Parameters = dict[str, Any] | list[dict[str, Any]] | None

STATEMENTS_MOST = 64  # one that is made anew for each call would be compiled for each
#: Plans are made anew so often: of an empty table one index looks as good as another.
REPLAN_S = 1.0


class Rows:
    """What a statement gave."""

    def __init__(self, rows: list[Any], rowcount: int) -> None:
        self._rows, self.rowcount = rows, rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)

    def all(self) -> Sequence[Any]:
        return self._rows

    def scalar_one(self) -> Any:
        [[value]] = self._rows
        return value


class _Compiled:
    """A statement as asyncpg takes it: its text, and the names of its $1, $2, ..."""

    def __init__(self, statement: ClauseElement, dialect: Dialect, keys: list[str]) -> None:
        self.statement = statement  # kept: its identity is the key
        compiled: Any = statement.compile(dialect=dialect, column_keys=keys or None)
        assert not compiled.post_compile_params, "an IN of changing length: see engine.one_of"
        self.text, self._names = str(compiled), compiled.positiontup or []
        self._fixed = compiled.construct_params(_check=False)
        self.gives_rows = bool(compiled._result_columns)
        self.row: Callable[[Any], Any] | None = None

    def arguments(self, given: dict[str, Any]) -> list[Any]:
        fixed = self._fixed
        return [given[name] if name in given else fixed[name] for name in self._names]


class _Connection:
    """In the greenlet of a transaction."""

    def __init__(self, raw: asyncpg.Connection, lean: Lean) -> None:
        self._raw, self._lean = raw, lean

    def execute(self, statement: ClauseElement, parameters: Parameters = None) -> Rows:
        """Raises DBAPIError, as SQLAlchemy does, without statement and parameters: those hold
        inputs."""
        many = parameters if isinstance(parameters, list) else [parameters or {}]
        compiled = self._lean.compiled(statement, many[0])
        try:
            rows: Rows = await_only(self._run(compiled, many))
        except (OSError, TimeoutError):
            raise
        except self._lean.errors as error:
            raise self._lean.told(error, self._raw) from error
        return rows

    async def _run(self, compiled: _Compiled, many: list[dict[str, Any]]) -> Rows:
        if len(many) > 1:
            await self._raw.executemany(compiled.text, [compiled.arguments(each) for each in many])
            return Rows([], len(many))
        arguments = compiled.arguments(many[0])
        if not compiled.gives_rows:
            said = await self._raw.execute(compiled.text, *arguments)
            return Rows([], int(said.rpartition(" ")[2]))
        records = await self._raw.fetch(compiled.text, *arguments)
        if not records:
            return Rows([], 0)
        if compiled.row is None:
            kind: Any = namedtuple("Row", list(records[0].keys()), rename=True)  # type: ignore[misc]
            compiled.row = kind._make
        return Rows([compiled.row(record) for record in records], len(records))


class Lean:
    """Connections of its own, beside SQLAlchemy's: at most as many as run at once."""

    def __init__(self, url: str, dialect: Dialect, timeout_s: float) -> None:
        import asyncpg

        # The last: a server that ends the connection in the middle of an answer.
        self.errors = (
            asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError
        )  # fmt: skip
        self._url, self._dialect, self._timeout_s = url, dialect, timeout_s
        self._idle: list[asyncpg.Connection] = []
        self._planned: dict[asyncpg.Connection, float] = {}  # when its plans were made, or later
        self._compiled: dict[tuple[int, int], _Compiled] = {}

    def compiled(self, statement: ClauseElement, given: dict[str, Any]) -> _Compiled:
        key = (id(statement), len(given))
        found = self._compiled.get(key)
        if found is None:
            assert len(self._compiled) < STATEMENTS_MOST, "a hot statement is made once"
            found = self._compiled[key] = _Compiled(statement, self._dialect, list(given))
        return found

    async def run(self, work: Callable[[Any], T], *, alone: bool) -> T:
        """In a transaction; `alone`: of one statement, which is one without BEGIN and COMMIT.
        Raises DBAPIError, OSError, TimeoutError."""
        raw: asyncpg.Connection | None = None
        try:
            raw = self._idle.pop() if self._idle else await self._connect()
            if time.monotonic() - self._planned[raw] > REPLAN_S:
                await raw.execute("DISCARD PLANS")
                self._planned[raw] = time.monotonic()
            if alone:
                answer = await greenlet_spawn(work, _Connection(raw, self))
            else:
                await raw.execute("BEGIN")
                answer = await greenlet_spawn(work, _Connection(raw, self))
                await raw.execute("COMMIT")
        except self.errors as error:
            told = self.told(error, raw)
            self._drop(raw)
            raise told from error
        except BaseException:
            self._drop(raw)
            raise
        self._idle.append(raw)
        return answer

    def told(self, error: Exception, raw: asyncpg.Connection | None) -> DBAPIError:
        """As SQLAlchemy tells it."""
        import asyncpg

        gone = isinstance(error, asyncpg.InternalClientError) or raw is None or raw.is_closed()
        return DBAPIError(None, None, error, connection_invalidated=gone)

    def _drop(self, raw: asyncpg.Connection | None) -> None:
        """Whatever state it is in, it is nobody's any more; the idle ones are of the same server,
        which may be gone."""
        for each in [*self._idle, *([raw] if raw else [])]:
            each.terminate()
            self._planned.pop(each, None)
        self._idle.clear()

    async def _connect(self) -> asyncpg.Connection:
        import asyncpg

        raw = await asyncpg.connect(self._url, **connecting(self._timeout_s, KEPT_PLANS))
        self._planned[raw] = time.monotonic()
        return raw

    async def close(self) -> None:
        for raw in self._idle:
            await raw.close(timeout=self._timeout_s)
