"""The limits: each workload's model alone, in one process, with no server around it.

run.py runs this in the fastapi peer's venv (numpy, onnxruntime, Pillow, msgspec) once a round:
    python bench/limits.py SECONDS WORKLOAD...    -> one JSON object, calls/s by row
"""

import json
import sys
import time
from collections.abc import Callable

import msgspec
import numpy
import work

from bench.workloads import workload

BATCH = 64


def rate(run: Callable[[], object], items: int, seconds: float) -> float:
    """Items a second, over at least `seconds`, after one call to warm up."""
    run()
    began, turns = time.perf_counter(), 0
    while (took := time.perf_counter() - began) < seconds:
        run()
        turns += 1
    return turns * items / took


def sleep_loop(seconds: float) -> dict[str, float]:
    most = work.BATCH_MAX["w2"]
    rows = [case.value for case in workload("w2").cases][:most]
    return {"w2 batch loop in one process": rate(lambda: work.slow_sums(rows), most, seconds)}


def raw_onnx(seconds: float) -> dict[str, float]:
    mlp = work.Mlp()
    rows = [case.value for case in workload("w3").cases][:BATCH]
    array = numpy.asarray(rows, numpy.float32)
    bodies = [json.dumps(row).encode() for row in rows]
    decode = msgspec.json.Decoder(list[float]).decode
    encode = msgspec.json.Encoder().encode

    def with_json() -> list[bytes]:
        return [encode(scores) for scores in mlp.lists([decode(body) for body in bodies])]

    return {
        "w3 onnxruntime alone, batch 64": rate(lambda: mlp.array(array), BATCH, seconds),
        "w3 onnxruntime with JSON in and out": rate(with_json, BATCH, seconds),
    }


def raw_decode(seconds: float) -> dict[str, float]:
    photo = workload("w4").cases[0].value
    return {"w4 Pillow decode in one process": rate(lambda: work.mean_of_jpeg(photo), 1, seconds)}


LIMITS = {"w2": sleep_loop, "w3": raw_onnx, "w4": raw_decode}

if __name__ == "__main__":
    rows: dict[str, float] = {}
    for name in sys.argv[2:]:
        if name in LIMITS:
            rows |= LIMITS[name](float(sys.argv[1]))
    print(json.dumps(rows))
