"""Ray Serve: throughput mode, HAProxy in front, one replica, batches on W2 and W3.

bench/lineup.py sets RAY_SERVE_THROUGHPUT_OPTIMIZED=1 and RAY_SERVE_ENABLE_HA_PROXY=1 (the HAProxy
that comes with ray[serve]: over ten times its Python proxy on W1; it listens on all interfaces,
whatever the host says) before Ray is imported; the peer ray-python-proxy goes without it. The
default of 5 ongoing requests would cap the batches at 5. W2's batches run in a thread, so that
the replica's loop goes on taking calls while the model sleeps.
"""

import asyncio
import os
import signal
import threading
from typing import Any

import ray
import work
from ray import serve
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig
from starlette.requests import Request

NAME = work.workload()
BATCH_WAIT_S = 0.002
ONGOING = 4096
replica = serve.deployment(num_replicas=1, max_ongoing_requests=ONGOING)
batch = serve.batch(
    max_batch_size=work.BATCH_MAX[NAME], batch_wait_timeout_s=BATCH_WAIT_S, max_concurrent_batches=1
)


@replica
class Sum:
    async def __call__(self, request: Request) -> float:
        return sum(await request.json())


@replica
class SlowSum:
    @batch
    async def sums(self, rows: list[list[float]]) -> list[float]:
        return await asyncio.to_thread(work.slow_sums, rows, work.SLOWER[NAME])

    async def __call__(self, request: Request) -> float:
        return float(await self.sums(await request.json()))  # type: ignore[call-arg,arg-type]


@replica
class Mlp:
    def __init__(self) -> None:
        self.mlp = work.Mlp()

    @batch
    async def scores(self, rows: list[list[float]]) -> list[list[float]]:
        return self.mlp.lists(rows)

    async def __call__(self, request: Request) -> Any:
        return await self.scores(await request.json())


@replica
class Mean:
    async def __call__(self, request: Request) -> float:
        return work.mean_of_jpeg(await request.body())


def main() -> None:
    served = {"w1": Sum, "w2": SlowSum, "w2slow": SlowSum, "w3": Mlp, "w4": Mean}[NAME]
    ray.init(
        include_dashboard=False,
        _temp_dir=os.environ["TMPDIR"],
        log_to_driver=False,
        object_store_memory=100_000_000,
        _node_ip_address="127.0.0.1",
    )
    quiet = LoggingConfig(enable_access_log=False, log_level="ERROR")
    options = HTTPOptions(host="127.0.0.1", port=work.port())
    serve.start(http_options=options, logging_config=quiet)
    serve.run(served.bind(), route_prefix="/predict", logging_config=quiet)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
    ray.shutdown()


if __name__ == "__main__":
    main()
