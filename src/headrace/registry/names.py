"""Names of the files in a version: the same on every file system, and nowhere outside."""

from __future__ import annotations

import re
from collections.abc import Iterable

from headrace.registry.refusals import Rejected

MAX_NAME = 200
MAX_DEPTH = 8
_PART = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,100}"
_NAME = re.compile(rf"(?=.{{1,{MAX_NAME}}}\Z){_PART}(?:/{_PART}){{0,{MAX_DEPTH - 1}}}")
#: Files of these names are devices to Windows, whatever follows the first full stop.
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def checked(name: str) -> str:
    """The name. Raises Rejected where no file of a version may have it."""
    if not _NAME.fullmatch(name):
        raise Rejected(
            f"{name[:MAX_NAME]!r} is no name for a file of a version: parts of letters, digits and "
            f"._- with / between them, none of which begins with . or -, at most {MAX_NAME} "
            f"characters and {MAX_DEPTH} parts"
        )
    for part in name.split("/"):
        if part.endswith(".") or _DEVICES.fullmatch(part):
            raise Rejected(f"{name!r} is a name that not every file system has")
    return name


def check_together(names: Iterable[str]) -> None:
    """Raises Rejected where two are one to a file system, or one is the folder of another."""
    seen: dict[str, str] = {}
    folders: set[str] = set()
    for name in names:
        folded = name.lower()
        if folded in seen:
            raise Rejected(f"{name!r} and {seen[folded]!r} are one name where case does not count")
        seen[folded] = name
        parts = folded.split("/")
        folders.update("/".join(parts[:n]) for n in range(1, len(parts)))
    for name in folders & seen.keys():
        raise Rejected(f"{seen[name]!r} is a file and a folder")
