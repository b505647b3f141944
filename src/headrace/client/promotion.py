"""What can be asked of a house about its registry, over its control API."""

from __future__ import annotations

from urllib.parse import quote

import msgspec

from headrace.client.asks import Ask, query_of
from headrace.client.read import read_as
from headrace.client.write import body_of


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """Who let an alias name which version. `outcome`: asked, done or failed; two entries of one id
    are what was asked for and what came of it. `to`, `before`: None for no version."""

    id: str
    at: float
    outcome: str
    model: str
    alias: str
    to: int | None
    before: int | None = None
    digest: str = ""
    author: str = ""
    reason: str = ""
    detail: str = ""


class RegisteredVersion(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    digest: str
    format: str = ""
    bytes: int = 0
    created: float = 0.0
    metrics: dict[str, float] = {}
    run: str = ""
    commit: str = ""
    aliases: list[str] = []


class RegisteredModel(msgspec.Struct, frozen=True, kw_only=True):
    """`versions`: the newest first; `aliases`: to the version that each names."""

    model: str
    aliases: dict[str, int] = {}
    versions: list[RegisteredVersion] = []


class _All(msgspec.Struct):
    models: dict[str, dict[str, int]]


class _One(msgspec.Struct):
    promotion: Promotion


class _Promotions(msgspec.Struct):
    promotions: list[Promotion]


def registered() -> Ask[dict[str, dict[str, int]]]:
    """Model -> alias -> version."""
    return Ask("GET", "/registry", lambda reply: read_as(reply, _All).models, timed=False)


def registered_one(model: str) -> Ask[RegisteredModel]:
    return Ask("GET", _path(model), lambda reply: read_as(reply, RegisteredModel), timed=False)


def promote(
    model: str,
    version: int | None,
    reason: str,
    *,
    alias: str = "production",
    instead_of: int | None = None,
) -> Ask[Promotion]:
    """Lets the alias name that version; None: none. `instead_of`: only if it names that one now."""
    body = {"version": version, "alias": alias, "reason": reason, "instead_of": instead_of}
    path = f"{_path(model)}/promote"
    return Ask(
        "POST", path, lambda reply: read_as(reply, _One).promotion, body_of(body), timed=False
    )


def promotions(model: str = "", limit: int = 100) -> Ask[list[Promotion]]:
    """Newest first; of all models where none is named."""
    path = (f"{_path(model)}/promotions" if model else "/promotions") + query_of(limit=limit)
    return Ask("GET", path, lambda reply: read_as(reply, _Promotions).promotions, timed=False)


def _path(model: str) -> str:
    return f"/registry/{quote(model, safe='')}"
