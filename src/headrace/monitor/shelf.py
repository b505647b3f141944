"""What the monitor keeps of one model, in the objects; times in names are hours of UTC.

    monitor/MODEL/samples/HOUR/ID.parquet    rows: id, at, version, segment, took_ms, the fields
    monitor/MODEL/hours/HOUR                 sketches of all calls of that hour
    monitor/MODEL/reference/VERSION          sketches of a version's first calls
    monitor/MODEL/state                      the last look
    monitor/MODEL/forget                     somebody wants all of it gone

Parquet as it is, so that anything can read it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from headrace.monitor.drift import DriftVerdict
from headrace.monitor.quality import QualityVerdict
from headrace.monitor.sketch import Profile
from headrace.monitoring import Sample, Value
from headrace.objects.port import ObjectMissing, Objects
from headrace.records import new_id

FOLDER = "monitor"
#: Version and segment ("": all of them) -> sketches.
Profiles = dict[tuple[str, str], Profile]
_Plain = list[tuple[str, str, int, dict[str, bytes]]]
_OWN = ("id", "at", "version", "segment", "took_ms")


class Found(msgspec.Struct, frozen=True):
    """A change that ADWIN found in a stream. `at`: Unix time."""

    at: float
    version: str
    #: The field, or "errors".
    what: str
    before: float
    after: float


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The last look at a model."""

    model: str
    at: float
    samples: int = 0
    #: Calls that they were drawn from, since the monitor started.
    calls: int = 0
    labels: int = 0
    drift: tuple[DriftVerdict, ...] = ()
    quality: tuple[QualityVerdict, ...] = ()
    found: tuple[Found, ...] = ()


class Reference(msgspec.Struct, frozen=True):
    """The first calls of a version."""

    began: float
    profiles: _Plain


class Shelf:
    """Of one model. Every verb raises ObjectsDown."""

    def __init__(self, objects: Objects, model: str) -> None:
        self._objects, self._folder = objects, f"{FOLDER}/{model}"
        self._model = model

    # -- samples -------------------------------------------------------------------------------

    async def put_samples(
        self, names: Sequence[str], rows: Sequence[tuple[str, Sample]], at: float
    ) -> None:
        """`rows`: version and sample."""
        data = await asyncio.to_thread(parquet, names, rows)
        await self._objects.put(f"{self._folder}/samples/{hour(at)}/{new_id()}.parquet", data)

    async def samples(self, since: float) -> list[dict[str, Any]]:
        """Rows, in no order. One that was written twice comes twice."""
        rows: list[dict[str, Any]] = []
        for name in await self._objects.names(f"{self._folder}/samples"):
            if name.split("/")[3] >= hour(since):
                data = await self._get(name)
                if data is not None:
                    rows += await asyncio.to_thread(unparquet, data)
        return rows

    # -- sketches ------------------------------------------------------------------------------

    async def put_hour(self, of: str, profiles: Profiles) -> None:
        await self._objects.put(
            f"{self._folder}/hours/{of}", msgspec.msgpack.encode(_out(profiles))
        )

    async def hour(self, of: str) -> Profiles:
        data = await self._get(f"{self._folder}/hours/{of}")
        return _in(msgspec.msgpack.decode(data, type=_Plain)) if data else {}

    async def hours(self) -> list[str]:
        """The oldest first."""
        names = await self._objects.names(f"{self._folder}/hours")
        return sorted(name.rpartition("/")[2] for name in names)

    async def put_reference(self, version: str, began: float, profiles: Profiles) -> None:
        data = msgspec.msgpack.encode(Reference(began, _out(profiles)))
        await self._objects.put(f"{self._folder}/reference/{_safe(version)}", data)

    async def reference(self, version: str) -> tuple[float, Profiles] | None:
        data = await self._get(f"{self._folder}/reference/{_safe(version)}")
        if data is None:
            return None
        kept = msgspec.msgpack.decode(data, type=Reference)
        return kept.began, _in(kept.profiles)

    # -- the last look -------------------------------------------------------------------------

    async def put_state(self, state: State) -> None:
        await self._objects.put(f"{self._folder}/state", msgspec.json.encode(state))

    async def state(self) -> State | None:
        data = await self._get(f"{self._folder}/state")
        return msgspec.json.decode(data, type=State) if data else None

    # -- the end -------------------------------------------------------------------------------

    async def remove_old(self, before: float) -> int:
        """Samples and hours of before that time; how many objects."""
        gone = 0
        for kind in ("samples", "hours"):
            for name in await self._objects.names(f"{self._folder}/{kind}"):
                if name.split("/")[3] < hour(before):
                    await self._objects.delete(name)
                    gone += 1
        return gone

    async def forget(self) -> None:
        """All of it. Who runs forgets what it has in memory when it sees the mark."""
        await self._objects.put(f"{self._folder}/forget", b"1")
        for name in await self._objects.names(self._folder):
            if not name.endswith("/forget"):
                await self._objects.delete(name)

    async def forgotten(self) -> bool:
        """Takes the mark away, where there is one, and what was written since."""
        if await self._get(f"{self._folder}/forget") is None:
            return False
        for name in await self._objects.names(self._folder):
            await self._objects.delete(name)
        return True

    async def _get(self, name: str) -> bytes | None:
        try:
            return await self._objects.get(name)
        except ObjectMissing:
            return None


def hour(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y%m%d%H}"


def hour_at(text: str) -> float:
    return datetime.strptime(text, "%Y%m%d%H").replace(tzinfo=UTC).timestamp()


def parquet(names: Sequence[str], rows: Sequence[tuple[str, Sample]]) -> bytes:
    import io

    import polars

    data: dict[str, Any] = {
        "id": [sample.id for _, sample in rows],
        "at": [round(sample.at * 1e6) for _, sample in rows],
        "version": [version for version, _ in rows],
        "segment": [sample.segment for _, sample in rows],
        "took_ms": [sample.took_ms for _, sample in rows],
    }
    for n, name in enumerate(names):
        data[name] = _column([s.values[n] if n < len(s.values) else None for _, s in rows])
    frame = polars.DataFrame(
        data, schema_overrides={"at": polars.Datetime("us", "UTC")}, strict=False
    )
    out = io.BytesIO()
    frame.write_parquet(out)
    return out.getvalue()


def unparquet(data: bytes) -> list[dict[str, Any]]:
    """`at` in Unix seconds; the fields below `values`."""
    import io

    import polars

    rows = polars.read_parquet(io.BytesIO(data)).to_dicts()
    return [
        {name: row[name] for name in _OWN}
        | {"at": row["at"].timestamp()}
        | {"values": {name: row[name] for name in row if name not in _OWN}}
        for row in rows
    ]


def _column(values: list[Value]) -> list[Value]:
    """Of one kind: text, where any is."""
    if any(isinstance(value, str) for value in values):
        return [f"{v:g}" if isinstance(v, float) else v for v in values]
    return values


def _safe(version: str) -> str:
    return "v" + re.sub(r"[^A-Za-z0-9._-]", "_", version)[:100]


def _out(profiles: Profiles) -> _Plain:
    return [(*key, *profile.to_plain()) for key, profile in profiles.items()]


def _in(plain: _Plain) -> Profiles:
    return {
        (version, segment): Profile.from_plain(calls, fields)
        for version, segment, calls, fields in plain
    }
