"""An ONNX graph with one input, opened for one slot: one thread, on the slot's device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[Any]  # uint8: OpenCV types what it returns as any number


class Graph:
    """Runs batches: `run(x)`, x of shape (batch, ...), gives one array per output of the graph."""

    def __init__(self, path: Path, device: str = "cpu", threads: int = 1) -> None:
        import onnxruntime  # type: ignore[import-untyped]  # 0.1 s and 60 MB: paid by the model process, not by who reads the types

        options = onnxruntime.SessionOptions()
        # One thread a slot: slots, not threads, fill the machine, and the time of a call stays the
        # same when the neighbours work. Idle threads must not spin: the cores are shared.
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=_providers(device)
        )
        self._input: str = self._session.get_inputs()[0].name
        self.metadata: dict[str, str] = self._session.get_modelmeta().custom_metadata_map

    def run(self, batch: Floats) -> list[Floats]:
        outputs: list[Floats] = self._session.run(None, {self._input: batch})
        return outputs


def _providers(device: str) -> list[str | tuple[str, dict[str, int]]]:
    """`cpu` or `cuda:N` as onnxruntime's providers; what CUDA cannot run falls to the CPU."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]


def planes(images: list[Pixels], mean: float, scale: float) -> Floats:
    """Images of one size (h, w, channels) -> batch (n, channels, h, w), (pixel - mean) / scale."""
    stacked = np.stack(images).astype(np.float32)
    return np.ascontiguousarray(((stacked - mean) / scale).transpose(0, 3, 1, 2))
