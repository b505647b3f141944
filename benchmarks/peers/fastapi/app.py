"""FastAPI with the model inline; W2 and W3 through a batcher of forty lines, written by hand.

Best of what was tried: uvloop, httptools, no access log, `async def` routes (no thread hop); W2's
batches run in a thread so that the loop stays free while the model sleeps, and wait 2 ms to fill;
W3's run inline (a batch takes 0.1 ms); W4 decodes inline: one at a time, as its peers do.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import work
from fastapi import FastAPI, Request

BATCH_WAIT_S = 0.002

app = FastAPI(openapi_url=None)


class Batcher:
    """Batches formed when the model is free: what came within wait_s, up to max_size."""

    def __init__(
        self, run: Callable[[list[Any]], list[Any]], max_size: int, wait_s: float, threaded: bool
    ) -> None:
        self.run, self.max_size, self.wait_s, self.threaded = run, max_size, wait_s, threaded
        self.waiting: asyncio.Queue[tuple[Any, asyncio.Future[Any]]] = asyncio.Queue()
        self.loop_task: asyncio.Task[None] | None = None

    async def __call__(self, item: Any) -> Any:
        if self.loop_task is None:
            self.loop_task = asyncio.create_task(self._serve())
        answer = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((item, answer))
        return await answer

    async def _serve(self) -> None:
        while True:
            batch = [await self.waiting.get()]
            if self.waiting.qsize() < self.max_size - 1:
                await asyncio.sleep(self.wait_s)  # 0: what was read in the same turn joins
            while len(batch) < self.max_size and not self.waiting.empty():
                batch.append(self.waiting.get_nowait())
            items = [item for item, _ in batch]
            if self.threaded:
                answers = await asyncio.to_thread(self.run, items)
            else:
                answers = self.run(items)
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)


def serve_sum() -> None:
    @app.post("/predict")
    async def predict(row: list[float]) -> float:
        return sum(row)


def serve_slow_sum(name: str) -> None:
    slower = work.SLOWER[name]
    batcher = Batcher(
        lambda rows: work.slow_sums(rows, slower), work.BATCH_MAX[name], BATCH_WAIT_S, threaded=True
    )

    @app.post("/predict")
    async def predict(row: list[float]) -> float:
        return await batcher(row)


def serve_mlp() -> None:
    batcher = Batcher(work.Mlp().lists, work.BATCH_MAX["w3"], 0, threaded=False)

    @app.post("/predict")
    async def predict(row: list[float]) -> list[float]:
        return await batcher(row)


def serve_mean() -> None:
    @app.post("/predict")
    async def predict(request: Request) -> float:
        return work.mean_of_jpeg(await request.body())


match work.workload():
    case "w1":
        serve_sum()
    case "w2" | "w2slow" as name:
        serve_slow_sum(name)
    case "w3":
        serve_mlp()
    case "w4":
        serve_mean()
