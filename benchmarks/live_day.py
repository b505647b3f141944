"""A day of shop hours in 24 minutes: the real autoscaler, real workers, forecast on.

    python benchmarks/live_day.py                             24 minutes
    python benchmarks/live_day.py --hours 8-12                a part of the day
    python benchmarks/live_day.py --minutes-per-hour 0.5      twice as fast

A house of `headrace up` serves a model that sleeps 40 ms a call, one at a time, so that the machine
itself is not what is scaled; what one worker carries is measured before. Calls come as `headrace
simulate`'s shops call, on the ninth day; the eight before are in the database. The policy's clock
runs as fast as the day. What a call takes is counted from when it was due. Writes live_day.json,
its decisions, and live_day.png under benchmarks/out.
"""

import argparse
import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np

from headrace.autoscale.forecast import DAY
from headrace.autoscale.rivals import bare
from headrace.autoscale.size import nodes
from headrace.autoscale.traces import Trace, trace
from headrace.orchestrator.local import LocalOrchestrator
from headrace.policy import Node, Policy, Target
from headrace.settings import load
from headrace.store.engine import Database
from headrace.store.migrate import HEAD, revision
from headrace.store.scaling import Made, Minute, Scaling
from headrace.testing.house import TestHouse
from headrace.testing.load import Connection, Ledger, Load, quantile

MODELS = """
    import time
    import headrace

    class Shop(headrace.Model):
        batching = headrace.Batching(max_size=1)

        def golden(self):
            return 3, 10

        def predict(self, items: list[int]) -> list[int]:
            time.sleep(0.04)
            return [n * n + 1 for n in items]
"""
SERVICE_P95_S, SLO_S, START_S = 0.05, 0.5, 3.0  # real seconds
PROFILED_S = 20.0
WARM_DAYS, SEED = 8, 1
CONNECTIONS = 256
LOOK_EVERY_S = 0.5
OUT = Path(__file__).parent / "out"


class Day:
    """The traffic, and its clock."""

    def __init__(
        self,
        peak: float,
        first_h: float,
        last_h: float,
        minutes_per_hour: float,
        service_s: float,
    ) -> None:
        """`peak`: calls a real second in the busiest ten minutes. `service_s`: real seconds that
        a worker needs for a call."""
        self.service_s = service_s
        self.speed = 60 / minutes_per_hour
        self.minute_s = 60 / self.speed
        rough = self._trace(1e6)
        busiest = np.convolve(rough.calls[WARM_DAYS * DAY :], np.ones(10) / 10).max()
        self.trace = self._trace(1e6 * peak * self.minute_s / busiest)
        self.first = WARM_DAYS * DAY + int(first_h * 60)
        self.calls = self.trace.calls[self.first : WARM_DAYS * DAY + int(last_h * 60)]
        self.begins = (self.trace.start_min + self.first) * 60.0
        self.real_s = len(self.calls) * self.minute_s

    @staticmethod
    def _trace(calls_a_day: float) -> Trace:
        return trace(
            "shop", days=1, warm_days=WARM_DAYS, seed=SEED, calls_a_day=calls_a_day, from_day=None
        )

    def due_s(self) -> list[float]:
        """Of each call, from the beginning."""
        chance = np.random.default_rng([SEED, 3])
        spread = [
            (place + chance.random(int(calls))) * self.minute_s
            for place, calls in enumerate(self.calls.tolist())
        ]
        due: list[float] = np.sort(np.concatenate(spread)).tolist()
        return due

    def history(self) -> list[Minute]:
        known = enumerate(self.trace.calls[: self.first].tolist(), self.trace.start_min)
        return [Minute(model="shop", minute=minute, calls=calls) for minute, calls in known]

    def policy(self) -> Policy:
        return Policy(
            most=12,
            node=Node(
                workers=1, service_s=self.service_s * self.speed, start_s=START_S * self.speed
            ),
            target=Target(
                slo_s=SLO_S * self.speed,
                service_p95_s=SERVICE_P95_S * self.speed,
                overhead_s=0.02 * self.speed,
            ),
        )

    def static(self) -> int:
        """Workers that the busiest minute of the whole day needs."""
        policy = self.policy()
        busiest = float(self.trace.calls[WARM_DAYS * DAY :].max()) / 60
        return nodes(busiest, policy.node, bare(policy.target))

    def first_count(self) -> int:
        policy = self.policy()
        around = float(self.trace.calls[self.first : self.first + 10].max()) / 60
        return max(1, nodes(around, policy.node, policy.target))


