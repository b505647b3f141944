"""What a cosine means: its score, by two numbers that a pipeline may have found.

calibration.json beside the graphs   {"slope": 12.2, "middle": 0.36}   made by ../pipeline.py
without it                           the constants below, chosen by hand
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """score = 1 / (1 + exp(-slope * (cosine - middle)))"""

    slope: float = 14.0
    middle: float = 0.42

    def score(self, cosine: float) -> float:
        """In 0..1; by the constants 0.42 -> 0.5, 0.75 -> 0.99, 0.1 -> 0.01."""
        return 1 / (1 + math.exp(-self.slope * (cosine - self.middle)))

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(asdict(self)) + "\n")


def read(folder: Path) -> Calibration:
    """Raises ValueError where the file is there and is none: a wrong score would pass for one."""
    try:
        found = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return Calibration()
    slope, middle = float(found["slope"]), float(found["middle"])
    if not (0 < slope < math.inf and -1 <= middle <= 1):
        raise ValueError(f"{FILE}: slope {slope}, middle {middle}: no calibration of cosines")
    return Calibration(slope, middle)
