"""Registering and promoting: what people do with a registry, with the checks that belong to it."""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

from msgspec import structs

from headrace.errors import Conflict, Invalid, Refusal
from headrace.registry.audit import Audit, Entry
from headrace.registry.inspect import inspect
from headrace.registry.port import PRODUCTION, Registry
from headrace.registry.rules import Rules
from headrace.registry.version import Version, checked_alias, checked_model

MAX_AUTHOR, MAX_REASON = 200, 1000


async def register(registry: Registry, folder: Path, rules: Rules) -> Version:
    """The version that the folder is. Raises Rejected; Unavailable; OSError."""
    return await registry.register(await asyncio.to_thread(inspect, folder, rules))


async def promote(
    registry: Registry,
    audit: Audit,
    model: str,
    number: int | None,
    *,
    alias: str = PRODUCTION,
    author: str,
    reason: str,
    seen: int | None = None,
) -> Entry:
    """Lets the alias name that version (None: nothing), and writes down who, when and why: first
    that it is asked for, then what came of it.

    `seen`: the version that the author saw there; where it is another by now, Conflict. The
    registry itself cannot be asked to compare, so two who promote in the same moment may both pass:
    the audit shows both, and the alias is the last one's.

    Raises NotFound; Rejected; Invalid; Conflict; Unavailable; OSError where the audit cannot be
    written: then nothing is moved."""
    _check(author, reason)
    checked_model(model)
    checked_alias(alias)
    version = None if number is None else await registry.get(model, number)
    before = (await registry.state()).get(model, {}).get(alias)
    if seen is not None and before != seen:
        raise Conflict(f"{alias} of {model} is {before or 'no version'} by now, not {seen}")
    asked = Entry(
        id=secrets.token_hex(8),
        at=time.time(),
        outcome="asked",
        model=model,
        alias=alias,
        to=number,
        before=before,
        digest=version.digest if version else "",
        author=author,
        reason=reason,
    )
    await audit.append(asked)
    try:
        before = await registry.point(model, alias, number)
    except Refusal as error:
        failed = structs.replace(asked, outcome="failed", at=time.time(), detail=error.detail)
        await audit.append(failed)
        raise
    done = structs.replace(asked, outcome="done", at=time.time(), before=before)
    await audit.append(done)
    return done


def _check(author: str, reason: str) -> None:
    """Raises Invalid."""
    for name, text, most in (("author", author, MAX_AUTHOR), ("reason", reason, MAX_REASON)):
        if not text.strip() or len(text) > most or not text.isprintable():
            raise Invalid(f"{name}: expected 1 to {most} characters on one line")