async def profiled(folder: Path) -> float:
    """Real seconds that a worker needs for a call, when it always has one."""
    house_toml = '[models.shop]\nclass = "models:Shop"\nworkers = 1'
    async with TestHouse(MODELS, house_toml, folder) as house:
        load = Load(house.port, "shop", itertools.count(), right=squared, connections=8)
        async with load:
            await load.until(50)
            before, began = load.ledger.done, time.monotonic()
            await asyncio.sleep(PROFILED_S)
            service_s = (time.monotonic() - began) / (load.ledger.done - before)
            load.stop()
        load.ledger.all_right()
    return service_s


def squared(given: int, result: int) -> bool:
    return bool(result == given * given + 1)


class Callers:
    """An open loop: calls are due when they are due."""

    def __init__(self, port: int, due_s: list[float]) -> None:
        self._port, self._due = port, due_s
        self.ledger = Ledger()
        self.took: list[tuple[float, float]] = []  # when it was due, what it took; inf: no result

    async def run(self) -> None:
        free: asyncio.Queue[Connection] = asyncio.LifoQueue()  # the gateway closes what lies idle
        for _ in range(CONNECTIONS):
            free.put_nowait(Connection(self._port))
        began, asked = time.perf_counter(), set()
        for due in self._due:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            task = asyncio.create_task(self._call(free, began, due))
            asked.add(task)
            task.add_done_callback(asked.discard)
        await asyncio.gather(*asked)

    async def _call(self, free: "asyncio.Queue[Connection]", began: float, due: float) -> None:
        connection, given = await free.get(), random.randrange(1 << 20)
        self.ledger.sent += 1
        ok = self.ledger.ok
        try:
            try:
                answer = await connection.call("/models/shop/predict", str(given).encode())
            except (OSError, asyncio.IncompleteReadError):  # closed while it lay idle: on a new one
                answer = await connection.call("/models/shop/predict", str(given).encode())
            took_s = time.perf_counter() - began - due
            self.ledger.enter(given, answer, took_s, squared)
        except (OSError, asyncio.IncompleteReadError) as error:
            self.ledger.failed.append((given, repr(error)))
            took_s = 0.0
        self.took.append((due, took_s if self.ledger.ok > ok else float("inf")))
        free.put_nowait(connection)


class Watcher:
    """What there is, and what is paid: workers that run, the time of each; and the processor
    seconds that the host kept."""

    def __init__(self, url: str) -> None:
        self._house = LocalOrchestrator(url)
        self.seen: list[tuple[float, int, int]] = []  # when, asked for, running
        self.stolen: list[float] = []

    async def run(self) -> None:
        began = time.perf_counter()
        while True:
            status = await self._house.status("shop")
            self.seen.append((time.perf_counter() - began, status.desired, status.running))
            self.stolen.append(_stolen())
            await asyncio.sleep(LOOK_EVERY_S)

    def worker_s(self, until_s: float) -> float:
        times = [*(at for at, _, _ in self.seen), until_s]
        return sum(
            running * max(0.0, min(times[n + 1], until_s) - at)
            for n, (at, _, running) in enumerate(self.seen)
        )

    async def close(self) -> None:
        await self._house.close()


