"""A result -> the wire.

The body of an answer holds the result, who gave it, and where the time went; the stages add up to
the total. The header `Server-Timing` says the same to browsers.
"""

from __future__ import annotations

from typing import NamedTuple

from headrace.httpapi.answer import answer_json_bytes
from headrace.httpserver import Request
from headrace.jobs import Outcome


class Timings(NamedTuple):
    """Milliseconds in each stage of a call's way; `features` is 0 until a model has some."""

    read: float
    queued: float
    gathered: float
    features: float
    executed: float
    returned: float

    def total(self) -> float:
        return sum(self)


def timings(outcome: Outcome, read_ms: float, published: float, finished: float) -> Timings:
    """`published` and `finished` are this gateway's Unix times. The worker's clock is used for
    nothing but to share the time under way between `queued` and `returned`; if it is wrong, the
    stages still add up."""
    elsewhere_ms = (finished - published) * 1000
    gathered_ms, executed_ms = outcome.gathered_ms, outcome.executed_ms
    travel_ms = max(0.0, elsewhere_ms - gathered_ms - executed_ms)
    queued_ms = min(max(0.0, (outcome.taken - published) * 1000), travel_ms)
    return Timings(read_ms, queued_ms, gathered_ms, 0.0, executed_ms, travel_ms - queued_ms)


def answer_result(
    request: Request,
    result: bytes,
    model: str,
    version: str,
    times: Timings,
    *,
    reuse: bytes = b"",
    more_head: bytes = b"",
) -> None:
    """`result` is JSON already; `reuse` says how it was come by where it was not run for this call.

    Each stage is written once and used in the header and in the body: writing thirteen floats
    costs 6 us. The total is the sum of what is written, so that it adds up to the last digit.
    """
    read, queued, gathered, features, executed, returned = [b"%.3f" % each for each in times]
    total = sum(map(float, (read, queued, gathered, features, executed, returned)))
    request_id = request.id.encode()
    body = (
        b'{"result":%b,"model":"%b","version":"%b","request_id":"%b","timings":{'
        b'"read_ms":%b,"queued_ms":%b,"gathered_ms":%b,"features_ms":%b,"executed_ms":%b,'
        b'"returned_ms":%b,"total_ms":%.3f}}'
    ) % (
        result, model.encode(), version.encode(), request_id,
        read, queued, gathered, features, executed, returned, total,
    )  # fmt: skip
    head = (
        b"Server-Timing: read;dur=%b, queued;dur=%b, gathered;dur=%b, features;dur=%b, "
        b"executed;dur=%b, returned;dur=%b\r\n"
    ) % (read, queued, gathered, features, executed, returned)
    if reuse:
        body = b'%b,"reuse":"%b"}' % (body[:-1], reuse)
        head += b"Headrace-Reuse: %b\r\n" % reuse
    answer_json_bytes(request, body, 200, head + more_head)
