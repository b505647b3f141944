"""`POST /hooks/registry`: the registry says that something moved. The signature is the key."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from headrace.errors import MethodNotAllowed, NotFound, Problem
from headrace.httpapi.answer import answer_json, answer_problem
from headrace.httpserver import Request
from headrace.registry.choose import webhook_secrets
from headrace.registry.hooks import Hooks
from headrace.settings import Settings, SettingsError

log = structlog.get_logger("headrace.control")


class HooksApi:
    """`look`: has whoever deploys ask the registry, now."""

    def __init__(self, settings: Settings, look: Callable[[], None]) -> None:
        self._look = look
        self._hooks: Hooks | None = None
        try:
            secrets = webhook_secrets(settings)
            self._hooks = Hooks(secrets) if secrets else None
        except (SettingsError, ValueError) as error:  # all else is served without them
            log.error("webhooks of the registry are not taken", reason=str(error))

    def take(self, request: Request) -> None:
        """Answers at once. Raises NotFound, MethodNotAllowed."""
        if self._hooks is None:
            raise NotFound("no webhooks are taken here: registry.webhook_secrets names no file")
        if request.method != b"POST":
            raise MethodNotAllowed("POST")
        given = {k.decode("latin-1"): v.decode("latin-1") for k, v in request.headers.items()}
        judged = self._hooks.judge(given, request.body)
        if judged.code:
            log.warning("a webhook of the registry was refused", code=judged.code)
            answer_problem(request, Problem(judged.status, judged.code, judged.detail))
            return
        if judged.hint:
            log.info("a webhook of the registry", model=judged.hint.model)
            self._look()
        answer_json(request, {"new": judged.hint is not None})
