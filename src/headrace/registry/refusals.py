"""What a registry says no with."""

from __future__ import annotations

from headrace.errors import Invalid, NotFound, Unavailable


class Rejected(Invalid):
    """422 `artifact-rejected`: the files of a version are not what they should be. A retry does not
    help."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail, code="artifact-rejected")


def unavailable(detail: str) -> Unavailable:
    return Unavailable(detail, code="registry-unavailable", retry_after_s=5)


def no_version(model: str, number: int) -> NotFound:
    return NotFound(f"the registry has no version {number} of {model}", code="model-not-found")
