"""Identity documents: one photo of a page in, its machine readable zone and printed fields out.

pages -> find text (a run a page) -> read lines (all pages' together) -> MRZ, visual zone
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

import headrace

from .graphs import Pixels
from .mrz import Mrz
from .mrz_reading import LOOK_ALIKES, Text, read_mrz
from .text_boxes import Box, TextFinder, cut
from .text_lines import LINE_HEIGHT, LineReader, Reading
from .visual_zone import VisualZone, agreement, read_visual_zone, settle_number

# What they cost and what they lose is measured by measure_ocr.py; the table is in the README.
DETECT_SIDE_PX = 640
LINE_SQUEEZE = 0.8
BUCKET_PX = 16
LINES_PER_RUN = 1
MIN_CONFIDENCE = 0.5

Outcome = Literal["read", "no_mrz", "no_text"]


@dataclass
class TextLine:
    """A line of text; `box` holds its corners in px of the image, clockwise from the top left."""

    text: str
    confidence: float
    box: list[list[int]]


@dataclass
class Document:
    """The answer. `mrz.valid`: well formed, not genuine; `agreement` compares the two zones."""

    outcome: Outcome
    mrz: Mrz | None = None
    visual: VisualZone = field(default_factory=VisualZone)
    agreement: dict[str, bool] = field(default_factory=dict)
    lines: list[TextLine] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)


@dataclass
class Page:
    """One image on its way: its pixels, the boxes found, the time that finding took."""

    image: Pixels
    boxes: list[Box]
    detect_ms: float


class IdentityDocument(headrace.Model):
    """Reads a passport's data page or an identity card: machine readable zone and printed fields.

    The page should be upright within 10 degrees and at least 900 px wide. Without a machine
    readable zone the outcome is `no_mrz`, and the printed fields are all there is.
    """

    name = "document"
    version = "1"
    batching = headrace.Batching(max_size=4, max_wait_ms=0)

    def load(self, files: Path) -> None:
        self.files = files
        models = packaged_models()
        self.finder = TextFinder(models / "PP-OCRv6_det_small.onnx", self.device, DETECT_SIDE_PX)
        self.reader = LineReader(
            models / "PP-OCRv6_rec_small.onnx", self.device, BUCKET_PX, LINES_PER_RUN, LOOK_ALIKES
        )
        blank = np.full((DETECT_SIDE_PX, DETECT_SIDE_PX, 3), 255, np.uint8)
        self.finder.find(blank)  # the first run of a graph plans its memory: not on a caller's time
        self.reader.read([blank[:LINE_HEIGHT]])

    def golden(self) -> tuple[headrace.Image, Callable[[Document], bool]]:
        page = headrace.Image((self.files / "td3-clean.jpg").read_bytes())
        return page, lambda document: document.mrz is not None and document.mrz.valid

    def predict(self, images: list[headrace.Image]) -> list[Document]:
        pages = [self._find(image.array()) for image in images]
        readings, read_ms = self._read(pages)
        return [
            _document(page, lines, read_ms) for page, lines in zip(pages, readings, strict=True)
        ]

    def _find(self, image: Pixels) -> Page:
        started = time.perf_counter()
        boxes = self.finder.find(image)
        return Page(image, boxes, _ms_since(started))

    def _read(self, pages: list[Page]) -> tuple[list[list[Reading]], float]:
        """The readings of each page's lines; the lines of all pages share the runs."""
        started = time.perf_counter()
        lines = [cut(p.image, box, LINE_HEIGHT, LINE_SQUEEZE) for p in pages for box in p.boxes]
        readings = iter(self.reader.read(lines))
        return [[next(readings) for _ in page.boxes] for page in pages], _ms_since(started)


def packaged_models() -> Path:
    """The folder of graphs inside the rapidocr package, found without running its code."""
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            "The document model reads with the PP-OCRv6 graphs inside the package rapidocr, which "
            "is not installed: pip install -r examples/ekyc/requirements.in"
        )
    return Path(spec.submodule_search_locations[0]) / "models"


def _document(page: Page, readings: list[Reading], read_ms: float) -> Document:
    started = time.perf_counter()
    document = document_of(list(zip(readings, page.boxes, strict=True)))
    document.timings_ms = {
        "detect": page.detect_ms,
        "recognise": read_ms,  # of the whole batch: its lines are read together
        "parse": _ms_since(started),
    }
    return document


def document_of(lines: list[tuple[Reading, Box]]) -> Document:
    """What the lines of one page say, from top to bottom, read by whatever OCR."""
    kept = [(reading, box) for reading, box in lines if reading.confidence >= MIN_CONFIDENCE]
    mrz = read_mrz([Text(reading.text, reading.costs) for reading, _ in kept])
    visual = read_visual_zone([(reading.text, box) for reading, box in kept])
    if mrz:
        settle_number(visual, mrz)
    return Document(
        outcome="read" if mrz else "no_mrz" if kept else "no_text",
        mrz=mrz,
        visual=visual,
        agreement=agreement(visual, mrz) if mrz else {},
        lines=[TextLine(r.text, r.confidence, np.rint(b).astype(int).tolist()) for r, b in kept],
    )


def _ms_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1e3, 1)
