"""SeaweedFS: master, volume, filer and S3 gateway in one process."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path

from headrace.testing.services.node import Node
from headrace.testing.services.programs import find, free_ports
from headrace.testing.services.service import Service

ACCESS_KEY = "headrace"
SECRET_KEY = "headrace-secret"  # noqa: S105 - of a server that listens on the loopback only
BUCKET = "headrace"


class SeaweedFS(Service):
    """`url` is the S3 endpoint; `bucket` is there from the start."""

    name = "seaweedfs"
    bucket, access_key, secret_key = BUCKET, ACCESS_KEY, SECRET_KEY

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.node = WeedNode("seaweedfs", self.folder / "0", free_ports(8))
        self.nodes = [self.node]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.node.port}"

    def environment(self) -> dict[str, str]:
        """As the clients of S3 read it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }


class WeedNode(Node):
    GRACE_S = 0.5  # it waits 15 s for a subscription of its own; what was written is in its files

    def __init__(self, name: str, folder: Path, ports: list[int]) -> None:
        super().__init__(name, folder, ports[0])
        self._program, self._ports = find("weed"), ports

    def command(self) -> list[str]:
        s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc = self._ports
        ports = {
            "s3.port": s3, "s3.port.grpc": s3_grpc, "s3.port.iceberg": 0, "s3.port.lance": 0,
            "master.port": master, "master.port.grpc": master_grpc,
            "volume.port": volume, "volume.port.grpc": volume_grpc,
            "filer.port": filer, "filer.port.grpc": filer_grpc,
        }  # fmt: skip
        options = {
            "dir": self.data,
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.electionTimeout": "1s",  # of one: it elects itself, 10 s after a restart
            "master.telemetry": "false",  # else it reports to its makers
            "master.volumeSizeLimitMB": 64,
            "volume.max": 0,
            "volume.preStopSeconds": 0,
            "filer": "true",
            "filer.localSocket": self.folder / "filer.sock",
            "s3": "true",
            "s3.localSocket": self.folder / "s3.sock",
            "s3.config": self.folder / "s3.json",
        }
        return [self._program, "server", *(f"-{k}={v}" for k, v in (options | ports).items())]

    def prepare(self) -> None:
        keys = {"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}
        identity = {"name": "headrace", "credentials": [keys], "actions": ["Admin"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def tidy(self) -> None:
        for port in self._ports:
            for socket in Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):  # noqa: S108 - its
                socket.unlink(missing_ok=True)

    def answers(self) -> bool:
        """S3 answers, and the filer behind it finds a volume to write to."""
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=1.0)
        except urllib.error.HTTPError:
            pass  # it wants a signature
        except (OSError, ValueError):
            return False
        try:
            if not self._has_bucket():
                self._filer("POST", f"buckets/{BUCKET}/")
            self._filer("PUT", f"buckets/{BUCKET}/.ready", b"x")
            self._filer("DELETE", f"buckets/{BUCKET}/.ready")
        except (OSError, ValueError):
            return False
        return True

    def _has_bucket(self) -> bool:
        try:
            self._filer("HEAD", f"buckets/{BUCKET}/")
        except urllib.error.HTTPError:
            return False
        return True

    def _filer(self, method: str, path: str, data: bytes | None = None) -> None:
        url = f"http://127.0.0.1:{self._ports[6]}/{path}"
        request = urllib.request.Request(url, data, method=method)
        urllib.request.urlopen(request, timeout=2.0).close()  # noqa: S310 - our own server
