"""What the text says: lines of equal height, those of about one width in one run.

lines -> 48 px high -> padded to a width bucket -> graph -> a letter or nothing per 8 px -> text
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .graphs import Floats, Graph, Pixels, planes

LINE_HEIGHT = 48
BLANK = 0
PADDING = 127  # grey: 0 after scaling
TINY = 1e-9


@dataclass(frozen=True)
class Reading:
    """A line's text, the mean likelihood of its letters, and what else each letter might be.

    `costs[n]` maps the look-alikes of letter n to how much less likely they are, in nats.
    """

    text: str
    confidence: float
    costs: list[dict[str, float]] = field(default_factory=list)


class LineReader:
    """PP-OCRv6's small recogniser. Lines, padded to `bucket_px`, run `most` at a time."""

    def __init__(
        self,
        path: Path,
        device: str,
        bucket_px: int,
        most: int,
        look_alikes: Mapping[str, str] | None = None,
    ) -> None:
        self._graph = Graph(path, device)
        self._bucket_px, self._most = bucket_px, most
        self._letters = ["", *self._graph.metadata["character"].splitlines(), " "]
        places = {letter: n for n, letter in enumerate(self._letters)}
        self._look_alikes = {
            letter: {other: places[other] for other in others}
            for letter, others in (look_alikes or {}).items()
        }

    def read(self, lines: list[Pixels]) -> list[Reading]:
        """RGB lines (48, w, 3) of any width -> their readings, in their order."""
        buckets: dict[int, list[int]] = defaultdict(list)
        for n, line in enumerate(lines):
            buckets[-(-line.shape[1] // self._bucket_px) * self._bucket_px].append(n)
        readings: dict[int, Reading] = {}
        for width, members in buckets.items():
            for start in range(0, len(members), self._most):
                some = members[start : start + self._most]
                batch = [_padded(lines[n], width) for n in some]
                likely = self._graph.run(planes(batch, mean=127.5, scale=127.5))[0]
                readings.update(zip(some, (self._decode(one) for one in likely), strict=True))
        return [readings[n] for n in range(len(lines))]

    def _decode(self, likely: Floats) -> Reading:
        """CTC: the likeliest letter of each step (steps, letters); repeats and blanks fall away."""
        best = likely.argmax(axis=1)
        new = (best != BLANK) & (best != np.concatenate([[BLANK], best[:-1]]))
        steps = np.flatnonzero(new)
        if not len(steps):
            return Reading("", 0.0)
        text = "".join(self._letters[n] for n in best[steps])
        costs = [self._costs(likely[step : step + 2], best[step]) for step in steps]
        return Reading(text, round(float(likely[steps, best[steps]].mean()), 4), costs)

    def _costs(self, likely: Floats, read: int) -> dict[str, float]:
        """The look-alikes of the letter `read` over the steps (steps, letters) where it stands."""
        others = self._look_alikes.get(self._letters[read], {})
        sure = float(likely[:, read].max())
        return {
            letter: float(np.log(sure / (float(likely[:, n].max()) + TINY)))
            for letter, n in others.items()
        }


def _padded(line: Pixels, width: int) -> Pixels:
    """The line in BGR with grey to its right."""
    room = ((0, 0), (0, width - line.shape[1]), (0, 0))
    return np.pad(line[..., ::-1], room, constant_values=PADDING)
