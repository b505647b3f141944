"""`make run`: fetches the models, starts the eKYC house, calls it on real images, stops it.

fetch -> headrace up, until it is ready -> demo -> Ctrl-C to the house
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import demo  # noqa: E402  (the example is a folder, not an installed package)
import fetch  # noqa: E402

STOP_LIMIT_S = 60


def main() -> int:
    if failed := fetch.main():
        return failed
    print("run: starting the house: a gateway, a broker, three models ...", flush=True)
    command = [str(Path(sys.executable).with_name("headrace")), "up", "--json"]
    with subprocess.Popen(
        [*command, "-f", str(HERE / "headrace.toml")], stdout=subprocess.PIPE, text=True
    ) as house:
        try:
            return call(house)
        finally:
            house.send_signal(signal.SIGINT)
            house.wait(STOP_LIMIT_S)


def call(house: subprocess.Popen[str]) -> int:
    """Waits for the one line that `headrace up --json` prints when all models are ready."""
    assert house.stdout is not None
    if not house.stdout.readline():
        print(f"run: the house ended with {house.wait()}; what it said stands above")
        return 1
    return demo.main()


if __name__ == "__main__":
    sys.exit(main())
