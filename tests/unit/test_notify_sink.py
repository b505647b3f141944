"""Notices against a real receiver on this machine: slow, broken, away, and signed."""

import asyncio
import json
import time

import pytest
from structlog.testing import capture_logs

from headrace.house import free_port
from headrace.notify import notice as notices
from headrace.notify.forms import plain
from headrace.notify.notify import Notify, notify_of
from headrace.notify.sink import Sink
from headrace.settings import NotifySettings, Settings
from headrace.signatures import new_secret, verify


class Receiver:
    """Answers with `statuses` in turn, then 200; `hangs`: not at all."""

    def __init__(self):
        self.got, self.statuses, self.hangs, self.port = [], [], False, free_port()
        self.path = ""

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        try:
            while line := await reader.readline():
                self.path, headers = line.split()[1].decode(), {}
                while (line := (await reader.readline()).decode().strip()) != "":
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.got.append((headers, body))
                if self.hangs:
                    await asyncio.sleep(30)
                status = self.statuses.pop(0) if self.statuses else 200
                writer.write(b"HTTP/1.1 %d X\r\nLocation: /other\r\n" % status)
                writer.write(b"Content-Length: 2\r\n\r\nok")
                await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/hook"


@pytest.fixture
async def receiver():
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def opened():
    """opened(url, most_per_hour=..., **more) -> Notify with one sink, closed at the end."""
    made = []

    async def open_one(url, most=300, **more):
        more = {"first_pause_s": 0.01} | more
        notify = Notify([Sink("test", url, lambda m: plain(m, "shop"), most, **more)])
        await notify.open()
        made.append(notify)
        return notify

    yield open_one
    for notify in made:
        await notify.close(0.1)


async def until(true, what="it", wait_s=10.0):
    end = time.monotonic() + wait_s
    while not true():
        assert time.monotonic() < end, f"not in {wait_s} s: {what}"
        await asyncio.sleep(0.005)


def moved(n=8, model="ocr"):
    return notices.moved(model, 5, n, f"raised from 5 to {n}", time.time())


async def test_both_forms_arrive_and_the_json_is_signed(receiver, tmp_path):
    secret = new_secret()
    (tmp_path / "secret").write_text(secret)
    told = NotifySettings(slack=receiver.url + "/slack", webhook=receiver.url,
                          secret_file="secret")  # fmt: skip
    notify = notify_of(Settings(notify=told, folder=str(tmp_path)))
    await notify.open()
    notify.tell(moved())
    await until(lambda: len(receiver.got) == 2)
    await notify.close()
    by_form = {"blocks" in json.loads(body): (headers, body) for headers, body in receiver.got}
    headers, body = by_form[False]
    assert verify(secret, headers, body).startswith("ntc_")
    assert json.loads(body)["type"] == "scale.decision.raised"
    headers, body = by_form[True]
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["text"] == "ocr: raised from 5 to 8"
    assert "webhook-signature" not in headers
    notify.tell(moved())  # closed: nothing comes of it


async def test_a_failure_is_tried_again_under_the_same_id(receiver, opened):
    receiver.statuses = [500, 503, 429, 408]
    notify = await opened(receiver.url)
    notify.tell(moved())
    await until(lambda: notify.sinks[0].told == 1)
    assert len(receiver.got) == 5
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1


@pytest.mark.parametrize("status", [302, 400, 403, 404, 410])
async def test_a_no_for_good_is_not_tried_again_and_stands_in_the_next(receiver, opened, status):
    receiver.statuses = [status]
    notify = await opened(receiver.url)
    notify.tell(moved())
    await until(lambda: notify.sinks[0].lost == 1)
    notify.tell(notices.alarm("ocr", "reply-side", "", time.time()))
    await until(lambda: notify.sinks[0].told == 1)
    assert len(receiver.got) == 2 and receiver.path == "/hook"  # no redirect was followed
    assert json.loads(receiver.got[1][1])["data"]["left_out"] == {"decision": 1}


async def test_nobody_is_there_and_then_somebody_is(opened):
    receiver = Receiver()
    notify = await opened(receiver.url)
    notify.tell(moved())
    await until(lambda: notify.sinks[0]._failures >= 2)
    async with receiver:
        await until(lambda: notify.sinks[0].told == 1)


