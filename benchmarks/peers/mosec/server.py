"""mosec: dynamic batching (W1, W2, W3), msgspec for JSON, one worker process, its Rust front.

Started by run.py as `python server.py --address 127.0.0.1 --port 8750 --timeout ...`.
BENCH_BATCHING=0 (the peer mosec-single) turns batching off.
max_wait_time counts from the first item; 1 ms is the least that mosec takes.
"""

import os
from typing import Any

import msgspec
import work
from mosec import Server, Worker

BATCH_WAIT_MS = {"w1": 1, "w2": 2, "w2slow": 10, "w3": 1}
encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(list[float]).decode


class Json(Worker):
    def deserialize(self, data: bytes) -> list[float]:
        return decode(data)

    def serialize(self, data: Any) -> bytes:
        return encode(data)


class Sum(Json):
    def forward(self, data: list[list[float]]) -> list[float]:
        return [sum(row) for row in data]


class SlowSum(Json):
    def forward(self, data: list[list[float]]) -> list[float]:
        return work.slow_sums(data, work.SLOWER[work.workload()])


class SingleSum(Json):
    def forward(self, data: list[float]) -> float:
        return sum(data)


class SingleSlowSum(Json):
    def forward(self, data: list[float]) -> float:
        return work.slow_sums([data], work.SLOWER[work.workload()])[0]


class Mlp(Json):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = work.Mlp()

    def forward(self, data: list[list[float]]) -> list[list[float]]:
        return self.mlp.lists(data)


class SingleMlp(Mlp):
    def forward(self, data: Any) -> Any:
        return self.mlp.lists([data])[0]


class Mean(Json):
    def deserialize(self, data: bytes) -> Any:
        return data

    def forward(self, data: bytes) -> float:
        return work.mean_of_jpeg(data)


WORKERS = {"w1": Sum, "w2": SlowSum, "w2slow": SlowSum, "w3": Mlp}
SINGLES = {
    "w1": SingleSum,
    "w2": SingleSlowSum,
    "w2slow": SingleSlowSum,
    "w3": SingleMlp,
    "w4": Mean,
}

if __name__ == "__main__":
    server = Server()
    name = work.workload()
    if name == "w4" or os.environ.get("BENCH_BATCHING") == "0":
        server.append_worker(SINGLES[name], num=1)
    else:
        server.append_worker(
            WORKERS[name],
            num=1,
            max_batch_size=work.BATCH_MAX[name],
            max_wait_time=BATCH_WAIT_MS[name],
        )
    server.run()
