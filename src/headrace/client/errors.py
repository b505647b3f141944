"""Why a call gave no result, as the caller sees it.

    CallError
    ├── CallRefused         the house said no: status, code, detail, and whether a retry helps
    ├── CallFailed          no answer came: no connection, or it broke, and retries did not help
    │   └── DeadlinePassed  no answer came in time
    └── AnswerUnreadable    an answer came that is not of `result_type`, or not from a house

What may be retried was retried before any of these is raised.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.errors import FieldError


class CallError(Exception):
    """A call gave no result. `request_id` finds it in the house's logs."""

    request_id: str = ""


class CallRefused(CallError):
    """The house said no (RFC 9457 problem details).

    `status`: HTTP's. `code`: stable and machine-readable, such as "validation-failed". `errors`:
    the places in the input that are wrong. `retry_after_s`: when a retry may help, else None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[FieldError] = (),
        retry_after_s: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(status, code, detail, errors, retry_after_s, request_id)
        self.status, self.code, self.detail = status, code, detail
        self.errors = list(errors)
        self.retry_after_s, self.request_id = retry_after_s, request_id

    def __str__(self) -> str:
        places = "".join(
            f"\n  {error.pointer}: {error.detail or error.code}"
            for error in self.errors
            if error.pointer
        )
        return f"{self.status} {self.code}: {self.detail}{places}"


class CallFailed(CallError):
    """No answer came. `attempts`: how often it was tried. `__cause__` is httpx's exception."""

    def __init__(self, detail: str, attempts: int = 1, request_id: str = "") -> None:
        super().__init__(detail, attempts, request_id)
        self.detail, self.attempts, self.request_id = detail, attempts, request_id

    def __str__(self) -> str:
        return self.detail + (f" ({self.attempts} attempts)" if self.attempts > 1 else "")


class DeadlinePassed(CallFailed):
    """No answer came before the deadline of the call."""


class AnswerUnreadable(CallError):
    """An answer came, but it cannot be read as what was asked for."""

    def __init__(self, detail: str, request_id: str = "") -> None:
        super().__init__(detail, request_id)
        self.detail, self.request_id = detail, request_id

    def __str__(self) -> str:
        return self.detail
