"""What a page points at is there: files, headings, source files named in the text, decisions."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import ROOT, markdown_files, without_code

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SOURCE = re.compile(r"`([\w./-]+\.(?:py|toml|md|proto|html))`")
DECISIONS = ROOT / "docs" / "decisions"


def anchors(page: Path) -> set[str]:
    """Headings as GitHub and most renderers turn them into anchors."""
    found = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in found}


def broken_links(page: Path) -> list[str]:
    broken = []
    for target in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("page", markdown_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Here\n[a](page.md#here) [b](gone.md) [c](#gone) [d](https://example.org)")
    assert broken_links(page) == ["gone.md", "#gone"]


def homes(page: Path) -> list[Path]:
    source = ROOT / "src" / "headrace"
    rooms = [path for path in source.iterdir() if path.is_dir()]
    return [page.parent, ROOT, ROOT / "tests", source, *rooms]


@pytest.mark.parametrize(
    "page",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_files_named_in_the_text_exist(page: Path) -> None:
    named = set(SOURCE.findall(page.read_text())) - {"headrace.toml", "models.py"}
    missing = [name for name in named if not any((home / name).exists() for home in homes(page))]
    assert missing == []


def test_decisions_are_numbered_without_gaps_and_listed() -> None:
    files = sorted(p.name for p in DECISIONS.glob("*.md") if p.name != "README.md")
    assert [int(name[:4]) for name in files] == list(range(1, len(files) + 1))
    listed = LINK.findall((DECISIONS / "README.md").read_text())
    assert sorted(target for target in listed if re.match(r"\d{4}-", target)) == files


@pytest.mark.parametrize("page", sorted(DECISIONS.glob("0*.md")), ids=lambda p: p.name)
def test_a_decision_is_short_and_whole(page: Path) -> None:
    text = page.read_text()
    assert sum(bool(line) for line in text.splitlines()) <= 40
    headings = re.findall(r"^## (\w+)", text, re.MULTILINE)
    assert headings == ["Context", "Decision", "Consequences"]
    assert text.startswith(f"# {page.name[:4]} ")
