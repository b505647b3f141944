"""Runs as files in the house's state: `runs/ID/run.json`, and `series.jsonl` beside it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import msgspec

from headrace.pipeline.run import Run
from headrace.pipeline.track import Point, RunUnknown

_run = msgspec.json.Decoder(Run)
_point = msgspec.json.Decoder(Point)


class FileTracker:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, run: Run) -> bool:
        path = self._path(run.id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        unfinished = self._unfinished(path, run)
        try:
            os.link(unfinished, path)  # unlike a rename it fails where there is one
        except FileExistsError:
            return False
        finally:
            unfinished.unlink()
        return True

    def write(self, run: Run) -> None:
        path = self._path(run.id)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._unfinished(path, run).replace(path)

    def report(self, run: Run, point: Point) -> None:
        line = msgspec.json.encode(point) + b"\n"
        with (self._path(run.id).parent / "series.jsonl").open("ab") as file:
            file.write(line)

    def get(self, id: str) -> Run:
        try:
            return _run.decode(self._path(id).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            raise RunUnknown(f"{id}: no such run") from None

    def series(self, id: str) -> list[Point]:
        try:
            lines = (self._path(id).parent / "series.jsonl").read_bytes().splitlines()
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = []
        for line in lines:
            try:
                found.append(_point.decode(line))
            except msgspec.DecodeError:  # cut off by a crash
                continue
        return found

    def runs(self, most: int, pipeline: str = "") -> list[Run]:
        found = []
        for path in self._folder.glob("*/run.json"):
            try:
                run = _run.decode(path.read_bytes())
            except FileNotFoundError:  # removed meanwhile
                continue
            if pipeline in ("", run.pipeline):
                found.append(run)
        return sorted(found, key=lambda run: (run.created, run.id), reverse=True)[:most]

    def close(self) -> None:
        """Nothing is held."""

    def _path(self, id: str) -> Path:
        if not id or set(id) - set("abcdefghijklmnopqrstuvwxyz0123456789-"):
            raise RunUnknown(f"{id}: no such run")
        return self._folder / id / "run.json"

    @staticmethod
    def _unfinished(path: Path, run: Run) -> Path:
        unfinished = path.parent / f".{secrets.token_hex(8)}"
        with unfinished.open("xb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(run)))
            file.flush()
            os.fsync(file.fileno())
        return unfinished
