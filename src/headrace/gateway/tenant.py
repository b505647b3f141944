"""Whose call it is. There are no keys yet: a trusted proxy in front may say."""

from __future__ import annotations

import re

from headrace.errors import BadRequest
from headrace.httpserver import Request

DEFAULT = "default"
_TENANT = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class Tenants:
    def __init__(self, header: str) -> None:
        """`header`: where the proxy names the tenant; "": all calls are of one."""
        self._header = header.lower().encode()

    def of(self, request: Request) -> str:
        """Raises BadRequest."""
        if not self._header:
            return DEFAULT
        value = request.headers.get(self._header, b"")
        if not _TENANT.fullmatch(value):
            raise BadRequest(
                f"{self._header.decode()}: expected the tenant, 1 to 128 of A-Z a-z 0-9 . _ -",
                code="tenant-invalid",
            )
        return value.decode()
