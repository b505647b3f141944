"""Equal versions are almost never told apart; one that fails, refuses, is slow or says other things
always is. Calls are drawn by seeds: what passes here passes everywhere."""

import math
import random
from bisect import bisect_left
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.announce import TIMES_MS, Evidence
from headrace.deploy.evidence import WARM_S, Counts, Ledger
from headrace.deploy.gates import (
    compare,
    judge,
    kolmogorov,
    least_difference,
    merged,
    quantile,
    variation,
    wilson,
    worst,
)
from headrace.deployments import Gates

GATES = Gates()


class Version:
    """What it does, drawn second by second."""

    def __init__(self, errors=0.02, refusals=0.05, times=1.0, mean=0.0, label="a"):
        self.errors, self.refusals, self.times = errors, refusals, times
        self.mean, self.label = mean, label
        self.counts, self.seen = Counts(), {"score": [], "label": []}

    def second(self, chance, calls, at, stall=1.0):
        took_ms = Counter()
        for _ in range(calls):
            drawn = chance.random()
            if drawn < self.errors:
                self.counts.failed += 1
            elif drawn < self.errors + self.refusals:
                self.counts.refused += 1
            else:
                self.counts.answered += 1
            ms = chance.lognormvariate(3.9, 0.5) * self.times * stall
            took_ms[TIMES_MS[bisect_left(TIMES_MS, ms)]] += 1
            self.seen["score"].append(chance.gauss(self.mean, 1.0))
            self.seen["label"].append(chance.choice(("a", "b", self.label)))
        self.counts.add(Counts(took_ms=took_ms, seconds={at: took_ms}))

    def last(self):
        return {name: values[-200:] for name, values in self.seen.items()}


def judged(new, stable, seed, *, calls_a_second=60, share=0.2, most_s=45, stalls=False):
    """The second in which it is found bad, and the gate; or None."""
    chance = random.Random(seed)
    for at in range(most_s):
        stall = 5.0 if stalls and at % 13 == 0 else 1.0
        new.second(chance, round(calls_a_second * share), at, stall)
        stable.second(chance, round(calls_a_second * (1 - share)), at, stall)
        found = worst(judge(new.counts, stable.counts, (new.last(), stable.last()), GATES))
        if found and found.verdict == "bad":
            return at + 1, found.gate
    return None


@pytest.mark.parametrize("seed", range(12))
def test_equal_versions_are_not_told_apart(seed):
    assert judged(Version(), Version(), seed) is None


@pytest.mark.parametrize("seed", range(4))
def test_nor_on_a_machine_that_halts_now_and_then(seed):
    assert judged(Version(), Version(), seed, stalls=True) is None


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("worse", "gate", "within_s"),
    [
        ({"errors": 0.22}, "errors", 30),
        ({"errors": 1.0}, "errors", 6),
        ({"refusals": 0.4}, "refusals", 30),
        ({"times": 2.0}, "latency", 45),
        ({"times": 5.0}, "latency", 15),
        ({"mean": 2.0}, "predictions", 15),
        ({"label": "z"}, "predictions", None),
        ({"label": "b", "mean": 3.0}, "predictions", 15),
    ],
)
def test_a_worse_version_is_found(worse, gate, within_s, seed):
    found = judged(Version(**worse), Version(), seed)
    if within_s is None:  # a third of the labels are new: just above what is allowed
        assert found is None
    else:
        assert found is not None
        assert found[1] == gate
        assert found[0] <= within_s


def test_a_burst_of_late_calls_has_one_reason():
    """However many they are: a second is slow for all who call in it."""
    steady = Counter({25.0: 60})
    new = Counts(answered=600)
    for at in range(10):
        late = Counter({900.0: 60}) if at < 3 else steady
        new.add(Counts(took_ms=late, seconds={at: late}))
    stable = Counts(answered=600, took_ms=Counter({25.0: 600}))
    [latency] = judge(new, stable, ({}, {}), GATES, only=["latency"])
    assert latency.verdict == "doubtful"
    for at in range(10, 16):
        late = Counter({900.0: 60})
        new.add(Counts(took_ms=late, seconds={at: late}))
    [latency] = judge(new, stable, ({}, {}), GATES, only=["latency"])
    assert latency.verdict == "bad"
    assert (latency.new, latency.stable) == (900.0, 25.0)


def test_few_calls_are_not_judged():
    few = judge(Counts(failed=49), Counts(answered=1000), ({}, {}), GATES)
    assert [each.verdict for each in few] == ["few", "few", "few", "good"]
    assert worst(few).verdict == "few"
    [errors] = judge(Counts(failed=50), Counts(answered=50), ({}, {}), GATES, only=["errors"])
    assert (errors.verdict, errors.new, errors.stable) == ("bad", 1.0, 0.0)
    assert errors.text == "100.0% of its calls fail, 0.0% of production's"


def test_more_than_is_allowed_that_may_be_chance_is_doubtful():
    [errors] = judge(
        Counts(failed=3, answered=47), Counts(answered=500), ({}, {}), GATES, only=["errors"]
    )
    assert errors.verdict == "doubtful"


def test_predictions_can_be_left_unjudged_and_a_shadow_is_told_of():
    gates = Gates(predictions=None)
    verdicts = judge(Counts(same=90, other=10, missing=5), Counts(answered=100), ({}, {}), gates)
    assert [each.gate for each in verdicts] == ["errors", "refusals", "latency", "answers"]
    assert verdicts[-1].text == "90.0% of its 100 answers are those that were given; 5 did not come"
    assert verdicts[-1].verdict == "good"


