"""What people are told, in which words and how often: all of it without a socket."""

import json
from types import SimpleNamespace

import pytest

from headrace.notify import notice as notices
from headrace.notify.bucket import Bucket
from headrace.notify.forms import MOST_TEXT, left_out, plain, sentence, slack
from headrace.notify.notify import notify_of
from headrace.notify.pile import AGAIN_S, STALE_S, Message, Pile
from headrace.settings import NotifySettings, Settings, SettingsError
from headrace.signatures import new_secret


def moved(model="ocr", before=5, count=8, at=0.0, **more):
    return notices.moved(model, before, count, f"raised from {before} to {count}", at, **more)


def alarm(model="ocr", name="reply-side", at=0.0, ended=False):
    return notices.alarm(model, name, "answers wait", at, ended=ended)


def hand(state="set", id="1", at=0.0):
    return notices.hand("ocr", state, f"ann {state}", at, id=id)


def sent(pile, now=0.0):
    """All that waits, as it would be sent."""
    found = []
    while message := pile.next(now):
        found.append(message)
        pile.done(message, now)
    return found


# -- how often -------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 3, 10, 30, 100])
@pytest.mark.parametrize("urgent", [True, False])
def test_never_more_in_any_hour_and_as_many_in_the_long_run(most, urgent):
    bucket = Bucket(most, 0.0)
    step_s = 3600 / most / 7
    times = [n * step_s for n in range(7 * most * 4)]
    taken = [at for at in times if bucket.take(at, urgent)]
    for first in taken:
        assert len([at for at in taken if first <= at < first + 3600]) <= most
    assert len(taken) >= 4 * max(1, most // 2)


def test_some_are_kept_for_what_is_urgent():
    bucket = Bucket(30, 0.0)
    assert sum(bucket.take(0.0, False) for _ in range(30)) == 7
    assert sum(bucket.take(0.0, True) for _ in range(30)) == 3
    assert bucket.wait_s(0.0, True) == pytest.approx(180)
    assert bucket.wait_s(0.0, False) == pytest.approx(4 * 180)
    assert bucket.take(180.1, True) and not bucket.take(180.1, True)


def test_a_clock_that_is_set_back_gives_nothing():
    bucket = Bucket(3, 1e9)
    assert bucket.take(1e9, True) and not bucket.take(0.0, True)
    assert bucket.wait_s(1.0, True) > 0 and bucket.take(3600.0, True)


# -- what goes first, and what is left out ---------------------------------------------------------


def test_a_decision_takes_the_place_of_an_older_one_of_its_model():
    pile = Pile()
    for one in (moved(count=8), moved("face"), moved(before=8, count=9), hand()):
        pile.put(one, 0.0)
    found = sent(pile)
    assert [(m.notice.kind, m.notice.model) for m in found] == [
        ("decision", "face"), ("decision", "ocr"), ("override", "ocr"),
    ]  # fmt: skip
    assert found[1].notice.data["count"] == 9
    assert [m.left_out for m in found] == [{"decision": 1}, {}, {}]


def test_what_is_being_sent_is_not_replaced():
    pile = Pile()
    first = moved()
    pile.put(first, 0.0)
    pile.flying = first.id
    pile.put(moved(count=9), 0.0)
    assert [m.notice.data["count"] for m in sent(pile)] == [8, 9]


def test_alarms_go_first_and_in_order():
    pile = Pile()
    for one in (moved(), hand(), alarm(name="a"), alarm(name="b"), alarm(name="a", ended=True)):
        pile.put(one, 0.0)
    found = [(m.notice.name, m.notice.state) for m in sent(pile)]
    assert found[:3] == [("a", "began"), ("b", "began"), ("a", "ended")]


def test_an_alarm_that_says_what_was_said_is_counted():
    pile = Pile()
    for _ in range(3):
        pile.put(alarm(), 0.0)
    [message] = sent(pile)
    assert message.times == 3 and "(3 times)" in sentence(message)
    for _ in range(2):
        pile.put(alarm(), 60.0)
    assert sent(pile, 60.0) == []
    pile.put(alarm(ended=True), 61.0)
    pile.put(alarm(), 62.0)  # told again: or the last word would be that it is over
    assert [(m.notice.state, m.times) for m in sent(pile, 62.0)] == [("ended", 3), ("began", 1)]
    pile.put(alarm(), 62.0 + AGAIN_S + 1)
    assert len(sent(pile, 62.0 + AGAIN_S + 1)) == 1


def test_an_alarm_of_another_model_is_another_alarm():
    pile = Pile()
    pile.put(alarm(), 0.0)
    pile.put(alarm("face"), 0.0)
    pile.put(notices.failing("ocr", "reply-side", "away", 0.0), 0.0)
    assert len(sent(pile)) == 3


def test_old_decisions_are_no_news():
    pile = Pile()
    pile.put(moved(at=0.0), 0.0)
    pile.put(hand(at=0.0), 0.0)
    [message] = sent(pile, STALE_S + 1)
    assert (message.notice.kind, message.left_out) == ("override", {"decision": 1})


def test_it_never_grows_beyond_its_bound():
    pile = Pile(most=5)
    for n in range(20):
        pile.put(moved(f"m{n}"), 0.0)
    pile.put(alarm(), 0.0)
    assert len(pile) == 5
    found = sent(pile)
    assert found[0].notice.kind == "alarm" and found[0].left_out == {"decision": 16}
    assert [m.notice.model for m in found[1:]] == ["m16", "m17", "m18", "m19"]
    for n in range(9):
        pile.put(alarm(name=f"a{n}"), 0.0)
    assert len(pile) == 5


def test_what_is_left_out_while_one_is_sent_stands_in_the_next():
    pile = Pile(most=1)
    pile.put(hand(id="1"), 0.0)
    message = pile.next(0.0)
    pile.flying = message.notice.id
    pile.put(hand(id="2"), 0.0)
    assert len(pile) == 1
    pile.done(message, 0.0)
    pile.flying = ""
    pile.put(alarm(), 0.0)
    assert pile.next(0.0).left_out == {"override": 1}


# -- in which words --------------------------------------------------------------------------------


def test_slack_calls_nobody_by_what_a_person_wrote():
    one = notices.hand("ocr", "set", "ann: <!channel> a < b & *c*", 0.0, id="1")
    body = json.loads(slack(Message(one, left_out={"decision": 2, "override": 1}), "shop"))
    assert body["text"] == "ocr: ann: &lt;!channel&gt; a &lt; b &amp; *c*"
    assert "<" not in json.dumps(body)
    section, context = body["blocks"]
    assert section["type"] == "section" and section["text"]["type"] == "mrkdwn"
    assert [one["text"] for one in context["elements"]] == [
        "house shop", "not told one by one: 2 decisions, 1 override",
    ]  # fmt: skip


def test_slack_takes_no_more_than_3000_characters():
    one = notices.alarm("ocr", "x", "&" * 5000, 0.0)
    section = json.loads(slack(Message(one), "shop"))["blocks"][0]
    assert len(section["text"]["text"]) <= 3000
    assert MOST_TEXT < 3000


def test_plain_says_what_happened():
    one = alarm(at=17.0)
    assert json.loads(plain(Message(one, 2, {"decision": 1}), "shop")) == {
        "type": "scale.alarm.began", "timestamp": 17.0,
        "data": {
            "house": "shop", "model": "ocr", "text": "reply-side: answers wait",
            "name": "reply-side", "state": "began", "times": 2, "left_out": {"decision": 1},
            "details": {},
        },
    }  # fmt: skip
    decided = json.loads(plain(Message(moved(mode="advise")), "shop"))
    assert decided["type"] == "scale.decision.raised"
    assert "advise: nothing was scaled" in decided["data"]["text"]
    assert decided["data"]["details"] == {"before": 5, "count": 8, "mode": "advise"}


def test_rollouts_are_of_deploy_and_one_that_went_wrong_is_urgent():
    back = notices.rollout("ocr", "rolled-back", "12 % of its calls fail", 5.0, id="r1")
    begun = notices.rollout("ocr", "started", "to version 4", 5.0, id="r1")
    moved = notices.promoted("ocr", "ann moved production", 5.0, id="p1", data={"to": 4})
    assert [one.urgent for one in (back, begun, moved)] == [True, False, False]
    assert [json.loads(plain(Message(one), "shop"))["type"] for one in (back, begun, moved)] == [
        "deploy.rollout.rolled-back", "deploy.rollout.started", "deploy.promotion.moved",
    ]  # fmt: skip
    assert "rotating_light" in json.loads(slack(Message(back), "shop"))["blocks"][0]["text"]["text"]


def test_left_out_says_nothing_of_nothing():
    assert left_out(Message(moved())) == "" and left_out(Message(moved(), 1, {"alarm": 0})) == ""


# -- settings --------------------------------------------------------------------------------------


def settings(folder, **notify):
    return Settings(notify=NotifySettings(**notify), folder=str(folder))


def test_without_an_address_nobody_is_told(tmp_path):
    notify = notify_of(settings(tmp_path))
    notify.tell(moved())
    assert notify.sinks == []


@pytest.mark.parametrize("url", ["hooks.example", "ftp://a/", "https://", "http://[x/", "/x"])
def test_what_is_no_address_is_not_repeated(tmp_path, url):
    for key in ("slack", "webhook"):
        with pytest.raises(SettingsError, match=f"notify.{key}: expected http") as told:
            notify_of(settings(tmp_path, **{key: url}))
        assert str(told.value).endswith(": expected http://host/path or https://host/path")


def test_the_secret_is_read_and_not_repeated(tmp_path):
    (tmp_path / "good").write_text(f"{new_secret()}\n")
    (tmp_path / "bad").write_text("whsec_too-short")
    url = "http://127.0.0.1:9/"
    [sink] = notify_of(settings(tmp_path, webhook=url, secret_file="good")).sinks
    assert sink._secret.startswith("whsec_")
    for name, why in (("bad", "expected whsec_"), ("none", "No such file")):
        with pytest.raises(SettingsError, match=rf"notify.secret_file = '{name}': {why}") as told:
            notify_of(settings(tmp_path, webhook=url, secret_file=name))
        assert "too-short" not in str(told.value)


def test_tell_never_raises(tmp_path):
    notify = notify_of(settings(tmp_path))
    notify.sinks = [SimpleNamespace(put=None)]
    notify._is_open = True
    notify.tell(moved())
    assert notify.sinks[0].put is None
