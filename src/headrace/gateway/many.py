"""A call of several inputs: one job each, one answer when the last outcome is there."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from headrace.errors import Problem, Refusal
from headrace.gateway.answer import timings
from headrace.gateway.reuse import asked
from headrace.httpapi.answer import answer_json, problem_json
from headrace.jobs import Form, Outcome, Returned

if TYPE_CHECKING:
    from headrace.gateway.app import App
    from headrace.gateway.snapshot import ModelView
    from headrace.httpserver import Request


def _admitted(now: float) -> None:
    """The inputs of a call are admitted together, before."""


class Many:
    """Outcomes in the order of the inputs; each with its own status, result and timings."""

    def __init__(self, app: App, request: Request, view: ModelView, began: float) -> None:
        self._app, self._request, self._view = app, request, view
        self._began = began
        self._published = 0.0
        self._numbers: list[int] = []
        self._reused: list[int] = []
        self._outcomes: list[object] = []
        self._missing = 0
        self._version = ""  # that ran the last

    def start(self, inputs: list[bytes | Refusal], deadline: float) -> None:
        """Publishes what could be read; what could not has its outcome. Raises BadRequest."""
        self._missing = len(inputs)
        self._outcomes = [None] * len(inputs)
        self._published = time.time()
        self._request.on_gone = self._gone
        reuse, tenant = self._app.reuse_of(self._view, self._request)
        for place, body in enumerate(inputs):
            if isinstance(body, Refusal):
                self._finish(place, body, None)
            elif reuse is not None:
                self._reused.append(
                    reuse.start(
                        self._view,
                        self._request.id,
                        body,
                        deadline=deadline,
                        form=Form.JSON,
                        tenant=tenant,
                        admit=_admitted,
                        on_answer=partial(self._finish, place),
                        asked=asked(self._request),
                    )
                )
            else:
                self._numbers.append(
                    self._app.dispatch.start(
                        self._view.queue,
                        self._request.id,
                        body,
                        deadline=deadline,
                        form=Form.JSON,
                        on_outcome=partial(self._finish, place),
                    )
                )

    def _gone(self) -> None:
        """The client left."""
        for number in self._numbers:
            self._app.dispatch.cancel(number)
        reuse = self._app.reuse
        if reuse is not None:
            for number in self._reused:
                reuse.cancel(number)

    def _finish(
        self,
        place: int,
        outcome: Outcome | Refusal,
        returned: Returned | None,
        reuse: bytes = b"",
        /,
    ) -> None:
        if self._view.witness is not None and not reuse:
            self._app.witness(self._view, outcome, returned, self._began)
        if isinstance(outcome, Refusal):
            self._outcomes[place] = self._problem(outcome.problem())
        elif outcome.problem is not None:
            self._outcomes[place] = self._problem(outcome.problem)
        else:
            assert returned is not None
            self._version = returned.version
            self._outcomes[place] = self._result(outcome, reuse)
        self._missing -= 1
        if not self._missing:
            self._answer()

    def _problem(self, problem: Problem) -> dict[str, object]:
        self._app.count(self._view.name, problem.status, problem.code)
        return {"status": problem.status, "problem": problem_json(problem, self._request.id)}

    def _result(self, outcome: Outcome, reuse: bytes) -> dict[str, object]:
        read_ms = (self._published - self._began) * 1000
        times = timings(outcome, read_ms, self._published, time.time())
        if reuse:
            self._app.stages(self._view.name).answered += 1
        else:
            self._app.stages(self._view.name).observe(times)
        written = {f"{stage}_ms": round(ms, 3) for stage, ms in times._asdict().items()}
        written["total_ms"] = round(sum(written.values()), 3)
        told: dict[str, object] = {
            "status": 200, "result": msgspec.Raw(outcome.body), "timings": written,
        }  # fmt: skip
        return told | {"reuse": reuse.decode()} if reuse else told

    def _answer(self) -> None:
        card = self._view.card
        version = self._version or (card.version if card else "")
        answer_json(
            self._request,
            {
                "results": self._outcomes,
                "model": self._view.name,
                "version": version,
                "request_id": self._request.id,
            },
        )
