"""One model whose versions come from the registry: look, decide, write, act; again and again.

What is decided lies in the database before anybody acts on it, and what is to be done follows from
there: whoever dies is followed by whoever looks next.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

import structlog
from msgspec import structs

from headrace.announce import Announcement, Evidence
from headrace.background import Background
from headrace.deploy.apply import Apply
from headrace.deploy.change import HEADRACE, changed, placed
from headrace.deploy.evidence import Ledger
from headrace.deploy.gates import judge, merged
from headrace.deploy.hear import Ear
from headrace.deploy.plan import Begin, Finish, Nothing, Place, Step, Stop, plan
from headrace.deploy.rollout import Next, Seen, advance, asked, grown, over
from headrace.deploy.traffic import Traffic
from headrace.deploy.watch import Watch
from headrace.deployments import (
    Deploy,
    Deployment,
    Rollout,
    RolloutState,
    Route,
    Strategy,
    Verdict,
)
from headrace.errors import NotFound, Refusal
from headrace.notify.notice import Notice
from headrace.notify.notice import rollout as notice_of
from headrace.records import new_id
from headrace.registry.choose import Desk
from headrace.registry.port import State
from headrace.registry.promote import MAX_REASON, promote
from headrace.registry.refusals import Rejected, unavailable
from headrace.store.deploying import Deploying, Order, Standing

log = structlog.get_logger("headrace.deploy")

UNKNOWN_S = 5.0  # a registry that was never seen is waited for, before our own files are served
JUDGE_EVERY_S = 1.0
WRITE_EVERY_S = 2.0  # what a rollout shows of itself, where it does not move
SETTLE_S = 2.0  # until gateways have heard that a version gets no calls any more
GRACE_S = 30.0  # for what such a version still has in hand
AGAIN_S = 2.0  # before what failed is tried again
MENDED_S = 60.0


class Deployed:
    def __init__(
        self,
        model: str,
        policy: Deploy,
        count: int,
        desk: Desk,
        apply: Apply,
        watch: Watch,
        traffic: Traffic,
        *,
        zero: bool,
        say: Callable[[Route], None],
        tell: Callable[[Notice], object],
    ) -> None:
        """`count`: workers at first. `zero`: the autoscaler may want none. `say` hears of a route
        that changed; `tell` neither waits nor raises."""
        self.model, self.policy = model, policy
        self._count, self._zero = count, zero
        self._desk, self._apply, self._watch, self._traffic = desk, apply, watch, traffic
        self._say, self._tell = say, tell
        #: As it was read last; None: not yet, or nothing is placed.
        self.route: Route | None = None
        self._ear, self._ledger = Ear(), Ledger()
        self._began = time.monotonic()
        self._at: tuple[str, str, int] | None = None  # rollout, state, step
        self._verdicts: list[Verdict] = []
        self._judged_at = 0.0
        self._fetching: dict[int, asyncio.Task[str]] = {}
        self._not_before: dict[str, float] = {}  # of what failed
        self._errands = Background()

    async def close(self) -> None:
        for task in self._fetching.values():
            task.cancel()
        await asyncio.gather(*self._fetching.values(), return_exceptions=True)
        await self._errands.close()

    # -- the ear -------------------------------------------------------------------------------

    def hear(self, said: Announcement) -> None:
        self._ear.hear(said, time.monotonic())

    def hear_evidence(self, said: Evidence) -> None:
        self._ledger.hear(said, time.monotonic())

    # -- one look ------------------------------------------------------------------------------

    async def tick(self, deploying: Deploying) -> bool:
        """True where it is to be called again soon. Raises Unavailable where the database is away:
        then nothing is decided."""
        stands = await deploying.standing(self.model)
        self._follow(stands)
        if stands.orders:
            return await self._order(deploying, stands, stands.orders[0])
        step = await self._plan(deploying, stands)
        if isinstance(step, Place):
            return await self._place(deploying, step.version)
        if isinstance(step, Begin):
            return await self._begin(deploying, stands, step.version)
        rollout = stands.rollout
        if rollout is not None:
            seen, now, more = self._seen(stands, rollout), time.time(), False
            if isinstance(step, Stop | Finish):
                state: RolloutState = "stopped" if isinstance(step, Stop) else "done"
                following = over(rollout, state, step.why, seen, now)
            else:
                wanted = await self._wanted(stands, rollout, seen.full)
                more, seen = wanted > seen.full, seen._replace(full=wanted)
                following = advance(
                    grown(rollout, now) if more else rollout, seen, self.policy, now
                )
            if more or _moved(rollout, following) or self._stale(rollout, following):
                return await self._commit(deploying, stands, following, seen.full)
            await self._scale(following.counts, following.rollout)
            return True
        await self._keep_up(stands)
        self._mind_alias(deploying, stands)
        return await self._retire(deploying, stands)

    def _follow(self, stands: Standing) -> None:
        """Another process may have moved it."""
        if stands.route is not None and stands.route != self.route:
            self.route = stands.route
            self._say(stands.route)
        rollout, was = stands.rollout, self._at
        now = time.monotonic()
        if rollout is None:
            self._at = None
            return
        if was is None or was[0] != rollout.id:
            self._ear.forget(rollout.to_version)
            self._ledger.forget(rollout.to_version)
            self._ledger.begin(now)
        elif was[1] != rollout.state and rollout.state != "promoting":
            self._ledger.begin(now)  # steps are judged together
        if was != (at := (rollout.id, rollout.state, rollout.step)):
            self._at, self._verdicts, self._judged_at = at, [], 0.0

    # -- what the registry wants ---------------------------------------------------------------

    async def _plan(self, deploying: Deploying, stands: Standing) -> Step:
        word = self._watch.word
        stable = stands.route.stable if stands.route else None
        if word is None:
            return self._unknown() if stable is None else Nothing("the registry is down")
        newest = [*stands.barred, *([stands.last] if stands.last else [])]
        if any(word.asked <= each.updated for each in newest):
            self._watch.look()
            return Nothing("the registry has not been asked since")
        named = self._named(word.state)
        for each in stands.barred:
            if each.to_version != named:
                await deploying.unbar(each.id, time.time())
                self._watch.look()
                return Nothing("a version may be tried again")
        barred = {each.to_version for each in stands.barred}
        return plan(named, stable, stands.rollout, stands.last, barred)

    def _named(self, state: State) -> int | None:
        """The version that our alias names there."""
        return state.get(self.model, {}).get(self.policy.alias)

    def _unknown(self) -> Step:
        """Nothing serves, and the registry is down: as it was last, else our own files."""
        named = self._named(self._watch.kept)
        if named is None and time.monotonic() - self._began < UNKNOWN_S:
            return Nothing("the registry has not been seen yet")
        return Place(named or 0) if self._watch.asked_once else Nothing()

    async def _place(self, deploying: Deploying, version: int) -> bool:
        try:
            digest = self._fetched(version)
        except (Rejected, NotFound) as error:
            log.error("not placed", model=self.model, version=version, reason=error.detail)
            version, digest = 0, ""
        if digest is None:
            return True
        now = time.time()
        if await deploying.commit(placed(self.model, version, digest, self._count, now)):
            log.info("placed", model=self.model, version=version)
        return True

    async def _begin(
        self, deploying: Deploying, stands: Standing, version: int, order: Order | None = None
    ) -> bool:
        """A rollout, once the version's files are here and what they should be."""
        assert stands.route is not None
        stable, wrong = stands.route.stable, ""
        try:
            digest = self._fetched(version)
        except (Rejected, NotFound) as error:
            digest, wrong = "", error.detail
        if digest is None:
            return True
        author, reason, named = await self._who(deploying, version, order)
        strategy: Strategy = self.policy.strategy if stable else "blue-green"
        now = time.time()
        rollout = Rollout(
            id=new_id(), model=self.model, from_version=stable, to_version=version, digest=digest,
            strategy=strategy if order is None or not order.strategy else _strategy(order),
            author=author, reason=reason, started=now, updated=now, since=now, why="it begins",
            named=named,
        )  # fmt: skip
        full = await self._apply.count(stable) or self._full(stands, stable)
        text = f"from version {stable} to {version}, {rollout.strategy}: {reason}"
        following = Next(rollout, {version: 0}, (("started", text),))
        if wrong:
            refused = over(rollout, "rolled-back", wrong, self._seen(stands, rollout), now)
            following = refused._replace(events=(*following.events, *refused.events))
        again = await self._commit(deploying, stands, following, full, author)
        if order is not None:
            outcome = f"no: {wrong}" if wrong else "yes"
            await deploying.finish_order(order.id, outcome=outcome, at=time.time())
        return again

    async def _who(
        self, deploying: Deploying, version: int, order: Order | None
    ) -> tuple[str, str, int | None]:
        """Who wants it and why, and what the alias names."""
        word = self._watch.word
        named = self._named(word.state) if word else None
        if order is not None:
            return order.author, order.reason, named
        told = await deploying.entries(self.model, 10)
        told += await self._desk.audit.entries(self.model, 10)  # by a registry's own command line
        for entry in sorted(told, key=lambda each: -each.at):
            if entry.alias == self.policy.alias and entry.outcome == "done":
                if entry.to == version:
                    return entry.author, entry.reason, named
                break
        return HEADRACE, f"the alias {self.policy.alias} names version {version}", named

    def _fetched(self, version: int) -> str | None:
        """The digest of a version whose files are here; None: not yet. Raises Rejected where they
        are not what they should be, NotFound."""
        if not version:
            return ""
        if time.monotonic() < self._not_before.get(f"fetch {version}", 0.0):
            return None
        task = self._fetching.get(version)
        if task is None:
            self._fetching[version] = asyncio.create_task(self._fetch(version))
            return None
        if not task.done():
            return None
        del self._fetching[version]
        try:
            return task.result()
        except (Rejected, NotFound):
            raise
        except Exception as error:
            reason = getattr(error, "detail", "") or repr(error)
            log.warning("not fetched yet", model=self.model, version=version, reason=reason)
            self._not_before[f"fetch {version}"] = time.monotonic() + AGAIN_S
            return None

    async def _fetch(self, version: int) -> str:
        kept, registry = self._desk.kept, self._desk.registry
        try:
            found = await kept.get(registry, self.model, version)
        except NotFound:
            if self.model not in await registry.state():  # a folder that is not mounted says so
                raise unavailable(f"the registry knows nothing of {self.model}") from None
            found = await kept.get(registry, self.model, version)
        await kept.files(registry, found)
        return found.digest

    # -- the open rollout ----------------------------------------------------------------------

    def _seen(self, stands: Standing, rollout: Rollout) -> Seen:
        now = time.monotonic()
        if rollout.state == "starting":
            verdicts: Sequence[Verdict] = ()
        else:
            if now - self._judged_at >= JUDGE_EVERY_S:
                self._verdicts, self._judged_at = self._judge(rollout, now), now
            verdicts = self._verdicts
        return Seen(
            new=self._ear.workers(rollout.to_version, now),
            stable=self._ear.workers(rollout.from_version, now),
            full=self._full(stands, rollout.from_version),
            verdicts=verdicts,
            idle=self._traffic.idle(self.model, now),
            heard=self._traffic.heard(now),
            looked_s=now - self._began,
        )

    def _judge(self, rollout: Rollout, now: float) -> list[Verdict]:
        old, new = rollout.from_version, rollout.to_version
        seen = self._ledger.seen(new), self._ledger.seen(old)
        whole, recent = self._ledger.whole(old), self._ledger.recent(old, now)
        if rollout.state == "keeping":  # it has no calls any more
            whole = recent = self._ledger.before(old)
        gates = self.policy.gates
        return merged(
            judge(self._ledger.whole(new), whole, seen, gates),
            judge(self._ledger.recent(new, now), recent, seen, gates),
        )

    def _full(self, stands: Standing, version: int) -> int:
        old = stands.deployments.get(version)
        return (old.count if old else 0) or self._count

    async def _wanted(self, stands: Standing, rollout: Rollout, full: int) -> int:
        """What the new version is to carry: the old one's workers, also those that it was given
        since the rollout began; where deploy shares them among the two, those that the autoscaler
        wants in all. Not when the old one has no calls any more."""
        if rollout.state == "keeping":
            return full
        if rollout.is_shared_out:
            return max(full, stands.sized or 0)
        return max(full, await self._apply.count(rollout.from_version) or 0)

    def _stale(self, rollout: Rollout, following: Next) -> bool:
        """What it shows of itself has changed, and not just now."""
        new = following.rollout
        shown = (new.why, new.figures) != (rollout.why, rollout.figures)
        return shown and time.time() - rollout.updated >= WRITE_EVERY_S

    async def _commit(
        self,
        deploying: Deploying,
        stands: Standing,
        following: Next,
        full: int,
        author: str = HEADRACE,
    ) -> bool:
        change = changed(stands, following, self.policy, full, time.time(), author)
        if not await deploying.commit(change):
            return True  # another was first: look again
        if change.route is not None:
            self.route = change.route
            self._say(change.route)
        rollout = following.rollout
        for kind, text in following.events:
            log.info("rollout", model=self.model, kind=kind, to=rollout.to_version, text=text)
            if kind in ("started", "done", "rolled-back"):
                data = {"from": rollout.from_version, "to": rollout.to_version,
                        "strategy": rollout.strategy, "author": author}  # fmt: skip
                said = f"version {rollout.to_version}: {text}" if kind != "started" else text
                self._tell(notice_of(self.model, kind, said, time.time(), id=rollout.id, data=data))
        await self._scale(following.counts, rollout)
        return True

    async def _scale(self, counts: dict[int, int], rollout: Rollout) -> None:
        """Nobody of the new version goes: whom the autoscaler asked for beyond it stays."""
        for version, count in counts.items():
            there = await self._apply.count(version)
            lowered = rollout.is_open and version == rollout.from_version
            if count and (there is None or there < count or lowered):
                why = f"rollout to {rollout.to_version}: {rollout.why}"
                await self._apply.to(version, count, why)

    # -- what a person asks --------------------------------------------------------------------

    async def _order(self, deploying: Deploying, stands: Standing, order: Order) -> bool:
        rollout, now = stands.rollout, time.time()
        outcome: Next | str
        if stands.route is None:
            outcome = "nothing of it serves yet"
        elif order.kind == "start":
            return await self._start(deploying, stands, order, order.version)
        elif rollout is not None:
            seen = self._seen(stands, rollout)
            outcome = asked(rollout, order.kind, order.reason, seen, now)
            if isinstance(outcome, Next):
                full = self._full(stands, rollout.from_version)
                await self._commit(deploying, stands, outcome, full, order.author)
                still = await deploying.rollout(rollout.id)
                if still is None or still.revision == rollout.revision:
                    return True
        elif order.kind == "rollback" and stands.last and stands.last.state == "done":
            if stands.last.to_version == stands.route.stable:
                back = structs.replace(order, strategy=order.strategy or "blue-green")
                return await self._start(deploying, stands, back, stands.last.from_version)
            outcome = "the last rollout is not what serves: start one to the version meant"
        else:
            outcome = "no rollout is open"
        said = "yes" if isinstance(outcome, Next) else f"no: {outcome}"
        await deploying.finish_order(order.id, outcome=said, at=now)
        return True

    async def _start(
        self, deploying: Deploying, stands: Standing, order: Order, version: int | None
    ) -> bool:
        assert stands.route is not None
        word, rollout = self._watch.word, stands.rollout
        if version is None:
            named = self._named(word.state) if word else None
            version = named
        why = ""
        if version is None:
            why = f"the alias {self.policy.alias} names nothing, or the registry is down"
        elif version == stands.route.stable and rollout is None:
            why = f"version {version} serves already"
        elif rollout is not None and rollout.to_version == version:
            why = "it is under way"
        if why or version is None:
            await deploying.finish_order(order.id, outcome=f"no: {why}", at=time.time())
            return True
        if rollout is not None:
            state: RolloutState = "done" if rollout.state == "keeping" else "stopped"
            text = f"{order.author} starts version {version}"
            following = over(rollout, state, text, self._seen(stands, rollout), time.time())
            full = self._full(stands, rollout.from_version)
            return await self._commit(deploying, stands, following, full, order.author)
        return await self._begin(deploying, stands, version, order)

    # -- between rollouts ----------------------------------------------------------------------

    async def _keep_up(self, stands: Standing) -> None:
        """All workers may be gone: a house forgets. Else their count is the autoscaler's."""
        if stands.route is None:
            return
        stable, last = stands.route.stable, stands.last
        wanted = self._full(stands, stable)
        back = last is not None and last.strategy == "rolling" and last.state != "done"
        if back and last and time.time() - (last.ended or 0.0) < MENDED_S:
            await self._apply.to(stable, wanted, "the old version at its full strength again")
        elif not self._zero and await self._apply.count(stable) == 0:
            await self._apply.to(stable, wanted, "it serves, and has no workers")

    def _mind_alias(self, deploying: Deploying, stands: Standing) -> None:
        """Follows what was done here: back from what was rolled back, on to what a person chose."""
        word, last = self._watch.word, stands.last
        if word is None or stands.route is None or last is None or word.asked <= last.updated:
            return
        if time.monotonic() < self._not_before.get("alias", 0.0):
            return
        named = self._named(word.state)
        stable = stands.route.stable
        for each in stands.barred:
            if self.policy.alias_back and each.to_version == named != stable:
                reason, author, cause = f"rolled back: {each.why}", HEADRACE, each
                break
        else:
            follows = last.state == "done" and last.to_version == stable and last.named == named
            if not follows or (named or 0) == stable:
                return
            reason, author, cause = last.reason, last.author, last
        self._not_before["alias"] = time.monotonic() + AGAIN_S
        self._errands.spawn(self._move_alias(deploying, cause, named, stable, reason, author))

    async def _move_alias(
        self,
        deploying: Deploying,
        rollout: Rollout,
        seen: int | None,
        version: int,
        reason: str,
        author: str,
    ) -> None:
        """Where the alias names another than `seen` by now, somebody was quicker: it stays."""
        try:
            await promote(
                self._desk.registry,
                deploying,
                self.model,
                version or None,
                alias=self.policy.alias,
                author=author,
                reason=_line(reason),
                seen=seen,
            )
            if rollout.barred:
                await deploying.unbar(rollout.id, time.time())
            else:
                await deploying.name(rollout.id, version or None, time.time())
        except Refusal as refusal:
            log.warning("the alias is not moved", model=self.model, reason=refusal.detail)
        except Exception:
            log.exception("the alias is not moved", model=self.model)
        else:
            log.info("alias moved", model=self.model, to=version, reason=reason)
        self._watch.look()

    async def _retire(self, deploying: Deploying, stands: Standing) -> bool:
        """Who gets no calls any more goes when it has nothing in hand. True: somebody is left."""
        now, left = time.time(), False
        serving = {share.version for share in stands.route.shares} if stands.route else set()
        for each in stands.deployments.values():
            if each.state != "kept" or each.until is None or each.version in serving:
                continue
            idle_s = now - max(each.since, each.until - GRACE_S)
            busy = self._ear.workers(each.version, time.monotonic()).waiting > 0
            if now < each.until or idle_s < SETTLE_S or (busy and idle_s < GRACE_S):
                left = True
            elif await self._apply.retire(each.version, "it gets no calls any more"):
                await deploying.change(each, _retired(each, now))
                log.info("retired", model=self.model, version=each.version)
            else:
                left = True
        return left


def _retired(old: Deployment, now: float) -> Deployment:
    return structs.replace(old, state="retired", since=now, until=None, share=0, count=0)


def _moved(rollout: Rollout, following: Next) -> bool:
    """More than what it shows of itself has changed."""
    new = following.rollout
    return bool(following.events) or (
        (new.state, new.step, new.paused, new.strategy)
        != (rollout.state, rollout.step, rollout.paused, rollout.strategy)
    )


def _strategy(order: Order) -> Strategy:
    known: tuple[Strategy, ...] = ("canary", "rolling", "blue-green", "shadow")
    return next((each for each in known if each == order.strategy), "canary")


def _line(text: str) -> str:
    """As the audit takes a reason: one line."""
    line = "".join(each if each.isprintable() else " " for each in text)
    return (" ".join(line.split()) or "no reason was given")[:MAX_REASON]
