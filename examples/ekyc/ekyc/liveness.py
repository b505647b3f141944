"""Face liveness: one photo in, one advisory score out.

images -> find faces (one run) -> wide crops -> graph (one run) -> share of the class "live"
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

import headrace

from .faces import Face, FaceFinder, the_one_face
from .graphs import Floats, Graph, Pixels, planes

CROP_SIDE = 128
CROP_SCALE = (
    2.7  # the crop is that much wider than the face: paper edges and screens show around it
)
LIVE_CLASS = 0  # the other two are attacks (paper, screen)
LIVE_SCORE = 0.5

Outcome = Literal["scored", "no_face", "several_faces", "face_too_small"]


@dataclass
class Liveness:
    """The answer. `live` is advice for a person or a rule to weigh, not proof: see the README."""

    outcome: Outcome
    live: bool | None = None
    score: float | None = None
    faces: list[Face] = field(default_factory=list)


class FaceLiveness(headrace.Model):
    """Was this photo taken of a living person, or of paper or a screen? Advisory and uncertified.

    The photo must show exactly one face of at least 60 px; the answer's `outcome` says otherwise.
    """

    name = "liveness"
    version = "1"
    batching = headrace.Batching(max_size=8, max_wait_ms=0)

    def load(self, files: Path) -> None:
        self.files = files
        self.finder = FaceFinder(files, self.device)
        self.graph = Graph(files / "fr_liveness.onnx", self.device)

    def golden(self) -> tuple[headrace.Image, Callable[[Liveness], bool]]:
        photo = (self.files / "images" / "obama.jpg").read_bytes()
        return headrace.Image(photo), lambda answer: answer.live is True

    def predict(self, images: list[headrace.Image]) -> list[Liveness]:
        photos = [image.array() for image in images]
        found = self.finder.find(photos)
        scores = self._scores(photos, found)
        return [_answer(faces, scores.get(n)) for n, faces in enumerate(found)]

    def _scores(self, images: list[Pixels], found: list[list[Face]]) -> dict[int, float]:
        """The share of "live" for each image that shows one usable face, all from one run."""
        usable = {n: face for n, faces in enumerate(found) if (face := the_one_face(faces)[1])}
        if not usable:
            return {}
        crops = [wide_crop(images[n], face)[..., ::-1] for n, face in usable.items()]  # BGR
        classes = softmax(self.graph.run(planes(crops, mean=0, scale=1))[0])
        return dict(zip(usable, (float(c) for c in classes[:, LIVE_CLASS]), strict=True))


def _answer(faces: list[Face], score: float | None) -> Liveness:
    outcome = the_one_face(faces)[0]
    if outcome != "ok" or score is None:
        return Liveness("no_face" if outcome == "ok" else outcome, faces=faces)
    return Liveness("scored", score >= LIVE_SCORE, round(score, 4), faces)


def wide_crop(image: Pixels, face: Face) -> Pixels:
    """A square 2.7 times as high as the face, made smaller and moved until it lies in the image."""
    height, width = image.shape[:2]
    side = min(face.side_px * CROP_SCALE, width - 1, height - 1)
    x, y = face.centre
    left = int(min(max(x - side / 2, 0), width - 1 - side))
    top = int(min(max(y - side / 2, 0), height - 1 - side))
    crop = image[top : top + int(side) + 1, left : left + int(side) + 1]
    square: Pixels = cv2.resize(crop, (CROP_SIDE, CROP_SIDE))
    return square


def softmax(logits: Floats) -> Floats:
    """(n, classes) -> shares that add up to 1 in each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares
