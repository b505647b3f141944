"""LitServe: its ZeroMQ fast queue, uvloop, httptools, no access log, one API server, one worker.

Batching on W1, W2 and W3; W4 one by one.
"""

from typing import Annotated, Any

import litserve
import work
from fastapi import Body

BATCH_TIMEOUT_S = {"w1": 0.001, "w2": 0.002, "w2slow": 0.01, "w3": 0.001}


class Sum(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def predict(self, x: list[list[float]]) -> list[float]:
        return [sum(row) for row in x]

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output


class SlowSum(Sum):
    def predict(self, x: list[list[float]]) -> list[float]:
        return work.slow_sums(x, work.SLOWER[work.workload()])


class Mlp(Sum):
    def setup(self, device: str) -> None:
        self.mlp = work.Mlp()

    def predict(self, x: list[list[float]]) -> list[Any]:
        return self.mlp.lists(x)


class Mean(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> bytes:
        return request

    def predict(self, x: bytes) -> float:
        return work.mean_of_jpeg(x)


APIS = {"w1": Sum, "w2": SlowSum, "w2slow": SlowSum, "w3": Mlp}


def build(name: str) -> litserve.LitAPI:
    if name == "w4":
        return Mean()
    return APIS[name](max_batch_size=work.BATCH_MAX[name], batch_timeout=BATCH_TIMEOUT_S[name])


if __name__ == "__main__":
    server = litserve.LitServer(
        build(work.workload()),
        accelerator="cpu",
        devices=1,
        workers_per_device=1,
        fast_queue=True,
        timeout=60,
    )
    server.run(
        host="127.0.0.1",
        port=work.port(),
        num_api_servers=1,
        generate_client_file=False,
        log_level="error",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
