"""Timings add up, whatever the worker's clock says; problems are RFC 9457."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import FieldError, Problem
from headrace.gateway.answer import answer_result, timings
from headrace.httpapi.answer import answer_problem, problem_json
from headrace.jobs import Outcome


class FakeRequest:
    id = "r-1"

    def answer(self, status, body, head):
        self.status, self.body, self.head = status, body, head


def outcome(taken=100.001, gathered_ms=1.0, executed_ms=5.0):
    return Outcome(1, taken, gathered_ms, executed_ms, b"{}")


def test_worked_example():
    times = timings(outcome(), read_ms=0.2, published=100.0, finished=100.010)
    assert times.queued == pytest.approx(1.0)
    assert times.returned == pytest.approx(3.0)
    assert times.total() == pytest.approx(10.2)


@given(
    st.floats(-1e6, 1e6), st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0, 100),
    st.floats(0, 400),
)  # fmt: skip
def test_they_add_up_and_are_never_negative(skew, gathered_ms, executed_ms, read_ms, took_s):
    published = 1_700_000_000.0
    times = timings(
        outcome(published + skew, gathered_ms, executed_ms), read_ms, published, published + took_s
    )
    assert min(times) >= 0
    floor = read_ms + gathered_ms + executed_ms
    assert times.total() == pytest.approx(max(floor, read_ms + took_s * 1000), abs=1e-3)


def test_what_is_written_adds_up_to_the_last_digit():
    request = FakeRequest()
    times = timings(outcome(), 0.123456, 100.0, 100.0098765)
    answer_result(request, b'{"score":1}', "m", "3", times)
    body = json.loads(request.body)
    stages = {k: v for k, v in body["timings"].items() if k != "total_ms"}
    assert round(sum(stages.values()), 3) == body["timings"]["total_ms"]
    assert body["result"] == {"score": 1}
    assert (body["model"], body["version"], body["request_id"]) == ("m", "3", "r-1")
    header = dict(
        part.split(";dur=")
        for part in request.head.decode().split("Server-Timing: ")[1].strip().split(", ")
    )
    assert {f"{name}_ms": float(ms) for name, ms in header.items()} == stages


def test_a_problem_has_the_members_of_rfc_9457():
    problem = Problem(503, "overloaded", "later", [FieldError("/a", "b")], 3)
    request = FakeRequest()
    answer_problem(request, problem)
    assert b"Content-Type: application/problem+json\r\n" in request.head
    assert b"Retry-After: 3\r\n" in request.head
    body = json.loads(request.body)
    assert body == json.loads(json.dumps(problem_json(problem, "r-1")))
    assert body["type"].endswith("/overloaded")
    assert body["status"] == request.status == 503
    assert body["instance"] == "/requests/r-1"
    assert body["errors"] == [{"pointer": "/a", "code": "b", "detail": ""}]
