"""As much of Google's and Azure's object protocols as obstore speaks with us, in one thread.

Not a judge of what the real ones do: it shows that requests are made, signed and read as their
documentation says, and lets faults be injected.
"""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class FakeCloud:
    """`objects` are those it holds, by bucket/name; `seen` the authorizations it was shown. Another
    `act` makes it another store."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.seen: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                cloud.seen.append(self.headers.get("Authorization", ""))
                target = urlsplit(self.path)
                status, kind, data = cloud.act(
                    self.command, unquote(target.path).lstrip("/"), parse_qs(target.query), body
                )
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.send_header("Last-Modified", DATE)
                self.send_header("ETag", '"1"')
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_DELETE = do_POST = answer

            def log_message(self, *_: object) -> None:
                """Nothing."""

        return Handler

    def act(
        self, verb: str, path: str, query: dict[str, list[str]], body: bytes
    ) -> tuple[int, str, bytes]:
        prefix = f"{path}/{query.get('prefix', [''])[0]}"
        if "list-type" in query:
            return 200, "application/xml", self._google_list(path, prefix)
        if query.get("comp") == ["list"]:
            return 200, "application/xml", self._azure_list(path, prefix)
        if query.get("comp") == ["batch"]:
            return self._azure_batch(body)
        if verb == "PUT":
            self.objects[path] = body
            return 201, "text/plain", b""
        if verb == "GET" and path in self.objects:
            return 200, "application/octet-stream", self.objects[path]
        if verb == "DELETE" and self.objects.pop(path, None) is not None:
            return 204, "text/plain", b""
        return 404, "text/plain", b""

    def _below(self, bucket: str, prefix: str) -> list[tuple[str, int]]:
        return [
            (escape(path.removeprefix(f"{bucket}/")), len(data))
            for path, data in sorted(self.objects.items())
            if path.startswith(prefix)
        ]

    def _google_list(self, bucket: str, prefix: str) -> bytes:
        entries = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f'<ETag>"1"</ETag><Size>{size}</Size></Contents>'
            for name, size in self._below(bucket, prefix)
        )
        return f"<ListBucketResult>{entries}</ListBucketResult>".encode()

    def _azure_list(self, container: str, prefix: str) -> bytes:
        entries = "".join(
            f"<Blob><Name>{name}</Name><Properties><Last-Modified>{DATE}</Last-Modified>"
            f"<Etag>1</Etag><Content-Length>{size}</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
            for name, size in self._below(container, prefix)
        )
        return f"<EnumerationResults><Blobs>{entries}</Blobs></EnumerationResults>".encode()

    def _azure_batch(self, body: bytes) -> tuple[int, str, bytes]:
        """Deletions, each a request in a part; answered by a part each."""
        parts = []
        for number, path in re.findall(rb"Content-ID: (\d+)\r\n\r\nDELETE /(\S+) HTTP", body):
            found = self.objects.pop(unquote(path.decode()), None)
            status = "202 Accepted" if found is not None else "404 The blob does not exist."
            parts.append(
                "--reply\r\nContent-Type: application/http\r\n"
                f"Content-ID: {number.decode()}\r\n\r\nHTTP/1.1 {status}\r\n\r\n"
            )
        answer = "".join([*parts, "--reply--\r\n"]).encode()
        return 202, "multipart/mixed; boundary=reply", answer
