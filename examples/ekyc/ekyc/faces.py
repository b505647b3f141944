"""Where the faces are: one detector run over a batch of images.

images -> 320 x 240 -> graph -> 4,420 boxes with a confidence each -> the best of each heap -> Face
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from .graphs import Floats, Graph, Pixels, planes

DETECTOR_SIZE = (320, 240)  # width, height: fixed in the graph, images are stretched to it
MIN_CONFIDENCE = 0.8
MAX_OVERLAP = 0.3  # intersection over union above which two boxes are one face
MIN_FACE_PX = 60  # below it, the embedding of the 112 px crop is mostly interpolation

Found = Literal["ok", "no_face", "several_faces", "face_too_small"]


@dataclass(frozen=True)
class Face:
    """A face's box in pixels of the image (after EXIF rotation) and the detector's confidence."""

    left: int
    top: int
    right: int
    bottom: int
    confidence: float

    @property
    def side_px(self) -> int:
        """The height of the box, which is what the later crops are measured by."""
        return self.bottom - self.top

    @property
    def centre(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2


class FaceFinder:
    """The detector `fr_detect.onnx`."""

    def __init__(self, files: Path, device: str) -> None:
        cv2.setNumThreads(1)  # as the graphs: slots, not threads, fill the machine
        self._graph = Graph(files / "fr_detect.onnx", device)

    def find(self, images: list[Pixels]) -> list[list[Face]]:
        """The faces of each RGB image (h, w, 3), the largest first."""
        if not images:
            return []
        small = [cv2.resize(i, DETECTOR_SIZE, interpolation=cv2.INTER_AREA) for i in images]
        confidences, boxes = self._graph.run(planes(small, mean=127, scale=128))
        return [
            _faces(boxes[n], confidences[n, :, 1], image.shape[1], image.shape[0])
            for n, image in enumerate(images)
        ]


def the_one_face(faces: list[Face]) -> tuple[Found, Face | None]:
    """What a check of one person says of the faces of an image: an outcome, the face if usable.

    Faces under 60 px are ignored beside a larger one: they are passers-by and wall pictures.
    """
    usable = [face for face in faces if face.side_px >= MIN_FACE_PX]
    if len(usable) == 1:
        return "ok", usable[0]
    if usable:
        return "several_faces", None
    return ("face_too_small" if faces else "no_face"), None


def _faces(boxes: Floats, confidences: Floats, width: int, height: int) -> list[Face]:
    """Boxes (n, 4) in shares of the image -> faces in pixels; heaps thinned to their best."""
    sure = confidences > MIN_CONFIDENCE
    boxes, confidences = boxes[sure], confidences[sure]
    kept = _thin(boxes, np.argsort(-confidences))
    edges = np.clip(boxes[kept], 0, 1) * np.array([width, height, width, height])
    found = [
        Face(left, top, right, bottom, round(float(c), 4))
        for (left, top, right, bottom), c in zip(
            np.rint(edges).astype(int).tolist(), confidences[kept], strict=True
        )
    ]
    return sorted(found, key=lambda face: -face.side_px)


def _thin(boxes: Floats, order: np.ndarray) -> list[int]:
    """Non-maximum suppression: keeps, in `order`, the boxes that overlap none kept so far."""
    kept: list[int] = []
    for candidate in order:
        if all(_overlap(boxes[candidate], boxes[k]) <= MAX_OVERLAP for k in kept):
            kept.append(int(candidate))
    return kept


def _overlap(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = float(width * height)
    areas = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]))
    return shared / (areas - shared)
