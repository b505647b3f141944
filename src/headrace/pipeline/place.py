"""Where a house's runs are: their database, their files, their tracker, the registry."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from headrace.pipeline.kept import Kept
from headrace.pipeline.shelf import RegistryShelf, Shelf
from headrace.pipeline.track import Tracker
from headrace.pipeline.track_file import FileTracker
from headrace.registry.choose import desk
from headrace.schemes import Adapter, build
from headrace.settings import Settings


class Place(NamedTuple):
    house: str
    #: Of DBOS: sqlite:///file or postgresql://...
    database: str
    kept: Kept
    tracker: Tracker
    shelf: Shelf
    #: For files in the making.
    work: Path


TRACKERS = {
    "mlflow": Adapter("headrace.pipeline.track_mlflow:MlflowTracker"),
    "mlflows": Adapter("headrace.pipeline.track_mlflow:MlflowTracker"),
}


def place(settings: Settings, *, tracking: str = "", registry: str = "") -> Place:
    """`tracking` is mlflow://host:port, "file" for files in the house's state, or "" for where the
    versions are; `registry` stands in place of the settings' registry.url. Raises SettingsError,
    UnknownScheme."""
    state = settings.state()
    state.mkdir(parents=True, exist_ok=True, mode=0o700)
    url = settings.database.url
    if not url.startswith("postgresql://"):
        # Not the file of the stored jobs: SQLite has one writer, and theirs is in a hurry.
        url = f"sqlite:///{state}/{settings.house.name}-runs.db"
    return Place(
        house=settings.house.name,
        database=url,
        kept=Kept(state / "artifacts"),
        tracker=_tracker(settings, tracking, registry),
        shelf=RegistryShelf(lambda: desk(settings, registry)),
        work=state / "runs" / "work",
    )


def _tracker(settings: Settings, url: str, registry: str) -> Tracker:
    section = settings.registry
    registry = registry or section.url
    url = url or (registry if registry.startswith(("mlflow:", "mlflows:")) else "file")
    if url == "file":
        return FileTracker(settings.state() / "runs")
    token = ""
    if section.token_file and url == registry:  # of the server that it is for
        token = (Path(settings.folder) / section.token_file).read_text().split("\n")[0].strip()
    tracker: Tracker = build("tracking", TRACKERS, url, token=token)
    return tracker
