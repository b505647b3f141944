"""`nats://host:port[,host:port][?replicas=3]`: NATS JetStream.

One stream a model (work-queue retention, explicit acks, a bound that refuses), one durable pull
consumer that all its workers share. Jobs are pulled with our own `CONSUMER.MSG.NEXT` credits on one
inbox, renewed before they run out, because a round trip a batch costs half the throughput. The
streams are in memory: a sync call is held by its gateway, which publishes again if they vanish.
With replicas, each stream and its consumer live on that many servers of a cluster. When their
leader is killed nobody takes publishes, pulls and acks until the others have elected one (they wait
4 to 9 s first, which is fixed in the server): what is published meanwhile is published again, pulls
are renewed.
Subjects: `headrace.<house>.jobs.<model>`, `headrace.<house>.to.<address>`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from headrace.background import Background
from headrace.broker.nats_wire import Wire
from headrace.broker.port import ACK_WAIT_S, QUEUE_BOUND, Delivery, Depth, OnMessage, OnRefused
from headrace.errors import Unavailable

PULL_EXPIRES_S = 5.0  # a stopped worker is given jobs for no longer than this
PUBLISH_RETRY_S = 1.0  # no ack for this long: publish again
NOBODY_RETRY_S = 0.25  # the same, where the broker said that nobody took it
PATIENCE_S = 5.0  # no ack in all: refuse
CLUSTER_PATIENCE_S = 15.0  # the same where a leader's death may be why
HEARTBEAT_S = 1.0  # how often a pull of a cluster says that it is still there
CONSUMER = "workers"
API_S = 5.0  # how long the broker may take to make a queue
ASK_S = 1.0  # ... and to say whether there is one

# What JetStream answers where the queue's bound is reached, and where nobody made the stream.
_FULL = (b'"err_code":10077', b'"err_code":10167', b"maximum messages")
_NOT_THERE = (10059, 10014)  # no such stream, no such consumer


class _Unacked(NamedTuple):
    """One publish that the broker has not confirmed."""

    subject: bytes
    job: bytes
    refused: OnRefused
    since: float  # first published
    due: float  # publish again then

    def refuse(self, detail: str, code: str) -> None:
        self.refused(Unavailable(detail, code=code))


class NatsBroker:
    def __init__(
        self,
        url: str,
        *,
        house: str = "house",
        name: str = "headrace",
        ack_wait_s: float = ACK_WAIT_S,
        bound: int = QUEUE_BOUND,
    ) -> None:
        servers, self._replicas = _parsed(url)
        self._patience_s = CLUSTER_PATIENCE_S if self._replicas > 1 else PATIENCE_S
        self._wire = Wire(servers, name)
        self._house = house
        self._ack_wait_s, self._bound = ack_wait_s, bound
        self._ack_inbox = self._wire._inbox.replace(b"_INBOX.", b"_HRACK.") + b"."
        self._ack_inbox_size = len(self._ack_inbox)
        self._unacked: dict[int, _Unacked] = {}
        self._numbers = itertools.count(1)
        self._restoring = 0  # connections after the first
        self._remade = True  # False from a reconnection until the queues are there again
        self._subjects: dict[str, bytes] = {}
        self._looking_up: set[bytes] = set()  # subjects that nobody listens to: is there a queue?
        self._background = Background()
        self._again: list[Callable[[], None]] = []

    async def open(self) -> None:
        await self._wire.open()
        await self._wire.subscribe(self._ack_inbox + b"*", self._on_publish_ack)
        self._wire.restored.append(self._restore)
        self._background.spawn(self._sweep())

    async def close(self) -> None:
        await self._background.close()
        await self._wire.close()

    # -- queues --------------------------------------------------------------------------------

    def _stream(self, model: str) -> str:
        return f"headrace-{self._house}-{model}"

    def _subject(self, model: str) -> bytes:
        subject = self._subjects.get(model)
        if subject is None:
            subject = self._subjects[model] = f"headrace.{self._house}.jobs.{model}".encode()
        return subject

    async def ensure(self, model: str) -> None:
        await self._make_stream(
            self._stream(model),
            {
                "name": self._stream(model),
                "subjects": [self._subject(model).decode()],
                "retention": "workqueue",
                "storage": "memory",
                "discard": "new",
                "max_msgs": self._bound,
                "max_consumers": -1,
                "max_bytes": -1,
                "max_age": 600 * 10**9,  # no deadline is longer: what is older is nobody's
                "max_msg_size": -1,
                "num_replicas": self._replicas,
                "duplicate_window": 10**9,
            },
        )
        await self._api(
            f"CONSUMER.CREATE.{self._stream(model)}.{CONSUMER}",
            {
                "stream_name": self._stream(model),
                "config": {
                    "name": CONSUMER,
                    "durable_name": CONSUMER,
                    "ack_policy": "explicit",
                    "ack_wait": int(self._ack_wait_s * 1e9),
                    "max_deliver": -1,
                    "max_ack_pending": -1,
                    "max_waiting": 8192,
                    "num_replicas": self._replicas,
                    "deliver_policy": "all",
                    "replay_policy": "instant",
                },
            },
        )

    async def _make_stream(self, name: str, config: dict[str, Any]) -> None:
        try:
            await self._api(f"STREAM.CREATE.{name}", config)
        except Unavailable as refusal:
            if "already in use" not in refusal.detail:
                raise
            await self._api(f"STREAM.UPDATE.{name}", config)  # made with other settings

    async def _ask(self, verb: str, body: dict[str, Any], wait_s: float) -> dict[str, Any]:
        subject, payload = b"$JS.API." + verb.encode(), json.dumps(body).encode()
        answer: dict[str, Any] = json.loads(await self._wire.request(subject, payload, wait_s))
        return answer

    async def _api(self, verb: str, body: dict[str, Any], wait_s: float = API_S) -> dict[str, Any]:
        answer = await self._ask(verb, body, wait_s)
        if "error" in answer:
            error = answer["error"]
            raise Unavailable(
                f"the broker refused {verb}: {error.get('description')}", code="broker-unavailable"
            )
        return answer

    async def _there(self, model: str) -> bool:
        """Has it a queue, with a leader? Raises Unavailable where nobody can tell yet."""
        for info in (f"STREAM.INFO.{self._stream(model)}",
                     f"CONSUMER.INFO.{self._stream(model)}.{CONSUMER}"):  # fmt: skip
            answer = await self._ask(info, {}, ASK_S)
            error = answer.get("error", {})
            if error.get("err_code") in _NOT_THERE:
                return False
            if error or not answer.get("cluster", {}).get("leader", True):
                raise Unavailable("the queue has no leader", code="broker-unavailable")
        return True

    def _restore(self) -> None:
        """The connection is back. The streams may be gone (they are in memory), and with them every
        job: the queues of all models that this side knows are made again, whether it takes from
        them or publishes to them, before anybody is told to publish again."""
        self._unacked.clear()  # whoever published these does it again when told
        self._restoring += 1
        self._remade = False
        self._background.spawn(self._restore_queues(self._restoring))

    async def _restore_queues(self, life: int) -> None:
        while self._restoring == life:  # else the connection was lost again meanwhile
            try:
                for model in list(self._subjects):
                    if self._replicas == 1 or not await self._there(model):
                        await self.ensure(model)
            except Unavailable:  # a server that takes connections before its JetStream is up
                await asyncio.sleep(0.1)
            else:
                break
        else:
            return
        self._remade = True
        for tell in self._again:
            tell()

    def on_restored(self, again: Callable[[], None]) -> None:
        self._again.append(again)

    # -- publishing ----------------------------------------------------------------------------

    def publish(self, model: str, job: bytes, refused: OnRefused) -> None:
        subject = self._subjects.get(model) or self._subject(model)
        now = self._wire.now()
        self._publish(_Unacked(subject, job, refused, now, now + PUBLISH_RETRY_S))

    def _publish(self, unacked: _Unacked) -> None:
        ack_number = next(self._numbers)
        self._unacked[ack_number] = unacked
        self._wire.publish(unacked.subject, unacked.job, b"%b%d" % (self._ack_inbox, ack_number))

    def _on_publish_ack(self, subject: bytes, _: bytes, headers: bytes, payload: bytes) -> None:
        unacked = self._unacked.pop(int(subject[self._ack_inbox_size :]), None)
        if unacked is None or (not headers and b'"error"' not in payload):
            return
        if any(sign in payload for sign in _FULL):
            unacked.refuse("the queue is full", "queue-full")
        elif headers and not self._remade:
            pass  # the queues are made again just now; then its door is told to publish it again
        elif headers and self._replicas == 1:  # "no responders": there is no stream
            unacked.refuse("the model has no queue yet", "model-not-ready")
        else:  # there is none, or none that has a leader
            due = self._wire.now() + NOBODY_RETRY_S
            self._unacked[next(self._numbers)] = unacked._replace(due=due)
            if headers and unacked.subject not in self._looking_up:
                self._looking_up.add(unacked.subject)
                self._background.spawn(self._look_up(unacked.subject))

    async def _look_up(self, subject: bytes) -> None:
        """Nobody listens to a subject: because its queue has no leader, or was never made?"""
        try:
            if await self._there(subject.decode().rpartition(".")[2]) or not self._remade:
                return
            refused = {n: u for n, u in self._unacked.items() if u.subject == subject}
            for ack_number, unacked in refused.items():
                del self._unacked[ack_number]
                unacked.refuse("the model has no queue yet", "model-not-ready")
        except Unavailable:
            pass  # nobody can tell: they are published again
        finally:
            self._looking_up.discard(subject)

    async def _sweep(self) -> None:
        """Publishes again what was not confirmed in time; gives up when the patience is over."""
        while True:
            await asyncio.sleep(NOBODY_RETRY_S)
            now = self._wire.now()
            late = [(n, unacked) for n, unacked in self._unacked.items() if unacked.due <= now]
            for ack_number, unacked in late:
                del self._unacked[ack_number]
                if now - unacked.since < self._patience_s:
                    self._publish(unacked._replace(due=now + PUBLISH_RETRY_S))
                else:
                    unacked.refuse("the broker does not confirm", "broker-unavailable")

    # -- taking --------------------------------------------------------------------------------

    async def take(self, model: str, on_job: Callable[[Delivery], None]) -> NatsIntake:
        await self.ensure(model)
        heartbeat_s = HEARTBEAT_S if self._replicas > 1 else 0.0
        intake = NatsIntake(self._wire, self._stream(model), on_job, heartbeat_s)
        await intake.open()
        self._again.append(intake.restored)
        return intake

    # -- addresses -----------------------------------------------------------------------------

    def _address(self, address: str) -> bytes:
        return f"headrace.{self._house}.to.{address}".encode()

    def send(self, address: str, data: bytes) -> None:
        self._wire.publish(self._address(address), data)

    async def listen(self, address: str, on_message: OnMessage) -> None:
        await self._wire.subscribe(
            self._address(address), lambda _s, _r, _h, data: on_message(data)
        )

    async def depth(self, model: str) -> Depth:
        # Asked each second: a question that died with its server must not hold up the next.
        info = await self._api(f"CONSUMER.INFO.{self._stream(model)}.{CONSUMER}", {}, ASK_S)
        return Depth(info["num_pending"], info["num_ack_pending"])


def _parsed(url: str) -> tuple[str, int]:
    """The servers, and how many of them hold each queue. Raises ValueError."""
    servers, _, query = url.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    replicas = options.pop("replicas", "1")
    if options or replicas not in ("1", "3", "5"):
        raise ValueError(f"broker.url: ?{query}: expected replicas=1, 3 or 5")
    return servers, int(replicas)


class NatsIntake:
    """Pull credits: what was asked for and has not come yet."""

    def __init__(
        self, wire: Wire, stream: str, on_job: Callable[[Delivery], None], heartbeat_s: float = 0.0
    ) -> None:
        self._wire, self._on_job = wire, on_job
        self._heartbeat_s = heartbeat_s
        self._pull_options = b'"expires":%d' % int(PULL_EXPIRES_S * 1e9)
        if heartbeat_s:
            self._pull_options += b',"idle_heartbeat":%d' % int(heartbeat_s * 1e9)
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{CONSUMER}".encode()
        self._inbox = wire._inbox.replace(b"_INBOX.", b"_HRJOB.") + b"." + stream.encode()
        self._first = f"$JS.ACK.{stream}.{CONSUMER}.1.".encode()  # of a first delivery
        self._life = _Life(wire)
        self._credit = 0
        self._wanted = 0
        self._expires_at = 0.0
        self._heard_at = 0.0  # kept only where there are heartbeats
        self._open = True
        self._watch: asyncio.Task[None] | None = None

    async def open(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._sid = await self._wire.subscribe(self._inbox, self._on_message)
        self._watch = asyncio.create_task(self._renew())

    def want(self, count: int) -> None:
        self._wanted = count
        # Asking costs a message: top up when half is gone, not at every job.
        if self._open and self._credit <= count // 2 and count > 0:
            self._pull(count - self._credit)

    def _pull(self, count: int) -> None:
        self._credit += count
        self._heard_at = self._loop.time()
        self._expires_at = self._heard_at + PULL_EXPIRES_S
        self._wire.publish(
            self._next, b'{"batch":%d,%b}' % (count, self._pull_options), self._inbox
        )

    def _on_message(self, _: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        if self._heartbeat_s:
            self._heard_at = self._loop.time()
        if not reply.startswith(b"$JS.ACK."):
            self._on_status(headers)
            return
        self._credit -= 1
        delivery = NatsDelivery(self._life, reply, payload, self._first)
        if self._open:
            self._on_job(delivery)
        else:
            delivery.give_back()

    def _on_status(self, headers: bytes) -> None:
        """A pull that ended (408 expired, 409 consumer gone): its unused credit comes back."""
        if headers.startswith(b"NATS/1.0 100"):
            return  # a heartbeat
        unused = 0
        for line in headers.split(b"\r\n"):
            if line.lower().startswith(b"nats-pending-messages:"):
                unused = int(line.partition(b":")[2])
        self._credit = max(0, self._credit - unused)
        if headers.startswith(b"NATS/1.0 503"):
            self._credit = 0  # the stream is gone: `restored` or `_renew` pulls again
        else:
            self.want(self._wanted)

    async def _renew(self) -> None:
        """A pull whose end was never told (a broker that restarted) must not hold us for ever."""
        while True:
            await asyncio.sleep(1.0)
            now = self._loop.time()
            if now > self._expires_at + 1.0 or (self._heartbeat_s and self._silent(now)):
                self._credit = 0
            self.want(self._wanted)

    def _silent(self, now: float) -> bool:
        """The consumer's leader died without a word, and our pulls with it."""
        return now > self._heard_at + 2.5 * self._heartbeat_s

    def restored(self) -> None:
        # A new stream counts from 1 again: an ack of the old one's would hit another's job.
        self._life.end()
        self._life = _Life(self._wire)
        self._credit = 0
        self.want(self._wanted)

    async def close(self) -> None:
        self._open, self._wanted = False, 0
        if self._watch:
            self._watch.cancel()
        # UNSUB ends the pulls at the server (it sees that nobody listens). What was on its way
        # before the UNSUB is read by the round trip's end, and given back at once.
        self._wire.unsubscribe(self._sid)
        with contextlib.suppress(Unavailable):
            await self._wire.round_trip()
        self._wire.forget(self._sid)


class _Life:
    """One connection's time: what was delivered in it can be settled in it alone."""

    def __init__(self, wire: Wire) -> None:
        self.publish = wire.publish

    def end(self) -> None:
        self.publish = lambda *_: None


class NatsDelivery:
    __slots__ = ("_life", "_reply", "attempt", "data")

    def __init__(self, life: _Life, reply: bytes, data: bytes, first: bytes) -> None:
        self._life, self._reply, self.data = life, reply, data
        # $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
        self.attempt = 1 if reply.startswith(first) else int(reply.split(b".")[4])

    def ack(self) -> None:
        self._life.publish(self._reply, b"")  # an empty message is +ACK

    def hold(self) -> None:
        self._life.publish(self._reply, b"+WPI")

    def give_back(self) -> None:
        self._life.publish(self._reply, b"-NAK")
