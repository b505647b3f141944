"""The wines of a laboratory, as they come: its model, and the pipeline that trains it again."""

from __future__ import annotations

from pathlib import Path

import polars as pl
from models import WineCultivar
from pipeline import FEATURES, Wines

#: What was measured and tasted lately, a line of JSON a wine; `loop.py` writes it.
LATELY = Path(__file__).parent / ".headrace" / "lately.jsonl"
MOST_ROWS = 160


class WineLab(WineCultivar):
    """Which of three Italian cultivars is a wine made of? By the instruments of one laboratory."""

    version = "0"  # of the files beside the settings; the registry's count from 1

    def golden(self) -> None:
        """None: what a Barolo measures changes with the instrument. Each version is proven by calls
        of its own, which its manifest has."""


class Lately(Wines):
    """Trained on the last wines that somebody has tasted."""

    model = WineLab

    def extract(self) -> pl.DataFrame:
        rows = pl.read_ndjson(LATELY).tail(MOST_ROWS)
        return rows.select(*(pl.col(name).cast(pl.Float64) for name in FEATURES), "cultivar")
