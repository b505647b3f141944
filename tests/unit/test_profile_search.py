"""The greatest rate that is sustained, on a queue whose knee is known."""

import heapq
import math
import random

import pytest

from headrace.profiling.probe import sizes
from headrace.profiling.run import point
from headrace.profiling.scrape import Ran
from headrace.profiling.scrape import read as scraped
from headrace.profiling.search import Found, Limits, Search
from headrace.profiling.window import Call, Window, cv2, line, quantile


class Queue:
    """k servers, each call takes `service_s`, first come, first served; callers leave late."""

    def __init__(self, k: int, service_s: float, slo_s: float, steady: bool, seed: int = 1) -> None:
        self._k, self._service_s, self._slo_s, self._steady = k, service_s, slo_s, steady
        self._random = random.Random(seed)
        self.tried: list[float] = []

    async def window(self, rate: float, seconds: float) -> Window:
        self.tried.append(rate)
        warm_s = max(0.5, seconds / 4)
        window = Window(rate, seconds, self._slo_s, self._k, self._steady)
        free = [-warm_s] * self._k
        for due in self._due(rate, warm_s, seconds):
            end = max(heapq.heappop(free), due) + self._service_s
            heapq.heappush(free, end)
            window.calls.append(Call(due, end, end - due <= 1.5 * self._slo_s + 1))
        return window

    def _due(self, rate: float, warm_s: float, seconds: float) -> list[float]:
        count = round(rate * (warm_s + seconds))
        if self._steady:
            return [place / rate - warm_s for place in range(count)]
        return sorted(self._random.uniform(-warm_s, seconds) for _ in range(count))


async def greatest(queue: Queue, guess: float, limits: Limits | None = None) -> Found:
    search = Search(queue.window, limits or Limits(most_s=60.0), lambda _: True)
    return await search.greatest(guess)


def right_to_wait(rate: float, service_s: float, wait_s: float) -> float:
    """P(W <= wait) of M/D/1 (Erlang)."""
    terms = range(int(wait_s / service_s) + 1)
    past = [rate * (j * service_s - wait_s) for j in terms]
    total = sum(x**j / math.factorial(j) * math.exp(-x) for j, x in zip(terms, past, strict=True))
    return (1 - rate * service_s) * total


def knee(service_s: float, slo_s: float) -> float:
    """The rate of M/D/1 at which p95 is the promise."""
    low, high = 0.0, 1 / service_s
    for _ in range(50):
        middle = (low + high) / 2
        if right_to_wait(middle, service_s, slo_s - service_s) >= 0.95:
            low = middle
        else:
            high = middle
    return low


async def test_the_knee_of_a_queue_at_random_times():
    """With as many calls in a window as it takes to know p95 to 5 %."""
    known = knee(0.001, 0.004)
    found = [
        await greatest(Queue(1, 0.001, 0.004, False, seed), 700.0, Limits(8_000, 1.0, 60.0))
        for seed in (1, 2)
    ]
    assert [one.rate for one in found] == pytest.approx([known] * 2, rel=0.05)
    assert all(one.confirmed for one in found)


@pytest.mark.parametrize(("k", "guess"), [(1, 100.0), (2, 120.0), (4, 900.0)])
async def test_the_knee_of_a_queue_at_even_intervals(k: int, guess: float):
    found = await greatest(Queue(k, 0.01, 3.0, True), guess)
    assert found.rate == pytest.approx(100 * k, rel=0.05) and found.confirmed
    assert len(found.windows) < 16


async def test_the_limit_of_the_rate_is_kept():
    queue = Queue(4, 0.01, 3.0, True)
    found = await greatest(queue, 300.0, Limits(rate=150.0))
    assert found.rate == 150.0 and max(queue.tried) == 150.0


async def test_nothing_is_sustained_where_a_call_alone_is_late():
    found = await greatest(Queue(1, 0.5, 0.3, True), 1.0)
    assert found.rate == 0 and not found.confirmed
    assert {window.why_not() for window in found.windows} == {"p95 0.5 s"}


