"""`s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`, through obstore.

What the store needs to know comes from the query of the URL, else from the environment, by the
names that its vendor uses (AWS_..., GOOGLE_..., AZURE_...). Keys belong into the environment; those
in a query are never shown. Plain http is spoken with the loopback, elsewhere only after
`allow_http=true` in the query.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from headrace.objects.port import ObjectMissing, ObjectsDown, checked, folder_of

#: Scheme -> what may stand in the query, and obstore's word for it.
OPTIONS: dict[str, dict[str, str]] = {
    "s3": {
        "endpoint": "endpoint",
        "region": "region",
        "access_key_id": "access_key_id",
        "secret_access_key": "secret_access_key",
        "session_token": "session_token",
        "virtual_hosted_style": "virtual_hosted_style_request",
    },
    "gs": {
        "endpoint": "base_url",
        "service_account": "service_account",
        "bearer_token": "bearer_token",
    },
    "az": {
        "endpoint": "endpoint",
        "account_name": "account_name",
        "account_key": "account_key",
        "sas_key": "sas_key",
    },
}
_ENDPOINTS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_STORES: dict[str, Any] = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}
#: Requests under way at once. Threads, and not obstore's asyncio face: its own threads come back to
#: Python with the answer, and when that is ending then, the process aborts (seen in 6 exits of 40).
THREADS = 32
_LOOPBACK = re.compile(r"127(\.\d+){3}|::1|localhost")

_T = TypeVar("_T")


class CloudObjects:
    """`limit_s` bounds a whole put, get, delete or list, with all its retries."""

    def __init__(
        self, url: str, *, connect_s: float = 2.0, limit_s: float = 10.0, retries: int = 2
    ) -> None:
        parts = urlsplit(url)
        self._shown = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        self._limit_s = limit_s
        self._threads = ThreadPoolExecutor(THREADS, "objects")
        query = dict(parse_qsl(parts.query))
        allow_http = query.pop("allow_http", "false") == "true"
        config = _config(parts.scheme, query)
        endpoint = query.get("endpoint") or _from_environment(_ENDPOINTS[parts.scheme])
        if parts.scheme == "s3":
            # Not every store that speaks S3 knows how to delete many at once.
            config["disable_bulk_delete"] = True
        if not parts.hostname or parts.username:
            raise ValueError(f"objects {self._shown}: expected {parts.scheme}://NAME[/PREFIX]")
        self._store: Any = _STORES[parts.scheme](
            parts.hostname,
            prefix=unquote(parts.path).strip("/") or None,
            config=config,
            client_options={
                "allow_http": allow_http or _is_loopback(endpoint),
                "connect_timeout": timedelta(seconds=connect_s),
                "timeout": timedelta(seconds=limit_s),
            },
            retry_config={
                "max_retries": retries,
                "retry_timeout": timedelta(seconds=limit_s),
                "backoff": {
                    "init_backoff": timedelta(seconds=0.05),
                    "max_backoff": timedelta(seconds=1),
                    "base": 2,
                },
            },
        )

    def __repr__(self) -> str:
        return f"<objects {self._shown}>"

    async def put(self, name: str, data: bytes) -> None:
        checked(name)
        # In one piece: parts of an upload that was given up would stay, unseen and paid for.
        put = partial(obstore.put, self._store, name, data, use_multipart=False)
        try:
            await self._bounded(put)
        except FileNotFoundError:
            raise ObjectsDown(f"{self._shown}: there is no such bucket") from None

    async def get(self, name: str) -> bytes:
        checked(name)
        try:
            return await self._bounded(lambda: bytes(obstore.get(self._store, name).bytes()))
        except FileNotFoundError:
            raise ObjectMissing(name) from None

    async def delete(self, name: str) -> None:
        checked(name)
        try:
            await self._bounded(lambda: obstore.delete(self._store, name))
        except FileNotFoundError:
            return

    async def names(self, prefix: str = "") -> list[str]:
        prefix = folder_of(prefix).rstrip("/")
        found = await self._bounded(lambda: obstore.list(self._store, prefix or None).collect())
        return [entry["path"] for entry in found]

    async def _bounded(self, ask: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._limit_s):
                return await loop.run_in_executor(self._threads, ask)
        except FileNotFoundError:
            raise
        except TimeoutError:
            raise ObjectsDown(f"{self._shown}: no answer in {self._limit_s:g} s") from None
        except (BaseError, OSError) as error:
            # Not chained: what obstore says has the whole request in it, signed query and all.
            raise ObjectsDown(f"{self._shown}: {_first_line(error)}") from None


def _config(scheme: str, query: dict[str, str]) -> dict[str, Any]:
    known = OPTIONS[scheme]
    for key in query:
        if key not in known:
            raise ValueError(f"objects {scheme}://: unknown {key!r}; expected {', '.join(known)}")
    return {known[key]: value for key, value in query.items()}


def _from_environment(names: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _is_loopback(endpoint: str) -> bool:
    return bool(_LOOPBACK.fullmatch(urlsplit(endpoint).hostname or ""))


def _first_line(error: Exception) -> str:
    """What happened, without queries: some hold a signature."""
    line = (str(error).splitlines() or [type(error).__name__])[0]
    return re.sub(r"\?\S*", "?...", line)
