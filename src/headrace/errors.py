"""Why a call was not answered with a result: one tree, one status each.

    Refusal                     a polite no: status, code, and whether a retry helps
    ├── BadRequest              400  the bytes cannot be read
    ├── Unauthorized            401  nobody knows who asks
    ├── Forbidden               403  known, and may not
    ├── NotFound                404  no such path, model or version
    ├── MethodNotAllowed        405
    ├── NotAcceptable           406
    ├── RequestTimeout          408
    ├── Conflict                409  not in the state that the thing is in
    ├── LengthRequired          411
    ├── PayloadTooLarge         413
    ├── UriTooLong              414
    ├── UnsupportedMediaType    415
    ├── Invalid                 422  readable, but not what the model takes
    │   └── ItemError           422  what a model author returns for one bad item
    ├── HeadersTooLarge         431
    ├── ModelFailed             500  the model raised
    ├── MethodUnknown           501
    ├── Unavailable             503  not now: retry after `retry_after_s`
    └── DeadlineExceeded        504

`code` is the stable, machine-readable name (RFC 9457 extension member), the class gives the
status. A refusal travels as `Problem`, a plain struct, between processes.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

PROBLEM_TYPE = "https://headrace.dev/problems/"


class FieldError(msgspec.Struct, frozen=True):
    """One place in the input that is wrong. `pointer` is an RFC 6901 JSON pointer."""

    pointer: str
    code: str
    detail: str = ""


class Problem(msgspec.Struct, array_like=True, frozen=True):
    """A refusal as it crosses process borders. `retry_after_s` is 0 where a retry does not help."""

    status: int
    code: str
    detail: str
    errors: list[FieldError] = []
    retry_after_s: int = 0


class Refusal(Exception):
    """A polite no. Raise a subclass; `status` and `title` come from it."""

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Refused"
    default_code: ClassVar[str] = "refused"

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: list[FieldError] | None = None,
        retry_after_s: int = 0,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or self.default_code
        self.errors = errors or []
        self.retry_after_s = retry_after_s

    def problem(self) -> Problem:
        return Problem(self.status, self.code, self.detail, self.errors, self.retry_after_s)


class BadRequest(Refusal):
    status = 400
    title = "Bad request"
    default_code = "bad-request"


class Unauthorized(Refusal):
    """Nobody knows who asks."""

    status = 401
    title = "Unauthorized"
    default_code = "token-unknown"


class Forbidden(Refusal):
    """It is known who asks, and they may not."""

    status = 403
    title = "Forbidden"
    default_code = "forbidden"


class NotFound(Refusal):
    status = 404
    title = "Not found"
    default_code = "not-found"


class MethodNotAllowed(Refusal):
    """405; `allow` lists the methods of the path."""

    status = 405
    title = "Method not allowed"
    default_code = "method-not-allowed"

    def __init__(self, allow: str) -> None:
        super().__init__(f"this path allows {allow}")
        self.allow = allow


class NotAcceptable(Refusal):
    status = 406
    title = "Not acceptable"
    default_code = "not-acceptable"


class RequestTimeout(Refusal):
    status = 408
    title = "Request timeout"
    default_code = "request-timeout"


class Conflict(Refusal):
    status = 409
    title = "Conflict"
    default_code = "conflict"


class LengthRequired(Refusal):
    status = 411
    title = "Length required"
    default_code = "length-required"


class PayloadTooLarge(Refusal):
    status = 413
    title = "Payload too large"
    default_code = "payload-too-large"


class UriTooLong(Refusal):
    status = 414
    title = "URI too long"
    default_code = "uri-too-long"


class UnsupportedMediaType(Refusal):
    status = 415
    title = "Unsupported media type"
    default_code = "unsupported-media-type"


class Invalid(Refusal):
    status = 422
    title = "Validation failed"
    default_code = "validation-failed"


class ItemError(Invalid):
    """What `predict` returns in place of a result for one item it cannot answer (status 422).

    return [ItemError("face-too-small", "the face is 31 px wide, 60 are needed"), ...]
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail, code=code)


class HeadersTooLarge(Refusal):
    status = 431
    title = "Request header fields too large"
    default_code = "headers-too-large"


class ModelFailed(Refusal):
    status = 500
    title = "The model failed"
    default_code = "model-failed"


class MethodUnknown(Refusal):
    status = 501
    title = "Not implemented"
    default_code = "method-not-allowed"


class Unavailable(Refusal):
    status = 503
    title = "Service unavailable"
    default_code = "unavailable"

    def __init__(self, detail: str, *, code: str | None = None, retry_after_s: int = 1) -> None:
        super().__init__(detail, code=code, retry_after_s=retry_after_s)


class DeadlineExceeded(Refusal):
    status = 504
    title = "Deadline exceeded"
    default_code = "deadline-exceeded"


TITLES: dict[int, str] = {
    kind.status: kind.title
    for kind in (
        BadRequest, Unauthorized, Forbidden, NotFound, MethodNotAllowed, NotAcceptable,
        RequestTimeout, Conflict,
        LengthRequired, PayloadTooLarge, UriTooLong, UnsupportedMediaType, Invalid, HeadersTooLarge,
        ModelFailed, MethodUnknown, Unavailable, DeadlineExceeded,
    )
}  # fmt: skip
