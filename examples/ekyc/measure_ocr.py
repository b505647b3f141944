"""Measures OCR of the specimens on one core: time and lost fields of each way to do it.

    taskset -c 1 python examples/ekyc/measure_ocr.py          the README's table
    taskset -c 1 python examples/ekyc/measure_ocr.py --worn   lost fields, on worn copies too

The ways run in turn, page by page, so that a busy moment of the machine hits all of them alike. All
run on one thread, so the CPU time is what a page takes on a core that has nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from ekyc.document import Document, document_of, packaged_models  # noqa: E402
from ekyc.graphs import Pixels  # noqa: E402
from ekyc.mrz_reading import LOOK_ALIKES  # noqa: E402
from ekyc.text_boxes import TextFinder, cut  # noqa: E402
from ekyc.text_lines import LINE_HEIGHT, LineReader, Reading  # noqa: E402

SPECIMENS = HERE / "specimens"
TIMED = ("td3-clean.jpg", "td3-turned.jpg", "td1-card.jpg")  # 1250 to 1340 px, 21 to 27 lines
SMALL = {"Global.use_cls": False, "Det.limit_type": "max", "Det.limit_side_len": 640}
Read = Callable[[Pixels], Document]


@dataclass
class Way:
    """One way to read a page, and what was measured of it."""

    title: str
    read: Read
    cpu_s: list[float] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=5, help="timed runs of each way on each page")
    options.add_argument("--worn", action="store_true", help="count lost fields on worn copies")
    options.add_argument("--only", default="", help="only ways whose title has this text")
    chosen = options.parse_args()
    ways = [way for way in all_ways() if chosen.only in way.title]
    truth = json.loads((SPECIMENS / "truth.json").read_text())
    pages = {name: np.asarray(Image.open(SPECIMENS / name).convert("RGB")) for name in truth}
    if chosen.worn:
        pages = {k: v for name in truth for k, v in worn(name, pages[name])}
    count_lost(ways, truth, pages)  # also the first run of each graph, which is slower
    if not chosen.worn:
        measure(ways, [pages[name] for name in TIMED], chosen.runs)
    fields = sum(len(t["mrz"]) + len(t["visual"]) for t in truth.values())
    report(ways, fields * len(pages) // len(truth))


def count_lost(ways: list[Way], truth: dict[str, Any], pages: dict[str, Pixels]) -> None:
    for name, page in pages.items():
        for way in ways:
            document = way.read(page)
            way.lost |= {f"{name}: {f}" for f in lost_fields(document, truth[name.split("#")[0]])}


def lost_fields(document: Document, truth: dict[str, Any]) -> Iterator[str]:
    for zone, read in (("mrz", document.mrz), ("visual", document.visual)):
        for name, value in truth[zone].items():
            if getattr(read, name, None) != value:
                yield f"{zone}.{name}"


def measure(ways: list[Way], pages: list[Pixels], runs: int) -> None:
    """Reads each page `runs` times in each way."""
    for number in range(runs):
        for page in pages:
            for way in ways:
                cpu_s, wall_s = time.process_time(), time.perf_counter()
                way.read(page)
                way.cpu_s.append(time.process_time() - cpu_s)
                way.wall_s.append(time.perf_counter() - wall_s)
        print(f"run {number + 1} of {runs}", file=sys.stderr)


def report(ways: list[Way], fields: int) -> None:
    print(f"| way | CPU s a page | wall s | lost of {fields} fields |\n|---|---|---|---|")
    for way in ways:
        timed = (f"{statistics.median(s):.2f}" if s else "-" for s in (way.cpu_s, way.wall_s))
        print(f"| {way.title} | {' | '.join(timed)} | {len(way.lost)} |")
    for way in ways:
        if 0 < len(way.lost) <= 30:
            print(f"\n{way.title}:\n  " + "\n  ".join(sorted(way.lost)))


def worn(name: str, page: Pixels) -> Iterator[tuple[str, Pixels]]:
    """The page, and the page turned, blurred, shrunk, and squeezed by JPEG once more."""
    height, width = page.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), 2.5, 0.93)
    yield name, page
    yield f"{name}#turned", cv2.warpAffine(page, turn, (width, height), borderValue=(112, 96, 82))
    yield f"{name}#blurred", cv2.GaussianBlur(page, (0, 0), 1.2)
    yield f"{name}#shrunk", cv2.resize(page, None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    _, squeezed = cv2.imencode(".jpg", page, [cv2.IMWRITE_JPEG_QUALITY, 35])
    yield f"{name}#jpeg", np.asarray(cv2.imdecode(squeezed, cv2.IMREAD_COLOR))


# -- the ways


def all_ways() -> list[Way]:
    return [
        Way("rapidocr as it comes", rapidocr()),
        Way("rapidocr, no angle classifier, detector 640 px",
            rapidocr(**SMALL)),
        Way("ours: detector 640 px, squeeze 1", ours(640, 1.0, 16, 1)),
        Way("ours: detector 640 px, squeeze 0.8", ours(640, 0.8, 16, 1)),
        Way("ours: detector 640 px, squeeze 0.7", ours(640, 0.7, 16, 1)),
        Way("ours: detector 512 px, squeeze 0.7", ours(512, 0.7, 16, 1)),
        Way("ours: detector 512 px, squeeze 0.7, 64 px buckets of 8 lines", ours(512, 0.7, 64, 8)),
        Way("ours: detector 448 px, squeeze 0.7", ours(448, 0.7, 16, 1)),
        Way("ours: detector 512 px, squeeze 0.7, long lines only (MRZ)", ours(512, 0.7, 16, 1, 12)),
    ]  # fmt: skip


def ours(side: int, squeeze: float, bucket_px: int, most: int, longer_than: float = 0) -> Read:
    """The example's own pipeline; `longer_than` keeps lines of at least that width over height."""
    finder = TextFinder(packaged_models() / "PP-OCRv6_det_small.onnx", "cpu", side)
    reader = LineReader(
        packaged_models() / "PP-OCRv6_rec_small.onnx", "cpu", bucket_px, most, LOOK_ALIKES
    )

    def read(page: Pixels) -> Document:
        found = [(box, cut(page, box, LINE_HEIGHT, squeeze)) for box in finder.find(page)]
        found = [
            (b, line) for b, line in found if line.shape[1] >= longer_than * squeeze * LINE_HEIGHT
        ]
        readings = reader.read([line for _, line in found])
        return document_of(list(zip(readings, (box for box, _ in found), strict=True)))

    return read


def rapidocr(**params: Any) -> Read:
    """The package's own pipeline on one thread, its lines given to our parsers."""
    from rapidocr import RapidOCR

    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    engine = RapidOCR(params={"Global.log_level": "error", **threads, **params})
    cv2.setNumThreads(1)

    def read(page: Pixels) -> Document:
        found: Any = engine(np.ascontiguousarray(page[..., ::-1]))
        boxes = [] if found.boxes is None else [np.array(b, np.float32) for b in found.boxes]
        readings = [
            Reading(t, float(s)) for t, s in zip(found.txts or (), found.scores or (), strict=True)
        ]
        lines = zip(readings, boxes, strict=True)
        return document_of(sorted(lines, key=lambda line: float(line[1][:, 1].mean())))

    return read


if __name__ == "__main__":
    main()
