"""Which side is slow: the published outage, its opposite, and what is neither."""

import itertools
from collections import deque

import msgspec
import pytest

from headrace.announce import Announcement, Outstanding
from headrace.autoscale.alarm import Alarms, Finding, believed, classify
from headrace.autoscale.observe import Observer
from headrace.autoscale.watch import Standing, Watch
from headrace.policy import Node, Policy, Target
from headrace.store.scaling import Minute

M = 29_460_001
POLICY = Policy(
    model="face",
    node=Node(workers=1, service_s=0.4, per_second=2.5),
    target=Target(slo_s=3.0, service_p95_s=0.5),
    most=200,
)


class Outage:
    """60 calls a second, workers that need 0.4 s, and consumers that read the answers one after the
    other, half a second each with its ack: 30 of them keep up, 5 do not. Callers leave after 25 s,
    and some of those call again. Steps of a tenth of a second, told as a house tells."""

    RATE, SERVICE_S, ACK_S, PATIENCE_S, STEP_S = 60.0, 0.4, 0.5, 25.0, 0.1

    def __init__(self, consumers, workers, again=0.0):
        self.consumers, self.workers, self.again = consumers, workers, again
        self.open, self.ids = {}, itertools.count()  # id -> when it came
        self.queue, self.running = deque(), deque()
        self.replies, self.reading = deque(), deque()
        self.lag_s, self.took_s, self.owed, self.arrived = 0.0, deque(maxlen=500), 0.0, 0

    def step(self, now):
        self.owed += self.RATE * self.STEP_S
        while self.open and now - next(iter(self.open.values())) > self.PATIENCE_S:
            del self.open[next(iter(self.open))]
            self.took_s.append(self.PATIENCE_S)
            self.owed += self.again
        while self.owed >= 1:
            call = next(self.ids)
            self.owed, self.arrived = self.owed - 1, self.arrived + 1
            self.open[call] = now
            self.queue.append(call)
        while self.running and self.running[0][0] <= now:
            self.replies.append((self.running.popleft()[1], now))
        while self.queue and len(self.running) < self.workers:
            self.running.append((now + self.SERVICE_S, self.queue.popleft()))
        while self.reading and self.reading[0][0] <= now:
            _, call, sent = self.reading.popleft()
            self.lag_s = max(self.lag_s, now - sent)
            if call in self.open:
                self.took_s.append(now - self.open.pop(call))
        while self.replies and len(self.reading) < self.consumers:
            self.reading.append((now + self.ACK_S, *self.replies.popleft()))

    def tell(self, seen, now):
        oldest = {"face": now - next(iter(self.open.values()))} if self.open else {}
        lag_s, self.lag_s = self.lag_s, 0.0
        seen.hear(
            Outstanding("g", {"face": len(self.open)}, {"face": self.arrived}, oldest, lag_s, 9e3),
            now,
        )
        for n in range(4):  # of many slots each
            busy = len(self.running) // 4 + (n < len(self.running) % 4)
            slots = self.workers // 4
            said = Announcement(
                f"w{n}", "face", True, "", None, slots, slots, busy, busy, len(self.queue), True,
                400.0, 0.0, 1,
            )  # fmt: skip
            seen.hear(said, now)
        seen.look(now)

    def p95_s(self):
        return sorted(self.took_s)[int(0.95 * len(self.took_s))]


#: As if profiled on a slower machine: it wants more workers than would do.
CAREFUL = msgspec.structs.replace(POLICY, node=Node(workers=1, service_s=0.8))


