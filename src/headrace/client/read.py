"""A reply -> an answer, or the refusal that it is. Pure."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import httpx
import msgspec

from headrace.client.answers import Answer, JobView, Problem, Timings
from headrace.client.errors import AnswerUnreadable, CallRefused
from headrace.images import Image


class _Result(msgspec.Struct):
    """200 of /predict; `result` stays bytes until its type is known."""

    result: msgspec.Raw
    timings: Timings = Timings()
    model: str = ""
    version: str = ""
    request_id: str = ""


class _One(msgspec.Struct):
    """One outcome of /predict-many."""

    status: int
    result: msgspec.Raw = msgspec.Raw()
    problem: Problem = Problem()


class _Results(msgspec.Struct):
    results: list[_One]


def read_as(reply: httpx.Response, kind: Any) -> Any:
    """A page's JSON as a struct. Raises AnswerUnreadable."""
    return _decode(reply.content, kind, request_id_of(reply))


def answer_of(reply: httpx.Response, kind: Any) -> Answer[Any]:
    """Raises AnswerUnreadable."""
    whole: _Result = read_as(reply, _Result)
    result = _decode(whole.result, kind, whole.request_id)
    return Answer(result, whole.timings, whole.model, whole.version, whole.request_id)


def answers_of(reply: httpx.Response, kind: Any) -> list[Any]:
    """One result, or one CallRefused, per input. Raises AnswerUnreadable."""
    request_id = request_id_of(reply)
    whole: _Results = read_as(reply, _Results)
    return [
        _decode(one.result, kind, request_id)
        if one.status == 200
        else _refusal(one.problem, one.status, None, request_id)
        for one in whole.results
    ]


class Found(NamedTuple):
    """A job, and its result as JSON; None: it has none yet, or it did not come with the job."""

    view: JobView
    result: bytes | None


class _JobResult(msgspec.Struct):
    result: msgspec.Raw = msgspec.Raw()


def found_of(reply: httpx.Response) -> Found:
    """Raises AnswerUnreadable."""
    view: JobView = read_as(reply, JobView)
    if view.state != "succeeded" or "headrace-result" in reply.headers:
        return Found(view, None)
    return Found(view, bytes(read_as(reply, _JobResult).result) or None)


def result_of(data: bytes, kind: Any, request_id: str) -> Any:
    """JSON as `kind`. Raises AnswerUnreadable."""
    return _decode(data, kind, request_id)


def refusal_of(reply: httpx.Response) -> CallRefused:
    """Of any status: what is no problem document (a proxy's page) keeps its first words."""
    retry_after_s = retry_after_of(reply)
    try:
        problem = msgspec.json.decode(reply.content, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        detail = f"not a house's answer: {reply.text[:200].strip() or reply.reason_phrase}"
        problem = Problem(code=f"http-{reply.status_code}", detail=detail)
    return _refusal(problem, reply.status_code, retry_after_s, request_id_of(reply))


def _refusal(
    problem: Problem, status: int, retry_after_s: float | None, request_id: str
) -> CallRefused:
    return CallRefused(
        status,
        problem.code or f"http-{status}",
        problem.detail or problem.title,
        problem.errors,
        problem.retry_after_s if retry_after_s is None else retry_after_s,
        request_id,
    )


def request_id_of(reply: httpx.Response) -> str:
    return str(reply.headers.get("x-request-id", ""))


def retry_after_of(reply: httpx.Response, now: datetime | None = None) -> float | None:
    """Seconds, from seconds or an HTTP date; None where the header is missing or unreadable."""
    value = reply.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - (now or datetime.now(UTC))).total_seconds())


def _decode(data: bytes | msgspec.Raw, kind: Any, request_id: str) -> Any:
    try:
        if kind is None:
            return msgspec.json.decode(data)
        return msgspec.json.decode(data, type=kind, dec_hook=_from_json)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        wanted = getattr(kind, "__name__", str(kind)).lstrip("_") if kind else "JSON"
        raise AnswerUnreadable(f"the answer is not {wanted}: {error}", request_id) from error


def _from_json(kind: Any, value: Any) -> Any:
    """msgspec asks here for types that it does not know."""
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    if kind is Image:
        return Image(base64.b64decode(value))
    if getattr(kind, "__module__", "") == "numpy":
        import numpy as np

        return np.asarray(value)
    raise NotImplementedError(f"no way to read {kind!r}")
