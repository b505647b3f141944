"""Some roles run another release: two of them in one house, on one schema.

    HEADRACE_FAULTS_OLD=worker:/other/src PYTHONPATH=tests/faults/releases headrace up

Python imports a module of this name when it starts. Each process that does so writes its role into
the file named by HEADRACE_FAULTS_ACTED.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROLES, _, SOURCE = os.environ["HEADRACE_FAULTS_OLD"].partition(":")
_LAUNCHED = "headrace.roles"

if _LAUNCHED in sys.orig_argv[:-1]:
    role = sys.orig_argv[sys.orig_argv.index(_LAUNCHED) + 1]
    if role in ROLES.split(","):
        sys.path.insert(0, SOURCE)
        os.environ["PYTHONPATH"] = SOURCE  # of its model processes, too
        import headrace

        assert headrace.__file__.startswith(SOURCE), headrace.__file__
        with Path(os.environ["HEADRACE_FAULTS_ACTED"]).open("a") as file:
            file.write(f"old-{role}\n")
