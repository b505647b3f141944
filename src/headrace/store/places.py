"""The objects of stored jobs, made from the settings: in one place or two, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from headrace.objects.chain import Chained
from headrace.objects.port import Objects
from headrace.objects.whole import Whole
from headrace.schemes import OBJECTS, build
from headrace.settings import Settings

if TYPE_CHECKING:
    from headrace.objects.sealer import Sealer


def place(key: str, url: str, limit_s: float) -> Objects:
    options: dict[str, object] = {"limit_s": limit_s}
    if urlsplit(url).scheme in ("file", "memory"):
        options = {"durable": True} if urlsplit(url).scheme == "file" else {}
    objects: Objects = build(key, OBJECTS, url, **options)
    return objects


def places(settings: Settings) -> Whole | Chained:
    limit_s = settings.objects.timeout_s
    first = place("objects.url", settings.objects_url(), limit_s)
    if not settings.objects.fallback:
        return Whole(first)
    second = place("objects.fallback", settings.objects.fallback, limit_s)
    return Chained(first, second, limit_s=limit_s)


def sealer_of(settings: Settings) -> Sealer | None:
    """Raises ImportError that says what to install, KeyringError."""
    if not settings.objects.keys:
        return None
    try:
        from headrace.objects.keyring import Keyring
        from headrace.objects.sealer import Sealer
    except ImportError as error:
        hint = "install it with: pip install 'headrace[encryption]'"
        raise ImportError(f"objects.keys needs {error.name}; {hint}") from error
    return Sealer(Keyring.load(Path(settings.folder) / settings.objects.keys))
