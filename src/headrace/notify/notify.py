"""All who are told: a pile and a task for each address, so that `tell` never waits."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import structlog

from headrace.notify.forms import plain, slack
from headrace.notify.notice import Notice
from headrace.notify.sink import Sink
from headrace.settings import Settings, SettingsError
from headrace.signatures import check_secret

log = structlog.get_logger("headrace.notify")

GRACE_S = 3.0


class Notify:
    """Without an address it does nothing. To be used from one event loop."""

    def __init__(self, sinks: list[Sink]) -> None:
        self.sinks = sinks
        self._is_open = False

    async def open(self) -> None:
        for sink in self.sinks:
            sink.open()
        self._is_open = True

    def tell(self, notice: Notice) -> None:
        """Returns at once; never raises."""
        if not self._is_open:
            return
        for sink in self.sinks:
            try:
                sink.put(notice)
            except Exception:
                log.exception("a notice was not kept")

    async def close(self, grace_s: float = GRACE_S) -> None:
        self._is_open = False
        await asyncio.gather(*(sink.close(grace_s) for sink in self.sinks))


def notify_of(settings: Settings) -> Notify:
    """Raises SettingsError."""
    told, house = settings.notify, settings.house.name
    sinks = []
    if told.slack:
        url = _address("notify.slack", told.slack)
        sinks.append(Sink("slack", url, partial(slack, house=house), told.most_per_hour))
    if told.webhook:
        url = _address("notify.webhook", told.webhook)
        secret = _secret(Path(settings.folder), told.secret_file)
        form = partial(plain, house=house)
        sinks.append(Sink("webhook", url, form, told.most_per_hour, secret=secret))
    return Notify(sinks)


def _address(key: str, url: str) -> str:
    """The URL of a Slack webhook is its password: it is not repeated."""
    try:
        parsed, split = httpx.URL(url), urlsplit(url)
        good = split.scheme in ("http", "https") and bool(parsed.host)
    except (httpx.InvalidURL, ValueError):
        good = False
    if not good:
        raise SettingsError(f"{key}: expected http://host/path or https://host/path")
    return url


def _secret(folder: Path, name: str) -> str:
    if not name:
        return ""
    try:
        secret = (folder / name).read_text().strip()
        check_secret(secret)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "expected whsec_ and base64"
        raise SettingsError(f"notify.secret_file = {name!r}: {why}") from None
    return secret
