"""Is all there? The model is loaded and its golden call answered from what will lie in the image,
by a Python that sees nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from headrace.packaging.unbuildable import Unbuildable

LIMIT_S = 600.0
_RUN = """
import sys
sys.dont_write_bytecode = True
sys.path[:0] = sys.argv[4:]
from headrace.packaging.proof import child
child(*sys.argv[1:4])
"""


class Proof(msgspec.Struct, frozen=True):
    #: It has golden calls, the class's or the version's, which came out right.
    golden: bool
    load_ms: float


def prove(target: str, code: Path, files: Path, paths: list[Path]) -> Proof:
    """`paths`: the image's modules. Raises Unbuildable."""
    arguments = [target, str(code), str(files), *map(str, paths)]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _RUN, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_S,
            cwd=code,
        )
    except subprocess.TimeoutExpired:
        raise Unbuildable(f"{target} did not load within {LIMIT_S:.0f} s") from None
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it just ended"]
        raise Unbuildable(f"what is packed does not run: {said[-1]}")
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Proof)


def child(target: str, code: str, files: str) -> None:
    import time

    import headrace.registry.choose
    import headrace.roles
    import headrace.store.open  # noqa: F401 - what a worker imports later
    from headrace.registry.version import MANIFEST, read_manifest
    from headrace.worker import golden
    from headrace.worker.child import Runner
    from headrace.worker.frames import Start

    began = time.perf_counter()
    manifest = read_manifest((Path(files) / MANIFEST).read_bytes())
    own = manifest.format == "code"
    runner = Runner(Start(target, code, files, "cpu", 0, 0, own, manifest.golden))
    load_ms = (time.perf_counter() - began) * 1000
    proof = Proof(golden.prove(runner), load_ms)
    sys.stdout.write(msgspec.json.encode(proof).decode() + "\n")
