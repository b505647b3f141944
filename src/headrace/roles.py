"""The role start commands: settings -> ports opened -> a role that runs until told to stop.

`headrace gateway`, `worker`, `clerk` and `autoscale run` come here; `headrace up` starts those as
processes.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import structlog

from headrace.broker.port import Broker
from headrace.cache.port import Cache
from headrace.gateway.role import Gateway, address
from headrace.lifecycle import Stop
from headrace.objects.port import Objects
from headrace.orchestrator.port import Orchestrator
from headrace.schemes import BROKERS, CACHES, OBJECTS, ORCHESTRATORS, build
from headrace.settings import Settings, SettingsError
from headrace.store.door import StoreDoor
from headrace.telemetry import logs
from headrace.worker.role import Worker

log = structlog.get_logger("headrace.roles")

WORKER_GRACE_S = 30.0


def broker_of(settings: Settings, name: str) -> Broker:
    broker: Broker = build(
        "broker.url",
        BROKERS,
        settings.broker_url(),
        house=settings.house.name,
        name=name,
        ack_wait_s=settings.broker.ack_wait_s,
        bound=settings.broker.queue_bound,
    )
    return broker


def transit_of(settings: Settings) -> Objects:
    """Where the bodies of sync calls pass."""
    transit: Objects = build("objects.transit", OBJECTS, settings.transit_url())
    return transit


def cache_of(settings: Settings) -> Cache | None:
    """The cache that gateways share, not yet opened; None where each has its own alone."""
    if not settings.cache.url:
        return None
    cache: Cache = build(
        "cache.url",
        CACHES,
        settings.cache.url,
        house=settings.house.name,
        max_bytes=settings.cache.max_bytes,
    )
    return cache


def orchestrator_of(settings: Settings) -> Orchestrator | None:
    """None where nobody is named: decisions are made, and not applied. Raises SettingsError."""
    given = settings.orchestrator
    if not given.url:
        return None
    token_file = str(Path(settings.folder) / given.token_file) if given.token_file else ""
    try:
        orchestrator: Orchestrator = build(
            "orchestrator.url",
            ORCHESTRATORS,
            given.url,
            token_file=token_file,
            timeout_s=given.timeout_s,
        )
    except OSError as error:
        raise SettingsError(f"orchestrator.url: {error.filename}: {error.strerror}") from None
    return orchestrator


async def run_gateway(settings: Settings) -> None:
    stop = Stop()
    broker = broker_of(settings, "gateway")
    await broker.open()
    door = StoreDoor(settings)
    gateway = Gateway(settings, broker, transit_of(settings), door, cache_of(settings))
    await gateway.open()
    await stop.wait()
    await gateway.drain()
    await broker.close()
    await door.close()


async def run_clerk(settings: Settings) -> None:
    """With the control API of the machine, which needs what a clerk has: the store."""
    from headrace.clerk.role import Clerk  # with SQLAlchemy behind it
    from headrace.control.role import Control
    from headrace.notify.notify import notify_of

    stop = Stop()
    notify = notify_of(settings)
    broker = broker_of(settings, "clerk")
    await broker.open()
    door, read_door = StoreDoor(settings, waits=False), StoreDoor(settings)
    clerk = Clerk(settings, broker, door)
    control = Control(settings, read_door, notify)
    await notify.open()
    await clerk.open()
    try:
        await control.open()
    except OSError as error:  # the books are kept without it
        log.error("control is not served", reason=str(error))
    await stop.wait()
    await control.drain()
    await clerk.drain()
    await notify.close()
    await broker.close()
    await read_door.close()
    await door.close()


async def run_autoscale(settings: Settings) -> None:
    """Raises SettingsError where nothing is to be scaled."""
    from headrace.notify.notify import notify_of

    if settings.autoscale.mode == "off":
        raise SettingsError("autoscale.mode = 'off': expected shadow, advise or act")
    if not settings.policies():
        raise SettingsError("no [models.NAME.scale]: autoscale has no model to scale")
    try:
        from headrace.autoscale.role import Autoscale
    except ImportError as error:
        hint = "install it with: pip install 'headrace[autoscale]'"
        raise SettingsError(f"autoscale.mode needs {error.name}; {hint}") from error
    stop = Stop()
    notify, orchestrator = notify_of(settings), orchestrator_of(settings)
    broker = broker_of(settings, "autoscale")
    await broker.open()
    if orchestrator:
        await orchestrator.open()
    door = StoreDoor(settings)
    autoscale = Autoscale(settings, broker, door, orchestrator, notify.tell)
    await notify.open()
    await autoscale.open()
    await stop.wait()
    await autoscale.drain()
    await notify.close()
    if orchestrator:
        await orchestrator.close()
    await broker.close()
    await door.close()


async def run_worker(
    settings: Settings, models: list[str], metrics_listen: str | None = None
) -> None:
    """The named models, one worker each, in this process. Raises SettingsError."""
    unknown = [name for name in models if name not in settings.models]
    if unknown or not models:
        known = ", ".join(settings.models) or "none: the settings have no [models.NAME]"
        raise SettingsError(f"model {', '.join(unknown) or '(none)'}: expected one of {known}")
    stop = Stop()
    door = StoreDoor(settings)
    workers, brokers = [], []
    for name in models:
        broker = broker_of(settings, f"worker {name}")
        await broker.open()
        brokers.append(broker)
        worker = Worker(
            name,
            settings.models[name],
            settings.folder,
            broker,
            transit_of(settings),
            door,
            settings.jobs,
            ack_wait_s=settings.broker.ack_wait_s,
        )
        workers.append(worker)
        await worker.open(address(metrics_listen) if metrics_listen else None)
    await stop.wait()
    await asyncio.gather(*(worker.drain(WORKER_GRACE_S) for worker in workers))
    await asyncio.gather(*(broker.close() for broker in brokers))
    await door.close()


def run(role: str, settings: Settings, work: Any) -> None:
    """In this process, on uvloop, until stopped."""
    import uvloop

    logs.set_up(role, level=settings.telemetry.log_level)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(work)


def main(arguments: list[str]) -> None:
    """`python -m headrace.roles gateway|worker|clerk|autoscale FILE [MODEL]`: what the house
    starts. Without the command line's libraries, which a role has no use for (20 MB, 0.2 s)."""
    import signal

    from headrace.lifecycle import die_with_parent
    from headrace.settings import load

    die_with_parent(signal.SIGTERM)
    role, path = arguments[0], arguments[1] or None
    settings = load(path)
    if role == "gateway":
        run("gateway", settings, run_gateway(settings))
    elif role == "clerk":
        run("clerk", settings, run_clerk(settings))
    elif role == "autoscale":
        run("autoscale", settings, run_autoscale(settings))
    else:
        run("worker", settings, run_worker(settings, arguments[2:], "127.0.0.1:0"))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
