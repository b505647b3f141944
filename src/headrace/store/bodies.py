"""Where an input or a result rests: in its row up to a limit, else in the objects, which have it
before the row names it. Sealed under its tenant's key where keys are set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from headrace.errors import Unavailable
from headrace.objects.port import ObjectMissing, Objects

if TYPE_CHECKING:
    from headrace.objects.sealer import Sealer

log = structlog.get_logger("headrace.store")

FOLDER = "jobs"


class Bodies:
    def __init__(self, objects: Objects, inline_limit: int, sealer: Sealer | None = None) -> None:
        """`objects` seal what they are given by themselves; `sealer` is for what lies in rows."""
        self._objects, self._inline_limit, self._sealer = objects, inline_limit, sealer

    async def rest(self, tenant: str, purpose: str, job: str, data: bytes) -> tuple[bytes, str]:
        """Gives what goes into the row and the name of the object; one of them is empty. Raises
        Unavailable."""
        try:
            if len(data) <= self._inline_limit:
                return self._sealer.seal(tenant, purpose, job, data) if self._sealer else data, ""
            ref = f"{FOLDER}/{tenant}/{job}-{purpose}"
            await self._objects.put(ref, data)
        except Exception as error:
            log.warning("a body is not stored", job=job, reason=type(error).__name__)
            raise Unavailable("the body cannot be stored", code="storage-unavailable") from None
        return b"", ref

    async def fetch(self, tenant: str, purpose: str, job: str, inline: bytes, ref: str) -> bytes:
        """Raises Unavailable `artifact-unavailable`."""
        try:
            if ref:
                return await self._objects.get(ref)
            return self._sealer.open(tenant, purpose, job, inline) if self._sealer else inline
        except ObjectMissing:
            code = "artifact-unavailable"
            raise Unavailable("the body is gone", code=code, retry_after_s=0) from None
        except Exception as error:
            log.warning("a body is not read", job=job, reason=type(error).__name__)
            raise Unavailable("the body cannot be read", code="artifact-unavailable") from None

    async def remove(self, ref: str) -> None:
        """Raises what the objects raise: it may still be there then."""
        if ref:
            await self._objects.delete(ref)

    async def jobs(self) -> dict[str, str]:
        """Of all objects: name -> the id of its job."""
        names = await self._objects.names(FOLDER)
        return {name: job_of(name) for name in names}


def job_of(name: str) -> str:
    """The id of the job whose body has this name."""
    return name.rpartition("/")[2].partition("-")[0]
