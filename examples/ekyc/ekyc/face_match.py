"""Face match: two photos in, one score out.

pairs -> find faces (one run) -> embed faces (one run) -> cosine -> score
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import headrace

from . import calibration
from .calibration import Calibration
from .embeddings import Embedder
from .faces import Face, FaceFinder, the_one_face
from .graphs import Floats, Pixels

#: What is one person. A calibration moves the score, never this: it has seen too few faces.
SAME_COSINE = 0.42

Outcome = Literal["compared", "no_face", "several_faces", "face_too_small"]


@dataclass
class Pair:
    """Two photos, one face each."""

    left: headrace.Image
    right: headrace.Image


@dataclass
class Match:
    """The answer. `score` is in 0..1, and 0.5 at the threshold of `same` as long as nobody has
    calibrated it; it is no probability of your callers."""

    outcome: Outcome
    reason: str = ""
    same: bool | None = None
    score: float | None = None
    cosine: float | None = None
    left_faces: list[Face] = field(default_factory=list)
    right_faces: list[Face] = field(default_factory=list)


class FaceMatch(headrace.Model):
    """Do two photos show the same person?

    Each photo must show exactly one face of at least 60 px. A photo that does not is no error: the
    answer's `outcome` says what was found, and `same` stays empty.
    """

    name = "face-match"
    version = "1"
    batching = headrace.Batching(max_size=8, max_wait_ms=0)

    def load(self, files: Path) -> None:
        self.files = files
        self.finder = FaceFinder(files, self.device)
        self.embedder = Embedder(files, self.device)
        self.calibration = calibration.read(files)

    def golden(self) -> tuple[Pair, Callable[[Match], bool]]:
        photos = self.files / "images"
        left, right = ((photos / n).read_bytes() for n in ("obama.jpg", "obama2.jpg"))
        return Pair(headrace.Image(left), headrace.Image(right)), lambda match: match.same is True

    def predict(self, pairs: list[Pair]) -> list[Match]:
        images = [image.array() for pair in pairs for image in (pair.left, pair.right)]
        found = self.finder.find(images)
        vectors = self._embed(images, found)
        return [_match(n, found, vectors, self.calibration) for n in range(0, len(images), 2)]

    def _embed(self, images: list[Pixels], found: list[list[Face]]) -> dict[int, Floats]:
        """The vector of each image that shows one usable face, all from one run."""
        usable = {n: face for n, faces in enumerate(found) if (face := the_one_face(faces)[1])}
        vectors = self.embedder.embed([(images[n], face) for n, face in usable.items()])
        return dict(zip(usable, vectors, strict=True))


def _match(
    n: int, found: list[list[Face]], vectors: dict[int, Floats], calibrated: Calibration
) -> Match:
    """The answer for the pair whose images have the numbers n and n + 1."""
    left, right = found[n], found[n + 1]
    for side, faces in (("left", left), ("right", right)):
        outcome = the_one_face(faces)[0]
        if outcome != "ok":
            reason = f"{side} image: {outcome.replace('_', ' ')}"
            return Match(outcome, reason, left_faces=left, right_faces=right)
    cosine = float(vectors[n] @ vectors[n + 1])
    return Match(
        "compared",
        same=cosine >= SAME_COSINE,
        score=round(calibrated.score(cosine), 4),
        cosine=round(cosine, 4),
        left_faces=left,
        right_faces=right,
    )
