"""Who asks, and whether they may."""

from __future__ import annotations

import hmac
import pwd
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from headrace.control.tokens import digest
from headrace.errors import BadRequest, Forbidden, Unauthorized
from headrace.httpserver import Request
from headrace.settings import Person

VIEWER, OPERATOR, ADMIN = ROLES = ("viewer", "operator", "admin")  # each may what those before may
_SCHEME = b"bearer "
_MOST_TOKEN = 512
_IN_URL = frozenset({"token", "access_token", "api_key", "apikey", "authorization", "bearer"})


class Who(NamedTuple):
    """`through`: socket or tcp."""

    name: str
    role: str
    through: str

    def must(self, role: str) -> None:
        """Raises Forbidden."""
        if ROLES.index(self.role) < ROLES.index(role):
            detail = f"{self.name} is {self.role}: this takes {role}"
            raise Forbidden(detail, code="forbidden")


class People:
    def __init__(self, people: Mapping[str, Person]) -> None:
        self._people = people

    def of(self, request: Request) -> Who:
        """By the kernel's word on the socket, by a token on TCP. Raises a Refusal."""
        _check_url(request.query)
        user_id = request.user_id()
        if user_id is not None:
            return Who(user_name(user_id), ADMIN, "socket")
        given = request.headers.get(b"authorization", b"")
        if given[: len(_SCHEME)].lower() != _SCHEME or len(given) > _MOST_TOKEN:
            raise Unauthorized("expected the header Authorization: Bearer TOKEN", code="no-token")
        shown = digest(given[len(_SCHEME) :].strip())
        # All are compared, and each in constant time: how long it takes tells nothing.
        known = [name for name, one in self._people.items() if _equal(one.token_sha256, shown)]
        if not known:
            raise Unauthorized("nobody has this token", code="token-unknown")
        return Who(known[0], self._people[known[0]].role, "tcp")


def user_name(user_id: int) -> str:
    try:
        return pwd.getpwuid(user_id).pw_name
    except KeyError:  # in a container, for one
        return f"user {user_id}"


def _check_url(query: bytes) -> None:
    """What stands in a URL stands in logs and histories, too. Raises BadRequest."""
    if not query:
        return
    names = {name.lower() for name, _ in parse_qsl(query.decode("latin-1"), keep_blank_values=True)}
    if names & _IN_URL:
        raise BadRequest(
            "a token is not given in the URL, where logs keep it: take a new one, and send it as"
            " Authorization: Bearer TOKEN",
            code="token-in-url",
        )


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
