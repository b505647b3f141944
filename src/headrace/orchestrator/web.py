"""What the adapters ask over HTTP: each request ends in time, and refusals have one meaning."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, parse_qsl

import httpx
import msgspec

from headrace.orchestrator import refusals
from headrace.schemes import shown

T = TypeVar("T")

#: Options of a URL that is asked over TLS: the authority's file, and who we say we are.
TLS = frozenset({"ca", "cert", "key"})


def options(url: SplitResult, known: Collection[str]) -> dict[str, str]:
    """The query of an adapter's URL. Raises ValueError for what the adapter does not know."""
    given = dict(parse_qsl(url.query, keep_blank_values=True))
    if unknown := given.keys() - set(known):
        raise ValueError(
            f"orchestrator.url = {shown(url.geturl())!r}: unknown option {min(unknown)!r}; "
            f"expected one of {', '.join(sorted(known))}"
        )
    return given


def tls(given: Mapping[str, str]) -> ssl.SSLContext:
    """As the options say; without `ca`, by the authorities that everybody trusts. Raises OSError
    (ssl.SSLError is one) where a file is not there, or not what it should be."""
    if "ca" in given:
        context = ssl.create_default_context(cafile=given["ca"])
    else:
        context = httpx.create_ssl_context()
    if "cert" in given:
        context.load_cert_chain(given["cert"], given.get("key"))
    return context


class Web:
    """An orchestrator's HTTP API."""

    def __init__(
        self,
        at: str,
        *,
        timeout_s: float,
        name: str = "",
        tls: ssl.SSLContext | None = None,
        uds: str | None = None,
        token_file: str = "",
        token_header: tuple[str, str] = ("Authorization", "Bearer "),
    ) -> None:
        """`at`: "http://host:port"; `name`: what it is called in refusals; `token_header`: its
        name, and what stands before the token."""
        self._name, self._timeout_s = name or at, timeout_s
        self._token_file, (self._header, self._before) = token_file, token_header
        self._client = httpx.AsyncClient(
            base_url=at,
            transport=httpx.AsyncHTTPTransport(uds=uds, verify=tls or False),
            timeout=None,  # noqa: S113 - ours is of the whole request
            trust_env=False,  # an orchestrator does not stand behind the proxy to the outside
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        content_type: str = "application/json",
        params: Mapping[str, str] | None = None,
        told: Collection[int] = (),
    ) -> httpx.Response:
        """The answer, where its status is 200, 201 or one of `told`. Raises Unavailable."""
        headers = self._token()
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._client.request(
                    method, path, content=body, params=params, headers=headers
                )
        except TimeoutError:
            why = f"{self._name} did not answer within {self._timeout_s:g} s"
            raise refusals.unreachable(why) from None
        except httpx.HTTPError as error:
            why = f"{self._name}: {str(error) or type(error).__name__}"
            raise refusals.unreachable(why) from None
        if answer.status_code in (200, 201, *told):
            return answer
        why = f"{self._name} answered {answer.status_code}: {words(answer)}"
        if answer.status_code in (401, 403):
            raise refusals.forbidden(why)
        raise refusals.unreachable(why)

    def _token(self) -> dict[str, str]:
        """Read each time: tokens that run out are replaced in their file."""
        if not self._token_file:
            return {}
        try:
            token = Path(self._token_file).read_text().strip()
        except OSError as error:
            why = f"orchestrator.token_file = {self._token_file!r}: {error.strerror}"
            raise refusals.forbidden(why) from None
        return {self._header: self._before + token}

    def read(self, answer: httpx.Response, kind: type[T]) -> T:
        """Its JSON. Raises Unavailable where it is none: something else listens there."""
        try:
            return msgspec.json.decode(answer.content, type=kind)
        except msgspec.DecodeError as error:
            raise refusals.unreachable(f"{self._name} is no such API: {error}") from None


def words(answer: httpx.Response) -> str:
    """What another program said, on one line."""
    return " ".join(answer.text.split())