def run(outage, minutes, policy=POLICY):
    """Minute by minute: what is found, and the count that is decided."""
    now = M * 60.0
    seen, watch = Observer(["face"], now), Watch(policy)
    found, counts, changes = [], [outage.workers], []
    for step in range(minutes * 600 + 20):
        at = now + step / 10
        outage.step(at)
        if step % 10 == 0:
            outage.tell(seen, at)
        if step % 600 == 15 and step > 600:
            [minute] = seen.close(int(at // 60))
            changes += watch.hear(minute)
            found += [classify([minute] * 3, POLICY, False)]
            made, _ = watch.decide(Standing(counts[-1]), at, seen.measured_at())
            counts.append(made.count)
    return found, counts, changes


@pytest.mark.parametrize("again", [0.0, 0.5])
def test_the_published_outage_is_named_and_no_worker_is_added(again):
    """25 s of latency with idle workers, 5 reply consumers where 30 were needed."""
    outage = Outage(consumers=5, workers=100, again=again)
    found, counts, changes = run(outage, 7, CAREFUL)
    assert outage.p95_s() > 20, "the outage is here"
    assert [each.name for each in found[1:]] == ["reply-side"] * 6
    assert "more gateways would help" in found[-1].detail
    assert max(counts) == outage.workers, "no worker was added"
    assert [(each.name, each.began) for each in changes] == [("reply-side", True)]


def test_but_for_the_alarm_callers_who_call_again_would_have_workers_added(monkeypatch):
    monkeypatch.setattr(Alarms, "on", lambda self, name: False)
    outage = Outage(consumers=5, workers=100, again=0.5)
    assert max(run(outage, 7, CAREFUL)[1]) > outage.workers


def test_with_consumers_enough_nothing_is_found():
    outage = Outage(consumers=33, workers=40)
    found, counts, changes = run(outage, 4)
    assert outage.p95_s() < 3
    assert (found, changes) == ([None] * 4, [])
    assert max(counts) == outage.workers


def test_with_too_few_workers_it_is_the_workers_and_they_are_added():
    outage = Outage(consumers=60, workers=20)
    found, counts, changes = run(outage, 4)
    assert [each.name for each in found[1:]] == ["worker-side"] * 3
    assert counts[-1] > 30
    assert [(each.name, each.began) for each in changes] == [("worker-side", True)]


QUIET = Minute(
    model="face", minute=M, calls=600.0, waiting=0.0, oldest_s=0.5, busy=0.3, ready=4.0, slots=4.0,
    open=5.0, reply_lag_s=0.01, replies=1.0,
)  # fmt: skip


def but(**more):
    return msgspec.structs.replace(QUIET, **more)


@pytest.mark.parametrize(
    ("minute", "name"),
    [
        (QUIET, None),
        (but(replies=400.0, open=410.0), "reply-side"),
        (but(replies=400.0, open=410.0, busy=0.9), None),
        (but(replies=400.0, open=410.0, busy=None, ready=0.0), None),
        (but(replies=40.0, open=45.0, calls=60_000.0), None),  # quick ones, on the wire
        (but(reply_lag_s=3_600.0), None),  # clocks that differ
        (but(waiting=50.0, oldest_s=9.0, busy=0.95), "worker-side"),
        (but(waiting=50.0, oldest_s=9.0, ready=0.0, busy=None), "worker-side"),
        (but(waiting=50.0, oldest_s=0.5, busy=1.0), None),
        (but(oldest_s=60.0), None),  # a call that is slow in the model
        (but(calls=None), "arrivals-lost"),
        (but(calls=0.0), None),
    ],
)
def test_one_kind_of_minute_after_the_other(minute, name):
    found = classify([minute] * 3, POLICY, False)
    assert (found.name if found else None) == name


def test_a_fall_is_of_the_callers_and_nothing_at_all_is_none():
    assert classify([QUIET] * 3, POLICY, True).name == "arrivals-lost"
    assert classify([], POLICY, False) is None
    assert classify([but(calls=None)], POLICY, False) is None, "a minute is no outage"


def test_an_alarm_needs_two_minutes_and_lasts_until_three_are_quiet():
    slow, alarms = [Finding("reply-side", "because")], Alarms()
    heard = [alarms.hear(found) for found in ([], slow, [], slow, slow, slow, [], [], slow)]
    assert [len(changes) for changes in heard] == [0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert heard[4][0] == ("reply-side", True, "because") and alarms.on("reply-side")
    heard = [alarms.hear(found) for found in ([], [], [], [])]
    assert [[each.began for each in changes] for changes in heard] == [[], [], [False], []]
    assert not alarms.on("reply-side")


def test_an_alarm_of_another_life_ends_too():
    alarms = Alarms(["reply-side"])
    assert alarms.hear([Finding("reply-side", "")]) == []
    assert [alarms.hear([])[0:] for _ in range(3)][2][0] == ("reply-side", False, "")


def test_figures_that_cannot_be_are_not_believed():
    assert believed(QUIET, POLICY) and believed(but(calls=None), POLICY)
    assert believed(but(calls=60 * 500 * 90.0), POLICY), "a storm of retries may be that"
    assert not believed(but(calls=1e9), POLICY)
