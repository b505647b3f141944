"""The documentation as the tests read it: files, fenced blocks, tables."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NOT_OURS = ("weights", "node_modules", "build", "dist")


class Block(NamedTuple):
    """One fenced block. `line` is that of its first line of text."""

    path: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


@cache
def markdown_files() -> list[Path]:
    """All pages of this repository; not those of venvs, caches and fetched weights."""
    found = []
    for folder, inner, files in os.walk(ROOT):
        inner[:] = [name for name in inner if not name.startswith(".") and name not in NOT_OURS]
        found += [Path(folder, name) for name in files if name.endswith(".md")]
    return sorted(found)


def blocks(path: Path) -> list[Block]:
    text = path.read_text()
    return [
        Block(path, text.count("\n", 0, found.start()) + 2, found[1], found[2])
        for found in _FENCE.finditer(text)
    ]


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))


def rows(path: Path, heading: str) -> list[dict[str, str]]:
    """The rows of every table of a page whose first column has this heading, by column."""
    found: list[dict[str, str]] = []
    names: list[str] = []
    for line in path.read_text().splitlines():
        if not line.startswith("|"):
            names = []
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        if not names:
            names = cells
        elif names[0] == heading and not set(line) <= set("|-: "):
            assert len(cells) == len(names), f"{path.name}: {line}"
            found.append(dict(zip(names, cells, strict=True)))
    return found


def plain(cell: str) -> str:
    """A cell without its backticks."""
    return cell.strip().strip("`")
