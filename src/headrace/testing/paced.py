"""The autoscale role on a clock that runs faster, as a process of its own: a day in 24 minutes.

    HEADRACE_AUTOSCALE__MODE=act python -m headrace.testing.paced FILE SPEED SINCE BEGINS

All times of the policy are in the fast clock's: of a call that takes 40 ms, at a speed of 60, the
`service_s` is 2.4. Broker, database and orchestrator are those of the settings and the environment.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from headrace.autoscale.pace import Pace
from headrace.autoscale.role import Autoscale
from headrace.lifecycle import Stop, die_with_parent
from headrace.roles import broker_of, orchestrator_of
from headrace.settings import Settings, load
from headrace.store.door import StoreDoor
from headrace.telemetry import logs


async def run(settings: Settings, pace: Pace) -> None:
    stop = Stop()
    orchestrator, broker = orchestrator_of(settings), broker_of(settings, "autoscale")
    await broker.open()
    if orchestrator:
        await orchestrator.open()
    door = StoreDoor(settings)
    autoscale = Autoscale(settings, broker, door, orchestrator, lambda _: None, pace)
    await autoscale.open()
    await stop.wait()
    await autoscale.drain()
    if orchestrator:
        await orchestrator.close()
    await broker.close()
    await door.close()


if __name__ == "__main__":
    die_with_parent(signal.SIGTERM)
    logs.set_up("autoscale")
    asyncio.run(run(load(sys.argv[1]), Pace(*(float(each) for each in sys.argv[2:5]))))
