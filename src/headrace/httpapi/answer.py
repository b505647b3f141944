"""JSON, problem or refusal -> the wire."""

from __future__ import annotations

import math

import msgspec

from headrace.errors import PROBLEM_TYPE, TITLES, MethodNotAllowed, Problem, Refusal
from headrace.httpserver import Request

_json = msgspec.json.Encoder().encode


def answer_json(request: Request, value: object, status: int = 200, more_head: bytes = b"") -> None:
    answer_json_bytes(request, _json(value), status, more_head)


def answer_json_bytes(
    request: Request, body: bytes, status: int = 200, more_head: bytes = b""
) -> None:
    """`body` is JSON already."""
    head = b"Content-Type: application/json\r\nX-Request-Id: %b\r\n" % request.id.encode()
    request.answer(status, body, head + more_head)


def problem_json(problem: Problem, request_id: str) -> dict[str, object]:
    """RFC 9457."""
    body: dict[str, object] = {
        "type": PROBLEM_TYPE + problem.code,
        "title": TITLES.get(problem.status, "Refused"),
        "status": problem.status,
        "detail": problem.detail,
        "instance": f"/requests/{request_id}",
        "code": problem.code,
    }
    if problem.errors:
        body["errors"] = [
            {"pointer": e.pointer, "code": e.code, "detail": e.detail} for e in problem.errors
        ]
    if problem.retry_after_s:
        body["retry_after_s"] = problem.retry_after_s
    return body


def answer_problem(request: Request, problem: Problem, more_head: bytes = b"") -> None:
    head = b"Content-Type: application/problem+json\r\nX-Request-Id: %b\r\n" % request.id.encode()
    if problem.retry_after_s:
        head += b"Retry-After: %d\r\n" % math.ceil(problem.retry_after_s)
    request.answer(problem.status, _json(problem_json(problem, request.id)), head + more_head)


def answer_refusal(request: Request, refusal: Refusal) -> None:
    more = b""
    if isinstance(refusal, MethodNotAllowed):
        more = b"Allow: %b\r\n" % refusal.allow.encode()
    answer_problem(request, refusal.problem(), more)
