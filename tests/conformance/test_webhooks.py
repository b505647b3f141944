"""Webhooks out, on both databases, to sinks of our own: who is told, when, and who is in nobody's
way; also where the sender is killed."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections import Counter

import pytest
from standardwebhooks import Webhook as Reference

from headrace.clerk.deliver import Deliver
from headrace.egress import Egress, egress_of
from headrace.errors import Conflict, Unavailable
from headrace.records import State, new_id
from headrace.settings import WebhooksSettings
from headrace.signatures import SignatureWrong, verify
from headrace.store.deliveries import Deliveries, Sent
from headrace.store.ends import Ended, Ends, Keep
from headrace.store.engine import Database, now
from headrace.store.tables import deliveries, webhooks
from headrace.store.webhooks import MOST, Webhooks
from headrace.testing.house import until

from .stored import migrated

KILLS = int(os.environ.get("HEADRACE_KILLS", "10"))
SETTINGS = WebhooksSettings(allow_private=True, timeout_s=0.5)


class Sink:
    """Customers: the path says how one answers, `answers` what it answers in turn."""

    def __init__(self):
        self.got = []  # (path, headers, body, when)
        self.answers = {}
        self.on_request = None
        self.flying, self.most = Counter(), Counter()
        self._talks = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close

    def url(self, path=""):
        return f"http://127.0.0.1:{self.port}/{path}"

    def ids(self, path=""):
        return [headers["webhook-id"] for at, headers, *_ in self.got if at == f"/{path}"]

    def _accept(self, reader, writer):
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader, writer):
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader, writer):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in lines[1:] if line]
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        path = lines[0].split()[1]
        self.got.append((path, headers, body, time.monotonic()))
        self.flying[path] += 1
        self.most[path] = max(self.most[path], self.flying[path])
        try:
            if self.on_request:
                self.on_request()
            if path == "/slow":
                await reader.read()  # until the sender gives up
            answers = self.answers.get(path.strip("/"), [200])
            status = answers.pop(0) if len(answers) > 1 else answers[0]
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
            await writer.drain()
        finally:
            self.flying[path] -= 1


@pytest.fixture
async def database(url):
    await migrated(url)
    database = Database(url)
    database.url = url
    yield database
    await database.close()


@pytest.fixture
async def sink():
    async with Sink() as it:
        yield it


async def sql(database, statement):
    def work(connection):
        done = connection.execute(statement)
        return done.all() if done.returns_rows else None

    return await database.write(work)


async def end_jobs(database, *, tenant="acme", state=State.SUCCEEDED, count=1, retry_s=3600.0):
    """What the store does at the end of jobs."""
    ends = Ends(lambda *_: Keep(1, 1), retry_s)
    jobs = [Ended(new_id(), tenant, "iris", state, "") for _ in range(count)]
    await database.write(lambda connection: ends.end(connection, jobs))
    return [job.id for job in jobs]


@contextlib.asynccontextmanager
async def clerk(database, **more):
    deliver = Deliver(
        Deliveries(database),
        more.pop("egress", None) or egress_of(SETTINGS),
        more.pop("settings", SETTINGS),
        every_s=0.02,
        **{"margin_s": 0.3, "pause_s": lambda tries, chance: 0.05} | more,
    )
    running = asyncio.create_task(deliver.run())
    try:
        yield deliver
    finally:
        deliver.stop()
        await asyncio.wait_for(running, 5)


async def states(database):
    return Counter(row.state for row in await sql(database, deliveries.select()))


async def settled(database, wait_s=10.0):
    """Until nothing is due any more."""
    end = time.monotonic() + wait_s
    while await sql(database, deliveries.select().where(deliveries.c.due.is_not(None))):
        assert time.monotonic() < end, await states(database)
        await asyncio.sleep(0.02)
    return await states(database)


# -- registered --------------------------------------------------------------------------------


async def test_a_webhook_is_its_tenants_alone(database):
    hooks = Webhooks(database)
    hook, secret = await hooks.add("acme", "https://a.example/", ["job.dead"], "ops")
    assert secret.startswith("whsec_") and secret not in repr(hook)
    assert (hook.url, hook.events, hook.enabled, hook.note) == (
        "https://a.example/", ["job.dead"], True, "ops",
    )  # fmt: skip
    assert await hooks.all("acme") == [await hooks.get("acme", hook.id)] == [hook]
    assert await hooks.all("other") == []
    for nothing in (
        hooks.get("other", hook.id), hooks.rotate("other", hook.id), hooks.test("other", hook.id),
        hooks.delete("other", hook.id), hooks.deliveries("other", hook.id),
    ):  # fmt: skip
        assert not await nothing
    assert await hooks.all("acme") == [hook]
    assert await hooks.delete("acme", hook.id) is True
    assert await hooks.all("acme") == []


async def test_there_is_a_limit(database):
    hooks = Webhooks(database)
    for _ in range(MOST):
        await hooks.add("acme", "https://a.example/", ["*"])
    with pytest.raises(Conflict) as raised:
        await hooks.add("acme", "https://a.example/", ["*"])
    assert raised.value.code == "too-many-webhooks"
    await hooks.add("other", "https://a.example/", ["*"])


# -- delivered ---------------------------------------------------------------------------------


async def test_who_asked_is_told_and_nobody_else(database, sink):
    hooks = Webhooks(database)
    hook, secret = await hooks.add("acme", sink.url("all"), ["*"])
    await hooks.add("acme", sink.url("dead"), ["job.dead"])
    await hooks.add("other", sink.url("other"), ["*"])
    [job] = await end_jobs(database)
    async with clerk(database):
        assert await settled(database) == {"delivered": 1}
    [(path, headers, body, _)] = sink.got
    assert path == "/all" and headers["content-type"] == "application/json"
    event = Reference(secret).verify(body, headers)
    assert event["type"] == "job.succeeded" and event["data"]["id"] == job
    [delivery] = await hooks.deliveries("acme", hook.id)
    assert delivery.id == headers["webhook-id"] == verify(secret, headers, body)
    assert (delivery.job_id, delivery.tries, delivery.last_status) == (job, 1, 200)


async def test_a_test_event_comes_whatever_was_asked_for(database, sink):
    hooks = Webhooks(database)
    hook, secret = await hooks.add("acme", sink.url(), ["job.dead"])
    event_id = await hooks.test("acme", hook.id)
    async with clerk(database):
        await settled(database)
    [(_, headers, body, _)] = sink.got
    assert Reference(secret).verify(body, headers)["type"] == "webhook.test"
    assert headers["webhook-id"] == event_id


async def test_a_secret_is_rotated_under_traffic(database, sink):
    hooks = Webhooks(database)
    hook, old = await hooks.add("acme", sink.url(), ["*"])
    shown, new = await hooks.rotate("acme", hook.id, overlap_s=60)
    assert shown.old_secret_until and new != old
    await end_jobs(database)
    async with clerk(database):
        await settled(database)
    [(_, headers, body, _)] = sink.got
    for secret in (old, new):
        Reference(secret).verify(body, headers)
    await sql(database, webhooks.update().values(old_secret_until=now() - 1))
    await end_jobs(database)
    async with clerk(database):
        await settled(database)
    _, headers, body, _ = sink.got[1]
    assert verify(new, headers, body)
    with pytest.raises(SignatureWrong):
        verify(old, headers, body)


async def test_a_failure_is_tried_again_under_the_same_id_at_a_new_time(database, sink):
    sink.answers[""] = [500, 302, 503, 200]
    hooks = Webhooks(database)
    hook, _ = await hooks.add("acme", sink.url(), ["*"])
    await end_jobs(database)
    async with clerk(database, pause_s=lambda *_: 1.0) as deliver:
        await until(lambda: len(sink.got) == 1, 5, "the first attempt")
        await asyncio.sleep(0.1)
        [delivery] = await hooks.deliveries("acme", hook.id)
        assert (delivery.state, delivery.last_status) == ("waiting", 500)
        failing = await hooks.get("acme", hook.id)
        assert failing.failing_since is not None
        assert await settled(database) == {"delivered": 1}
        assert (deliver.taken, deliver.refused) == (1, 3)
    assert len(set(sink.ids())) == 1 and len(sink.got) == 4
    times = [int(headers["webhook-timestamp"]) for _, headers, _, _ in sink.got]
    assert times == sorted(set(times))  # a second apart, each of its own attempt
    assert (await hooks.get("acme", hook.id)).failing_since is None


async def test_410_switches_the_webhook_off(database, sink):
    sink.answers[""] = [410]
    hooks = Webhooks(database)
    hook, _ = await hooks.add("acme", sink.url(), ["*"])
    await end_jobs(database, count=9)
    async with clerk(database):
        assert await settled(database) == {"dropped": 9}
    shown = await hooks.get("acme", hook.id)
    assert not shown.enabled and "410" in shown.note
    assert len(sink.got) <= SETTINGS.at_once
    await end_jobs(database)  # nobody is told any more
    assert await states(database) == {"dropped": 9}
    with pytest.raises(Conflict):
        await hooks.test("acme", hook.id)


async def test_it_is_given_up_when_its_time_is_over_after_one_last_try(database, sink):
    sink.answers[""] = [500]
    await Webhooks(database).add("acme", sink.url(), ["*"])
    await end_jobs(database, retry_s=0.4)
    began = time.monotonic()
    async with clerk(database, pause_s=lambda *_: 60.0):
        assert await settled(database) == {"failed": 1}
    assert len(sink.got) == 2 and sink.got[1][3] - began >= 0.3


async def test_nobody_listens_and_it_says_so(database):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        hooks = Webhooks(database)
        hook, _ = await hooks.add("acme", f"http://127.0.0.1:{closed.getsockname()[1]}/", ["*"])
        await end_jobs(database, retry_s=0.1)
        async with clerk(database) as deliver:
            assert await settled(database) == {"failed": 1}
    [delivery] = await hooks.deliveries("acme", hook.id)
    assert delivery.last_status is None and "connect" in delivery.last_error
    assert deliver.unanswered == delivery.tries


async def test_an_address_that_turned_private_gets_nothing(database, sink):
    hooks = Webhooks(database)
    hook, _ = await hooks.add("acme", sink.url(), ["*"])
    await end_jobs(database, retry_s=0.1)
    async with clerk(database, egress=Egress(ports=(sink.port,))):
        assert await settled(database) == {"failed": 1}
    [delivery] = await hooks.deliveries("acme", hook.id)
    assert delivery.last_error.startswith("url-not-allowed") and sink.got == []


async def test_a_webhook_that_is_deleted_takes_its_deliveries_along(database, sink):
    hooks = Webhooks(database)
    hook, _ = await hooks.add("acme", sink.url("slow"), ["*"])
    await end_jobs(database, count=9)
    async with clerk(database):
        await until(lambda: sink.got, 5, "an attempt")
        assert await hooks.delete("acme", hook.id)
        assert await states(database) == {}


async def test_what_is_old_is_swept(database, sink):
    hooks = Webhooks(database)
    hook, _ = await hooks.add("acme", sink.url(), ["*"])
    await end_jobs(database, count=3)
    ids = [delivery.id for delivery in await hooks.deliveries("acme", hook.id)]
    ended = deliveries.update().values(due=None, state="delivered")
    await sql(database, ended.where(deliveries.c.id == ids[0]).values(until=now() - 8 * 86_400))
    await sql(database, ended.where(deliveries.c.id == ids[1]).values(until=now() - 6 * 86_400))
    await Deliveries(database).sweep()
    left = [delivery.id for delivery in await hooks.deliveries("acme", hook.id)]
    assert left == ids[1:]
    assert await hooks.deliveries("acme", hook.id, before=ids[1], limit=5) == [
        delivery for delivery in await hooks.deliveries("acme", hook.id) if delivery.id == ids[2]
    ]


# -- nobody is in the way ----------------------------------------------------------------------


async def test_one_slow_customer_delays_nobody(database, sink):
    """300 events for one who never answers, before ten customers with one each."""
    hooks = Webhooks(database)
    await hooks.add("slow", sink.url("slow"), ["*"])
    for number in range(10):
        await hooks.add(f"t{number}", sink.url(f"quick{number}"), ["*"])
    await end_jobs(database, tenant="slow", count=300)
    async with clerk(database):
        await until(lambda: sink.got, 5, "the slow one is asked")
        began = time.monotonic()
        for number in range(10):
            await end_jobs(database, tenant=f"t{number}")
        await until(lambda: len(sink.got) - len(sink.ids("slow")) == 10, 5, "all others are told")
        assert time.monotonic() - began <= 1.0
        await asyncio.sleep(0.6)  # beyond the time of one delivery
        assert len(sink.ids("slow")) > SETTINGS.at_once  # it goes on there as well
    assert sink.most["/slow"] <= SETTINGS.at_once


async def test_a_claim_leaves_room_for_what_is_under_way(database, sink):
    hooks, outbox = Webhooks(database), Deliveries(database)
    hook, _ = await hooks.add("acme", sink.url(), ["*"])
    await end_jobs(database, count=20)

    async def claimed(flying):
        return len(await outbox.claim({hook.id: flying}, 4, lease_s=0.0))

    assert [await claimed(flying) for flying in (0, 1, 3, 4, 5)] == [4, 3, 1, 0, 0]
    await sql(database, webhooks.update().values(failing_since=now()))  # one at a time
    assert [await claimed(flying) for flying in (0, 1, 4)] == [1, 0, 0]


async def test_many_events_go_quickly_and_each_once(database, sink):
    await Webhooks(database).add("acme", sink.url(), ["*"])
    await end_jobs(database, count=200)
    began = time.monotonic()
    async with clerk(database), clerk(database):
        assert await settled(database, 20) == {"delivered": 200}
    assert len(sink.got) == len(set(sink.ids())) == 200
    print(f"\n200 deliveries by two clerks: {time.monotonic() - began:.2f} s")


# -- clerks that die, are late, or have no database --------------------------------------------


async def test_of_two_clerks_one_claims_and_the_late_one_is_refused(database, sink):
    await Webhooks(database).add("acme", sink.url(), ["*"])
    await end_jobs(database)
    outbox = Deliveries(database)
    [first] = await outbox.claim({}, 4, lease_s=0.3)
    assert await outbox.claim({}, 4, lease_s=0.3) == []
    await asyncio.sleep(0.35)
    [second] = await outbox.claim({}, 4, lease_s=5)
    assert (second.id, second.claim) == (first.id, first.claim + 1)
    late = Sent(first.id, first.claim, 500, "", 9.0)
    assert await outbox.record([late]) == set()
    assert await outbox.record([Sent(second.id, second.claim, 200, "", 0.0)]) == {first.id}
    assert await outbox.record([Sent(second.id, second.claim, 500, "", 0.0)]) == set()
    assert await states(database) == {"delivered": 1}


async def test_outcomes_wait_for_a_database_that_is_away(database, sink):
    await Webhooks(database).add("acme", sink.url(), ["*"])
    await end_jobs(database)
    outbox, times = Deliveries(database), []

    class Shaky:
        async def claim(self, *a):
            return await outbox.claim(*a)

        async def record(self, outcomes):
            times.append(len(outcomes))
            if len(times) < 3:
                raise Unavailable("away", code="storage-unavailable")
            return await outbox.record(outcomes)

        async def sweep(self):
            pass

    deliver = Deliver(Shaky(), egress_of(SETTINGS), SETTINGS, every_s=0.02)
    running = asyncio.create_task(deliver.run())
    assert await settled(database) == {"delivered": 1}
    deliver.stop()
    await asyncio.wait_for(running, 5)
    assert times == [1, 1, 1] and len(sink.got) == 1


SENDER = """
    import asyncio, sys
    from headrace.clerk.deliver import Deliver
    from headrace.egress import egress_of
    from headrace.settings import WebhooksSettings
    from headrace.store.deliveries import Deliveries
    from headrace.store.engine import Database
    from headrace.telemetry import logs

    settings = WebhooksSettings(allow_private=True, timeout_s=2.0)
    outbox = Deliveries(Database(sys.argv[1]))
    deliver = Deliver(outbox, egress_of(settings), settings, every_s=0.02, margin_s=0.2)
    logs.set_up("clerk")
    print("ready", flush=True)
    asyncio.run(deliver.run())
