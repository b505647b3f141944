"""Make the inputs of W3 and W4 once: mlp.onnx, photo.jpg and expected.json.

    pip install numpy onnx onnxruntime pillow && python benchmarks/data/make.py

The results are committed, so that every peer gets the same bytes; nobody needs to run this again.
"""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from PIL import Image, ImageFilter

HERE = Path(__file__).parent
SEED = 20261122
ROWS = 256  # more than wrk has connections: no two calls in flight are the same
LAYERS = (64, 128, 8)
PHOTO_SIZE = (800, 600)
PHOTO_BYTES = 60_000


def make_mlp(rng: np.random.Generator) -> onnx.ModelProto:
    """A float32 MLP, 64 -> 128 -> relu -> 8, with a free batch axis."""
    nodes, weights, flow = [], [], "rows"
    for step, (wide, narrow) in enumerate(itertools.pairwise(LAYERS)):
        matrix = rng.normal(0, wide**-0.5, (wide, narrow)).astype(np.float32)
        weights.append(numpy_helper.from_array(matrix, f"w{step}"))
        weights.append(numpy_helper.from_array(np.zeros(narrow, np.float32), f"b{step}"))
        last = step == len(LAYERS) - 2
        out = "scores" if last else f"h{step}"
        nodes.append(helper.make_node("Gemm", [flow, f"w{step}", f"b{step}"], [out]))
        if not last:
            nodes.append(helper.make_node("Relu", [out], [f"r{step}"]))
            flow = f"r{step}"
    rows = helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", LAYERS[0]])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", LAYERS[-1]])
    graph = helper.make_graph(nodes, "mlp", [rows], [scores], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def make_photo(rng: np.random.Generator) -> bytes:
    """A textured RGB picture, JPEG-coded at the quality that comes nearest to 60 KB."""
    width, height = PHOTO_SIZE
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    texture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.5))
    y, x = np.mgrid[0:height, 0:width]
    waves = 90 + 60 * np.sin(x / 37) * np.cos(y / 53)
    pixels = waves[..., None] + (np.asarray(texture, np.float32) - 128) * 1.2 + (20, 0, 35)
    picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    codings = [_jpeg(picture, quality) for quality in range(20, 95)]
    return min(codings, key=lambda coding: abs(len(coding) - PHOTO_BYTES))


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


def main() -> None:
    rng = np.random.default_rng(SEED)
    (HERE / "mlp.onnx").write_bytes(make_mlp(rng).SerializeToString())
    photo = make_photo(rng)
    (HERE / "photo.jpg").write_bytes(photo)
    rows = rng.normal(0, 1, (ROWS, LAYERS[0])).round(4)
    session = onnxruntime.InferenceSession(str(HERE / "mlp.onnx"))
    scores = session.run(None, {"rows": rows.astype(np.float32)})[0]
    mean = float(np.asarray(Image.open(io.BytesIO(photo)).convert("RGB")).mean())
    known = {"rows": rows.tolist(), "scores": scores.round(5).tolist(), "mean": round(mean, 4)}
    (HERE / "expected.json").write_text(json.dumps(known) + "\n")


if __name__ == "__main__":
    main()
