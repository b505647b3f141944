"""A client that sends bytes as they are, and the house that they are sent to."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

#: Stands in bad inputs, and in no answer.
MARK = "SECRETMARK"
LEAK = re.compile(
    rb"Traceback|/usr/|\.py\b|site-packages|nats|msgspec|Pillow|PIL\b|httptools|uvloop|127\.0\.0\.1"
    rb"|0x[0-9a-f]{8}"
)
GOOD = b"[1, 2, 3.5]"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """One connection."""

    def __init__(self, port: int, timeout_s: float = 10.0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        self._read = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def half_close(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)

    def _more(self) -> bool:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            return False
        self._read += data
        return bool(data)

    def answer(self, method: str = "POST") -> Answer:
        """The next answer. Raises EOFError where the connection ends before it."""
        while b"\r\n\r\n" not in self._read:
            if not self._more():
                raise EOFError(f"closed after {self._read!r}")
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines)}
        status = int(status_line.split(" ")[1])
        if status == 100:
            return Answer(status, headers, b"")
        length = 0 if method == "HEAD" else int(headers["content-length"])
        while len(self._read) < length:
            if not self._more():
                raise EOFError("closed within a body")
        body, self._read = self._read[:length], self._read[length:]
        return Answer(status, headers, body)

    def rest(self) -> bytes:
        """Everything up to the end of the connection, which must come."""
        while self._more():
            pass
        return self._read


class HouseUnderTest(NamedTuple):
    port: int
    gateway_pid: int

    def wire(self, timeout_s: float = 10.0) -> Wire:
        return Wire(self.port, timeout_s)

    def call(
        self,
        model: str,
        body: bytes,
        content_type: str | None = "application/json",
        *,
        verb: str = "predict",
        **headers: str,
    ) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type is not None:
            named["Content-Type"] = content_type
        return self.request("POST", f"/models/{model}/{verb}", body, named)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, headers or {})
            got = connection.getresponse()
            found = {name.lower(): value for name, value in got.getheaders()}
            return Answer(got.status, found, got.read())
        finally:
            connection.close()

    def is_well(self) -> bool:
        """The same gateway process, answering rightly."""
        good = self.call("numbers", GOOD)
        return Path(f"/proc/{self.gateway_pid}").exists() and good.json()["result"] == 6.5

    def resident_mb(self) -> float:
        pages = Path(f"/proc/{self.gateway_pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def metric(self, name: str) -> float:
        """The sum over all labels."""
        lines = self.request("GET", "/metrics").body.decode().splitlines()
        return sum(float(x.rsplit(" ", 1)[1]) for x in lines if re.match(rf"{name}(\{{|\s)", x))


def check_problem(answer: Answer, status: int, code: str, *, instance: bool = True) -> None:
    """RFC 9457, and nothing that helps an attacker."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == code, problem
    assert problem["status"] == status
    assert problem["type"].startswith("https://") and problem["type"].endswith(f"/{code}")
    assert problem["title"] and problem["detail"]
    if instance:
        assert problem["instance"] == f"/requests/{answer.headers['x-request-id']}"
    for name in problem:
        assert re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{2,}", name)
    for error in problem.get("errors", []):
        assert set(error) == {"pointer", "code", "detail"}
    check_no_leak(answer)


def check_no_leak(answer: Answer) -> None:
    whole = answer.body + repr(answer.headers).encode()
    assert not LEAK.search(whole), whole
    assert MARK.encode() not in whole, whole
    assert "server" not in answer.headers


def eventually(claim: Any, within_s: float = 5.0) -> None:
    end = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.05)
