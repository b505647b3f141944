"""A server that stands in for somebody else's HTTP API, in one thread each connection, and fails on
demand.

    class FakeThing(FakeHttp):
        def act(self, asked): return 200, {"what": "it says"}

    with FakeThing() as thing:
        thing.fail("hang", "POST")     # the next POST
"""

from __future__ import annotations

import json
import ssl
import threading
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit


class Asked(NamedTuple):
    """One request, with its parts already taken apart. `headers` have lower-case names."""

    method: str
    path: list[str]
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class FakeHttp:
    """`seen` are the requests that came, those that failed included."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Asked] = []
        self.lock = threading.RLock()
        self._faults: deque[tuple[str, str]] = deque()
        self._over = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def fail(self, fault: str, method: str = "", times: int = 1) -> None:
        """The next requests: "hang", "cut" (no answer), "late" (done, and no answer), "garbage", or
        a status. `method`: only those."""
        self._faults.extend([(fault, method)] * times)

    def act(self, asked: Asked) -> tuple[int, Any]:
        """Status, and what is said: text as it is, anything else as JSON. Holds `lock`."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _fault(self, asked: Asked) -> str:
        with self.lock:
            self.seen.append(asked)
            if self._faults and self._faults[0][1] in ("", asked.method):
                return self._faults.popleft()[0]
        return ""

    def answer(self, asked: Asked) -> tuple[int, Any] | None:
        """None: the connection ends without one."""
        fault = self._fault(asked)
        if fault == "hang":
            self._over.wait(30)
            return None
        if fault == "cut":
            return None
        if fault == "garbage":
            return 200, "<html>a proxy's page</html>"
        if fault.isdigit():
            return int(fault), f"status {fault} was asked for"
        with self.lock:
            said = self.act(asked)
        return None if fault == "late" else said

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1  # an answer in two pieces waits 40 ms for the client's kernel

            def handle_any(self) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                target = urlsplit(self.path)
                asked = Asked(
                    self.command,
                    [unquote(part) for part in target.path.strip("/").split("/")],
                    dict(parse_qsl(target.query)),
                    {name.lower(): value for name, value in self.headers.items()},
                    json.loads(data) if data else None,
                )
                said = fake.answer(asked)
                if said is None:
                    self.close_connection = True
                    return
                status, what = said
                body = what.encode() if isinstance(what, str) else json.dumps(what).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = handle_any  # noqa: N815

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler
