"""Lists in pages: what is asked for, and the page with the way to the next."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar
from urllib.parse import parse_qsl

from headrace.errors import Invalid
from headrace.httpapi.cursor import read_cursor, write_cursor
from headrace.httpserver import Request

T = TypeVar("T")

LIMIT, MOST_LISTED = 50, 200


class Asked(NamedTuple):
    """`before`: the id after which the page begins, "" for the first; `query`: what else is asked
    for, by name."""

    limit: int
    before: str
    query: dict[str, str]


def read_listing(request: Request, tenant: str, *names: str) -> Asked:
    """`names`: parameters of this list beside `limit` and `cursor`. Raises Invalid, BadRequest."""
    query = read_query(request, "limit", "cursor", *names)
    limit = read_limit(query.pop("limit", str(LIMIT)))
    before = read_cursor(tenant, query.pop("cursor")) if "cursor" in query else ""
    return Asked(limit, before, query)


def read_query(request: Request, *names: str) -> dict[str, str]:
    """Raises Invalid for a name that is given twice or not known."""
    pairs = parse_qsl(request.query.decode("latin-1"), keep_blank_values=True)
    query = dict(pairs)
    if len(query) != len(pairs):
        raise Invalid("a parameter is given twice")
    unknown = query.keys() - set(names)
    if unknown and not names:
        raise Invalid("no parameter is known here")
    if unknown:
        expected = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        raise Invalid(f"{sorted(unknown)[0]}: expected {expected}")
    return query


def read_limit(text: str) -> int:
    """At most MOST_LISTED, whatever is asked for. Raises Invalid."""
    if not text.isdecimal() or not text.isascii() or len(text) > 9 or int(text) < 1:
        raise Invalid(f"limit: expected 1 to {MOST_LISTED}")
    return min(int(text), MOST_LISTED)


def cut(
    rows: list[T], limit: int, tenant: str, id_of: Callable[[T], str]
) -> tuple[list[T], str | None]:
    """Of one row more than the limit, where there are more: the page, and the cursor of the next,
    None for the last."""
    page = rows[:limit]
    return page, write_cursor(tenant, id_of(page[-1])) if len(rows) > limit else None
