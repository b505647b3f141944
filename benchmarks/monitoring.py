"""What monitoring costs the way of a call.

    python benchmarks/monitoring.py                    piece by piece
    python benchmarks/monitoring.py --house a house with it and one without, side by side

Piece by piece: the sampler's share of a worker's time for each call, drawn and not drawn, and what
is done with a sample later, off the callers' way. With `--house`: the processor time of everybody
on a call's way, under load, which may rise by 2 %. (The monitor is not on it.)
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import path

from headrace.jobs import Form
from headrace.monitor.adwin import Adwin
from headrace.monitor.watch import Watch
from headrace.monitoring import Monitor, Samples, read_samples
from headrace.worker.sample import Sampler

CALLS, BATCH = 200_000, 16
POLICY = Monitor(inputs=tuple(f"x{n}" for n in range(13)), outputs=("y", "p"))


def took_us(work, times):
    """CPU time, the best of three, in us for one of them."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best / times * 1e6


#: A model of a table, as most that are monitored: what it takes itself is next to nothing.
MODELS = """
from dataclasses import dataclass

import headrace

@dataclass
class Row:
    FIELDS

@dataclass
class Verdict:
    y: str
    p: float

class Table(headrace.Model):
    version = "1"
    batching = headrace.Batching(max_size=64, max_wait_ms=0)

    def predict(self, rows: list[Row]) -> list[Verdict]:
        return [Verdict("yes" if row.x0 > row.x1 else "no", 0.9) for row in rows]
""".replace("FIELDS", "\n    ".join(f"{name}: float" for name in POLICY.inputs))
TOML = """
[models.table]
class = "models:Table"
"""
WATCHED = f"""
[models.table.monitor]
inputs = {json.dumps(list(POLICY.inputs))}
outputs = {json.dumps(list(POLICY.outputs))}
"""


@contextlib.contextmanager
def a_house(port, more):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "models.py").write_text(MODELS)
        (folder / "headrace.toml").write_text(TOML + more)
        with path.house(folder / "headrace.toml", port) as pid:
            yield pid, port


def of_a_house(turns, connections, seconds):
    body = json.dumps({name: n * 0.5 for n, name in enumerate(POLICY.inputs)})
    with a_house(path.PORT, "") as plain, a_house(path.PORT + 1, WATCHED) as watched:
        houses = {"without": plain, "with monitoring": watched}
        path.side_by_side(houses, "table", body, connections, seconds, turns)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--house", action="store_true", help="a house with it and one without")
    parser.add_argument("--turns", type=int, default=20)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=2)
    asked = parser.parse_args()
    if asked.house:
        of_a_house(asked.turns, asked.connections, asked.seconds)
    else:
        by_piece()


def by_piece():
    body = msgspec.msgpack.encode({f"x{n}": n * 0.5 for n in range(13)})
    held = SimpleNamespace(job=SimpleNamespace(request_id="r-1", form=Form.JSON), body=body)
    batch, outcomes = [held] * BATCH, [b'{"y":"yes","p":0.9}'] * BATCH

    def offers(sampler):
        def work():
            for _ in range(CALLS // BATCH):
                sampler.offer(batch, outcomes, 1.0)

        return took_us(work, CALLS)

    sent = []
    rare = Sampler("m", POLICY, sent.append)
    offers(rare)  # its places are taken: from here on hardly a call is drawn
    print(f"offer, not drawn      {offers(rare):6.2f} us a call")
    every = msgspec.structs.replace(POLICY, samples_per_minute=600_000)
    often = Sampler("m", every, sent.append)
    often._room = 10**9
    print(f"offer, drawn          {offers(often):6.2f} us a call")
    drawn = often._drawn[:10_000]

    def tell():
        often._drawn = drawn
        often.tell()

    print(f"tell                  {took_us(tell, len(drawn)):6.2f} us a sample (of 15 fields)")
    news: list[Samples] = [read_samples(data) for data in sent][:20]
    count = sum(len(each.samples) for each in news)
    watch = Watch("m", POLICY)
    watch.refer("", None, 0.0)

    def count_them():
        for each in news:
            watch.hear(each, 1_000.0)

    print(f"monitor: count        {took_us(count_them, count):6.2f} us a sample")
    values = np.random.default_rng(0).normal(size=20_000).tolist()
    adwin = Adwin()
    print(
        f"monitor: ADWIN        {took_us(lambda: [adwin.add(v) for v in values], 20_000):6.2f} us"
    )
    print(f"monitor: one look     {took_us(lambda: watch.look(1_000.0), 1) / 1e3:6.2f} ms")


if __name__ == "__main__":
    main()
