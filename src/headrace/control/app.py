"""The table of contents of the control API. Who asks is settled before anything else is, but for
the registry's webhooks.

GET    /whoami
GET    /scale, /scale/{model}             counts, overrides, the last decision
GET    /scale/{model}/decisions           with their reasons, newest first
GET    /scale/{model}/minutes             what came and how it stood, by the minute
GET    /scale/{model}/overrides           those in force
POST   /scale/{model}/overrides           operator: set, floor or cap a count for a while
DELETE /scale/{model}/overrides[/{id}]    operator: take them back
GET    /alarms
GET    /registry, /registry/{model}       versions, and what the aliases name
GET    /promotions, /registry/{model}/promotions
POST   /registry/{model}/promote          operator: move an alias
GET    /rollouts, /rollouts/{model}       who gets the calls, and the open rollout
GET    /rollouts/{model}/history          all that ever were, newest first
GET    /rollouts/{model}/{id}             one, with what happened in it
POST   /rollouts/{model}/orders           operator: start, pause, resume, promote, rollback
POST   /hooks/registry                    from the registry: its signature is the key
"""

from __future__ import annotations

import re
import secrets
from itertools import count
from typing import Any

from headrace.control.hooks import HooksApi
from headrace.control.people import OPERATOR, VIEWER, People, Who
from headrace.control.registry import RegistryApi
from headrace.control.rollouts import RolloutsApi
from headrace.control.scale import ScaleApi
from headrace.errors import NotFound, Refusal, Unauthorized
from headrace.httpapi.answer import answer_json, answer_problem, answer_refusal
from headrace.httpapi.errands import Errands, bound
from headrace.httpserver import Request

MOST_BODY = 65_536
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,64}")
_NAME = rb"/([a-z0-9][a-z0-9_-]{0,62})"
_MODEL = rb"/scale" + _NAME
_REGISTERED, _ROLLED_OUT = rb"/registry" + _NAME, rb"/rollouts" + _NAME
_CHALLENGE = b'WWW-Authenticate: Bearer realm="headrace"\r\n'

#: verb -> the role that it takes, and what is done
Verbs = dict[bytes, tuple[str, Any]]


class App:
    def __init__(
        self,
        people: People,
        errands: Errands[Who],
        scale: ScaleApi,
        registry: RegistryApi,
        rollouts: RolloutsApi,
        hooks: HooksApi,
    ) -> None:
        self._people, self._errands, self._hooks = people, errands, hooks
        self._prefix, self._numbers = secrets.token_hex(5), count(1)
        self._routes: list[tuple[re.Pattern[bytes], Verbs]] = [
            (re.compile(path), verbs)
            for path, verbs in (
                (rb"/whoami", {b"GET": (VIEWER, _whoami)}),
                (rb"/alarms", {b"GET": (VIEWER, scale.alarms)}),
                (rb"/scale", {b"GET": (VIEWER, scale.all)}),
                (_MODEL, {b"GET": (VIEWER, scale.one)}),
                (_MODEL + rb"/decisions", {b"GET": (VIEWER, scale.decisions)}),
                (_MODEL + rb"/minutes", {b"GET": (VIEWER, scale.minutes)}),
                (
                    _MODEL + rb"/overrides",
                    {
                        b"GET": (VIEWER, scale.overrides),
                        b"POST": (OPERATOR, scale.override),
                        b"DELETE": (OPERATOR, scale.clear),
                    },
                ),
                (_MODEL + rb"/overrides/([0-9a-f]{32})", {b"DELETE": (OPERATOR, scale.clear)}),
                (rb"/registry", {b"GET": (VIEWER, registry.all)}),
                (rb"/promotions", {b"GET": (VIEWER, registry.promotions)}),
                (_REGISTERED, {b"GET": (VIEWER, registry.one)}),
                (_REGISTERED + rb"/promotions", {b"GET": (VIEWER, registry.promotions)}),
                (_REGISTERED + rb"/promote", {b"POST": (OPERATOR, registry.promote)}),
                (rb"/rollouts", {b"GET": (VIEWER, rollouts.all)}),
                (_ROLLED_OUT, {b"GET": (VIEWER, rollouts.one)}),
                (_ROLLED_OUT + rb"/history", {b"GET": (VIEWER, rollouts.history)}),
                (_ROLLED_OUT + rb"/orders", {b"POST": (OPERATOR, rollouts.order)}),
                (_ROLLED_OUT + rb"/([0-9a-f]{32})", {b"GET": (VIEWER, rollouts.events)}),
            )
        ]

    def on_head(self, request: Request) -> None:
        given = request.headers.get(b"x-request-id", b"")
        if _REQUEST_ID.fullmatch(given):
            request.id = given.decode()
        else:
            request.id = f"{self._prefix}-{next(self._numbers):x}"

    def handle(self, request: Request) -> None:
        if request.path == b"/hooks/registry":
            self._hooks.take(request)
            return
        who = self._people.of(request)
        for path, verbs in self._routes:
            found = path.fullmatch(request.path)
            if found:
                if request.method in verbs:
                    who.must(verbs[request.method][0])
                said = [part.decode() for part in found.groups()]
                acts = {verb: bound(act, *said) for verb, (_, act) in verbs.items()}
                self._errands.run(request, acts)
                return
        raise NotFound("no such path")

    def refuse(self, request: Request, refusal: Refusal) -> None:
        if not request.id:  # refused before its headers were read
            request.id = f"{self._prefix}-{next(self._numbers):x}"
        if isinstance(refusal, Unauthorized):
            answer_problem(request, refusal.problem(), _CHALLENGE)
        else:
            answer_refusal(request, refusal)


async def _whoami(request: Request, who: Who) -> None:
    answer_json(request, who._asdict())
