"""How this house connects to PostgreSQL: with limits that the server keeps, too, and with plans
that are right however full the tables are.

A plan that a prepared statement keeps was made for the table as it was then. Made for an empty one
it read all of the jobs for each id, once there were many: minutes for one claim (decision 19).
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit, urlunsplit

from sqlalchemy import Engine, create_engine

#: Of what is run now and then: planned each time, for the ids and the tables as they are.
FRESH_PLANS = {"plan_cache_mode": "force_custom_plan"}
#: Of what is run for every job: planned once, by an index, which is right for any size. A table
#: that was empty would else be read from end to end, and its statistics are as old as its plans.
KEPT_PLANS = {
    "plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "enable_bitmapscan": "off",
}  # fmt: skip


def connecting(timeout_s: float, plans: dict[str, str]) -> dict[str, Any]:
    """What asyncpg is given to connect."""
    limit_ms = str(int(timeout_s * 1000))
    return {
        "timeout": timeout_s,
        "command_timeout": timeout_s,
        "server_settings": {
            # What we gave up the server gives up, too: it would keep its rows locked.
            "statement_timeout": limit_ms,
            # A process that is stopped in mid-transaction must not keep its rows locked.
            "idle_in_transaction_session_timeout": limit_ms,
            **plans,
        },
    }


def engine_of(url: str, connections: int, timeout_s: float) -> Engine:
    """To be used in a greenlet (`sqlalchemy.util.greenlet_spawn`): what SQLAlchemy has for asyncio
    does the same, and brings its mapper of objects along, 0.14 s to load. Raises
    ImportError that says what to install."""
    try:
        return create_engine(
            urlunsplit(urlsplit(url)._replace(scheme="postgresql+asyncpg")),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout_s,
            connect_args=connecting(timeout_s, FRESH_PLANS),
        )
    except ImportError as error:
        hint = "install it with: pip install 'headrace[postgresql]'"
        raise ImportError(f"database.url needs {error.name}; {hint}") from error
