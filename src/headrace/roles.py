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

from headrace.announce import LOOK, TO_DEPLOY
from headrace.broker.port import Broker
from headrace.cache.port import Cache
from headrace.deployments import parted, workload_of
from headrace.gateway.role import Gateway, address
from headrace.lifecycle import Stop
from headrace.objects.port import Objects
from headrace.orchestrator.port import Orchestrator
from headrace.schemes import BROKERS, CACHES, OBJECTS, ORCHESTRATORS, build
from headrace.settings import Settings, SettingsError
from headrace.store.door import StoreDoor
from headrace.telemetry import logs
from headrace.worker.artifact import Place
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
    control = Control(settings, read_door, notify, lambda: broker.send(TO_DEPLOY, LOOK))
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
    _check_zones(settings)
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


def _check_zones(settings: Settings) -> None:
    """Not when settings are read: other roles may run where there are no zone files."""
    from headrace.autoscale.schedule import UnknownZone, zone_of

    for name, policy in settings.policies().items():
        for number, entry in enumerate(policy.schedule):
            try:
                zone_of(entry.zone)
            except UnknownZone as error:
                place = f"models.{name}.scale.schedule[{number}]"
                raise SettingsError(f"{place}: zone = {error}") from None


async def run_deploy(settings: Settings) -> None:
    """Raises SettingsError where no model's versions come from the registry."""
    from headrace.deploy.role import DeployRole
    from headrace.notify.notify import notify_of
    from headrace.registry.choose import desk

    if not any(model.deploy for model in settings.models.values()):
        raise SettingsError("no [models.NAME.deploy]: there is no version to roll out")
    stop = Stop()
    notify, orchestrator, found = notify_of(settings), orchestrator_of(settings), desk(settings)
    broker = broker_of(settings, "deploy")
    await broker.open()
    await found.registry.open()
    if orchestrator:
        await orchestrator.open()
    door = StoreDoor(settings)
    deploy = DeployRole(settings, broker, door, found, orchestrator, notify.tell)
    await notify.open()
    await deploy.open()
    await stop.wait()
    await deploy.drain()
    await notify.close()
    if orchestrator:
        await orchestrator.close()
    await found.registry.close()
    await broker.close()
    await door.close()


async def run_monitor(settings: Settings) -> None:
    """Raises SettingsError where nothing is watched."""
    from headrace.notify.notify import notify_of

    if not any(model.monitor for model in settings.models.values()):
        raise SettingsError("no [models.NAME.monitor]: there is nothing to watch")
    try:
        from headrace.monitor.role import Monitoring
        from headrace.store.places import place
    except ImportError as error:
        hint = "install it with: pip install 'headrace[monitoring]'"
        raise SettingsError(f"models.NAME.monitor needs {error.name}; {hint}") from error
    stop = Stop()
    notify = notify_of(settings)
    broker = broker_of(settings, "monitor")
    await broker.open()
    door = StoreDoor(settings)
    objects = place("objects.url", settings.objects_url(), settings.objects.timeout_s)
    monitoring = Monitoring(settings, broker, door, objects, notify.tell)
    await notify.open()
    await monitoring.open()
    await stop.wait()
    await monitoring.drain()
    await notify.close()
    await broker.close()
    await door.close()


async def run_retrain(settings: Settings, file: str) -> None:
    """Raises SettingsError where nothing is to be trained again."""
    from headrace.notify.notify import notify_of

    if not any(model.retrain for model in settings.models.values()):
        raise SettingsError("no [models.NAME.retrain]: there is nothing to train again")
    from headrace.retrain.role import Retrainer

    stop = Stop()
    notify = notify_of(settings)
    broker = broker_of(settings, "retrain")
    await broker.open()
    door = StoreDoor(settings)
    retrainer = Retrainer(settings, file, broker, door, notify.tell)
    await notify.open()
    await retrainer.open()
    await stop.wait()
    await retrainer.drain()
    await notify.close()
    await broker.close()
    await door.close()


def place_of(settings: Settings, door: StoreDoor, model: str, version: int) -> Place | None:
    """How a version comes here; None: it is the settings' own files. Raises SettingsError."""
    if not version:
        return None
    from headrace.registry.choose import desk
    from headrace.worker.artifact import place_of

    return place_of(desk(settings), door, model, version)


def named(settings: Settings, workloads: list[str]) -> list[tuple[str, int]]:
    """Models and versions. Raises SettingsError."""
    known = ", ".join(settings.models) or "none: the settings have no [models.NAME]"
    found = []
    for workload in workloads:
        try:
            found.append(parted(workload))
        except ValueError:
            found.append(("", 0))
        if found[-1][0] not in settings.models:
            raise SettingsError(f"model {workload}: expected one of {known}, or one@VERSION")
    if not found:
        raise SettingsError(f"model (none): expected one of {known}")
    return found


async def run_worker(
    settings: Settings, workloads: list[str], metrics_listen: str | None = None
) -> None:
    """The models or versions named, one worker each, in this process. Raises SettingsError."""
    models = named(settings, workloads)
    stop = Stop()
    door = StoreDoor(settings)
    workers, brokers = [], []
    for name, version in models:
        broker = broker_of(settings, f"worker {workload_of(name, version)}")
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
            version=version,
            place=place_of(settings, door, name, version),
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
    """`python -m headrace.roles gateway|worker|clerk|autoscale FILE [MODEL[@VERSION]]`: what the
    house starts. Without the command line's libraries, which a role has no use for (20 MB, 0.2
    s)."""
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
    elif role == "deploy":
        run("deploy", settings, run_deploy(settings))
    elif role == "monitor":
        run("monitor", settings, run_monitor(settings))
    elif role == "retrain":
        run("retrain", settings, run_retrain(settings, path or ""))
    else:
        run("worker", settings, run_worker(settings, arguments[2:], "127.0.0.1:0"))


if __name__ == "__main__":
    import sys

    import structlog

    try:
        main(sys.argv[1:])
    except SettingsError as error:  # in one line: the house will try again, and it comes again
        structlog.get_logger("headrace").error("the settings are wrong", reason=str(error))
        sys.exit(2)
