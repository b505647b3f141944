"""`Sealed(objects, sealer)`: objects that rest encrypted under their tenant's key.

Goes around whatever stores them, so that no store and no wire behind it has a readable byte.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.objects.aside import aside
from headrace.objects.keyring import Keyring
from headrace.objects.port import Objects
from headrace.objects.sealer import KeyGone, SealBroken, Sealer

__all__ = ["KeyGone", "Keyring", "SealBroken", "Sealed", "Sealer"]

#: What objects are sealed for: bytes of a database column do not pass as an object.
PURPOSE = "object"


def second_part(name: str) -> str:
    """The tenant of `jobs/TENANT/...`."""
    parts = name.split("/")
    if len(parts) < 3:
        raise ValueError(f"object name {name!r} names no tenant; expected FOLDER/TENANT/...")
    return parts[1]


class Sealed:
    def __init__(
        self, objects: Objects, sealer: Sealer, tenant_of: Callable[[str], str] = second_part
    ) -> None:
        self._objects, self._sealer, self._tenant_of = objects, sealer, tenant_of

    async def put(self, name: str, data: bytes) -> None:
        """Raises KeyUnknown where the tenant has no key."""
        tenant = self._tenant_of(name)
        seal = self._sealer.seal
        sealed = await aside(len(data), lambda: seal(tenant, PURPOSE, name, data))
        await self._objects.put(name, sealed)

    async def get(self, name: str) -> bytes:
        """Raises SealBroken."""
        tenant, sealed = self._tenant_of(name), await self._objects.get(name)
        return await aside(len(sealed), lambda: self._sealer.open(tenant, PURPOSE, name, sealed))

    async def rewrap(self, name: str) -> bool:
        """Under the tenant's newest key from now on; gives whether it was not before. Puts the
        object again: whoever deletes names meanwhile looks again after. Raises SealBroken."""
        tenant, sealed = self._tenant_of(name), await self._objects.get(name)
        anew = self._sealer.rewrap(tenant, PURPOSE, name, sealed)
        if anew == sealed:
            return False
        await self._objects.put(name, anew)
        return True

    async def delete(self, name: str) -> None:
        await self._objects.delete(name)

    async def names(self, prefix: str = "") -> list[str]:
        return await self._objects.names(prefix)
