"""The eKYC example is a folder, not an installed package: its tests put it on the path."""

from __future__ import annotations

import sys
from pathlib import Path

EKYC = Path(__file__).resolve().parents[2] / "examples" / "ekyc"
sys.path.insert(0, str(EKYC))