def toml(day: Day) -> str:
    scale = msgspec.json.decode(msgspec.json.encode(day.policy()))
    lines = [f"workers = {day.first_count()}", 'class = "models:Shop"', "[models.shop.scale]"]
    lines += [f"most = {scale['most']}"]
    for part in ("node", "target"):
        lines.append(f"[models.shop.scale.{part}]")
        lines += [f"{name} = {value}" for name, value in scale[part].items() if value is not None]
    return "\n".join(["[models.shop]", *lines])


def given_to_roles(house: TestHouse) -> dict[str, str]:
    """Where the house's broker and its door are: as it tells its roles."""
    [gateway] = house.pids("gateway")
    told = Path(f"/proc/{gateway}/environ").read_bytes().decode().split("\0")
    return dict(each.split("=", 1) for each in told if each.startswith("HEADRACE_"))


async def run(day: Day, folder: Path) -> dict[str, object]:
    async with TestHouse(MODELS, toml(day), folder) as house:
        given = given_to_roles(house)
        database = Database(
            load(house.path, environment=house.environment).database_url(), timeout_s=30
        )
        scaling = Scaling(database)
        while await database.read(revision) < HEAD:
            await asyncio.sleep(0.1)
        await scaling.put_minutes(day.history())
        watcher = Watcher(given["HEADRACE_ORCHESTRATOR__URL"])
        callers = Callers(house.port, day.due_s())
        since = time.time()
        command = [sys.executable, "-m", "headrace.testing.paced", str(house.path)]
        with house.log_path.open("ab") as log:
            role = subprocess.Popen(
                [*command, str(day.speed), str(since), str(day.begins)],
                env=os.environ | given | {"HEADRACE_AUTOSCALE__MODE": "act"},
                cwd=folder, stdout=log, stderr=log,
            )  # fmt: skip
        watching = asyncio.create_task(watcher.run())
        stolen = _stolen()
        try:
            await callers.run()
        finally:
            watching.cancel()
            role.send_signal(signal.SIGTERM)
            role.wait(20)
        stolen = _stolen() - stolen
        await watcher.close()
        made = await scaling.decisions("shop", 10_000)
        starts = await scaling.starts("shop")
        minutes = await scaling.minutes("shop", day.trace.start_min + day.first)
        alarms = await scaling.alarms("shop")
        await database.close()
    result = summary(day, callers, watcher, made, starts)
    result["cpu_stolen_share"] = round(stolen / (os.cpu_count() or 1) / day.real_s, 3)
    result["alarms"] = sorted({alarm.name for alarm in alarms})
    result["minutes_seen"] = sum(each.calls is not None for each in minutes)
    result["service_ms"] = round(day.service_s * 1000, 1)
    OUT.mkdir(exist_ok=True)
    lines = [msgspec.json.encode(each) for each in sorted(made, key=lambda each: each.minute)]
    (OUT / "live_day_decisions.jsonl").write_bytes(b"\n".join([*lines, b""]))
    (OUT / "live_day.json").write_text(json.dumps(result, indent=2) + "\n")
    draw(day, callers, watcher, made, result)
    return result


def summary(
    day: Day, callers: Callers, watcher: Watcher, made: list[Made], starts: list[float]
) -> dict[str, object]:
    took = [took_s for _, took_s in callers.took]
    worker_s, static = watcher.worker_s(day.real_s), day.static()
    moved = [each for each in made if each.count != each.asked]
    return {
        "hours": round(len(day.calls) / 60, 2),
        "real_s": round(day.real_s),
        "calls": len(took),
        "p50_ms": round(quantile(took, 0.5) * 1000, 1),
        "p95_ms": round(quantile(took, 0.95) * 1000, 1),
        "p99_ms": round(quantile(took, 0.99) * 1000, 1),
        "slo_p95_ms": SLO_S * 1000,
        "late_percent": round(100 * sum(each > SLO_S for each in took) / max(1, len(took)), 3),
        "refused": dict(callers.ledger.refused),
        "failed": len(callers.ledger.failed),
        "wrong": len(callers.ledger.wrong),
        "worker_s": round(worker_s),
        "static_peak": static,
        "static_worker_s": round(static * day.real_s),
        "saved_percent": round(100 * (1 - worker_s / (static * day.real_s)), 1),
        "decisions": len(made),
        "moves": len(moved),
        "not_applied": sum(each.applied != "yes" for each in made),
        "start_up_s": [round(each / day.speed, 2) for each in starts],
    }


