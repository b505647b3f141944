"""Who a face is: landmarks, alignment, a vector of 512 numbers; a batch of faces in one run.

face -> grey 64 x 64 -> 68 landmarks -> 5 points -> similarity transform -> 112 x 112 -> vector
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .faces import Face
from .graphs import Floats, Graph, Pixels, planes

LANDMARK_SIDE = 64
CROP_SIDE = 112
Points = npt.NDArray[np.float64]

REFERENCE: Points = np.array(
    # eyes, tip of the nose, corners of the mouth in a 112 x 112 crop: the usual ArcFace layout
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)


class Embedder:
    """The landmark graph `fr_landmark.onnx` and the embedding graph `fr_feature.onnx`."""

    def __init__(self, files: Path, device: str) -> None:
        self._landmarks = Graph(files / "fr_landmark.onnx", device)
        self._features = Graph(files / "fr_feature.onnx", device)

    def embed(self, faces: list[tuple[Pixels, Face]]) -> Floats:
        """One unit vector (n, 512) per face; the dot product of two is their cosine."""
        if not faces:
            return np.zeros((0, 512), np.float32)
        crops = [
            aligned(image, points)
            for (image, _), points in zip(faces, self._five_points(faces), strict=True)
        ]
        bgr = [np.ascontiguousarray(crop[..., ::-1]) for crop in crops]  # the graph was trained so
        vectors = self._features.run(planes(bgr, mean=127, scale=128))[0]
        unit: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit

    def _five_points(self, faces: list[tuple[Pixels, Face]]) -> list[Points]:
        grey = [grey_square(image, face)[..., None] for image, face in faces]
        shares = self._landmarks.run(planes(grey, mean=0, scale=256))[0].reshape(-1, 68, 2)
        return [
            five_points(share * face.side_px + np.array(face.centre) - face.side_px / 2)
            for share, (_, face) in zip(shares, faces, strict=True)
        ]


def grey_square(image: Pixels, face: Face) -> Pixels:
    """The square around the face, as high as its box; beyond the image, its edge goes on."""
    scale = LANDMARK_SIDE / face.side_px
    x, y = face.centre
    half = LANDMARK_SIDE / 2
    move = np.array([[scale, 0, half - x * scale], [0, scale, half - y * scale]])
    square: Pixels = cv2.warpAffine(
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY),
        move,
        (LANDMARK_SIDE, LANDMARK_SIDE),
        borderMode=cv2.BORDER_REPLICATE,
    )
    return square


def five_points(landmarks: Points) -> Points:
    """68 landmarks (iBUG order) -> middle of each eye, tip of the nose, corners of the mouth."""
    return np.array(
        [
            landmarks[[37, 38, 40, 41]].mean(axis=0),
            landmarks[[43, 44, 46, 47]].mean(axis=0),
            landmarks[30],
            landmarks[[48, 60]].mean(axis=0),
            landmarks[[54, 64]].mean(axis=0),
        ]
    )


def aligned(image: Pixels, points: Points) -> Pixels:
    """The face turned, scaled and moved, never skewed: its five points meet the reference."""
    crop: Pixels = cv2.warpAffine(image, similarity(points, REFERENCE), (CROP_SIDE, CROP_SIDE))
    return crop


def similarity(source: Points, target: Points) -> Points:
    """The (2, 3) matrix of the similarity transform of least squared error (Umeyama, 1991)."""
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    a, b = source - source_mean, target - target_mean
    u, strengths, v = np.linalg.svd(b.T @ a)
    mirror = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(mirror) @ v
    scale = (strengths * mirror).sum() / (a**2).sum()
    shift = target_mean - scale * rotation @ source_mean
    matrix: Points = np.hstack([scale * rotation, shift[:, None]])
    return matrix
