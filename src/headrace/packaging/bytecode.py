"""Modules compiled beforehand: an image is read-only, and would compile them at every start.

The bytecode says that it fits its source without a look at it (PEP 552, unchecked): times of files
differ from tool to tool, and nobody edits what lies in an image.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_COMPILE = """
import compileall, py_compile, re, sys
compileall.compile_dir(sys.argv[1], quiet=2, stripdir=sys.argv[1], prependdir=sys.argv[2],
    rx=re.compile(r"/tests?/"), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
"""


def compile_all(folder: Path, place: str) -> None:
    """All modules below it, for an image in which it is at `place`; tests are left out. In a
    process of its own: what was compiled before decides on single bytes of what comes after.
    Sources that are none (templates) stay as they are."""
    subprocess.run(
        [sys.executable, "-I", "-S", "-c", _COMPILE, str(folder), place],
        check=True,
        env={"PYTHONHASHSEED": "0"},
        stdout=subprocess.DEVNULL,
    )
