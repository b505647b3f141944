"""The one way by which Headrace sends requests to addresses that customers give.

    URL -> read once: scheme, host, port -> resolve once -> all addresses public?
        -> connect to one of them -> did that one answer? -> TLS for the name -> request -> answer

A redirect is an answer like any other, the environment's proxies are ignored, each request has a
connection of its own. Refusals begin with the class of their reason ("address: ...") and repeat
nothing of the URL, nor of what a name resolves to.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import httpcore

from headrace.errors import Invalid
from headrace.settings import WebhooksSettings

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

CONNECT_S = 3.0  # to all addresses of a name together
TOTAL_S = 5.0  # from the look-up of the name to the last byte
MOST_ADDRESSES = 4  # of a name are tried
MOST_URL = 2_048

#: RFC 3986 and nothing else: what parsers disagree about (\, spaces, controls, other alphabets)
#: does not come this far. No fragment: it is not for the server.
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)([A-Za-z0-9._~:/?@!$&'()*+,;=%[\]-]*)")
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([1-9]\d{0,4}))?")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
#: A host whose last label looks so is an IPv4 address in somebody's eyes: 127.1, 0x7f000001.
_NUMBER = re.compile(r"\d+|0x[0-9a-f]*")

_GLOBAL_6 = ip_network("2000::/3")  # all that is handed out
_NAT64 = ip_network("64:ff9b::/96")
#: Global in the eyes of `ipaddress`, of one of its versions at least, and yet not the internet.
_NEVER = [
    ip_network(net)
    for net in (
        "168.63.129.16/32",  # Azure's host, from inside a machine of theirs
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments, Teredo among them
        "2002::/16",  # 6to4
        "3fff::/20",  # documentation
    )
]


def public(address: Address) -> bool:
    """On the internet, also where an IPv6 address stands for an IPv4 one."""
    if isinstance(address, IPv6Address):
        inside = address.ipv4_mapped
        if address in _NAT64:
            inside = IPv4Address(int(address) & 0xFFFFFFFF)
        if inside is not None:
            return public(inside)
        isatap = int(address) >> 32 & 0xFDFFFFFF == 0x5EFE  # an IPv4 address in the last 4 bytes
        if address not in _GLOBAL_6 or isatap:
            return False
    if address.is_multicast or any(address in net for net in _NEVER):
        return False
    return address.is_global


@dataclass(frozen=True, slots=True)
class Target:
    """A URL, read once: nobody reads it again."""

    scheme: str
    host: str  # a name in lower case, or an address without brackets
    port: int
    path: str  # and query
    address: Address | None  # where the host is one

    @property
    def authority(self) -> str:
        """What the Host header says."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


_DEFAULT_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True, slots=True)
class Answer:
    """Of whatever status. `whole` is False where the body went on beyond what was asked for."""

    status: int
    headers: dict[str, str]  # names in lower case; of several of one name, the last
    body: bytes
    whole: bool