def draw(
    day: Day, callers: Callers, watcher: Watcher, made: list[Made], result: dict[str, object]
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    first_h = (day.first - WARM_DAYS * DAY) / 60
    hour_s = 60 * day.minute_s

    def hours(real_s: float) -> float:
        return first_h + real_s / hour_s

    figure = Figure(figsize=(12, 10), layout="constrained")
    FigureCanvasAgg(figure)
    calls, counts, times, host = figure.subplots(4, 1, sharex=True, height_ratios=(3, 3, 3, 1))
    at = [first_h + n / 60 for n in range(len(day.calls))]
    calls.plot(at, day.calls / day.minute_s, color="0.6", lw=0.7, label="came")
    start = day.trace.start_min + WARM_DAYS * DAY
    for each in made:
        if each.foretold is not None and each.from_minute and each.to_minute:
            ends = [(each.from_minute - start) / 60, (each.to_minute - start) / 60]
            calls.plot(ends, [each.foretold / day.minute_s] * 2, color="C0", lw=1)
    calls.set(ylabel="calls a second", title="came (grey), forecast (blue)")
    seen = [(hours(at_s), desired, running) for at_s, desired, running in watcher.seen]
    counts.step([h for h, _, _ in seen], [n for _, n, _ in seen], where="post", label="asked for")
    counts.axhline(day.static(), color="C3", ls="--", label="static peak")
    counts.set(ylabel="workers", ylim=(0, None))
    counts.legend(fontsize="small")
    answered = [(hours(due), took_s * 1000) for due, took_s in callers.took if took_s < 1e9]
    times.scatter([h for h, _ in answered], [ms for _, ms in answered], s=1, color="0.5")
    times.axhline(SLO_S * 1000, color="C3", ls="--")
    times.set(ylabel="ms from when it was due", yscale="log")
    kept = np.diff(watcher.stolen) / np.diff([at_s for at_s, _, _ in watcher.seen])
    kept = np.convolve(kept, np.ones(10) / 10, "same") / (os.cpu_count() or 1)
    host.fill_between([hours(at_s) for at_s, _, _ in watcher.seen[1:]], 100 * kept, color="0.6")
    host.set(ylabel="% kept by host", xlabel="hour of the day", ylim=(0, 100))
    figure.suptitle(
        f"p95 {result['p95_ms']} ms of {SLO_S * 1000:.0f}, {result['late_percent']} % late,"
        f" {result['saved_percent']} % fewer worker-seconds than the static peak"
    )
    figure.savefig(OUT / "live_day.png", dpi=120)


def _stolen() -> float:
    """Processor seconds that the host kept."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", default="0-24", help="a part of the day, as 8-12")
    parser.add_argument("--minutes-per-hour", type=float, default=1.0)
    parser.add_argument(
        "--peak", type=float, default=100.0, help="calls a second when it is busiest"
    )
    options = parser.parse_args()
    first_h, last_h = (float(each) for each in options.hours.split("-"))
    with tempfile.TemporaryDirectory() as folder:
        service_s = asyncio.run(profiled(Path(folder)))
    day = Day(options.peak, first_h, last_h, options.minutes_per_hour, service_s)
    print(
        f"a call takes a worker {service_s * 1000:.1f} ms;"
        f" {int(day.calls.sum()):,} calls in {day.real_s / 60:.1f} min",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as folder:
        result = asyncio.run(run(day, Path(folder)))
    print(json.dumps(result, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
