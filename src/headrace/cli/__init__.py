"""The command `headrace`. One file per noun; what is heavy is imported when it is needed."""

import time

#: When this process began, near enough: before anything of ours was imported.
BEGAN = time.perf_counter()

from headrace.cli.face import app, main  # noqa: E402

__all__ = ["BEGAN", "app", "main"]
