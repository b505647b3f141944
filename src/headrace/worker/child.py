"""The model process: load, warm, prove, then predict batch after batch until the worker is gone.

Started as `python -m headrace.worker.child FD PARENT`. Single-threaded and blocking: while
`predict` runs, nothing else does. Whatever the model does to this process (hang, crash, leak), the
worker that started it stays whole.
"""

from __future__ import annotations

import gc
import importlib
import signal
import socket
import struct
import sys
import time
import traceback
from io import BufferedReader
from pathlib import Path
from typing import Any

from headrace.errors import ModelFailed, Problem, Refusal
from headrace.failpoints import failpoint
from headrace.jobs import Form
from headrace.lifecycle import die_with_parent
from headrace.model import Model
from headrace.signature import Signature, SignatureError, card
from headrace.worker.frames import Broken, Done, Ready, Run, Start, frame, read_to_child
from headrace.worker.golden import GoldenFailed, prove, warm


class ModelNotFound(Exception):
    """`class = "module:Class"` names nothing that can be imported."""


def find(target: str, *folders: str) -> type[Model]:
    """ "module:Class", looked up in the last folder first. Raises ModelNotFound."""
    for folder in folders:
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
    module_name, _, class_name = target.partition(":")
    if not class_name:
        raise ModelNotFound(f'class = {target!r}: expected "module:Class"')
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.split(".")[0] == error.name.split(".")[0]:
            raise ModelNotFound(
                f"class = {target!r}: no module {error.name!r} in {folders[0]}"
            ) from None
        raise ModelNotFound(
            f"class = {target!r}: the module needs {error.name!r}, which is not installed"
        ) from error
    found = getattr(module, class_name, None)
    if not (isinstance(found, type) and issubclass(found, Model)):
        raise ModelNotFound(f"class = {target!r}: {module_name} has no headrace.Model {class_name}")
    return found


class Runner:
    """One loaded model and the way a batch goes through it."""

    def __init__(self, start: Start) -> None:
        kind = find(start.model, start.folder, start.files if start.code else "")
        self.start = start
        self.signature = Signature(kind)
        self.card = card(kind, self.signature)
        self.model = kind()
        self.model.device, self.model.slot = start.device, start.slot
        self.model.load(Path(start.files))

    def run(self, items: list[tuple[Form, bytes]]) -> list[bytes | Problem]:
        """Decode each, predict together, encode each: one outcome an item, whatever happens."""
        outcomes: list[bytes | Problem] = [b""] * len(items)
        places, inputs = [], []
        for place, (_, body) in enumerate(items):
            try:
                inputs.append(self.signature.decode(body))
                places.append(place)
            except Refusal as refusal:
                outcomes[place] = refusal.problem()
        for place, result in zip(places, self.predict(inputs), strict=True):
            outcomes[place] = self._outcome(result, items[place][0])
        return outcomes

    def predict(self, inputs: list[Any]) -> list[Any]:
        """One result or exception an input: a batch that raises is halved until it is one item."""
        if not inputs:
            return []
        try:
            return self._predict(inputs)
        except Exception as error:
            if len(inputs) == 1:
                return [self._alone(inputs, error)]
        half = len(inputs) // 2
        return self.predict(inputs[:half]) + self.predict(inputs[half:])

    def _alone(self, inputs: list[Any], error: Exception) -> Any:
        if isinstance(error, Refusal):
            return error
        try:  # once more: what failed may have been the company, or the moment
            return self._predict(inputs)[0]
        except Exception as again:
            traceback.print_exc()
            return again

    def _predict(self, inputs: list[Any]) -> list[Any]:
        results = self.model.predict(inputs)
        if not isinstance(results, list) or len(results) != len(inputs):
            got = len(results) if hasattr(results, "__len__") else type(results).__name__
            raise TypeError(f"predict was given {len(inputs)} items and returned {got}")
        return results

    def _outcome(self, result: Any, form: Form) -> bytes | Problem:
        if isinstance(result, Refusal):
            return result.problem()
        if isinstance(result, Exception):
            return ModelFailed(f"the model raised {type(result).__name__}").problem()
        try:
            return self.signature.encode(result, form)
        except Exception:
            traceback.print_exc()
            return ModelFailed("the model's result cannot be written").problem()


def main(fd: int, parent: int) -> None:
    die_with_parent(parent=parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    with socket.socket(fileno=fd) as sock, sock.makefile("rb", 1 << 18) as source:
        assert isinstance(source, BufferedReader)
        serve(sock, source)


def serve(sock: socket.socket, source: BufferedReader) -> None:
    start = _read(source)
    if not isinstance(start, Start):
        return
    runner = _make_ready(start, sock)
    while runner and (message := _read(source)) is not None:
        if isinstance(message, Run):
            failpoint("child.executing")
            sock.sendall(frame(Done(runner.run(message.items))))


def _make_ready(start: Start, sock: socket.socket) -> Runner | None:
    began = time.perf_counter()
    try:
        runner = Runner(start)
        loaded = time.perf_counter()
        golden = prove(runner)
        warmed = warm(runner, start.max_size or runner.card.max_size)
    except (ModelNotFound, SignatureError, GoldenFailed) as error:
        sock.sendall(frame(Broken(str(error))))
        return None
    except Exception as error:
        traceback.print_exc()
        sock.sendall(frame(Broken(f"load failed: {type(error).__name__}: {error}")))
        return None
    gc.collect()
    gc.freeze()  # what was loaded stays: do not walk it again at every collection
    sock.sendall(frame(Ready(runner.card, (loaded - began) * 1000, golden, warmed)))
    return runner


def _read(source: BufferedReader) -> Start | Run | None:
    """The next message, or None where the worker is gone."""
    head = source.read(4)
    if len(head) < 4:
        return None
    body = source.read(struct.unpack("<I", head)[0])
    message: Start | Run = read_to_child(body)
    return message


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
