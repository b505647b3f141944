"""MLflow, as `headrace registry serve` runs it. It takes some ten seconds to start."""

from __future__ import annotations

import http.client
import os
import sys
from functools import cache
from pathlib import Path

from headrace.registry import serve
from headrace.testing.services.node import Node
from headrace.testing.services.programs import ServiceError, free_ports
from headrace.testing.services.service import Service

#: Where a Python with MLflow may be, beside the one that runs this: its 850 MB need a place of
#: their own.
PLACES = (".venv-mlflow/bin/python",)


class Mlflow(Service):
    name = "mlflow"

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__(folder)
        self.node = MlflowNode("mlflow", self.folder / "0", free_ports(1)[0])
        self.nodes = [self.node]

    @property
    def url(self) -> str:
        return f"mlflow://127.0.0.1:{self.node.port}"


class MlflowNode(Node):
    START_S = 120.0
    INHERITS_NOT = ("MLFLOW_", "_MLFLOW_", "PYTHON")

    def command(self) -> list[str]:
        return serve.command(python(), "127.0.0.1", self.port)

    def environment(self) -> dict[str, str]:
        told = serve.environment(self.data, private_webhooks=True)
        return told | {"MLFLOW_WEBHOOK_CACHE_TTL": "1"}  # a minute, else: whom it tells

    def answers(self) -> bool:
        """By a request that makes its tables: the first one takes seconds."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("GET", "/api/2.0/mlflow/registered-models/search?max_results=1")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@cache
def python() -> str:
    """One that has the MLflow we know: HEADRACE_MLFLOW_PYTHON, this one, or one of PLACES in the
    working directory. Raises ServiceError."""
    named = os.environ.get("HEADRACE_MLFLOW_PYTHON")
    for place in [named] if named else [*map(os.path.abspath, PLACES), sys.executable]:
        try:
            serve.check(place)
            return place
        except (serve.NoMlflow, OSError):
            continue
    raise ServiceError(f"MLflow {serve.PINNED} is not installed. PyPI: {serve.INSTALL}")
