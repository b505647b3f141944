"""Processor time of a minute's decisions for 50 models: python benchmarks/decide.py

Of a plan each, with eight days of history of its own, and seven of forecasts of each minute. Cold
is the first minute of a process, warm one of the next; 10 ms are allowed. Each figure is a median
over fresh processes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np

from headrace.autoscale.decide import decide
from headrace.autoscale.forecast import DAY
from headrace.autoscale.margin import Settled
from headrace.autoscale.observed import Observed
from headrace.policy import Policy

MODELS, MINUTES = 50, 60
NOW = 1_767_600_000.0  # on a cycle of plans: a Monday, 08:00 UTC


def model(number):
    chance = np.random.default_rng(number)
    arrivals = chance.poisson(1000, 8 * DAY).astype(float)
    made_at = np.arange(-7 * DAY, -20) + int(NOW // 60)
    past = Settled(made_at, np.full(len(made_at), 1000.0), chance.normal(1000, 90, len(made_at)))
    found = Observed(
        arrivals=arrivals, settled=past, asked=14, ready=14, lead_s=600.0, measured_at=NOW
    )
    return found, Policy(model=f"m{number}")


def one_process():
    models, took_ms = [model(number) for number in range(MODELS)], []
    for _ in range(MINUTES):
        began = time.process_time()
        made = [decide(found, policy, NOW) for found, policy in models]
        took_ms.append((time.process_time() - began) * 1e3)
        assert all(one.foretold for one in made), "nobody planned: it is not the minute to measure"
    print(took_ms[0], statistics.median(took_ms[1:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=20)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one_process()
        return
    rows = []
    for _ in range(asked.processes):
        done = subprocess.run(
            [sys.executable, __file__, "--one"], check=True, capture_output=True, text=True
        )
        rows.append([float(word) for word in done.stdout.split()])
    for name, column in zip(("cold", "warm"), zip(*rows, strict=True), strict=True):
        print(f"{name}: median {statistics.median(column):.1f} ms,"
              f" {min(column):.1f} to {max(column):.1f}")  # fmt: skip


if __name__ == "__main__":
    main()
