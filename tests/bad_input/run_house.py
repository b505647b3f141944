"""`python run_house.py FILE`: a whole house, until SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys

from headrace.house import House
from headrace.settings import load


async def main(path: str) -> None:
    house = House(load(path), path)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    house.open()
    await stop.wait()
    await house.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