class Egress:
    """Sends to public addresses alone. One for a process; it holds nothing between requests.

    allow_private  for tests and sites that are closed off: http, any port, any address
    ports          those allowed otherwise
    resolve        host and port to addresses; the system's by default
    tls            by default the system's authorities, and certifi's
    """

    def __init__(
        self,
        *,
        allow_private: bool = False,
        ports: Iterable[int] = (443,),
        connect_s: float = CONNECT_S,
        total_s: float = TOTAL_S,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allow_private = allow_private
        self._ports = frozenset(ports)
        self._connect_s, self._total_s = connect_s, total_s
        self._resolve = resolve or _resolve
        self._tls = tls

    async def check(self, url: str) -> None:
        """Whether `send` would send, as far as that can be told now; connects to nobody.

        Raises Invalid (url-not-allowed, url-fetch-failed)."""
        target = self.read(url)
        try:
            async with asyncio.timeout(self._total_s):
                await self.addresses(target)
        except TimeoutError:
            raise _failed("timeout: the name was not resolved in time") from None

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        max_bytes: int = 0,
    ) -> Answer:
        """One request, one answer of any status, its body read up to `max_bytes`.

        Raises Invalid: url-not-allowed before anything is sent, url-fetch-failed where no answer
        came in time."""
        target = self.read(url)
        if self._tls is None and target.scheme == "https":
            self._tls = await asyncio.to_thread(httpcore.default_ssl_context)  # takes 0.1 s, once
        try:
            async with asyncio.timeout(self._total_s):
                addresses = await self.addresses(target)
                request = self._request(method, target, headers or {}, body)
                return await self._exchange(request, addresses, max_bytes)
        except (TimeoutError, httpcore.TimeoutException):
            raise _failed(f"timeout: no answer in {self._total_s:g} s") from None
        except (httpcore.NetworkError, OSError) as error:
            what = "tls" if isinstance(error.args[0], ssl.SSLError) else "connect"
            raise _failed(f"{what}: no connection, or it broke") from None
        except httpcore.ProtocolError:
            raise _failed("answer: not HTTP, or cut short") from None

    async def fetch(self, url: str, max_bytes: int) -> Answer:
        """A GET answered by 200 and at most `max_bytes`.

        Raises Invalid (url-not-allowed, url-fetch-failed)."""
        answer = await self.send("GET", url, max_bytes=max_bytes)
        if answer.status != 200:
            raise _failed(f"status: answered with {answer.status}")
        if not answer.whole:
            raise _failed(f"too-large: more than {max_bytes} bytes")
        return answer

    def read(self, url: str) -> Target:
        """Everything that can be said without the network. Raises Invalid (url-not-allowed)."""
        found = _URL.fullmatch(url) if len(url) <= MOST_URL else None
        if found is None:
            raise _refused(f"url: expected https://host/path, at most {MOST_URL} characters")
        scheme, authority, path = found[1].lower(), found[2], found[3]
        schemes = ("https", "http") if self._allow_private else ("https",)
        if scheme not in schemes:
            raise _refused(f"scheme: expected {' or '.join(schemes)}")
        if "@" in authority:
            raise _refused("userinfo: no user or password in a URL")
        parts = _AUTHORITY.fullmatch(authority)
        if parts is None:
            raise _refused("host: expected a name or an address, and a port or none")
        port = int(parts[2] or _DEFAULT_PORTS[scheme])
        if port > 65_535 or not (self._allow_private or port in self._ports):
            raise _refused(f"port: expected {' or '.join(map(str, sorted(self._ports)))}")
        host, address = _host(parts[1].lower())
        if address is not None:
            self._judge([address])
        return Target(scheme, host, port, path if path[:1] == "/" else f"/{path}", address)

    async def addresses(self, target: Target) -> list[Address]:
        """Of the host, at least one, and all of them public. Raises Invalid (url-not-allowed)."""
        if target.address is not None:
            return [target.address]
        try:
            found = [ip_address(text) for text in await self._resolve(target.host, target.port)]
        except (OSError, ValueError):
            found = []
        self._judge(found)
        return found[:MOST_ADDRESSES]

    def _judge(self, found: list[Address]) -> None:
        # A name that is unknown and one that is private get the same words, or the house would
        # tell strangers which names its network has.
        if not found or not (self._allow_private or all(map(public, found))):
            raise _refused("address: the host has no address, or one that is not public")

    def _request(
        self, method: str, target: Target, headers: Mapping[str, str], body: bytes
    ) -> httpcore.Request:
        url = httpcore.URL(
            scheme=target.scheme, host=target.host, port=target.port, target=target.path
        )
        fields = {"Host": target.authority, "Accept-Encoding": "identity"} | dict(headers)
        if body or method not in ("GET", "HEAD"):
            fields["Content-Length"] = str(len(body))
        timeouts = {"timeout": {"connect": self._connect_s}}  # of TLS; the whole has its own
        return httpcore.Request(
            method, url, headers=list(fields.items()), content=body, extensions=timeouts
        )

    async def _exchange(
        self, request: httpcore.Request, addresses: list[Address], max_bytes: int
    ) -> Answer:
        network = _Pinned(addresses, self._connect_s)
        async with httpcore.AsyncConnectionPool(self._tls, network_backend=network) as connection:
            answer = await connection.handle_async_request(request)
            async with aclosing(answer):
                headers = {
                    name.decode("latin-1").lower(): value.decode("latin-1")
                    for name, value in answer.headers
                }
                body, whole = await _read(answer, max_bytes)
                return Answer(answer.status, headers, body, whole)


def egress_of(settings: WebhooksSettings) -> Egress:
    return Egress(
        allow_private=settings.allow_private,
        connect_s=min(CONNECT_S, settings.timeout_s),
        total_s=settings.timeout_s,
    )


class _Pinned(httpcore.AnyIOBackend):
    """Connects to the addresses that were judged, and to no other, whatever the host is called."""

    def __init__(self, addresses: list[Address], connect_s: float) -> None:
        self._addresses, self._connect_s = addresses, connect_s

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        share_s = self._connect_s / len(self._addresses)
        last: Exception | None = None
        for address in self._addresses:
            try:
                stream = await super().connect_tcp(str(address), port, share_s)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                last = error
                continue
            peer = stream.get_extra_info("server_addr")
            if peer is not None and ip_address(peer[0]) == address:
                return stream
            await stream.aclose()
            last = httpcore.ConnectError("another address answered")
        assert last is not None
        raise last


async def _read(answer: httpcore.Response, max_bytes: int) -> tuple[bytes, bool]:
    """What is beyond stays unread: the connection is closed on it."""
    got = bytearray()
    if max_bytes > 0:
        async for chunk in answer.aiter_stream():
            got += chunk
            if len(got) > max_bytes:
                return bytes(got[:max_bytes]), False
    return bytes(got), max_bytes > 0


def _host(text: str) -> tuple[str, Address | None]:
    """A name, or an address in its one plain form. Raises Invalid (url-not-allowed)."""
    try:
        if text[0] == "[":
            address: Address = IPv6Address(text[1:-1])
            return str(address), address
        labels = text.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return text, IPv4Address(text)
    except ValueError:
        raise _refused("host: an IP address is written as 192.0.2.1 or [2001:db8::1]") from None
    if len(text) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise _refused("host: not the name of a host")
    return text, None


def _refused(detail: str) -> Invalid:
    return Invalid(detail, code="url-not-allowed")


def _failed(detail: str) -> Invalid:
    return Invalid(detail, code="url-fetch-failed")


@cache
def _resolvers() -> ThreadPoolExecutor:
    """Of our own: a name whose servers do not answer holds its thread for 10 s and more, and the
    loop's few threads are needed by others."""
    return ThreadPoolExecutor(32, thread_name_prefix="resolve")


async def _resolve(host: str, port: int) -> list[str]:
    def look_up() -> list[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return [str(entry[4][0]) for entry in found]

    return await asyncio.get_running_loop().run_in_executor(_resolvers(), look_up)
