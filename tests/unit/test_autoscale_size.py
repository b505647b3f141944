"""Erlang C and the smallest number of nodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.autoscale.size import Unreachable, carries, erlang_c, late, nodes
from headrace.policy import Node, Target

NODE, TARGET = Node(), Target()


@pytest.mark.parametrize(
    ("servers", "offered", "share"),
    [(1, 0.5, 0.5), (2, 1.0, 1 / 3), (10, 8.0, 0.40918), (100, 95.0, 0.50668)],
)
def test_erlang_c_is_that_of_the_tables(servers, offered, share):
    assert erlang_c(servers, offered) == pytest.approx(share, rel=1e-3)


def test_whoever_cannot_keep_up_lets_everybody_wait():
    assert erlang_c(4, 4.0) == 1.0
    assert late(4.0, 1, NODE, TARGET) == 1.0


def test_the_tail_is_that_of_one_exponential_server():
    """M/M/1: P(W > x) = rho exp(-(1 - rho) x / S)."""
    node, target = Node(workers=1, service_cv2=1.0), Target(slo_s=3.0, service_p95_s=1.0)
    assert late(0.8, 1, node, target) == pytest.approx(0.8 * 2.718281828 ** (-0.2 * 2.0))


def test_many_nodes_are_limited_by_their_throughput_few_by_the_tail():
    assert carries(100, NODE, TARGET) == pytest.approx(TARGET.utilisation * 400)
    assert carries(1, NODE, TARGET) < TARGET.utilisation * 4
    assert late(carries(1, NODE, TARGET), 1, NODE, TARGET) == pytest.approx(0.05, abs=1e-6)


def test_a_measured_throughput_below_k_over_s_counts():
    slower = Node(per_second=2.0)
    assert nodes(100.0, slower, TARGET) == pytest.approx(2 * nodes(100.0, NODE, TARGET), abs=1)


def test_nobody_calls():
    assert nodes(0.0, NODE, TARGET) == 0
    assert carries(0, NODE, TARGET) == 0.0


def test_a_model_slower_than_the_promise_is_refused():
    with pytest.raises(Unreachable, match="service_p95_s 3 and overhead_s 0 leave nothing"):
        nodes(1.0, NODE, Target(slo_s=3.0, service_p95_s=3.0))


@given(st.floats(0.01, 500), st.integers(1, 8), st.floats(0, 2))
def test_the_smallest_that_is_enough(rate, workers, cv2):
    node = Node(workers=workers, service_cv2=cv2)
    count = nodes(rate, node, TARGET)
    assert carries(count, node, TARGET) >= rate - 1e-6
    assert count == 1 or carries(count - 1, node, TARGET) < rate
    assert late(rate, count, node, TARGET) <= TARGET.tail + 1e-6


@given(st.floats(0, 300), st.floats(0, 300))
def test_more_calls_never_need_fewer_nodes(one, other):
    low, high = sorted((one, other))
    assert nodes(low, NODE, TARGET) <= nodes(high, NODE, TARGET)
