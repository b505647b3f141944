"""The pages beside the path: what is served, health, metrics, the API's description."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from headrace.gateway.openapi import openapi
from headrace.gateway.snapshot import ModelView
from headrace.httpapi.answer import answer_json, answer_json_bytes
from headrace.httpserver import Request, answer_text
from headrace.signature import Card
from headrace.telemetry.metrics import exposition

if TYPE_CHECKING:
    from headrace.gateway.app import App

Route = tuple[bytes, Callable[[Request], None]]


class Pages:
    def __init__(self, app: App) -> None:
        self._app = app
        self._documented: list[Card] = []
        self._document = b""

    def routes(self) -> dict[bytes, Route]:
        return {
            b"/": (b"GET", self.docs),
            b"/docs": (b"GET", self.docs),
            b"/openapi.json": (b"GET", self.openapi),
            b"/models": (b"GET", self.models),
            b"/status": (b"GET", self.status),
            b"/health/live": (b"GET", self.live),
            b"/health/ready": (b"GET", self.ready),
            b"/metrics": (b"GET", self.metrics),
        }

    def live(self, request: Request) -> None:
        answer_json(request, {"live": True})

    def ready(self, request: Request) -> None:
        """200 only where every model is served by a process whose golden call came out right."""
        models = {
            view.name: {"ready": view.ready, "reason": view.reason}
            for view in self._app.snapshot.models.values()
        }
        ready = self._app.snapshot.ready and not self._app.draining
        answer_json(request, {"ready": ready, "models": models}, 200 if ready else 503)

    def models(self, request: Request) -> None:
        answer_json(request, {
            "models": [_model(view) for view in self._app.snapshot.models.values()]
        })  # fmt: skip

    def model(self, request: Request, view: ModelView) -> None:
        answer_json(request, _model(view))

    def status(self, request: Request) -> None:
        """Everything this gateway knows of the house, for `headrace status` and for people."""
        app = self._app
        answer_json(request, {
            "gateway": app.dispatch.address,
            "ready": app.snapshot.ready,
            "draining": app.draining,
            "models": [
                _model(view) | {
                    "outstanding": app.open_calls()[view.name],
                    "elsewhere": app.snapshot.elsewhere(view.name),
                    "per_second": round(view.per_second, 3),
                    "workers": [
                        {k: v for k, v in msgspec.to_builtins(news).items()
                         if k not in ("card", "type")}
                        for news in app.snapshot.workers(view.name)
                    ],
                } | _waiting(app, view) | _route(app, view)
                for view in app.snapshot.models.values()
            ],
        })  # fmt: skip

    def openapi(self, request: Request) -> None:
        cards = [view.card for view in self._app.snapshot.models.values() if view.card]
        if not self._document or self._documented != cards:  # 50 kB: made when a card is new
            self._documented, self._document = cards, msgspec.json.encode(openapi(cards))
        answer_json_bytes(request, self._document)

    def docs(self, request: Request) -> None:
        from importlib.resources import files

        page = files("headrace.gateway").joinpath("static/docs.html").read_bytes()
        answer_text(
            request, 200, page, "text/html; charset=utf-8",
            content_security_policy="default-src 'self'; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'; img-src 'self' blob: data:",
            x_content_type_options="nosniff",
        )  # fmt: skip

    def metrics(self, request: Request) -> None:
        self._app.gauge()
        answer_text(
            request, 200, exposition(self._app.metrics.all()),
            "text/plain; version=0.0.4; charset=utf-8",
        )  # fmt: skip


def _model(view: ModelView) -> dict[str, Any]:
    card = view.card
    return {
        "name": view.name,
        "version": card.version if card else "",
        "description": card.description if card else "",
        "ready": view.ready,
        "reason": view.reason,
        "max_size": view.max_size,
        "input": card.input if card else None,
        "output": card.output if card else None,
    }


def _route(app: App, view: ModelView) -> dict[str, Any]:
    """Who gets the calls, where that was said."""
    routing = app.snapshot.routings.get(view.name)
    return {} if routing is None else {"route": msgspec.to_builtins(routing.route)}


def _waiting(app: App, view: ModelView) -> dict[str, int]:
    """Stored jobs that wait, where a clerk has said so."""
    waiting = app.jobs.waiting(view.name) if app.jobs else None
    return {} if waiting is None else {"jobs_waiting": waiting}