async def test_what_failed_by_chance_is_looked_at_again():
    queue, failed = Queue(1, 0.01, 3.0, True), []

    async def stolen_once(rate: float, seconds: float) -> Window:
        window = await queue.window(rate, seconds)
        if not failed:
            window.calls, window.stolen = [Call(0.1)], 0.4
            failed.append(window.why_not())
        return window

    found = await Search(stolen_once, Limits(), lambda _: True).greatest(100.0)
    assert failed == ["only 0% were answered in time"] and found.rate == pytest.approx(
        100, rel=0.05
    )


async def test_out_of_time_it_says_what_it_has():
    queue = Queue(1, 0.01, 3.0, True)
    search = Search(queue.window, Limits(), lambda _: len(queue.tried) < 2)
    found = await search.greatest(50.0)
    assert found.rate == queue.tried[1] and not found.confirmed


async def test_a_second_look_that_fails_lowers_the_rate():
    queue, good, failed = Queue(1, 0.01, 3.0, True), set[float](), list[float]()

    async def good_once(rate: float, seconds: float) -> Window:
        window = await queue.window(rate, seconds)
        if rate in good and not failed:
            window.calls = [Call(0.1)]
            failed.append(rate)
        if not window.why_not():
            good.add(rate)
        return window

    found = await Search(good_once, Limits(), lambda _: True).greatest(100.0)
    assert found.confirmed and found.rate == pytest.approx(failed[0] / 1.04)
    assert [window.rate for window in found.good] == [found.rate]


async def test_out_of_time_behind_a_second_look_that_failed():
    queue, tried, failed = Queue(1, 0.01, 3.0, True), list[float](), list[float]()

    async def good_once(rate: float, seconds: float) -> Window:
        window = await queue.window(rate, seconds)
        if rate in tried:
            window.calls = [Call(0.1)]
            failed.append(rate)
        tried.append(rate)
        return window

    found = await Search(good_once, Limits(rate=140.0), lambda _: not failed).greatest(60.0)
    assert found.rate in tried and found.rate < failed[0] and not found.confirmed
    assert [window.rate for window in found.good] == [found.rate]


def test_an_overload_is_seen_before_anybody_is_late():
    window = Window(110.0, 4.0, 3.0, 1, steady=True)
    window.calls = [Call(n / 110, (n + 1) / 100, True) for n in range(440)]
    assert window.p(0.95) < 1 and window.why_not() == "the queue grew" and window.close_call


def test_warm_up_does_not_count_and_no_answer_is_forever():
    window = Window(1.0, 4.0, 3.0, 1, steady=True)
    window.calls = [Call(-1.0, 5.0, True), *(Call(n, n + 0.5, True) for n in range(4))]
    assert len(window.counted) == 4 and window.p(0.95) == 0.5
    window = Window(1.0, 4.0, 3.0, 1)
    window.calls = [Call(0.0, 0.5, True), Call(1.0, 1.01, right=False)]
    assert window.p(0.95) == math.inf and window.why_not() == "only 50% were answered in time"
    assert point(window).p95_s is None and point(window).answered == 1


def test_small_figures():
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.95) == 4.0 and quantile([], 0.5) == 0.0
    assert cv2([1.0, 3.0]) == 0.25 and cv2([]) == 0.0
    assert sizes(1) == [1] and sizes(8) == [1, 2, 4, 8] and sizes(12) == [1, 2, 4, 8, 12]


def test_the_line_of_batch_times():
    points = [(n, 5.0 + 2.0 * n) for n in (1, 2, 4, 8)]
    assert line([*points, (4, 90.0), (4, 13.0)]) == pytest.approx((5.0, 2.0))
    assert line([(4, 12.0)]) == (0.0, 3.0) and line([]) == (0.0, 0.0)
    assert line([(1, 9.0), (8, 3.0)])[1] == 0.0  # never below 0


def test_the_workers_own_count():
    page = (
        'headrace_worker_batch_size_sum{model="m"} 12.0\n'
        'headrace_worker_batch_size_count{model="m"} 3.0\n'
        'headrace_worker_executed_seconds_sum{model="m"} 0.6\n'
        'headrace_worker_executed_seconds_count{model="m"} 3.0\n'
    )
    found = scraped(page).since(Ran(4.0, 1.0, 0.2))
    assert (found.batch, found.service_s) == (4.0, pytest.approx(0.05))