async def test_it_is_given_up_at_some_time(opened):
    notify = await opened(f"http://127.0.0.1:{free_port()}/", give_up_s=0.05)
    notify.tell(moved())
    await until(lambda: notify.sinks[0].lost == 1)
    assert notify.sinks[0].told == 0


async def test_who_is_slow_holds_up_nobody(receiver, opened):
    receiver.hangs = True
    notify = await opened(receiver.url, timeout_s=0.05)
    async with Receiver() as quick:
        other = Sink("quick", quick.url, lambda m: plain(m, "shop"), 300)
        other.open()
        notify.sinks.append(other)
        began = time.monotonic()
        for n in range(500):
            notify.tell(moved(n))
        assert time.monotonic() - began < 1.0
        await until(lambda: other.told >= 1 and notify.sinks[0]._failures >= 2)


async def test_an_alarm_overtakes_what_is_being_retried(receiver, opened):
    receiver.statuses = [500] * 2
    notify = await opened(receiver.url)
    notify.tell(moved())
    await until(lambda: notify.sinks[0]._failures >= 1)
    notify.tell(notices.alarm("ocr", "reply-side", "", time.time()))
    await until(lambda: notify.sinks[0].told == 2)
    kinds = [json.loads(body)["type"].split(".")[1] for _, body in receiver.got]
    assert kinds.index("alarm") < len(kinds) - 1 and kinds[-1] == "decision"


async def test_the_rate_holds_alarms_come_through_and_the_rest_is_summed_up(receiver, opened):
    now = [1e9]
    notify = await opened(receiver.url, most=9, clock=lambda: now[0])  # 2 at once, 1 for alarms
    sink = notify.sinks[0]

    def tell(kind, n):
        for i in range(n):
            one = (
                notices.moved(f"m{i}", 1, 2, "x", now[0])
                if kind == "decision"
                else notices.alarm("ocr", f"a{i}", "", now[0])
            )
            notify.tell(one)

    tell("decision", 10)
    await until(lambda: sink.told == 2)
    tell("alarm", 5)
    await until(lambda: sink.told == 3)
    await asyncio.sleep(0.02)
    assert sink.told == 3
    now[0] += 1800  # 6 come back in an hour
    notify.tell(notices.hand("ocr", "set", "ann", now[0], id="1"))
    await until(lambda: sink.told == 6)
    bodies = [json.loads(body) for _, body in receiver.got]
    kinds = [body["type"].split(".")[1] for body in bodies]
    assert kinds == ["decision"] * 2 + ["alarm"] * 4
    # The decisions that had waited for half an hour were no news any more.
    assert bodies[3]["data"]["left_out"] == {"decision": 8}


async def test_closing_sends_what_may_go_and_waits_for_nothing_else(receiver, opened):
    notify = await opened(receiver.url)
    for n in range(3):
        notify.tell(moved(n, f"m{n}"))
    await notify.close(5.0)
    assert len(receiver.got) == 3
    receiver.hangs = True
    notify = await opened(receiver.url)
    notify.tell(moved())
    began = time.monotonic()
    await notify.close(0.05)
    assert time.monotonic() - began < 2


async def test_a_form_that_raises_does_not_end_the_sink(receiver, opened):
    notify = await opened(receiver.url)
    form, notify.sinks[0]._form = notify.sinks[0]._form, None
    notify.tell(moved())
    await asyncio.sleep(0.02)
    notify.sinks[0]._form = form
    notify.tell(moved(9))
    await until(lambda: notify.sinks[0].told >= 1)


async def test_the_address_is_in_no_log(receiver, opened, caplog):
    receiver.statuses = [500, 404]
    caplog.set_level("INFO")
    with capture_logs() as logged:
        notify = await opened(receiver.url + "/very-secret")
        notify.tell(moved())
        await until(lambda: notify.sinks[0].lost == 1)
    assert [one["event"] for one in logged] == ["a notice waits"] * 2 + ["a notice was not taken"]
    assert "very-secret" not in f"{logged}{caplog.text}"
