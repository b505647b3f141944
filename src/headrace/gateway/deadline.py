"""The deadline of a call: `Headrace-Deadline-Ms`, absolute from here on.

A client may say how long it waits ("2000": milliseconds from now) or until when ("1789000000000":
a Unix time in milliseconds). The two cannot be confused: what is at least 10^11 (the year 1973, or
three years of waiting) is a time.
"""

from __future__ import annotations

from headrace.errors import BadRequest, DeadlineExceeded

HEADER = b"headrace-deadline-ms"
A_TIME = 10**11


def read_deadline(value: bytes | None, now: float, default_ms: int, most_ms: int) -> float:
    """A Unix time in seconds, no later than `most_ms` from `now`. Raises BadRequest,
    DeadlineExceeded."""
    if value is None:
        return now + default_ms / 1000
    number = _number(value)
    deadline = number / 1000 if number >= A_TIME else now + number / 1000
    if deadline <= now:
        raise DeadlineExceeded("the deadline has passed")
    return min(deadline, now + most_ms / 1000)


def _number(value: bytes) -> int:
    digits = value.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 15:
        raise BadRequest(
            "Headrace-Deadline-Ms: expected milliseconds from now, or a Unix time in milliseconds",
            code="deadline-invalid",
        )
    return int(value)