"""


@pytest.mark.timeout(60 + 3 * KILLS)
async def test_kills_of_the_sender_lose_nothing(database, sink, tmp_path):
    """Killed as a customer has the event and the sender not yet its answer, or a moment later, as
    it writes down what came of it. HEADRACE_KILLS says how often."""
    await Webhooks(database).add("acme", sink.url(), ["*"])
    sender, killed = None, set()

    errors = tmp_path.joinpath("sender.log").open("wb")

    async def start():
        nonlocal sender
        command = [sys.executable, "-c", textwrap.dedent(SENDER), database.url]
        sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors)
        with sender.stdout as told:
            assert await asyncio.to_thread(told.readline) == b"ready\n"

    def kill(who):
        if len(killed) < KILLS:
            killed.add(who.pid)
            who.kill()

    wanted, requests = 0, 0

    def on_request():
        nonlocal requests
        requests += 1
        if requests % 3 == 1:
            kill(sender)
        elif requests % 3 == 2:
            asyncio.get_running_loop().call_later(0.002 * (requests % 5), kill, sender)

    sink.on_request = on_request
    try:
        for _ in range(KILLS):
            await start()
            await end_jobs(database, count=5)
            wanted += 5
            while sender.pid not in killed:
                await asyncio.sleep(0.005)
            assert await asyncio.to_thread(sender.wait) == -signal.SIGKILL
        await start()
        assert await settled(database, 30) == {"delivered": wanted}
    finally:
        sender.kill()
        sender.wait()
        errors.close()
    assert len(killed) == KILLS
    assert len(set(sink.ids())) == wanted
    again = len(sink.got) - wanted
    assert again <= KILLS * SETTINGS.at_once
    print(f"\n{KILLS} kills: {wanted} events, 0 lost, {again} sent again")
