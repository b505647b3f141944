"""What monitoring costs the way of a call: python benchmarks/monitoring.py

The sampler's share of a worker's time for each call, drawn and not drawn, and what is done with a
sample later, off the callers' way. Of the CPU that a worker spends on one call (README: 100 us and
more with its gateway) it must be at most 2 %.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import msgspec
import numpy as np

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


def main():
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
