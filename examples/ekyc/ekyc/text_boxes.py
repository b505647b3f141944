"""Where the text is: one run of the detector, and the boxes around what it marked.

page -> smaller -> graph -> how likely each pixel is text -> islands -> boxes in pixels of the page
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from .graphs import Floats, Graph, Pixels, planes

Box = npt.NDArray[np.float32]  # (4, 2): corners from the top left, clockwise, as the text runs

STRIDE = 32  # the graph halves its input five times
MIN_PIXEL = 0.3  # a pixel this likely to be text belongs to an island
MIN_ISLAND = 0.5  # mean over an island below which it is no text
GROW = 1.6  # islands are the shrunken core of a line: area x GROW / perimeter is added around
MIN_SIDE = 3  # px in the graph's output; smaller islands are dots


class TextFinder:
    """PP-OCRv6's small detector. `side`: the longer side of its input, px; time is its square's."""

    def __init__(self, path: Path, device: str, side: int) -> None:
        cv2.setNumThreads(1)  # as the graphs: slots, not threads, fill the machine
        self._graph = Graph(path, device)
        self._side = side

    def find(self, page: Pixels) -> list[Box]:
        """Boxes of the text lines of an RGB page, from top to bottom."""
        height, width = page.shape[:2]
        scale = min(1.0, self._side / max(height, width))
        size = (_rounded(width * scale), _rounded(height * scale))
        small = cv2.resize(page, size, interpolation=cv2.INTER_AREA)
        likely = self._graph.run(planes([small[..., ::-1]], mean=127.5, scale=127.5))[0][0, 0]
        stretch = np.array([width / size[0], height / size[1]], np.float32)
        boxes = [box * stretch for box in islands(likely)]
        return sorted(boxes, key=lambda box: float(box[:, 1].mean()))


def _rounded(length: float) -> int:
    return max(STRIDE, round(length / STRIDE) * STRIDE)


def islands(likely: Floats) -> list[Box]:
    """Boxes around the islands of text pixels of one map (h, w), in its pixels."""
    mask = cv2.dilate((likely > MIN_PIXEL).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    boxes = []
    for contour in contours:
        centre, (a, b), angle = cv2.minAreaRect(contour)
        if min(a, b) < MIN_SIDE or _mean_inside(likely, contour) < MIN_ISLAND:
            continue
        grown = a * b * GROW / (2 * (a + b)) * 2
        points = cv2.boxPoints((centre, (a + grown, b + grown), angle))
        boxes.append(_corners(points.astype(np.float32)))
    return boxes


def _mean_inside(likely: Floats, contour: Pixels) -> float:
    x, y, w, h = cv2.boundingRect(contour)
    mask = np.zeros((h, w), np.uint8)
    cv2.fillPoly(mask, [contour - np.array([x, y])], 1)
    return float(cv2.mean(likely[y : y + h, x : x + w], mask)[0])


def _corners(points: Box) -> Box:
    """Four corners in the order top left, top right, bottom right, bottom left."""
    by_sum, by_difference = points.sum(axis=1), points[:, 1] - points[:, 0]
    order = [by_sum.argmin(), by_difference.argmin(), by_sum.argmax(), by_difference.argmax()]
    return np.ascontiguousarray(points[order], np.float32)


def cut(page: Pixels, box: Box, height: int, squeeze: float) -> Pixels:
    """The line in the box, straightened, `height` px high; its width is multiplied by `squeeze`."""
    top, right, bottom, left = (
        float(side) for side in np.linalg.norm(box - np.roll(box, -1, 0), axis=1)
    )
    across, down = max(top, bottom), max(left, right, 1.0)
    width = max(round(across / down * height * squeeze), height // 2)
    target = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    line: Pixels = cv2.warpPerspective(
        page,
        cv2.getPerspectiveTransform(box, target),
        (width, height),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return line