def test_names_that_never_repeat_say_nothing():
    ids = [f"id-{n}" for n in range(400)]
    assert compare(ids[:200], ids[200:], 0.3)[0] == "good"
    assert compare(["x"] * 20, ["y"] * 500, 0.3) == ("few", 0.0)
    assert compare(["x"] * 200, ["y"] * 200, 0.3) == ("bad", 1.0)


def test_what_is_no_number_is_compared_too():
    assert compare([math.nan] * 100, [1.0] * 100, 0.3)[0] == "bad"
    assert compare([math.nan] * 100, [math.nan] * 100, 0.3)[0] == "good"
    assert compare([1.0] * 100, ["1"] * 50 + ["2"] * 50, 0.3)[0] == "bad"


numbers = st.lists(st.floats(-5, 5), min_size=1, max_size=40)


@given(numbers, numbers)
def test_distances_are_between_0_and_1_and_the_same_from_both_sides(here, there):
    assert 0 <= kolmogorov(here, there) <= 1
    assert kolmogorov(here, there) == kolmogorov(there, here)
    assert kolmogorov(here, here) == 0
    words, others = [str(round(x)) for x in here], [str(round(x)) for x in there]
    distance, expected, most = variation(words, others)
    assert -1e-9 <= distance <= 1 + 1e-9
    assert expected < most


@given(st.integers(1, 500), st.integers(1, 500), st.floats(0, 1), st.floats(0, 1))
def test_a_bound_is_below_what_was_seen(n, m, p, q):
    hits, others = round(n * p), round(m * q)
    low, high = wilson(hits, n, 3.3)
    assert 0 <= low <= hits / n + 1e-12 and hits / n - 1e-12 <= high <= 1
    assert least_difference(hits, n, others, m) <= hits / n - others / m


def test_a_quantile_is_a_bound_of_its_bucket():
    assert quantile(Counter(), 0.95) == 0.0
    assert quantile(Counter({10.0: 94, 20.0: 5, 400.0: 1}), 0.95) == 20.0


def test_the_last_seconds_count_where_they_are_bad():
    good = judge(Counts(answered=9_900, failed=100), Counts(answered=9_900, failed=100),
                 ({}, {}), GATES, only=["errors"])  # fmt: skip
    bad = judge(Counts(failed=60), Counts(answered=60), ({}, {}), GATES, only=["errors"])
    assert worst(merged(good, bad)).verdict == "bad"
    assert merged(good, good) == good


# -- evidence --------------------------------------------------------------------------------------


def said(gateway="g", version=2, answered=0, failed=0, refused=0, took=0, **more):
    return Evidence(gateway, "wine", version, answered, failed, refused, {25.0: took}, **more)


def test_totals_become_differences_and_nothing_is_counted_twice():
    ledger = Ledger()
    ledger.begin(0.0)
    ledger.hear(said(answered=1000, took=1000), 1.0)
    assert ledger.whole(2).calls == 0, "what it did before nobody knows when"
    ledger.hear(said(answered=1005, failed=5, took=1010), 10.0)
    ledger.hear(said(answered=1005, failed=5, took=1010), 11.0)
    whole = ledger.whole(2)
    assert (whole.answered, whole.failed, whole.took_ms[25.0]) == (5, 5, 10)
    assert ledger.whole(1).calls == 0
    ledger.hear(said(answered=3, took=3), 12.0)  # it began to count anew
    ledger.hear(said(answered=5, took=5), 13.0)
    assert ledger.whole(2).answered == 7


def test_a_gateway_that_died_leaves_what_it_told_and_a_new_one_is_added():
    ledger = Ledger()
    for gateway, at in (("a", 3.0), ("b", 30.0)):
        ledger.hear(said(gateway), at)
        ledger.hear(said(gateway, answered=10, took=10), at + 1)
    assert ledger.whole(2).answered == 20
    assert ledger.recent(2, 32.0).answered == 10


def test_the_first_times_are_left_out_and_the_time_before_is_kept():
    ledger = Ledger()
    ledger.hear(said(), 0.0)
    ledger.hear(said(answered=10, took=10), 5.0)
    ledger.begin(6.0)
    ledger.hear(said(answered=20, took=20), 6.0 + WARM_S / 2)
    assert (ledger.before(2).answered, ledger.whole(2).answered) == (10, 10)
    assert not ledger.whole(2).took_ms
    ledger.hear(said(answered=30, took=30), 6.0 + WARM_S)
    assert ledger.whole(2).took_ms == Counter({25.0: 10})
    assert ledger.recent(2, 9.0).answered == 20


def test_predictions_are_those_of_all_gateways_and_a_new_life_begins_without():
    ledger = Ledger()
    ledger.hear(said("a", seen={"score": [1.0, 2.0]}), 1.0)
    ledger.hear(said("b", seen={"score": [3.0], "label": ["x"]}), 1.0)
    assert ledger.seen(2) == {"score": [1.0, 2.0, 3.0], "label": ["x"]}
    ledger.hear(said("b", answered=4, seen={"score": [4.0]}), 2.0)
    assert ledger.seen(2) == {"score": [1.0, 2.0, 4.0]}
    ledger.forget(2)
    assert ledger.seen(2) == {}
    assert ledger.whole(2).calls == 0
