"""Roles of two releases in one house: here the other one is a copy of this one."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import headrace

from .run import Asked, run


async def test_workers_of_another_release(tmp_path: Path) -> None:
    other = tmp_path / "other" / "src"
    await asyncio.to_thread(shutil.copytree, Path(headrace.__file__).parent, other / "headrace")
    asked = Asked(jobs=200, kills=0, rate=200.0, gateways=1, workers=2, clerks=1,
                  old=f"worker:{other}")  # fmt: skip
    outcome = await run(asked, tmp_path, strikes=[])
    assert outcome.verdict.good, outcome.verdict.told()
    assert outcome.acted == {"old-worker"}
