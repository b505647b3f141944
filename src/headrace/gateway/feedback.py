"""Labels over HTTP: what was right, told later by the call's id.

POST /models/{name}/feedback   {"request_id" or "job_id", "label", "at"}, or a list of them

202 is sent when they are in the database. Whether the call was drawn as a sample is not known here:
a label of one that was not is kept, and says nothing.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from headrace.errors import FieldError, Invalid, NotFound
from headrace.httpapi.answer import answer_json
from headrace.httpapi.body import read_struct
from headrace.httpapi.errands import Errands, bound
from headrace.httpserver import Request
from headrace.monitoring import TEXT_MOST, Label
from headrace.settings import ModelSettings

MOST = 1_000
MOST_BODY = 1_048_576

Id = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._:-]{1,64}$")]
Text = Annotated[str, Meta(max_length=TEXT_MOST)]


class Told(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One of the ids is needed. `at`: Unix time at which the label became known; now."""

    label: bool | float | Text
    request_id: Id = ""
    job_id: Id = ""
    at: Annotated[float, Meta(ge=0, le=1e11)] | None = None


_Many = Annotated[list[Told], Meta(min_length=1, max_length=MOST)]


class FeedbackApi:
    def __init__(self, errands: Errands[str], models: dict[str, ModelSettings]) -> None:
        self._errands = errands
        self._watched = {name for name, model in models.items() if model.monitor}

    def handle(self, request: Request, name: bytes) -> None:
        self._errands.run(request, {b"POST": bound(self._add, name.decode("latin-1"))})

    async def _add(self, request: Request, _: str, model: str) -> None:
        if model not in self._watched:
            known = ", ".join(sorted(self._watched)) or "none"
            detail = f"no model of this name is watched; those that are: {known}"
            raise NotFound(detail, code="model-not-watched")
        told = read_feedback(request)
        store = await self._errands.store()  # first: it loads SQLAlchemy, off the loop
        from headrace.store.feedback import Feedback

        now = time.time()
        labels = [_label(each, now) for each in told]
        await Feedback(store.database).put(model, labels)
        answer_json(request, {"model": model, "labels": len(labels)}, 202)


def read_feedback(request: Request) -> list[Told]:
    """Raises Refusal."""
    many = request.body.lstrip()[:1] == b"["
    found: Any = read_struct(request, _Many if many else Told, MOST_BODY)
    told: list[Told] = found if many else [found]
    wrong = [n for n, each in enumerate(told) if bool(each.request_id) == bool(each.job_id)]
    if wrong:
        detail = "expected request_id or job_id, one of them"
        raise Invalid(detail, errors=[
            FieldError(f"/{n}" if many else "", "validation-failed", detail) for n in wrong
        ])  # fmt: skip
    return told


def _label(told: Told, now: float) -> Label:
    label = told.label
    if isinstance(label, bool):
        label = "true" if label else "false"
    return Label(told.request_id or told.job_id, label, now if told.at is None else told.at, now)
