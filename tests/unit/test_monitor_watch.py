"""What the monitor makes of samples and labels, with the test's clock; samplers; alarms."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from headrace.errors import Problem
from headrace.jobs import Form
from headrace.monitor import watch as watch_module
from headrace.monitor.alarm import Alarm
from headrace.monitor.watch import SEGMENTS_MOST, Watch
from headrace.monitoring import (
    Label,
    Monitor,
    Quality,
    Sample,
    Samples,
    at_path,
    kept,
    read_samples,
)
from headrace.worker import sample
from headrace.worker.sample import LARGEST, Sampler

AT = 1_767_600_000.0
POLICY = Monitor(
    inputs=("x", "kind"), outputs=("y",), segment="region", window_minutes=10.0,
    reference_hours=0.0, least=100,
    quality=Quality(prediction="y", accuracy_least=0.8, least=50, window_hours=1.0),
)  # fmt: skip


def samples(count, *, shift=0.0, version="1", segment="", seed=0, at=AT, prefix="r"):
    draw = np.random.default_rng(seed)
    found = [
        Sample(f"{prefix}-{n}", at, 1.0, segment, [x + shift, "a" if x > 0 else "b", "yes"])
        for n, x in enumerate(draw.normal(size=count).tolist())
    ]
    return Samples("wine", version, list(POLICY.names()), found, 2 * count)


def heard(watch, news, now=AT):
    if not watch.known(news.version):
        watch.refer(news.version, None, now)
    watch.hear(news, now)


def test_a_change_of_the_inputs_is_found_in_its_window():
    watch = Watch("wine", POLICY)
    heard(watch, samples(200))
    heard(watch, samples(200, seed=1), AT + 1_200)
    [same] = watch.look(AT + 1_200).drift
    assert same.verdict == "same"
    assert same.calls == 200, "the first ones are out of the window"
    heard(watch, samples(400, seed=2, shift=3.0), AT + 2_400)
    state = watch.look(AT + 2_400)
    assert state.drift[0].verdict == "changed"
    assert [f.field for f in state.drift[0].fields if f.verdict == "changed"] == ["in.x"]
    assert (state.samples, state.calls) == (800, 1_600)
    assert watch.look(AT + 24_000).drift == (), "nobody calls: nothing is said"


def test_the_reference_is_made_of_the_first_calls_alone():
    watch = Watch("wine", msgspec.structs.replace(POLICY, reference_hours=1.0))
    heard(watch, samples(200))
    assert watch.look(AT).drift[0].verdict == "few"
    heard(watch, samples(100, seed=1), AT + 3_601)
    heard(watch, samples(100, seed=2, shift=9.0), AT + 3_700)
    assert watch.references["1"].profiles["1", ""].calls == 200
    # Another version is compared with its own.
    heard(watch, samples(100, seed=2, shift=9.0, version="2"), AT + 3_700)
    assert watch.references["2"].profiles["2", ""].calls == 100


def test_segments_are_judged_apart_and_bounded():
    watch = Watch("wine", POLICY)
    heard(watch, samples(200, segment="north"))
    heard(watch, samples(200, segment="south", seed=1))
    heard(watch, samples(300, segment="south", seed=2, shift=5.0), AT + 1_200)
    by_segment = {each.segment: each.verdict for each in watch.look(AT + 1_200).drift}
    assert by_segment == {"": "changed", "south": "changed"}
    for n in range(2 * SEGMENTS_MOST):
        heard(watch, samples(1, segment=f"s{n}"), AT + 1_200)
    assert len(watch.look(AT + 1_200).drift) <= SEGMENTS_MOST + 2


def test_labels_meet_their_predictions_whichever_comes_first():
    watch = Watch("wine", POLICY)
    early = [Label(f"r-{n}", "yes" if n < 40 else "no", AT, AT) for n in range(60)]
    watch.label(early)
    assert watch.look(AT).quality == ()
    heard(watch, samples(100))
    watch.label(Label(f"r-{n}", "no", AT, AT) for n in range(60, 100))
    state = watch.look(AT)
    [verdict] = state.quality
    assert (verdict.verdict, verdict.labels, state.labels) == ("bad", 100, 100)
    assert "accuracy 0.4" in verdict.text
    # Told again: the last word counts.
    watch.label(Label(f"r-{n}", "yes", AT, AT + 1) for n in range(100))
    assert watch.look(AT).quality[0].verdict == "good"
    assert watch.look(AT + 3_601).quality == (), "out of its window"


def test_quality_is_judged_of_each_segment():
    watch = Watch("wine", POLICY)
    heard(watch, samples(200, segment="north", prefix="n"))
    heard(watch, samples(200, segment="south", prefix="s"))
    watch.label(Label(f"n-{n}", "yes", AT, AT) for n in range(200))
    watch.label(Label(f"s-{n}", "no" if n < 100 else "yes", AT, AT) for n in range(200))
    seen = watch.look(AT).quality
    assert {q.segment: (q.verdict, q.labels) for q in seen} == {
        "": ("bad", 400),
        "north": ("good", 200),
        "south": ("bad", 200),
    }
    assert "segment south: accuracy 0.5" in seen[2].text


def test_quality_of_segments_is_bounded_too():
    watch = Watch("wine", POLICY)
    for n in range(2 * SEGMENTS_MOST):
        heard(watch, samples(1, segment=f"s{n}", prefix=f"r{n}"))
    watch.label(Label(f"r{n}-0", "yes", AT, AT) for n in range(2 * SEGMENTS_MOST))
    state = watch.look(AT)
    assert state.labels == 2 * SEGMENTS_MOST
    assert len(state.quality) == SEGMENTS_MOST + 1, "those of the first, and all together"


def test_a_call_that_two_versions_saw_is_judged_of_both():
    watch = Watch("wine", POLICY)
    heard(watch, samples(60, version="1"))
    heard(watch, samples(60, version="2"))
    watch.label(Label(f"r-{n}", "yes", AT, AT) for n in range(60))
    assert [(q.version, q.labels) for q in watch.look(AT).quality] == [("1", 60), ("2", 60)]


def test_errors_that_grow_are_found_in_the_stream():
    watch = Watch("wine", POLICY)
    for n in range(10):
        right = n < 5
        heard(watch, samples(200, prefix=f"p{n}"), AT + n)
        watch.label(Label(f"p{n}-{m}", "yes" if right else "no", AT, AT) for m in range(200))
        state = watch.look(AT + n)
    assert state.found and state.found[-1].what == "errors"
    assert state.found[-1].before < state.found[-1].after


def test_what_waits_for_labels_is_bounded(monkeypatch):
    monkeypatch.setattr(watch_module, "PREDICTIONS_MOST", 500)
    watch = Watch("wine", POLICY)
    for n in range(3):
        heard(watch, samples(300, prefix=f"p{n}"))
    assert len(watch._predicted) == 500
    watch.label(Label(f"none-{n}", 1.0, AT, AT) for n in range(1_100))
    assert len(watch._labels) == 1_000
    assert watch.look(AT).labels == 0


def test_a_worker_that_read_other_settings():
    watch = Watch("wine", POLICY)
    news = Samples("wine", "1", ["out.y", "in.old"], [Sample("a", AT, 1.0, "", ["yes", 3.0])], 1)
    heard(watch, news)
    profile = watch.references["1"].profiles["1", ""]
    assert profile.fields["in.x"].missing == 1
    assert profile.fields["out.y"].counts == {"yes": 1}


def test_after_forgetting_it_begins_anew():
    watch = Watch("wine", POLICY)
    heard(watch, samples(200))
    watch.clear()
    assert not watch.known("1") and not watch.rows
    assert watch.look(AT).drift == ()


# -- alarms ----------------------------------------------------------------------------------------


def test_an_alarm_needs_some_looks_on_end():
    alarm = Alarm("drift", 3, 2)
    looks = [True, True, False, True, None, True, True, True, False, None, True, False, False]
    found = [alarm.look(each, "d") for each in looks]
    assert [n for n, each in enumerate(found) if each] == [6, 12]
    assert found[6] == ("drift", True, "d") and found[12] == ("drift", False, "d")


def test_an_alarm_of_before_a_restart_ends():
    alarm = Alarm("drift", 3, 1, on=True)
    assert alarm.look(True, "still") is None
    assert alarm.look(False, "") == ("drift", False, "")


# -- samples ---------------------------------------------------------------------------------------


def held(id, body, form=Form.JSON):
    return SimpleNamespace(
        job=SimpleNamespace(request_id=id, form=form), body=msgspec.msgpack.encode(body)
    )


def sampler(**more):
    sent = []
    policy = msgspec.structs.replace(POLICY, **more)
    made = Sampler("wine", policy, lambda data: sent.append(read_samples(data)), lambda: AT)
    made.version = "3"
    return made, sent


def test_a_sample_has_the_fields_that_are_named_and_no_more():
    made, sent = sampler()
    body = {"x": 2, "kind": True, "region": "north", "name": "Ann"}
    made.offer([held("r", body), held("c", body, Form.CANONICAL)],
               [b'{"y": "yes", "more": 1}', msgspec.msgpack.encode({"y": 4})], 2.5)  # fmt: skip
    made.tell()
    [news] = sent
    assert (news.model, news.version, news.of) == ("wine", "3", 2)
    assert news.samples[0] == Sample("r", AT, 2.5, "north", [2.0, "true", "yes"])
    assert news.samples[1].values == [2.0, "true", 4.0]
    made.tell()
    assert len(sent) == 1, "nothing came since"


def test_at_most_so_many_are_drawn_each_with_the_same_chance():
    made, sent = sampler(samples_per_minute=3_000)
    for start in range(0, 10_000, 100):
        batch = [held(str(n), {"x": n}) for n in range(start, start + 100)]
        made.offer(batch, [b'{"y":1}'] * 100, 1.0)
    made.tell()
    drawn = [int(each.id) for each in sent[0].samples]
    assert len(drawn) == 100 and sent[0].of == 10_000
    assert 3_500 < sum(drawn) / 100 < 6_500, "the first are not preferred"


def test_refusals_and_what_is_large_or_not_to_be_read():
    made, sent = sampler()
    broken = held("b", {})
    broken.body = b"\xc1"
    large = held("l", {"x": "y" * LARGEST})
    batch = [broken, large, held("r", {})]
    made.offer(batch, [b"{}", b'{"y":2}', Problem(500, "model-failed", "it raised")], 1.0)
    made.tell()
    assert [each.id for each in sent[0].samples] == ["l"]
    assert sent[0].samples[0].values == [None, None, 2.0]
    assert made.unread == 1


async def test_the_rest_is_told_at_the_end(monkeypatch):
    monkeypatch.setattr(sample, "TELL_EVERY_S", 0.01)
    made, sent = sampler()
    task = asyncio.create_task(made.keep_telling())
    made.offer([held("r", {})], [b"{}"], 1.0)
    while not sent:
        await asyncio.sleep(0.005)
    made.offer([held("s", {})], [b"{}"], 1.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert sum(len(news.samples) for news in sent) == 2


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [
        (True, "true"), (3, 3.0), (float("nan"), None), ("short", "short"), ("x" * 500, 500.0),
        (b"\xff\xd8 an image", 11.0), ([1, 2], 2.0), (None, None),
        (msgspec.msgpack.Ext(1, b"12345"), 5.0),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_value(value, is_kept):
    assert kept(value) == is_kept


def test_paths():
    value = {"face": {"age": 3, "box": [1, 2]}, "n": None}
    assert at_path(value, "face.age") == 3.0
    assert at_path(value, "face.box.1") == 2.0
    assert at_path(value, "face.box.7") is None
    assert at_path(value, "none.at.all") is None
    assert at_path(7, "") == 7.0
