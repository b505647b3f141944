"""Settings to a registry, with what stands beside it: rules, the audit, the versions kept here."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from headrace.registry.audit import Audit, FileAudit
from headrace.registry.kept import Kept
from headrace.registry.port import Registry
from headrace.registry.rules import Rules
from headrace.schemes import REGISTRIES, build
from headrace.settings import RegistrySettings, Settings, SettingsError


class Desk(NamedTuple):
    """All that who registers, promotes or deploys needs. The registry is not yet open."""

    registry: Registry
    audit: Audit
    kept: Kept
    rules: Rules


def desk(settings: Settings, url: str = "") -> Desk:
    """`url`: in place of the settings'. Raises SettingsError, UnknownScheme, ImportError."""
    section = settings.registry
    rules = Rules(domains=section.domains, trusted=section.trusted, max_bytes=section.max_bytes)
    state = settings.state()
    return Desk(
        _registry(settings, section, url or section.url or f"file://{state}/registry"),
        FileAudit(state / "audit" / "promotions.jsonl"),
        Kept(state / "versions", rules),
        rules,
    )


def webhook_secrets(settings: Settings) -> list[str]:
    """None where webhooks are not taken. Raises SettingsError."""
    name = settings.registry.webhook_secrets
    return _lines(settings, "registry.webhook_secrets", name) if name else []


def _registry(settings: Settings, section: RegistrySettings, url: str) -> Registry:
    options: dict[str, Any] = {}
    if not url.startswith("file:"):
        options["timeout_s"] = section.timeout_s
        if section.token_file:
            options["token"] = _lines(settings, "registry.token_file", section.token_file)[0]
    try:
        registry: Registry = build("registry.url", REGISTRIES, url, **options)
    except ValueError as error:  # UnknownScheme is one
        raise SettingsError(str(error)) from None
    return registry


def _lines(settings: Settings, key: str, name: str) -> list[str]:
    path = Path(settings.folder) / name
    try:
        lines = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise SettingsError(f"{key} = {name!r}: {error.strerror}") from None
    if not lines:
        raise SettingsError(f"{key} = {name!r}: an empty file")
    return lines
