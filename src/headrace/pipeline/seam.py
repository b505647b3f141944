"""Runs that nobody starts by hand: asked for by anybody, run where `serve.serve` runs.

    trigger(place, target, folder, {"seed": 3}, key="2026-11-22")    once for each key
    schedule(place, "nightly", target, folder, {}, cron="0 3 * * *", zone="Europe/London")
    status(place, id)

Another way of running pipelines has these verbs to offer, and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec

from headrace.pipeline.durable import QUEUE, SCHEDULED, WALK, application, library
from headrace.pipeline.entry import waiting
from headrace.pipeline.place import Place
from headrace.pipeline.run import Run, id_of, new_id


class SeamError(ValueError):
    """A key that stands for another run, or a time that is none."""


class Schedule(msgspec.Struct, frozen=True):
    name: str
    target: str
    folder: str
    params: dict[str, Any]
    cron: str
    zone: str


def trigger(
    place: Place,
    target: str,
    folder: Path,
    given: dict[str, Any],
    key: str = "",
    asked_by: str = "trigger",
) -> Run:
    """The run that waits now; for a key that was seen before the run of then. Raises SeamError.
    Nothing is imported: what is wrong with target or parameters is the run's failure."""
    wanted = id_of(key, target) if key else new_id()
    run = waiting(target, folder, given, id=wanted, asked_by=asked_by)
    with _client(place) as client:
        client.enqueue(
            {"workflow_name": WALK, "queue_name": QUEUE, "workflow_id": wanted},
            wanted, target, str(folder), given, asked_by,
        )  # fmt: skip
    # After it, so that no record waits for ever without a run; the run may have made it already.
    place.tracker.create(run)
    found = place.tracker.get(wanted)
    if found.asked != given:
        raise SeamError(f"the key {key!r} stands for run {wanted}, whose parameters are others")
    return found


def status(place: Place, id: str) -> Run:
    """Raises RunUnknown. Its state: `run.seen`."""
    return place.tracker.get(id)


def schedule(
    place: Place,
    name: str,
    target: str,
    folder: Path,
    given: dict[str, Any],
    *,
    cron: str,
    zone: str = "UTC",
) -> Schedule:
    """A run at each of these times, by the clock of the zone; in place of the schedule of that
    name. Times at which nobody serves are left out. Raises SeamError."""
    wanted = Schedule(name, target, str(folder), given, cron, zone)
    _check_times(cron, zone)
    context = {"name": name, "target": target, "folder": str(folder), "params": given}
    with _client(place) as client:
        client.delete_schedule(name)
        client.create_schedule(
            schedule_name=name,
            workflow_name=SCHEDULED,
            schedule=cron,
            context=context,
            cron_timezone=zone,
        )
    return wanted


def unschedule(place: Place, name: str) -> None:
    """No error where there is none of that name."""
    with _client(place) as client:
        client.delete_schedule(name)


def schedules(place: Place) -> list[Schedule]:
    with _client(place) as client:
        found = client.list_schedules(workflow_name=SCHEDULED)
    return [
        Schedule(
            each["schedule_name"],
            each["context"]["target"],
            each["context"]["folder"],
            each["context"]["params"],
            each["schedule"],
            each["cron_timezone"] or "UTC",
        )
        for each in found
    ]


def _check_times(cron: str, zone: str) -> None:
    croniter = importlib.import_module("croniter").croniter
    if len(cron.split()) != 5 or not croniter.is_valid(cron):
        raise SeamError(f"cron = {cron!r}: expected minute, hour, day, month, weekday: '0 3 * * *'")
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise SeamError(f"zone = {zone!r}: expected a time zone such as Europe/London") from None


@contextlib.contextmanager
def _client(place: Place) -> Iterator[Any]:
    """To DBOS's tables, which are made where there are none."""
    dbos = library()
    # DBOS logs each migration that it makes.
    logging.getLogger("dbos").setLevel(logging.WARNING)
    dbos.DBOS.migrate(place.database)
    client = dbos.DBOSClient(
        system_database_url=place.database,
        serializer=dbos.DBOSPortableJSONSerializer(),
        application_name=application(place.house),
    )
    try:
        yield client
    finally:
        client.destroy()
